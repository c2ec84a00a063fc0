// SPDX-License-Identifier: GPL-2.0
/*
 * A driver without manners: binds to dmavet's devices and misprograms them in
 * every way it knows. The machine must survive all of it; what each case cost is
 * in /sys/kernel/debug/hostile. What it does to its own kernel is its own affair,
 * so it writes no message address that would be an interrupt of this machine.
 */
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "hostile.h"

static struct dentry *dir;
static char *log_text;
static size_t log_len;

static __printf(1, 2) void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_len += vscnprintf(log_text + log_len, LOG_SIZE - log_len, fmt, args);
	va_end(args);
}

/* ---- Any function: configuration space ---- */

#define ECAM	0xe0000000UL

static void config_sweep(struct victim *v, u64 value)
{
	unsigned int width = value & 7, at;
	u64 bits = value & ~7ULL ? ~0ULL : 0;

	for (at = 0; at < 256; at += width)
		switch (width) {
		case 1:
			pci_write_config_byte(v->pdev, at, bits);
			break;
		case 2:
			pci_write_config_word(v->pdev, at, bits);
			break;
		default:
			pci_write_config_dword(v->pdev, at, bits);
		}
}

/* Past the kernel's checks: any width, any alignment, the whole 4 KiB. */
static void config_raw(struct victim *v, u64 width)
{
	void __iomem *config = ioremap(ECAM + ((unsigned long)v->pdev->devfn << 12), SZ_4K);
	unsigned int at;

	if (!config)
		return;
	for (at = 0; at + 8 <= SZ_4K; at += 3) {
		if (width == 2)
			writew(~0, config + at);
		else if (width == 4)
			writel(~0, config + at);
		else
			writeq(~0ULL, config + at);
		(void)readl(config + at);
	}
	iounmap(config);
}

static void config_far(struct victim *v, u64 unused)
{
	void __iomem *config = ioremap(ECAM + ((unsigned long)v->pdev->devfn << 12), SZ_4K);
	unsigned int at;

	if (!config)
		return;
	for (at = 256; at < SZ_4K; at += 4) {
		writel(~0, config + at);
		(void)readl(config + at);
	}
	iounmap(config);
}

static void command(struct victim *v, u16 value)
{
	pci_write_config_word(v->pdev, PCI_COMMAND, value);
}

static void touch(struct victim *v)
{
	unsigned int at;

	for (at = 0; at < 0x80; at += 4) {
		(void)readl(v->regs + at);
		writel(0, v->regs + at);
	}
}

static void command_storm(struct victim *v, u64 unused)
{
	unsigned int i;

	for (i = 0; i < 256; i++)
		command(v, i & 7);
	command(v, 6);
	touch(v);
}

static void master_storm(struct victim *v, u64 unused)
{
	unsigned int at;

	for (at = 0; at < 0x200; at += 4) {
		command(v, 6);
		writel(~0, v->regs + at);
		command(v, 2);
		writel(1, v->regs + at);
	}
}

static void no_decoding(struct victim *v, u64 value)
{
	command(v, value);
	touch(v);
}

static void power(struct victim *v, u64 state)
{
	if (!v->pm)
		return;
	pci_write_config_word(v->pdev, v->pm + PCI_PM_CTRL, state);
	touch(v);
	pci_write_config_word(v->pdev, v->pm + PCI_PM_CTRL, 0);
}

static void power_storm(struct victim *v, u64 unused)
{
	unsigned int i;

	for (i = 0; i < 64; i++)
		power(v, 3);
}

/* ---- Any function: BARs ---- */

static void bar_at(struct victim *v, u64 address)
{
	unsigned int at;

	for (at = PCI_BASE_ADDRESS_0; at <= PCI_BASE_ADDRESS_5; at += 4)
		pci_write_config_dword(v->pdev, at, address);
	touch(v);
}

/* Over the registers of the agent, which everything depends on. */
static void bar_over_agent(struct victim *v, u64 unused)
{
	struct pci_dev *agent = pci_get_device(0xda5e, 0x0001, NULL);

	if (!agent)
		return;
	bar_at(v, pci_resource_start(agent, 0));
	pci_dev_put(agent);
}

static void bar_moves(struct victim *v, u64 step)
{
	unsigned int i;

	for (i = 0; i < 64; i++)
		bar_at(v, v->base + i * step);
}

