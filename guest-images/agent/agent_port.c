// SPDX-License-Identifier: GPL-2.0
/*
 * Slots and the doorbell.
 *
 * One slot per possible CPU, used with interrupts off, so that nobody but an NMI
 * can come between filling a slot and reading its answer; calls from NMI context
 * are refused. One more slot belongs to the panic notifier, which may find any
 * other one half filled.
 *
 * The doorbell is a write to a register of the host: when writel() returns the
 * answer is in the slot. Nothing here prints.
 */
#include <linux/atomic.h>
#include <linux/cpumask.h>
#include <linux/hardirq.h>
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/utsname.h>

#include "agent.h"

static_assert(sizeof(struct dmavet_slot) == 64);
static_assert(sizeof(struct dmavet_dma) + DMAVET_RANGES_PER_SLOT * sizeof(struct dmavet_range) ==
	      DMAVET_PAYLOAD_SIZE);
static_assert(DMAVET_MAX_FRAMES * sizeof(struct dmavet_frame) <= DMAVET_PAYLOAD_SIZE);

static struct {
	struct pci_dev *pdev;
	void __iomem *regs;
	void *slots;
	unsigned int count;	/* with the panic slot, the last one */
	bool ready;
	u64 required_mask;
	atomic_t lost;
} port;

bool dmavet_port_ready(void)
{
	return READ_ONCE(port.ready);
}

bool dmavet_is_agent(const struct device *dev)
{
	return port.pdev && dev == &port.pdev->dev;
}

u64 dmavet_required_mask(void)
{
	return port.required_mask;
}

static struct dmavet_slot *slot_at(unsigned int index)
{
	return port.slots + (size_t)index * DMAVET_SLOT_SIZE;
}

/* A call that never reaches the host is counted: every later one tells it. */
void dmavet_drop(void)
{
	atomic_inc(&port.lost);
}

/*
 * dmavet_begin - take this CPU's slot
 *
 * Returns NULL, with interrupts as they were, where no call can be made. Else
 * dmavet_end() must follow.
 */
struct dmavet_slot *dmavet_begin(unsigned long *flags)
{
	if (in_nmi() || !READ_ONCE(port.ready)) {
		dmavet_drop();
		return NULL;
	}
	local_irq_save(*flags);
	return slot_at(smp_processor_id());
}

void dmavet_end(unsigned long flags)
{
	local_irq_restore(flags);
}

void *dmavet_payload(struct dmavet_slot *slot)
{
	return slot + 1;
}

/* Fills the header of a call of one chunk; the caller adds payload and rings. */
void dmavet_prepare(struct dmavet_slot *slot, u16 call, u32 requester, u64 site,
		    u32 length)
{
	*slot = (struct dmavet_slot) {
		.version = DMAVET_ABI_VERSION,
		.call = call,
		.flags = DMAVET_FIRST | DMAVET_LAST,
		.requester = requester,
		.cpu = raw_smp_processor_id(),
		.site = site,
		.length = length,
		.lost = atomic_read(&port.lost),
		.status = DMAVET_STATUS_PENDING,
	};
}

/* Rings for a slot and returns the host's status. */
u32 dmavet_ring(struct dmavet_slot *slot)
{
	u32 status;

	/* writel() orders the slot's contents before the exit. */
	writel(((void *)slot - port.slots) / DMAVET_SLOT_SIZE,
	       port.regs + DMAVET_REG_DOORBELL);
	status = READ_ONCE(slot->status);
	if (status == DMAVET_STATUS_PENDING)
		dmavet_drop();
	return status;
}

/* A whole call with a ready payload, for everything that is not a DMA call. */
u32 dmavet_send(u16 call, u32 requester, const void *payload, u32 length)
{
	struct dmavet_slot *slot;
	unsigned long flags;
	u32 status;

	slot = dmavet_begin(&flags);
	if (!slot)
		return DMAVET_STATUS_PENDING;
	length = min_t(u32, length, DMAVET_PAYLOAD_SIZE);
	dmavet_prepare(slot, call, requester, 0, length);
	if (length)
		memcpy(dmavet_payload(slot), payload, length);
	status = dmavet_ring(slot);
	dmavet_end(flags);
	return status;
}

/* Tells the host what it will not see, and why. */
void dmavet_blind(u32 requester, const char *fmt, ...)
{
	struct dmavet_slot *slot;
	unsigned long flags;
	va_list args;
	u32 length;

	slot = dmavet_begin(&flags);
	if (!slot)
		return;
	va_start(args, fmt);
	length = vscnprintf(dmavet_payload(slot), DMAVET_PAYLOAD_SIZE, fmt, args);
	va_end(args);
	dmavet_prepare(slot, DMAVET_CALL_BLIND, requester, 0, length);
	dmavet_ring(slot);
	dmavet_end(flags);
}

