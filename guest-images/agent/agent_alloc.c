// SPDX-License-Identifier: GPL-2.0
/*
 * The allocating half of the DMA API.
 *
 * The size given back at free is the driver's and may be wrong; what was really
 * allocated is kept in the first page, so that a wrong free is a finding and not
 * the end of the guest.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>

#include "agent_call.h"

#define ALLOC_COOKIE	0x646d617600000000UL

static u64 coherent_mask(struct device *dev)
{
	return min_not_zero(dev->coherent_dma_mask, dev->bus_dma_limit);
}

static void *alloc_memory(struct device *dev, const char *what, size_t size,
			  gfp_t gfp)
{
	unsigned long pages = PAGE_ALIGN(size) >> PAGE_SHIFT;
	void *memory;

	if (!size || size > (size_t)MAX_ORDER_NR_PAGES << PAGE_SHIFT) {
		dmavet_blind(dmavet_requester(dev),
			     "%s: %s of %zu bytes refused, the page allocator gives at most %lu",
			     dev_name(dev), what, size,
			     (unsigned long)MAX_ORDER_NR_PAGES << PAGE_SHIFT);
		return NULL;
	}
	gfp &= ~(__GFP_DMA | __GFP_DMA32 | __GFP_HIGHMEM | __GFP_COMP);
	memory = alloc_pages_exact(pages << PAGE_SHIFT, gfp | __GFP_ZERO);
	if (memory)
		set_page_private(virt_to_page(memory), ALLOC_COOKIE | pages);
	return memory;
}

static void free_memory(void *memory)
{
	unsigned long private;
	struct page *page;

	/* Not memory we gave, or freed already: the host has reported it. */
	if (!virt_addr_valid(memory) || !PAGE_ALIGNED(memory))
		return;
	page = virt_to_page(memory);
	private = page_private(page);
	if ((private & ~0xffffffffUL) != ALLOC_COOKIE)
		return;
	set_page_private(page, 0);
	free_pages_exact(memory, (private & 0xffffffff) << PAGE_SHIFT);
}

void *dmavet_alloc(struct device *dev, size_t size, dma_addr_t *handle,
			  gfp_t gfp, unsigned long attrs)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_MAP,
		.family = DMAVET_FAMILY_COHERENT,
		.dir = DMA_BIDIRECTIONAL,
		.attrs = attrs,
		.mask = coherent_mask(dev),
	};
	void *memory = alloc_memory(dev, "dma_alloc_attrs", size, gfp);

	if (!memory)
		return NULL;
	call.cpu_addr = (unsigned long)memory;
	*handle = dmavet_map_one(dev, &call, virt_to_phys(memory), size);
	if (*handle == DMA_MAPPING_ERROR) {
		free_memory(memory);
		return NULL;
	}
	return memory;
}

void dmavet_free(struct device *dev, size_t size, void *memory,
			dma_addr_t handle, unsigned long attrs)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_UNMAP,
		.family = DMAVET_FAMILY_COHERENT,
		.dir = DMA_BIDIRECTIONAL,
		.attrs = attrs,
		.cpu_addr = (unsigned long)memory,
	};

	dmavet_unmap_one(dev, &call, handle, size);
	free_memory(memory);
}

struct page *dmavet_alloc_pages(struct device *dev, size_t size,
				       dma_addr_t *handle,
				       enum dma_data_direction dir, gfp_t gfp)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_MAP,
		.family = DMAVET_FAMILY_PAGES,
		.dir = dir,
		.mask = coherent_mask(dev),
	};
	void *memory = alloc_memory(dev, "dma_alloc_pages", size, gfp);
	struct page *page;

	if (!memory)
		return NULL;
	page = virt_to_page(memory);
	call.cpu_addr = (unsigned long)page;
	*handle = dmavet_map_one(dev, &call, virt_to_phys(memory), size);
	if (*handle == DMA_MAPPING_ERROR) {
		free_memory(memory);
		return NULL;
	}
	return page;
}

void dmavet_free_pages(struct device *dev, size_t size,
			      struct page *page, dma_addr_t handle,
			      enum dma_data_direction dir)
{
	struct dmavet_call call = {
		.call = DMAVET_CALL_UNMAP,
		.family = DMAVET_FAMILY_PAGES,
		.dir = dir,
		.cpu_addr = (unsigned long)page,
	};

	dmavet_unmap_one(dev, &call, handle, size);
	if (pfn_valid(page_to_pfn(page)))
		free_memory(page_address(page));
}

int dmavet_mmap(struct device *dev, struct vm_area_struct *vma,
		       void *memory, dma_addr_t handle, size_t size,
		       unsigned long attrs)
{
	unsigned long pages = PAGE_ALIGN(size) >> PAGE_SHIFT;
	unsigned long off = vma->vm_pgoff;

	if (off >= pages || vma_pages(vma) > pages - off)
		return -ENXIO;
	return remap_pfn_range(vma, vma->vm_start,
			       PHYS_PFN(virt_to_phys(memory)) + off,
			       vma->vm_end - vma->vm_start, vma->vm_page_prot);
}

int dmavet_get_sgtable(struct device *dev, struct sg_table *sgt,
			      void *memory, dma_addr_t handle, size_t size,
			      unsigned long attrs)
{
	int ret = sg_alloc_table(sgt, 1, GFP_KERNEL);

	if (!ret)
		sg_set_page(sgt->sgl, virt_to_page(memory), PAGE_ALIGN(size), 0);
	return ret;
}
