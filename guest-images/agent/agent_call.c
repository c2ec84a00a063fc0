// SPDX-License-Identifier: GPL-2.0
/*
 * A DMA call on its way to the host: of one range, or of a whole list.
 *
 * Called in any context, hard interrupts included. Never prints: with a console
 * on a DMA device that would come back here.
 */
#include <linux/atomic.h>
#include <linux/scatterlist.h>

#include "agent_call.h"

/* Calls of map and alloc without their unmap or free yet. */
static atomic_long_t live;

bool dmavet_nothing_mapped(void)
{
	return atomic_long_read(&live) <= 0;
}

static struct dmavet_range *slot_ranges(struct dmavet_slot *slot)
{
	return dmavet_payload(slot) + sizeof(struct dmavet_dma);
}

/* Fills header and call of one chunk; the ranges are there or follow. */
static void prepare(struct dmavet_slot *slot, struct device *dev,
		    const struct dmavet_call *call, u64 site, u32 first, u32 count,
		    u32 total)
{
	struct dmavet_dma *dma = dmavet_payload(slot);

	dmavet_prepare(slot, call->call, dmavet_requester(dev), site,
		       sizeof(*dma) + count * sizeof(struct dmavet_range));
	slot->chunk = first / DMAVET_RANGES_PER_SLOT;
	slot->flags = (first ? 0 : DMAVET_FIRST) |
		      (first + count == total ? DMAVET_LAST : 0);
	*dma = (struct dmavet_dma) {
		.family = call->family,
		.direction = call->dir,
		.kind = call->kind,
		.flags = call->flags,
		.count = count,
		.total = total,
		.first = first,
		.attrs = call->attrs,
		.mask = call->mask,
		.seg_boundary = dma_get_seg_boundary(dev),
		.max_seg_size = dma_get_max_seg_size(dev),
		.min_align_mask = dma_get_min_align_mask(dev),
		.cpu_addr = call->cpu_addr,
		.object_before = call->object_before,
		.object_after = call->object_after,
	};
}

/*
 * A call about one range. Returns the handle of a map or alloc, or
 * DMA_MAPPING_ERROR; for every other call the result means nothing.
 */
dma_addr_t dmavet_call_one(struct device *dev, const struct dmavet_call *call, u64 addr, u64 len)
{
	dma_addr_t handle = DMA_MAPPING_ERROR;
	struct dmavet_range *range;
	struct dmavet_slot *slot;
	unsigned long flags;
	u64 site;

	slot = dmavet_begin(&flags);
	if (!slot)
		return handle;
	site = dmavet_site(slot);
	prepare(slot, dev, call, site, 0, 1, 1);
	range = slot_ranges(slot);
	range->addr = addr;
	range->len = len;
	if (dmavet_ring(slot) == DMAVET_STATUS_OK && slot->count == 1)
		handle = range->addr;
	dmavet_end(flags);
	return handle;
}

dma_addr_t dmavet_map_one(struct device *dev, const struct dmavet_call *call,
			  phys_addr_t phys, size_t size)
{
	dma_addr_t handle = dmavet_call_one(dev, call, phys, size);

	if (handle != DMA_MAPPING_ERROR)
		atomic_long_inc(&live);
	return handle;
}

void dmavet_unmap_one(struct device *dev, const struct dmavet_call *call,
		      dma_addr_t handle, size_t size)
{
	atomic_long_dec(&live);
	dmavet_call_one(dev, call, handle, size);
}

/*
 * A call about a whole list, as many chunks as it takes but one call to the
 * host. Interrupts stay off: the slot is taken until the last chunk is answered.
 */
