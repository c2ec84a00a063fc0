// SPDX-License-Identifier: GPL-2.0
/*
 * Calls the kernel rejects itself, so that no DMA operation ever sees them.
 *
 * The allocators of pages refuse zone flags and __GFP_COMP: probes at their entry
 * look at the flags of every call for a device that has our operations.
 *
 * dma_map_single() refuses vmalloc memory in code that is inlined into the driver.
 * All that leaves it is a warning, once for each place; it is read as it is
 * printed, on the stack of who raised it. Nothing here prints.
 */
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/pci.h>
#include <linux/ptrace.h>
#include <linux/string.h>
#include <linux/tracepoint.h>

#include "agent.h"

static void send_rejected(u32 requester, u32 reason, u32 bits, unsigned long caller)
{
	struct dmavet_rejected *rejected;
	struct dmavet_slot *slot;
	unsigned long flags;
	u64 site;

	slot = dmavet_begin(&flags);
	if (!slot)
		return;
	site = dmavet_site_of(slot, caller, reason == DMAVET_REJECTED_VMALLOC);
	dmavet_prepare(slot, DMAVET_CALL_REJECTED, requester, site, sizeof(*rejected));
	rejected = dmavet_payload(slot);
	rejected->reason = reason;
	rejected->flags = bits;
	dmavet_ring(slot);
	dmavet_end(flags);
}

#ifdef CONFIG_KPROBES
static u32 rejected_flags(gfp_t gfp)
{
	return (gfp & __GFP_DMA ? DMAVET_GFP_DMA : 0) |
	       (gfp & __GFP_DMA32 ? DMAVET_GFP_DMA32 : 0) |
	       (gfp & __GFP_HIGHMEM ? DMAVET_GFP_HIGHMEM : 0) |
	       (gfp & __GFP_COMP ? DMAVET_GFP_COMP : 0);
}

/* At the entry of a function the caller's address is the top of the stack. */
static int allocates(struct pt_regs *regs, gfp_t gfp)
{
	struct device *dev = (struct device *)regs_get_kernel_argument(regs, 0);
	u32 bits = rejected_flags(gfp);

	if (bits && dev && get_dma_ops(dev) == &dmavet_ops)
		send_rejected(dmavet_requester(dev), DMAVET_REJECTED_FLAGS, bits,
			      *(unsigned long *)kernel_stack_pointer(regs));
	return 0;
}

/* dma_alloc_pages(dev, size, handle, dir, gfp); dma_alloc_noncoherent() is inline. */
static int pages_entry(struct kprobe *probe, struct pt_regs *regs)
{
	return allocates(regs, (__force gfp_t)regs_get_kernel_argument(regs, 4));
}

/* dma_alloc_noncontiguous(dev, size, dir, gfp, attrs) */
static int noncontiguous_entry(struct kprobe *probe, struct pt_regs *regs)
{
	return allocates(regs, (__force gfp_t)regs_get_kernel_argument(regs, 3));
}

static struct kprobe probes[] = {
	{ .symbol_name = "dma_alloc_pages", .pre_handler = pages_entry },
	{ .symbol_name = "dma_alloc_noncontiguous", .pre_handler = noncontiguous_entry },
};
static bool probed[ARRAY_SIZE(probes)];

static void register_probes(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		ret = register_kprobe(&probes[i]);
		probed[i] = !ret;
		if (ret)
			dmavet_blind(DMAVET_NOBODY, "%s cannot be probed (%d): its flags are not checked",
				     probes[i].symbol_name, ret);
	}
}

static void unregister_probes(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(probes); i++)
		if (probed[i])
			unregister_kprobe(&probes[i]);
}
#else
static void register_probes(void)
{
	dmavet_blind(DMAVET_NOBODY, "this kernel has no kprobes: flags of allocations are not checked");
}

static void unregister_probes(void)
{
}
#endif

#define VMALLOC_WARNING		": rejecting DMA map of vmalloc memory"

static struct tracepoint *printed;

/* "ncdma 0000:00:02.0: rejecting ...", "ncdma PRP0001:00: ...": the device that was to do it. */
static void seen_printed(void *unused, const char *text, size_t len)
{
	const char *end = strnstr(text, VMALLOC_WARNING, len), *name;
	unsigned int domain, bus, slot, function;
	u32 requester = DMAVET_NOBODY;
	char device[32];

	if (likely(!end))
		return;
	for (name = end; name > text && name[-1] != ' '; name--)
		;
	strscpy(device, name, min_t(size_t, end - name + 1, sizeof(device)));
	if (sscanf(device, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		requester = dmavet_node_named(device);
	else if (!domain)
		requester = PCI_DEVID(bus, PCI_DEVFN(slot, function));
	if (requester != DMAVET_NOBODY)
		send_rejected(requester, DMAVET_REJECTED_VMALLOC, 0, 0);
	else
		dmavet_blind(DMAVET_NOBODY, "a map of vmalloc memory was rejected for %s, which is no device under test",
			     device);
}

static void find_printed(struct tracepoint *point, void *unused)
{
	if (!strcmp(point->name, "console"))
		printed = point;
}

/* By name: not every kernel exports this tracepoint, but all let it be found. */
void dmavet_rejected_register(void)
{
	register_probes();
	for_each_kernel_tracepoint(find_printed, NULL);
	if (printed && tracepoint_probe_register(printed, seen_printed, NULL))
		printed = NULL;
	if (!printed)
		dmavet_blind(DMAVET_NOBODY, "this kernel does not show its log: rejected maps of vmalloc memory are not seen");
}

void dmavet_rejected_unregister(void)
{
	if (printed) {
		tracepoint_probe_unregister(printed, seen_printed, NULL);
		tracepoint_synchronize_unregister();
	}
	unregister_probes();
}
