/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Registers and memory layouts of ncdma, a small descriptor-ring DMA engine
 * whose DMA is not coherent with the CPU's caches. The data sheet is
 * docs/ncdma.md; section names below refer to it.
 */
#ifndef NCDMA_H
#define NCDMA_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/stddef.h>
#include <linux/types.h>

#define NCDMA_VENDOR_ID			0xda5e
#define NCDMA_DEVICE_ID			0x0010
#define NCDMA_COMPATIBLE		"dmavet,ncdma"

/* Registers: 32 bits wide, naturally aligned, little endian. */
#define NCDMA_ID			0x000
#define   NCDMA_ID_VALUE		0x4e434d41
#define NCDMA_VERSION			0x004
#define   NCDMA_VERSION_MAJOR		GENMASK(31, 16)
#define NCDMA_CAPS			0x008
#define   NCDMA_CAPS_DMA_BITS		GENMASK(7, 0)
#define   NCDMA_CAPS_RING_ORDER		GENMASK(15, 8)
#define   NCDMA_CAPS_BUF_KIB		GENMASK(31, 16)
#define NCDMA_CTRL			0x00c
#define   NCDMA_CTRL_ENABLE		BIT(0)
#define   NCDMA_CTRL_RESET		BIT(1)
#define   NCDMA_CTRL_INT_ENABLE		BIT(2)
#define NCDMA_STATUS			0x010
#define   NCDMA_STATUS_ENABLED		BIT(0)
#define   NCDMA_STATUS_HALTED		BIT(1)
#define NCDMA_ERROR			0x014
#define   NCDMA_ERROR_NONE		0
#define   NCDMA_ERROR_DESC_FAULT	1
#define   NCDMA_ERROR_BAD_DESC		2
#define   NCDMA_ERROR_BAD_RING		3
#define   NCDMA_ERROR_DATA_FAULT	4
#define   NCDMA_ERROR_BAD_LENGTH	5
#define NCDMA_ERR_ADDR_LO		0x018
#define NCDMA_ERR_ADDR_HI		0x01c
#define NCDMA_INT_STATUS		0x020	/* write 1 to clear */
#define NCDMA_INT_MASK			0x024	/* 1 = may interrupt */
#define   NCDMA_INT_COMMAND		BIT(0)
#define   NCDMA_INT_TRANSMIT		BIT(1)
#define   NCDMA_INT_RECEIVE		BIT(2)
#define   NCDMA_INT_ERROR		BIT(3)
#define   NCDMA_INT_ALL			GENMASK(3, 0)
#define NCDMA_STATUS_BLOCK_LO		0x040
#define NCDMA_STATUS_BLOCK_HI		0x044
#define NCDMA_GEN_SEED			0x060
#define NCDMA_GEN_LEN			0x064
#define NCDMA_GEN_COUNT			0x068
#define NCDMA_GEN_DONE			0x06c
#define NCDMA_GEN_DROPPED		0x070
#define NCDMA_TX_CTRL			0x074
#define   NCDMA_TX_CTRL_LOOPBACK	BIT(0)
#define NCDMA_LOOP_DROPPED		0x078

/* One group of registers for each ring. */
#define NCDMA_COMMAND_RING		0x100
#define NCDMA_TRANSMIT_RING		0x140
#define NCDMA_RECEIVE_RING		0x180
#define   NCDMA_RING_BASE_LO		0x00
#define   NCDMA_RING_BASE_HI		0x04
#define   NCDMA_RING_SIZE		0x08
#define   NCDMA_RING_HEAD		0x0c
#define   NCDMA_RING_TAIL		0x10
#define   NCDMA_RING_CTRL		0x14
#define     NCDMA_RING_CTRL_ENABLE	BIT(0)

/* MSI-X vectors. */
#define NCDMA_VECTOR_COMMAND		0
#define NCDMA_VECTOR_TRANSMIT		1
#define NCDMA_VECTOR_RECEIVE		2
#define NCDMA_VECTOR_ERROR		3
#define NCDMA_VECTORS			4

/* Fields of ncdma_desc::flags. */
#define NCDMA_DESC_OP			GENMASK(7, 0)
#define   NCDMA_OP_COPY			0x01
#define   NCDMA_OP_FILL			0x02
#define   NCDMA_OP_CHECKSUM		0x03
#define   NCDMA_OP_SEND			0x10
#define   NCDMA_OP_RECEIVE		0x20
#define NCDMA_DESC_IRQ			BIT(30)
#define NCDMA_DESC_OWN			BIT(31)

/* Values of ncdma_desc::status. */
#define NCDMA_DESC_OK			1
#define NCDMA_DESC_ERROR		BIT(31)
#define NCDMA_DESC_ERROR_CODE		GENMASK(7, 0)

/**
 * struct ncdma_desc - one descriptor of any ring
 * @flags:	opcode, IRQ and OWN; the device clears OWN as its last write
 * @len:	bytes to transfer
 * @src:	bus address the device reads
 * @dst:	bus address the device writes
 * @param:	FILL: the pattern
 * @reserved0:	zero
 * @request:	not used; keeps the halves in different cache lines
 * @status:	NCDMA_DESC_OK, or NCDMA_DESC_ERROR and a code
 * @result:	CHECKSUM and SEND: FNV-1a of the bytes read
 * @bytes:	bytes the device wrote
 * @writeback:	not used
 *
 * The driver writes the first half and the device the second, and OWN in the
 * first. The 128-byte stride is a multiple of the largest cache line there
 * is, so that no two descriptors share one.
 */
struct ncdma_desc {
	__le32 flags;
	__le32 len;
	__le64 src;
	__le64 dst;
	__le32 param;
	__le32 reserved0;
	u8 request[0x20];
	__le32 status;
	__le32 result;
	__le32 bytes;
	u8 writeback[0x34];
};
static_assert(sizeof(struct ncdma_desc) == 128);
static_assert(offsetof(struct ncdma_desc, status) == 64);

/**
 * struct ncdma_status_block - counters the device keeps in coherent memory
 * @command_done:	descriptors of the command ring completed
 * @transmit_done:	descriptors of the transmit ring completed
 * @receive_done:	descriptors of the receive ring completed
 * @errors:		descriptors completed with an error
 * @last_rx_len:	length of the last frame received
 * @reserved:		zero
 */
struct ncdma_status_block {
	__le32 command_done;
	__le32 transmit_done;
	__le32 receive_done;
	__le32 errors;
	__le32 last_rx_len;
	__le32 reserved[11];
};
static_assert(sizeof(struct ncdma_status_block) == 64);

static inline const char *ncdma_error_name(u32 code)
{
	switch (code) {
	case NCDMA_ERROR_NONE:
		return "none";
	case NCDMA_ERROR_DESC_FAULT:
		return "descriptor DMA fault";
	case NCDMA_ERROR_BAD_DESC:
		return "bad descriptor";
	case NCDMA_ERROR_BAD_RING:
		return "bad ring set-up";
	case NCDMA_ERROR_DATA_FAULT:
		return "data DMA fault";
	case NCDMA_ERROR_BAD_LENGTH:
		return "bad length";
	default:
		return "unknown";
	}
}

#endif /* NCDMA_H */
