// SPDX-License-Identifier: GPL-2.0
/*
 * Which devices the agent listens to, and when drivers come and go.
 *
 * The ops are installed at BUS_NOTIFY_BIND_DRIVER: after the bus has configured
 * DMA, before probe, at every bind again. The end of a binding is a managed
 * resource of the device: it is the first one, so it is released last, after the
 * driver's own, whether the driver was removed or its probe failed.
 *
 * A platform device is under test if its firmware node says so: it has a number
 * there. Platform devices below a device under test get the ops too and count as
 * that one. Auxiliary devices do DMA through their parent by convention and need
 * nothing (their bus type is not exported).
 */
#include <linux/device.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/string.h>

#include "agent.h"
#include "compat.h"

/*
 * The platform devices under test by number. A lookup at each DMA call must not
 * go through ACPI; devices are put in before they are bound and never taken out,
 * as firmware's devices stay.
 */
static struct device *nodes[DMAVET_MAX_NODES];

/* Whether @dev is a platform device under test. May sleep. */
static bool find_node(struct device *dev)
{
	u32 number;

	if (device_property_read_u32(dev, "dmavet,node", &number) ||
	    number >= DMAVET_MAX_NODES)
		return false;
	WRITE_ONCE(nodes[number], dev);
	return true;
}

static u32 node_requester(const struct device *dev)
{
	u32 number;

	for (number = 0; number < DMAVET_MAX_NODES; number++)
		if (READ_ONCE(nodes[number]) == dev)
			return DMAVET_REQUESTER_PLATFORM | number;
	return DMAVET_NOBODY;
}

/* The requester of the platform device under test called @name. */
u32 dmavet_node_named(const char *name)
{
	u32 number;

	for (number = 0; number < DMAVET_MAX_NODES; number++) {
		const struct device *dev = READ_ONCE(nodes[number]);

		if (dev && !strcmp(dev_name(dev), name))
			return DMAVET_REQUESTER_PLATFORM | number;
	}
	return DMAVET_NOBODY;
}

/* The number of the device under test @dev is, or is below of. */
u32 dmavet_requester(const struct device *dev)
{
	for (; dev; dev = dev->parent) {
		const struct pci_dev *pdev;

		if (dev->bus == &platform_bus_type) {
			u32 requester = node_requester(dev);

			if (requester != DMAVET_NOBODY)
				return requester;
		}
		if (dev->bus != &pci_bus_type)
			continue;
		pdev = container_of(dev, struct pci_dev, dev);
		if (pci_domain_nr(pdev->bus))
			return DMAVET_NOBODY;
		return PCI_DEVID(pdev->bus->number, pdev->devfn);
	}
	return DMAVET_NOBODY;
}

/* As long as a device has the ops this module stays. */
static bool install(struct device *dev)
{
	if (get_dma_ops(dev) != &dmavet_ops) {
		if (get_dma_ops(dev)) {
			dmavet_blind(dmavet_requester(dev),
				     "%s has DMA operations of its own, its calls are not seen",
				     dev_name(dev));
			return false;
		}
		if (!try_module_get(THIS_MODULE))
			return false;
		set_dma_ops(dev, &dmavet_ops);
	}
	compat_ops_installed(dev);
	return true;
}

static void uninstall(struct device *dev)
{
	if (get_dma_ops(dev) != &dmavet_ops)
		return;
	set_dma_ops(dev, NULL);
	module_put(THIS_MODULE);
}

/* With something still mapped a device keeps the ops: page_pools unmap late. */
static int uninstall_unbound(struct device *dev, void *unused)
{
	if (!device_trylock(dev))
		return 0;
	if (!dev->driver)
		uninstall(dev);
	device_unlock(dev);
	return 0;
}

static void sweep(struct device *leaving)
{
	if (!dmavet_nothing_mapped())
		return;
	uninstall(leaving);
	bus_for_each_dev(&pci_bus_type, NULL, NULL, uninstall_unbound);
	bus_for_each_dev(&platform_bus_type, NULL, NULL, uninstall_unbound);
}