static u32 send_list(struct device *dev, struct dmavet_slot *slot,
		     const struct dmavet_call *call, struct scatterlist *sgl, int nents)
{
	struct dmavet_range *range = slot_ranges(slot);
	u64 site = dmavet_site(slot);
	u32 first = 0, n = 0, status = DMAVET_STATUS_MALFORMED;
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		if (call->call == DMAVET_CALL_MAP) {
			range[n].addr = sg_phys(sg);
			range[n].len = sg->length;
		} else {
			range[n].addr = sg_dma_address(sg);
			range[n].len = sg_dma_len(sg);
		}
		n++;
		if (n < DMAVET_RANGES_PER_SLOT && i + 1 < nents)
			continue;
		prepare(slot, dev, call, site, first, n, nents);
		status = dmavet_ring(slot);
		first += n;
		n = 0;
		if (status != DMAVET_STATUS_MORE)
			break;
	}
	return status;
}

/* Puts the handles of a mapped list into it; the slot holds the first of them. */
static int take_handles(struct device *dev, struct dmavet_slot *slot,
			struct scatterlist *sgl, int nents)
{
	static const struct dmavet_call fetch = { .call = DMAVET_CALL_FETCH };
	struct dmavet_range *range = slot_ranges(slot);
	struct scatterlist *sg = sgl;
	u32 i, count = slot->count;

	if (!count || count > nents)
		return -EIO;
	for (i = 0; i < count; i++) {
		u32 n = i % DMAVET_RANGES_PER_SLOT;

		if (i && !n) {
			prepare(slot, dev, &fetch, 0, i, 0, count);
			if (dmavet_ring(slot) != DMAVET_STATUS_OK)
				return -EIO;
		}
		sg_dma_address(sg) = range[n].addr;
		sg_dma_len(sg) = range[n].len;
		sg = sg_next(sg);
	}
	/* Entries that went into others; unmap and sync pass over them. */
	for (; i < nents && sg; i++, sg = sg_next(sg)) {
		sg_dma_address(sg) = DMA_MAPPING_ERROR;
		sg_dma_len(sg) = 0;
	}
	return count;
}

/* Maps a list: the number of entries used, or an error dma_map_sg() may give. */
int dmavet_map_list(struct device *dev, const struct dmavet_call *call,
		    struct scatterlist *sgl, int nents)
{
	struct dmavet_slot *slot;
	unsigned long flags;
	int ret = -EIO;

	if (nents <= 0 || nents > DMAVET_MAX_RANGES)
		return -EINVAL;
	slot = dmavet_begin(&flags);
	if (!slot)
		return -EIO;
	switch (send_list(dev, slot, call, sgl, nents)) {
	case DMAVET_STATUS_OK:
		ret = take_handles(dev, slot, sgl, nents);
		break;
	case DMAVET_STATUS_FAILED:
		ret = -ENOMEM;
		break;
	}
	dmavet_end(flags);
	if (ret > 0)
		atomic_long_inc(&live);
	return ret;
}

void dmavet_call_list(struct device *dev, const struct dmavet_call *call,
		      struct scatterlist *sgl, int nents)
{
	struct dmavet_slot *slot;
	unsigned long flags;

	if (nents <= 0)
		return;
	if (nents > DMAVET_MAX_RANGES) {
		dmavet_drop();
		return;
	}
	slot = dmavet_begin(&flags);
	if (!slot)
		return;
	send_list(dev, slot, call, sgl, nents);
	dmavet_end(flags);
}

/* Unmaps a list. */
void dmavet_unmap_list(struct device *dev, const struct dmavet_call *call,
		       struct scatterlist *sgl, int nents)
{
	atomic_long_dec(&live);
	dmavet_call_list(dev, call, sgl, nents);
}

/* Asks whether the device may use @mask. */
bool dmavet_ask_mask(struct device *dev, u64 mask)
{
	struct dmavet_call call = { .call = DMAVET_CALL_SET_MASK, .mask = mask };
	struct dmavet_slot *slot;
	unsigned long flags;
	bool fits;
	u64 site;

	slot = dmavet_begin(&flags);
	if (!slot)
		return false;
	site = dmavet_site(slot);
	prepare(slot, dev, &call, site, 0, 0, 0);
	fits = dmavet_ring(slot) == DMAVET_STATUS_OK && slot->value == 1;
	dmavet_end(flags);
	return fits;
}
