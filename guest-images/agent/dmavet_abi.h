/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The protocol between the guest agent and dmavet: registers and slots.
 *
 * Prose and rules are in docs/protocol.md. The host's twin of this file is
 * src/agent/abi.rs; a test compiles this header and compares every offset, size
 * and constant. Everything is little-endian, and the agent is only built for
 * little-endian machines. All structures are naturally aligned, without holes.
 */
#ifndef DMAVET_ABI_H
#define DMAVET_ABI_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef int32_t __s32;
#endif

/* The agent's PCI function. */
#define DMAVET_PCI_VENDOR	0xda5e
#define DMAVET_PCI_DEVICE	0x0001

/* Register BAR 0: 32 bits each, naturally aligned 32-bit accesses only. */
#define DMAVET_REG_MAGIC	0x00	/* RO, DMAVET_MAGIC */
#define DMAVET_REG_ABI		0x04	/* RO, DMAVET_ABI_VERSION of the host */
#define DMAVET_REG_SLOTS_LO	0x08	/* RW, slot array's address, low half */
#define DMAVET_REG_SLOTS_HI	0x0c	/* RW, high half */
#define DMAVET_REG_SLOT_COUNT	0x10	/* RW, slots in the array; accepts it */
#define DMAVET_REG_DOORBELL	0x14	/* WO, index of the slot that was filled */
#define DMAVET_REG_STATUS	0x18	/* RO, DMAVET_STATE_* */
#define DMAVET_REG_BAR_SIZE	0x1000

#define DMAVET_MAGIC		0x54564d44	/* "DMVT" */
#define DMAVET_ABI_VERSION	1

#define DMAVET_STATE_READY	0x1	/* the slot array was accepted */
#define DMAVET_STATE_REFUSED	0x2	/* the last doorbell named no slot */

#define DMAVET_SLOT_SIZE	4096
#define DMAVET_MAX_SLOTS	1025	/* 1024 CPUs and the panic slot */

/* Calls. */
#define DMAVET_CALL_HELLO	1	/* struct dmavet_hello */
#define DMAVET_CALL_SITE	2	/* struct dmavet_frame[] */
#define DMAVET_CALL_BOUND	3	/* struct dmavet_bound */
#define DMAVET_CALL_UNBOUND	4	/* nothing */
#define DMAVET_CALL_MODULE	5	/* struct dmavet_module */
#define DMAVET_CALL_BLIND	6	/* text: what the agent could not see */
#define DMAVET_CALL_MAP		16	/* struct dmavet_dma; also every alloc */
#define DMAVET_CALL_UNMAP	17	/* struct dmavet_dma; also every free */
#define DMAVET_CALL_SYNC	18	/* struct dmavet_dma */
#define DMAVET_CALL_SET_MASK	19	/* struct dmavet_dma, only mask is used */
#define DMAVET_CALL_FETCH	20	/* struct dmavet_dma, only first is used */
#define DMAVET_CALL_REJECTED	21	/* struct dmavet_rejected */
#define DMAVET_CALL_OUTPUT	32	/* bytes the workload wrote */
#define DMAVET_CALL_PHASE	33	/* text */
#define DMAVET_CALL_FAIL	34	/* text */
#define DMAVET_CALL_EXIT	35	/* struct dmavet_exit */
#define DMAVET_CALL_END		36	/* nothing */
#define DMAVET_CALL_PANIC	37	/* text */

/* dmavet_slot.flags: the place of a chunk in its call. */
#define DMAVET_FIRST		0x1
#define DMAVET_LAST		0x2

/* dmavet_slot.status, the host's answer. */
#define DMAVET_STATUS_OK	0
#define DMAVET_STATUS_FAILED	1	/* as the DMA API may fail */
#define DMAVET_STATUS_MALFORMED	2	/* the host did not understand the slot */
#define DMAVET_STATUS_MORE	3	/* chunk taken, the call is not complete */
#define DMAVET_STATUS_PENDING	0xffffffff	/* written by the guest before */

/* dmavet_slot.requester: with this bit a platform node, else a PCI function. */
#define DMAVET_REQUESTER_PLATFORM	0x80000000

/* The first 64 bytes of every slot. */
struct dmavet_slot {
	__u16 version;		/* DMAVET_ABI_VERSION */
	__u16 call;		/* DMAVET_CALL_* */
	__u32 flags;		/* DMAVET_FIRST | DMAVET_LAST */
	__u32 requester;	/* PCI: bus << 8 | devfn; or a platform node */
	__u32 cpu;
	__u64 site;		/* hash of the call stack, 0 = not known */
	__u32 length;		/* bytes of payload that follow */
	__u32 lost;		/* calls the agent had to drop so far */
	__u32 chunk;		/* number of this chunk, from 0 */
	__u32 reserved0;
	__u64 reserved1;
	/* The answer. */
	__u32 status;		/* DMAVET_STATUS_* */
	__u32 count;		/* MAP: handles in all; FETCH: in this slot */
	__u64 value;		/* HELLO: required mask; SET_MASK: 1 = fine */
};

