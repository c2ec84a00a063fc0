/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between kernels, behind one name each. HAVE_* come from Kbuild. */
#ifndef DMAVET_COMPAT_H
#define DMAVET_COMPAT_H

#include <linux/dma-map-ops.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poison.h>

#if !defined(HAVE_DMA_MAP_PHYS) && !defined(HAVE_DMA_MAP_PAGE)
#error "dmavet: struct dma_map_ops has neither map_page nor map_phys"
#endif
#ifdef __BIG_ENDIAN
#error "dmavet: the slots are little-endian"
#endif

/* 7.x: MMIO comes through map_phys with this attribute. */
#ifdef DMA_ATTR_MMIO
#define DMAVET_ATTR_MMIO	DMA_ATTR_MMIO
#else
#define DMAVET_ATTR_MMIO	0
#endif

/*
 * A device that was bound under dma-direct before keeps "syncs can be skipped",
 * and with an IOMMU in translated mode the core does not look at the ops at all.
 */
static inline void compat_ops_installed(struct device *dev)
{
#ifdef HAVE_DMA_RESET_NEED_SYNC
	dma_reset_need_sync(dev);
#endif
#if defined(HAVE_DMA_IOMMU_FLAG)
	dev_clear_dma_iommu(dev);
#elif defined(HAVE_DMA_IOMMU_BIT) && defined(CONFIG_IOMMU_DMA)
	dev->dma_iommu = false;
#endif
}

static inline bool compat_page_is_pp(struct page *page)
{
#if !defined(CONFIG_PAGE_POOL)
	return false;
#elif defined(HAVE_PAGE_POOL_PAGE_IS_PP)
	return page_pool_page_is_pp(page);
#else
	/* Bits 0 and 1 are the head page's and pfmemalloc's. */
	return (page->pp_magic & ~0x3UL) == PP_SIGNATURE;
#endif
}

struct compat_text {
	unsigned long text_base, text_size, init_base, init_size;
};

static inline void compat_module_text(struct module *mod, struct compat_text *t)
{
	memset(t, 0, sizeof(*t));
#if defined(HAVE_MODULE_MEMORY)
	t->text_base = (unsigned long)mod->mem[MOD_TEXT].base;
	t->text_size = mod->mem[MOD_TEXT].size;
	t->init_base = (unsigned long)mod->mem[MOD_INIT_TEXT].base;
	t->init_size = mod->mem[MOD_INIT_TEXT].size;
#elif defined(HAVE_MODULE_LAYOUT)
	t->text_base = (unsigned long)mod->core_layout.base;
	t->text_size = mod->core_layout.text_size;
	t->init_base = (unsigned long)mod->init_layout.base;
	t->init_size = mod->init_layout.text_size;
#endif
}

#endif /* DMAVET_COMPAT_H */