/* The last words of a kernel, from any context. */
void dmavet_panicking(const char *message)
{
	struct dmavet_slot *slot;
	u32 length;

	if (!READ_ONCE(port.ready))
		return;
	slot = slot_at(port.count - 1);
	length = strnlen(message, DMAVET_PAYLOAD_SIZE);
	memcpy(dmavet_payload(slot), message, length);
	dmavet_prepare(slot, DMAVET_CALL_PANIC, DMAVET_NOBODY, 0, length);
	dmavet_ring(slot);
}

static int hello(void)
{
	struct dmavet_hello hello = {
		.abi = DMAVET_ABI_VERSION,
		.cpus = nr_cpu_ids,
	};
	struct dmavet_slot *slot;
	unsigned long flags;
	u32 status;

	strscpy(hello.release, init_utsname()->release, sizeof(hello.release));
	slot = dmavet_begin(&flags);
	if (!slot)
		return -EIO;
	dmavet_prepare(slot, DMAVET_CALL_HELLO, DMAVET_NOBODY, 0, sizeof(hello));
	memcpy(dmavet_payload(slot), &hello, sizeof(hello));
	status = dmavet_ring(slot);
	port.required_mask = slot->value;
	dmavet_end(flags);
	return status == DMAVET_STATUS_OK ? 0 : -EPROTO;
}

/* Finds the registers, gives the host the slots, and says hello. */
int dmavet_port_open(struct pci_dev *pdev)
{
	phys_addr_t base;
	size_t size;
	u32 magic, abi;
	int ret;

	if (port.regs)
		return -EBUSY;
	port.count = nr_cpu_ids + 1;
	if (port.count > DMAVET_MAX_SLOTS)
		return -E2BIG;
	ret = pci_enable_device_mem(pdev);
	if (ret)
		return ret;
	ret = -ENODEV;
	port.regs = pci_ioremap_bar(pdev, 0);
	if (!port.regs)
		goto err_disable;
	magic = readl(port.regs + DMAVET_REG_MAGIC);
	abi = readl(port.regs + DMAVET_REG_ABI);
	if (magic != DMAVET_MAGIC || abi != DMAVET_ABI_VERSION) {
		pci_err(pdev, "magic %#x version %u, this agent speaks version %u\n",
			magic, abi, DMAVET_ABI_VERSION);
		goto err_unmap;
	}
	ret = -ENOMEM;
	size = (size_t)port.count * DMAVET_SLOT_SIZE;
	port.slots = alloc_pages_exact(size, GFP_KERNEL | __GFP_ZERO);
	if (!port.slots)
		goto err_unmap;
	base = virt_to_phys(port.slots);
	writel(lower_32_bits(base), port.regs + DMAVET_REG_SLOTS_LO);
	writel(upper_32_bits(base), port.regs + DMAVET_REG_SLOTS_HI);
	writel(port.count, port.regs + DMAVET_REG_SLOT_COUNT);
	ret = -EPROTO;
	if (!(readl(port.regs + DMAVET_REG_STATUS) & DMAVET_STATE_READY)) {
		pci_err(pdev, "%u slots at %pa refused\n", port.count, &base);
		goto err_free;
	}
	port.pdev = pdev;
	WRITE_ONCE(port.ready, true);
	ret = hello();
	if (ret) {
		pci_err(pdev, "the host did not accept the hello\n");
		goto err_ready;
	}
	return 0;

err_ready:
	WRITE_ONCE(port.ready, false);
	port.pdev = NULL;
err_free:
	writel(0, port.regs + DMAVET_REG_SLOTS_LO);
	free_pages_exact(port.slots, size);
	port.slots = NULL;
err_unmap:
	iounmap(port.regs);
	port.regs = NULL;
err_disable:
	pci_disable_device(pdev);
	return ret;
}

/* Only once nothing can call any more: no ops installed, no notifier registered. */
void dmavet_port_close(void)
{
	WRITE_ONCE(port.ready, false);
	/* Writing the address takes the slots out of use. */
	writel(0, port.regs + DMAVET_REG_SLOTS_LO);
	free_pages_exact(port.slots, (size_t)port.count * DMAVET_SLOT_SIZE);
	iounmap(port.regs);
	pci_disable_device(port.pdev);
	port.slots = NULL;
	port.regs = NULL;
	port.pdev = NULL;
}
