/* SPDX-License-Identifier: GPL-2.0 */
/* A DMA call on its way to the host. */
#ifndef DMAVET_AGENT_CALL_H
#define DMAVET_AGENT_CALL_H

#include "agent.h"

/* What makes a call; zero is right for whatever is not mentioned. */
struct dmavet_call {
	u16 call;
	u8 family;
	u8 dir;
	u8 kind;
	u8 flags;
	u64 attrs;
	u64 mask;
	u64 cpu_addr;
	u32 object_before;
	u32 object_after;
};

/* agent_call.c */
dma_addr_t dmavet_call_one(struct device *dev, const struct dmavet_call *call,
			   u64 addr, u64 len);
dma_addr_t dmavet_map_one(struct device *dev, const struct dmavet_call *call,
			  phys_addr_t phys, size_t size);
void dmavet_unmap_one(struct device *dev, const struct dmavet_call *call,
		      dma_addr_t handle, size_t size);
int dmavet_map_list(struct device *dev, const struct dmavet_call *call,
		    struct scatterlist *sgl, int nents);
void dmavet_unmap_list(struct device *dev, const struct dmavet_call *call,
		       struct scatterlist *sgl, int nents);
void dmavet_call_list(struct device *dev, const struct dmavet_call *call,
		      struct scatterlist *sgl, int nents);
bool dmavet_ask_mask(struct device *dev, u64 mask);

/* agent_alloc.c: the allocating operations */
void *dmavet_alloc(struct device *dev, size_t size, dma_addr_t *handle,
		   gfp_t gfp, unsigned long attrs);
void dmavet_free(struct device *dev, size_t size, void *memory,
		 dma_addr_t handle, unsigned long attrs);
struct page *dmavet_alloc_pages(struct device *dev, size_t size,
				dma_addr_t *handle, enum dma_data_direction dir,
				gfp_t gfp);
void dmavet_free_pages(struct device *dev, size_t size, struct page *page,
		       dma_addr_t handle, enum dma_data_direction dir);
int dmavet_mmap(struct device *dev, struct vm_area_struct *vma, void *memory,
		dma_addr_t handle, size_t size, unsigned long attrs);
int dmavet_get_sgtable(struct device *dev, struct sg_table *sgt, void *memory,
		       dma_addr_t handle, size_t size, unsigned long attrs);

#endif /* DMAVET_AGENT_CALL_H */
