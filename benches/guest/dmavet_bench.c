// SPDX-License-Identifier: GPL-2.0
/*
 * What a call of the DMA API and an access to watched memory cost a guest,
 * beside what an exit to the machine costs at least: binds to ncdma, does each
 * many times, and says the shortest and the median time in
 * /sys/module/dmavet_bench/parameters/result.
 */
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/sort.h>

#define ROUNDS	400
#define REGS	0
#define REG_ID	0

static char result_text[1024];
module_param_string(result, result_text, sizeof(result_text), 0444);

static u64 samples[ROUNDS];

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static void note(const char *name)
{
	size_t used = strlen(result_text);

	sort(samples, ROUNDS, sizeof(samples[0]), compare, NULL);
	scnprintf(result_text + used, sizeof(result_text) - used, "%s %llu %llu\n", name, samples[0],
		  samples[ROUNDS / 2]);
}

#define MEASURE_BETWEEN(name, before, code, after) do {		\
	unsigned int round;					\
	u64 start;						\
								\
	for (round = 0; round < ROUNDS; round++) {		\
		before;						\
		start = ktime_get_ns();				\
		code;						\
		samples[round] = ktime_get_ns() - start;	\
		after;						\
	}							\
	note(name);						\
} while (0)

#define MEASURE(name, code) MEASURE_BETWEEN(name, , code, )

/* One access to a page of which a device owns another part. */
#define TRAPPED(name, code)							\
	MEASURE_BETWEEN(name,							\
			dma = dma_map_single(dev, buf + 2048, 64, DMA_FROM_DEVICE), \
			code,							\
			dma_unmap_single(dev, dma, 64, DMA_FROM_DEVICE))

static int dmavet_bench_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	void __iomem *regs;
	dma_addr_t dma;
	void *buf;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	regs = pcim_iomap(pdev, REGS, 0);
	if (!regs)
		return -ENOMEM;
	buf = (void *)devm_get_free_pages(dev, GFP_KERNEL, 0);
	if (!buf)
		return -ENOMEM;
	dma = dma_map_single(dev, buf, PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, dma))
		return -ENOMEM;

	MEASURE("null_mmio_exit", readl(regs + REG_ID));
	MEASURE("sync_for_device_64", dma_sync_single_for_device(dev, dma, 64, DMA_BIDIRECTIONAL));
	MEASURE("sync_for_cpu_64", dma_sync_single_for_cpu(dev, dma, 64, DMA_BIDIRECTIONAL));
	MEASURE("sync_for_device_4096", dma_sync_single_for_device(dev, dma, PAGE_SIZE, DMA_BIDIRECTIONAL));
	MEASURE("sync_for_cpu_4096", dma_sync_single_for_cpu(dev, dma, PAGE_SIZE, DMA_BIDIRECTIONAL));
	dma_unmap_single(dev, dma, PAGE_SIZE, DMA_BIDIRECTIONAL);
	MEASURE("map_and_unmap_4096", ({
		dma = dma_map_single(dev, buf, PAGE_SIZE, DMA_TO_DEVICE);
		if (!dma_mapping_error(dev, dma))
			dma_unmap_single(dev, dma, PAGE_SIZE, DMA_TO_DEVICE);
	}));
	/* With the first access after it, which pays for the page's way back. */
	MEASURE("map_and_unmap_and_touch", ({
		dma = dma_map_single(dev, buf, PAGE_SIZE, DMA_FROM_DEVICE);
		if (!dma_mapping_error(dev, dma))
			dma_unmap_single(dev, dma, PAGE_SIZE, DMA_FROM_DEVICE);
		WRITE_ONCE(*(u64 *)buf, 1);
	}));
	TRAPPED("trapped_read", READ_ONCE(*(u64 *)buf));
	TRAPPED("trapped_write", WRITE_ONCE(*(u64 *)buf, 1));
	TRAPPED("trapped_lock_inc", atomic64_inc((atomic64_t *)buf));
	TRAPPED("trapped_memset_1024", memset(buf, 0, 1024));
	return 0;
}

static const struct pci_device_id dmavet_bench_ids[] = {
	{ PCI_DEVICE(0xda5e, 0x0010) },
	{ }
};
MODULE_DEVICE_TABLE(pci, dmavet_bench_ids);

static struct pci_driver dmavet_bench_driver = {
	.name = "dmavet_bench",
	.id_table = dmavet_bench_ids,
	.probe = dmavet_bench_probe,
};
module_pci_driver(dmavet_bench_driver);

MODULE_DESCRIPTION("Cost of DMA API calls in a dmavet guest");
MODULE_LICENSE("GPL");
