// SPDX-License-Identifier: GPL-2.0
/*
 * The DMA API of a device under test: every call goes to the host, and every
 * handle comes from there. What a cache would do the host does to the memory.
 *
 * Called in any context, hard interrupts included; nothing here prints.
 */
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "agent_call.h"
#include "compat.h"

static u64 streaming_mask(struct device *dev)
{
	return min_not_zero(dma_get_mask(dev), dev->bus_dma_limit);
}

static u8 page_kind(phys_addr_t phys)
{
	struct folio *folio;

	if (!pfn_valid(PHYS_PFN(phys)))
		return DMAVET_KIND_OTHER;
	/* Only the head page says what a compound page is. */
	folio = page_folio(pfn_to_page(PHYS_PFN(phys)));
	if (PageSlab(&folio->page))
		return DMAVET_KIND_SLAB;
	if (compat_page_is_pp(&folio->page))
		return DMAVET_KIND_PAGE_POOL;
	/* ->mapping means something else in a page of another type. */
	if (!page_has_type(&folio->page) && READ_ONCE(folio->mapping))
		return DMAVET_KIND_FOREIGN;
	return DMAVET_KIND_OTHER;
}

/*
 * How much of its slab object lies before and behind a mapping. Objects of a
 * slab are equally far apart; with debugging data between them this is off by
 * some bytes, which is why nothing graver than a warning hangs on it.
 */
static void find_object(struct dmavet_call *call, phys_addr_t phys, size_t size)
{
	const char *memory = phys_to_virt(phys);
	size_t object = ksize(memory);
	size_t before;

	if (!object)
		return;
	before = (memory - (char *)page_address(virt_to_head_page(memory))) % object;
	if (before + size > object)
		return;
	call->object_before = before;
	call->object_after = object - before - size;
}

static dma_addr_t map_phys(struct device *dev, phys_addr_t phys, size_t size,
			   enum dma_data_direction dir, unsigned long attrs,
			   bool mmio)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_MAP,
		.family = mmio ? DMAVET_FAMILY_RESOURCE : DMAVET_FAMILY_SINGLE,
		.dir = dir,
		.kind = mmio ? DMAVET_KIND_OTHER : page_kind(phys),
		.attrs = attrs,
		.mask = streaming_mask(dev),
	};

	if (call.kind == DMAVET_KIND_SLAB)
		find_object(&call, phys, size);
	return dmavet_map_one(dev, &call, phys, size);
}

static void unmap_phys(struct device *dev, dma_addr_t handle, size_t size,
		       enum dma_data_direction dir, unsigned long attrs,
		       bool mmio)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_UNMAP,
		.family = mmio ? DMAVET_FAMILY_RESOURCE : DMAVET_FAMILY_SINGLE,
		.dir = dir,
		.attrs = attrs,
	};

	dmavet_unmap_one(dev, &call, handle, size);
}

#ifdef HAVE_DMA_MAP_PHYS
static dma_addr_t dmavet_map_phys(struct device *dev, phys_addr_t phys,
				  size_t size, enum dma_data_direction dir,
				  unsigned long attrs)
{
	return map_phys(dev, phys, size, dir, attrs, attrs & DMAVET_ATTR_MMIO);
}

static void dmavet_unmap_phys(struct device *dev, dma_addr_t handle,
			      size_t size, enum dma_data_direction dir,
			      unsigned long attrs)
{
	unmap_phys(dev, handle, size, dir, attrs, attrs & DMAVET_ATTR_MMIO);
}
#endif

#ifdef HAVE_DMA_MAP_PAGE
static dma_addr_t dmavet_map_page(struct device *dev, struct page *page,
				  unsigned long offset, size_t size,
				  enum dma_data_direction dir,
				  unsigned long attrs)
{
	return map_phys(dev, page_to_phys(page) + offset, size, dir, attrs,
			false);
}

static void dmavet_unmap_page(struct device *dev, dma_addr_t handle,
			      size_t size, enum dma_data_direction dir,
			      unsigned long attrs)
{
	unmap_phys(dev, handle, size, dir, attrs, false);
}
#endif

#ifdef HAVE_DMA_MAP_RESOURCE
static dma_addr_t dmavet_map_resource(struct device *dev, phys_addr_t phys,
				      size_t size, enum dma_data_direction dir,
				      unsigned long attrs)
{
	return map_phys(dev, phys, size, dir, attrs, true);
}

static void dmavet_unmap_resource(struct device *dev, dma_addr_t handle,
				  size_t size, enum dma_data_direction dir,
				  unsigned long attrs)
{
	unmap_phys(dev, handle, size, dir, attrs, true);
}
#endif