static void bar_bytes(struct victim *v, u64 unused)
{
	unsigned int at;

	for (at = PCI_BASE_ADDRESS_0; at < PCI_BASE_ADDRESS_5 + 4; at++) {
		pci_write_config_byte(v->pdev, at, 0xff);
		(void)readl(v->regs);
	}
}

/* ---- Any window of registers ---- */

static void sweep(struct victim *v, u64 value)
{
	unsigned int width = value & 0xf, at;
	u64 bits = value >> 8;

	for (at = 0; at + 8 <= v->window; at += width) {
		switch (width) {
		case 1:
			writeb(bits, v->regs + at);
			break;
		case 2:
			writew(bits, v->regs + at);
			break;
		case 8:
			writeq(bits, v->regs + at);
			break;
		default:
			writel(bits, v->regs + at);
		}
	}
}

static void sweep_down(struct victim *v, u64 bits)
{
	unsigned int at;

	for (at = v->window; at; at -= 4)
		writel(bits, v->regs + at - 4);
}

static void read_all(struct victim *v, u64 unused)
{
	unsigned int at;

	for (at = 0; at + 8 <= v->window; at++) {
		(void)readb(v->regs + at);
		(void)readw(v->regs + at);
		(void)readl(v->regs + at);
		(void)readq(v->regs + at);
	}
}

static void random_registers(struct victim *v, u64 seed)
{
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		writel(seed >> 61 ? seed >> 40 & 0xf : seed >> 24,
		       v->regs + (seed >> 33) % (v->window / 4) * 4);
	}
}

/* Across the end of the window, where nobody or somebody else answers. */
static void last_bytes(struct victim *v, u64 unused)
{
	void __iomem *end = ioremap(v->base + v->size - SZ_4K, SZ_8K);
	unsigned int i;

	if (!end)
		return;
	for (i = 1; i < 8; i++) {
		writeq(~0ULL, end + SZ_4K - i);
		(void)readq(end + SZ_4K - i);
	}
	iounmap(end);
}

/* ---- MSI-X ---- */

static void __iomem *entry(struct victim *v, unsigned int vector)
{
	return v->table + vector * PCI_MSIX_ENTRY_SIZE;
}

static void msix_control(struct victim *v, u16 value)
{
	pci_write_config_word(v->pdev, v->msix + PCI_MSIX_FLAGS, value);
}

static void msix_on(struct victim *v, u64 value)
{
	if (!v->table)
		return;
	msix_control(v, value);
	touch(v);
}

static void msix_messages(struct victim *v, u64 address)
{
	unsigned int i;

	if (!v->table)
		return;
	msix_control(v, PCI_MSIX_FLAGS_ENABLE);
	for (i = 0; i < v->vectors; i++) {
		writel(address, entry(v, i) + PCI_MSIX_ENTRY_LOWER_ADDR);
		writel(address >> 32, entry(v, i) + PCI_MSIX_ENTRY_UPPER_ADDR);
		writel(address, entry(v, i) + PCI_MSIX_ENTRY_DATA);
		writel(0, entry(v, i) + PCI_MSIX_ENTRY_VECTOR_CTRL);
	}
	touch(v);
}

static void msix_behind(struct victim *v, u64 unused)
{
	unsigned int i;

	if (!v->table)
		return;
	for (i = v->vectors; i < 128; i++) {
		writeq(~0ULL, entry(v, i));
		writeq(0, entry(v, i) + 8);
		(void)readq(entry(v, i));
	}
}

static void msix_bytes(struct victim *v, u64 unused)
{
	unsigned int at;

	if (!v->table)
		return;
	for (at = 0; at < v->vectors * PCI_MSIX_ENTRY_SIZE; at++) {
		writeb(0, v->table + at);
		writew(0, v->table + at);
		writeq(0, v->table + at);
	}
}

static void msix_pending(struct victim *v, u64 unused)
{
	if (!v->table)
		return;
	writeq(~0ULL, v->table + 0x800);
	writel(~0, v->table + 0x802);
}

static void msix_storm(struct victim *v, u64 unused)
{
	unsigned int i;

	if (!v->table)
		return;
	for (i = 0; i < 200; i++) {
		writel(i & 1, entry(v, i % v->vectors) + PCI_MSIX_ENTRY_VECTOR_CTRL);
		msix_control(v, PCI_MSIX_FLAGS_ENABLE | (i & 2 ? PCI_MSIX_FLAGS_MASKALL : 0));
	}
}

