// SPDX-License-Identifier: GPL-2.0
/*
 * dmavet's guest agent: stands in for the DMA API of the devices under test and
 * tells the host of every call. docs/protocol.md has the protocol.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/pci.h>

#include "agent.h"

static struct pci_bus *agent_bus;

static int agent_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int ret = dmavet_port_open(pdev);

	if (!ret)
		agent_bus = pdev->bus;
	return ret;
}

/* Only at module exit: nothing has the ops any more. */
static void agent_remove(struct pci_dev *pdev)
{
	agent_bus = NULL;
	dmavet_port_close();
}

static const struct pci_device_id agent_ids[] = {
	{ PCI_DEVICE(DMAVET_PCI_VENDOR, DMAVET_PCI_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, agent_ids);

static struct pci_driver agent_driver = {
	.name		= "dmavet_agent",
	.id_table	= agent_ids,
	.probe		= agent_probe,
	.remove		= agent_remove,
	.driver		= {
		/* Unbound by hand it would leave ops behind that have no port. */
		.suppress_bind_attrs = true,
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};

static int panic_event(struct notifier_block *nb, unsigned long event,
		       void *message)
{
	dmavet_panicking(message ?: "panic");
	return NOTIFY_DONE;
}

static struct notifier_block panic_nb = {
	.notifier_call	= panic_event,
	.priority	= INT_MAX,
};

static int __init agent_init(void)
{
	int ret;

	ret = pci_register_driver(&agent_driver);
	if (ret)
		return ret;
	ret = -ENODEV;
	if (!dmavet_port_ready())
		goto err_driver;
	ret = dmavet_bind_register();
	if (ret)
		goto err_driver;
	dmavet_report_early_drivers();
	ret = dmavet_modules_register();
	if (ret)
		goto err_bind;
	ret = dmavet_devices_register();
	if (ret)
		goto err_modules;
	dmavet_rejected_register();
	atomic_notifier_chain_register(&panic_notifier_list, &panic_nb);

	/* Since the hello the devices under test are on the bus: go and look. */
	pci_lock_rescan_remove();
	pci_rescan_bus(agent_bus);
	pci_unlock_rescan_remove();
	return 0;

err_modules:
	dmavet_modules_unregister();
err_bind:
	dmavet_bind_unregister();
err_driver:
	pci_unregister_driver(&agent_driver);
	return ret;
}

static void __exit agent_exit(void)
{
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_nb);
	dmavet_rejected_unregister();
	dmavet_devices_unregister();
	dmavet_modules_unregister();
	dmavet_bind_unregister();
	pci_unregister_driver(&agent_driver);
}

module_init(agent_init);
module_exit(agent_exit);
MODULE_DESCRIPTION("dmavet guest agent");
MODULE_LICENSE("GPL");