static int dmavet_map_sg(struct device *dev, struct scatterlist *sgl, int nents,
			 enum dma_data_direction dir, unsigned long attrs)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_MAP,
		.family = DMAVET_FAMILY_SG,
		.dir = dir,
		.attrs = attrs,
		.mask = streaming_mask(dev),
	};

	if (nents > 0)
		call.kind = page_kind(sg_phys(sgl));
	return dmavet_map_list(dev, &call, sgl, nents);
}

static void dmavet_unmap_sg(struct device *dev, struct scatterlist *sgl,
			    int nents, enum dma_data_direction dir,
			    unsigned long attrs)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_UNMAP,
		.family = DMAVET_FAMILY_SG,
		.dir = dir,
		.attrs = attrs,
	};

	dmavet_unmap_list(dev, &call, sgl, nents);
}

static void sync_one(struct device *dev, dma_addr_t handle, size_t size,
		     enum dma_data_direction dir, u8 flags)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_SYNC,
		.family = DMAVET_FAMILY_SINGLE,
		.dir = dir,
		.flags = flags,
	};

	dmavet_call_one(dev, &call, handle, size);
}

static void dmavet_sync_single_for_cpu(struct device *dev, dma_addr_t handle,
				       size_t size, enum dma_data_direction dir)
{
	sync_one(dev, handle, size, dir, DMAVET_DMA_FOR_CPU);
}

static void dmavet_sync_single_for_device(struct device *dev, dma_addr_t handle,
					  size_t size,
					  enum dma_data_direction dir)
{
	sync_one(dev, handle, size, dir, 0);
}

static void sync_list(struct device *dev, struct scatterlist *sgl, int nents,
		      enum dma_data_direction dir, u8 flags)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_SYNC,
		.family = DMAVET_FAMILY_SG,
		.dir = dir,
		.flags = flags,
	};

	dmavet_call_list(dev, &call, sgl, nents);
}

static void dmavet_sync_sg_for_cpu(struct device *dev, struct scatterlist *sgl,
				   int nents, enum dma_data_direction dir)
{
	sync_list(dev, sgl, nents, dir, DMAVET_DMA_FOR_CPU);
}

static void dmavet_sync_sg_for_device(struct device *dev,
				      struct scatterlist *sgl, int nents,
				      enum dma_data_direction dir)
{
	sync_list(dev, sgl, nents, dir, 0);
}

static int dmavet_dma_supported(struct device *dev, u64 mask)
{
	return dmavet_ask_mask(dev, mask);
}

static u64 dmavet_get_required_mask(struct device *dev)
{
	return dmavet_required_mask();
}

static size_t dmavet_max_mapping_size(struct device *dev)
{
	/* Handles lie in windows of gigabytes; nobody maps more in one piece. */
	return SZ_1G;
}

/*
 * Not here: alloc_noncontiguous (the core falls back to alloc_pages),
 * cache_sync (nothing calls it), opt_mapping_size and get_merge_boundary (their
 * defaults are true: nothing to prefer, nothing is merged across entries).
 */
const struct dma_map_ops dmavet_ops = {
	.alloc			= dmavet_alloc,
	.free			= dmavet_free,
#ifdef HAVE_DMA_ALLOC_PAGES_OP
	.alloc_pages_op		= dmavet_alloc_pages,
#endif
#ifdef HAVE_DMA_ALLOC_PAGES
	.alloc_pages		= dmavet_alloc_pages,
#endif
	.free_pages		= dmavet_free_pages,
	.mmap			= dmavet_mmap,
	.get_sgtable		= dmavet_get_sgtable,
#ifdef HAVE_DMA_MAP_PHYS
	.map_phys		= dmavet_map_phys,
	.unmap_phys		= dmavet_unmap_phys,
#endif
#ifdef HAVE_DMA_MAP_PAGE
	.map_page		= dmavet_map_page,
	.unmap_page		= dmavet_unmap_page,
#endif
#ifdef HAVE_DMA_MAP_RESOURCE
	.map_resource		= dmavet_map_resource,
	.unmap_resource		= dmavet_unmap_resource,
#endif
	.map_sg			= dmavet_map_sg,
	.unmap_sg		= dmavet_unmap_sg,
	.sync_single_for_cpu	= dmavet_sync_single_for_cpu,
	.sync_single_for_device	= dmavet_sync_single_for_device,
	.sync_sg_for_cpu	= dmavet_sync_sg_for_cpu,
	.sync_sg_for_device	= dmavet_sync_sg_for_device,
	.dma_supported		= dmavet_dma_supported,
	.get_required_mask	= dmavet_get_required_mask,
	.max_mapping_size	= dmavet_max_mapping_size,
};