#define ONES(width)	(0xffffffffULL << 8 | (width))

static const struct attack any_function[] = {
	{ "configuration: ones in bytes", config_sweep, 0x10 | 1 },
	{ "configuration: ones in words", config_sweep, 0x10 | 2 },
	{ "configuration: ones in dwords", config_sweep, 0x10 | 4 },
	{ "configuration: zeros in bytes", config_sweep, 1 },
	{ "configuration: zeros in words", config_sweep, 2 },
	{ "configuration: zeros in dwords", config_sweep, 4 },
	{ "configuration: unaligned words", config_raw, 2 },
	{ "configuration: unaligned dwords", config_raw, 4 },
	{ "configuration: unaligned qwords", config_raw, 8 },
	{ "configuration: beyond byte 255", config_far },
	{ "decoding and mastering in a storm", command_storm },
	{ "mastering switched under every register", master_storm },
	{ "registers without decoding", no_decoding, 0 },
	{ "registers with every command bit", no_decoding, 0xffff },
	{ "registers in D3hot", power, 3 },
	{ "registers in D1", power, 1 },
	{ "registers in D2", power, 2 },
	{ "power in a storm", power_storm },
	{ "BARs at address 0", bar_at, 0 },
	{ "BARs over RAM", bar_at, 0x100000 },
	{ "BARs at the end of 4 GiB", bar_at, 0xffffffff },
	{ "BARs over configuration space", bar_at, ECAM },
	{ "BARs over the I/O APIC", bar_at, 0xfec00000 },
	{ "BARs over the local APIC", bar_at, 0xfee00000 },
	{ "BARs over a platform device", bar_at, 0xfd000000 },
	{ "BARs over the agent", bar_over_agent },
	{ "BARs moved while they are in use", bar_moves, SZ_64K },
	{ "BARs overlapping themselves", bar_moves, SZ_4K },
	{ "BARs written in bytes", bar_bytes },
	{ "MSI-X on with an empty table", msix_on, PCI_MSIX_FLAGS_ENABLE },
	{ "MSI-X control of ones", msix_on, 0xffff },
	{ "messages to the end of the address space", msix_messages, ~0ULL },
	{ "messages to address 0", msix_messages, 0 },
	{ "messages to RAM", msix_messages, 0x100000 },
	{ "MSI-X entries behind the last", msix_behind },
	{ "MSI-X entries in bytes, words and unaligned qwords", msix_bytes },
	{ "MSI-X pending bits written", msix_pending },
	{ "MSI-X masks in a storm", msix_storm },
};

static const struct attack any_window[] = {
	{ "registers: ones in bytes", sweep, ONES(1) },
	{ "registers: ones in words", sweep, ONES(2) },
	{ "registers: ones in dwords", sweep, ONES(4) },
	{ "registers: ones in qwords", sweep, ~0xffULL | 8 },
	{ "registers: ones in unaligned dwords", sweep, ONES(3) },
	{ "registers: zeros in dwords", sweep, 4 },
	{ "registers: 1 in dwords", sweep, 1 << 8 | 4 },
	{ "registers: addresses in dwords", sweep, 0x100000ULL << 8 | 4 },
	{ "registers: ones from the last", sweep_down, ~0ULL },
	{ "registers: 7 from the last", sweep_down, 7 },
	{ "registers: reads at every offset and width", read_all },
	{ "registers: the last bytes of the window", last_bytes },
	{ "registers: at random", random_registers, 1 },
	{ "registers: at random again", random_registers, 77 },
};

/* ---- Running them ---- */