#define DMAVET_PAYLOAD_SIZE	(DMAVET_SLOT_SIZE - 64)

#define DMAVET_NAME_LEN		64
#define DMAVET_SYMBOL_LEN	160

struct dmavet_hello {
	__u32 abi;		/* DMAVET_ABI_VERSION of the guest */
	__u32 cpus;		/* possible CPUs */
	__u8 release[DMAVET_NAME_LEN];	/* uname -r */
};

/* One frame of a stack, innermost first; the last one ends the payload. */
struct dmavet_frame {
	__u64 address;
	__u8 symbol[DMAVET_SYMBOL_LEN];	/* func+0x1a/0x80 [module], NUL-padded */
};

#define DMAVET_MAX_FRAMES	24

struct dmavet_bound {
	__u8 driver[DMAVET_NAME_LEN];
	__u8 module[DMAVET_NAME_LEN];	/* empty: built in */
};

#define DMAVET_MODULE_COMING	1
#define DMAVET_MODULE_LIVE	2
#define DMAVET_MODULE_GOING	3

#define DMAVET_MAX_ANCHORS	4

struct dmavet_module {
	__u32 state;		/* DMAVET_MODULE_* */
	__u32 anchors;		/* entries used in anchor[] */
	__u64 text_base;	/* 0: this kernel does not tell */
	__u64 text_size;
	__u64 init_base;
	__u64 init_size;
	__u8 name[DMAVET_NAME_LEN];
	/* Known functions: with the module's ELF they give its section bases. */
	struct dmavet_frame anchor[DMAVET_MAX_ANCHORS];
};

struct dmavet_exit {
	__s32 code;
	__u32 reserved;
};

/* dmavet_rejected.reason */
#define DMAVET_REJECTED_FLAGS	1	/* an allocation, for its flags */
#define DMAVET_REJECTED_VMALLOC	2	/* a map of vmalloc memory */

/* dmavet_rejected.flags */
#define DMAVET_GFP_DMA		0x1
#define DMAVET_GFP_DMA32	0x2
#define DMAVET_GFP_HIGHMEM	0x4
#define DMAVET_GFP_COMP		0x8

/* What the kernel rejects itself, before any DMA operation is called. */
struct dmavet_rejected {
	__u32 reason;		/* DMAVET_REJECTED_* */
	__u32 flags;		/* DMAVET_GFP_*, for REJECTED_FLAGS */
};

/* dmavet_dma.family */
#define DMAVET_FAMILY_SINGLE	1
#define DMAVET_FAMILY_SG	2
#define DMAVET_FAMILY_RESOURCE	3
#define DMAVET_FAMILY_COHERENT	4
#define DMAVET_FAMILY_PAGES	5

/* dmavet_dma.kind: what the first page is */
#define DMAVET_KIND_OTHER	0
#define DMAVET_KIND_SLAB	1
#define DMAVET_KIND_PAGE_POOL	2
#define DMAVET_KIND_FOREIGN	3

/* dmavet_dma.flags */
#define DMAVET_DMA_FOR_CPU	0x1	/* SYNC: for_cpu, else for_device */

/* Guest physical address (MAP) or handle (all others, and the answer). */
struct dmavet_range {
	__u64 addr;
	__u64 len;
};

struct dmavet_dma {
	__u8 family;		/* DMAVET_FAMILY_* */
	__u8 direction;		/* enum dma_data_direction */
	__u8 kind;		/* DMAVET_KIND_*, MAP only */
	__u8 flags;		/* DMAVET_DMA_* */
	__u32 count;		/* ranges in this chunk */
	__u32 total;		/* ranges in all chunks of the call */
	__u32 first;		/* index of this chunk's first range */
	__u64 attrs;		/* DMA_ATTR_* */
	__u64 mask;		/* MAP: what the device can address */
	__u64 seg_boundary;
	__u32 max_seg_size;
	__u32 min_align_mask;
	__u64 cpu_addr;		/* allocations: pointer the driver has */
	__u32 object_before;	/* MAP of slab memory: bytes of the object */
	__u32 object_after;	/* before and behind the mapping */
};

#define DMAVET_RANGES_PER_SLOT	248
#define DMAVET_MAX_RANGES	65536

#endif /* DMAVET_ABI_H */