static void requester_unbound(void *data)
{
	struct device *dev = data;

	dmavet_send(DMAVET_CALL_UNBOUND, dmavet_requester(dev), NULL, 0);
	sweep(dev);
}

static void child_unbound(void *data)
{
	sweep(data);
}

static void say_bound(struct device *dev)
{
	struct dmavet_bound bound = { };

	strscpy(bound.driver, dev->driver->name, sizeof(bound.driver));
	if (dev->driver->owner)
		strscpy(bound.module, module_name(dev->driver->owner),
			sizeof(bound.module));
	dmavet_announce_driver(dev);
	dmavet_send(DMAVET_CALL_BOUND, dmavet_requester(dev), &bound,
		    sizeof(bound));
}

/* A driver is about to be bound to a device that is a requester of its own. */
static void binding(struct device *dev)
{
	if (!install(dev))
		return;
	if (devm_add_action(dev, requester_unbound, dev))
		dmavet_blind(dmavet_requester(dev),
			     "%s: out of memory, the end of driver %s will not be seen",
			     dev_name(dev), dev->driver->name);
	say_bound(dev);
}

static int pci_event(struct notifier_block *nb, unsigned long event, void *data)
{
	struct device *dev = data;

	if (event == BUS_NOTIFY_BIND_DRIVER && !dmavet_is_agent(dev) &&
	    dmavet_port_ready())
		binding(dev);
	return NOTIFY_OK;
}

static int platform_event(struct notifier_block *nb, unsigned long event,
			  void *data)
{
	struct device *dev = data;

	if (event != BUS_NOTIFY_BIND_DRIVER || !dmavet_port_ready())
		return NOTIFY_OK;
	if (find_node(dev)) {
		binding(dev);
		return NOTIFY_OK;
	}
	if (dmavet_requester(dev) == DMAVET_NOBODY || !install(dev))
		return NOTIFY_OK;
	/* Without it the ops merely stay until something else is unbound. */
	if (devm_add_action(dev, child_unbound, dev))
		return NOTIFY_OK;
	return NOTIFY_OK;
}

static struct notifier_block pci_nb = { .notifier_call = pci_event };
static struct notifier_block platform_nb = { .notifier_call = platform_event };

/* Drivers bound before the agent came keep their own DMA: nothing is seen there. */
static int report_early(struct device *dev, void *unused)
{
	if (dev->bus == &platform_bus_type && !find_node(dev))
		return 0;
	if (dev->driver && !dmavet_is_agent(dev) &&
	    get_dma_ops(dev) != &dmavet_ops)
		dmavet_blind(dmavet_requester(dev),
			     "%s was bound to %s before the agent came, its calls are not seen until the next bind",
			     dev_name(dev), dev->driver->name);
	return 0;
}

void dmavet_report_early_drivers(void)
{
	bus_for_each_dev(&pci_bus_type, NULL, NULL, report_early);
	bus_for_each_dev(&platform_bus_type, NULL, NULL, report_early);
}

int dmavet_bind_register(void)
{
	int ret = bus_register_notifier(&pci_bus_type, &pci_nb);

	if (ret)
		return ret;
	ret = bus_register_notifier(&platform_bus_type, &platform_nb);
	if (ret)
		bus_unregister_notifier(&pci_bus_type, &pci_nb);
	return ret;
}

static int settle(struct device *dev, void *unused)
{
	device_lock(dev);
	device_unlock(dev);
	return 0;
}

void dmavet_bind_unregister(void)
{
	bus_unregister_notifier(&platform_bus_type, &platform_nb);
	bus_unregister_notifier(&pci_bus_type, &pci_nb);
	/* The last one to drop our reference may still be on its way out. */
	bus_for_each_dev(&platform_bus_type, NULL, NULL, settle);
	bus_for_each_dev(&pci_bus_type, NULL, NULL, settle);
}