/* As after power-on, as far as a driver can do it. */
static void restore(struct victim *v)
{
	if (!v->pdev)
		return;
	if (v->pm)
		pci_write_config_word(v->pdev, v->pm + PCI_PM_CTRL, 0);
	pci_write_config_word(v->pdev, v->msix + PCI_MSIX_FLAGS, 0);
	pci_load_saved_state(v->pdev, v->saved);
	pci_restore_state(v->pdev);
	command(v, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void run(struct victim *v, const struct attack *attacks, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		u64 start = ktime_get_ns();

		restore(v);
		attacks[i].run(v, attacks[i].value);
		restore(v);
		say("%s: %s: %llu ms\n", dev_name(v->dev), attacks[i].name,
		    div_u64(ktime_get_ns() - start, NSEC_PER_MSEC));
	}
}

static int attack(struct victim *v)
{
	int ret = dma_set_mask_and_coherent(v->dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;
	v->area = dma_alloc_coherent(v->dev, AREA_SIZE, &v->dma, GFP_KERNEL);
	if (!v->area)
		return -ENOMEM;
	if (v->pdev)
		run(v, any_function, ARRAY_SIZE(any_function));
	run(v, any_window, ARRAY_SIZE(any_window));
	if (v->pdev && v->pdev->vendor == PCI_VENDOR_ID_REDHAT_QUMRANET)
		run(v, virtio_attacks, virtio_count);
	else
		run(v, ncdma_attacks, ncdma_count);
	restore(v);
	/* Quiet before the memory goes. */
	if (v->pdev)
		pci_clear_master(v->pdev);
	else
		writel(2, v->regs + 0xc);
	dma_free_coherent(v->dev, AREA_SIZE, v->area, v->dma);
	return 0;
}

static int hostile_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct victim v = { .dev = &pdev->dev, .pdev = pdev };
	u16 flags;
	int ret;

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	v.size = pci_resource_len(pdev, 0);
	v.window = min_t(size_t, v.size, 0x400);
	v.base = pci_resource_start(pdev, 0);
	v.regs = pcim_iomap(pdev, 0, 0);
	v.pm = pdev->pm_cap;
	v.msix = pdev->msix_cap;
	if (!v.regs || !v.msix)
		return -ENODEV;
	pci_read_config_word(pdev, v.msix + PCI_MSIX_FLAGS, &flags);
	v.vectors = (flags & PCI_MSIX_FLAGS_QSIZE) + 1;
	v.table = pcim_iomap(pdev, 1, 0);
	pci_set_master(pdev);
	pci_save_state(pdev);
	v.saved = pci_store_saved_state(pdev);
	if (!v.saved)
		return -ENOMEM;
	ret = attack(&v);
	kfree(v.saved);
	return ret;
}

static const struct pci_device_id hostile_ids[] = {
	{ PCI_DEVICE(0xda5e, 0x0010) },
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_ANY_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, hostile_ids);

static struct pci_driver hostile_driver = {
	.name = "hostile",
	.id_table = hostile_ids,
	.probe = hostile_probe,
	.driver.probe_type = PROBE_FORCE_SYNCHRONOUS,
};

static int hostile_platform_probe(struct platform_device *pdev)
{
	struct victim v = { .dev = &pdev->dev, .size = SZ_4K, .window = 0x400 };
	struct resource *resource;

	v.regs = devm_platform_get_and_ioremap_resource(pdev, 0, &resource);
	if (IS_ERR(v.regs))
		return PTR_ERR(v.regs);
	v.base = resource->start;
	return attack(&v);
}

static const struct of_device_id hostile_of_ids[] = {
	{ .compatible = "dmavet,ncdma" },
	{ }
};

static struct platform_driver hostile_platform_driver = {
	.probe = hostile_platform_probe,
	.driver = {
		.name = "hostile",
		.of_match_table = hostile_of_ids,
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};

static ssize_t log_read(struct file *file, char __user *to, size_t len, loff_t *at)
{
	return simple_read_from_buffer(to, len, at, log_text, log_len);
}

static const struct file_operations log_fops = {
	.owner = THIS_MODULE,
	.read = log_read,
};

static int __init hostile_init(void)
{
	int ret = -ENOMEM;

	log_text = kvzalloc(LOG_SIZE, GFP_KERNEL);
	if (!log_text)
		return ret;
	dir = debugfs_create_file("hostile", 0400, NULL, NULL, &log_fops);
	ret = pci_register_driver(&hostile_driver);
	if (ret)
		goto fail;
	ret = platform_driver_register(&hostile_platform_driver);
	if (!ret)
		return 0;
	pci_unregister_driver(&hostile_driver);
fail:
	debugfs_remove(dir);
	kvfree(log_text);
	return ret;
}
module_init(hostile_init);

static void __exit hostile_exit(void)
{
	platform_driver_unregister(&hostile_platform_driver);
	pci_unregister_driver(&hostile_driver);
	debugfs_remove(dir);
	kvfree(log_text);
}
module_exit(hostile_exit);

MODULE_DESCRIPTION("Misprograms dmavet's devices");
MODULE_LICENSE("GPL");
