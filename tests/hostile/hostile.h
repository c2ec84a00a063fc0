/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <linux/pci.h>
#include <linux/sizes.h>

#define LOG_SIZE	SZ_128K

/* Memory the device may reach: rings, buffers. */
#define AREA_SIZE	SZ_256K

/* A device under attack. */
struct victim {
	struct device *dev;
	struct pci_dev *pdev;		/* NULL for a platform device */
	void __iomem *regs;
	size_t size;			/* of the register window */
	size_t window;			/* the part of it that sweeps go over */
	u64 base;			/* where BAR 0 is */
	int pm;				/* capabilities, or 0 */
	int msix;
	unsigned int vectors;
	void __iomem *table;
	struct pci_saved_state *saved;
	u8 *area;
	dma_addr_t dma;
};

/* One thing to do to it. */
struct attack {
	const char *name;
	void (*run)(struct victim *v, u64 value);
	u64 value;
};

extern const struct attack virtio_attacks[];
extern const unsigned int virtio_count;
extern const struct attack ncdma_attacks[];
extern const unsigned int ncdma_count;

#endif /* HOSTILE_H */
