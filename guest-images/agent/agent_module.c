// SPDX-License-Identifier: GPL-2.0
/*
 * Where modules lie, for the host to turn addresses into source lines: the text
 * regions where this kernel tells, and a few functions with address and name,
 * which with the symbol table of the module give the base of each section.
 */
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "agent.h"
#include "compat.h"

static void add_anchor(struct dmavet_module *info, const void *function)
{
	struct dmavet_frame *anchor;

	if (!function || info->anchors == DMAVET_MAX_ANCHORS)
		return;
	anchor = &info->anchor[info->anchors++];
	anchor->address = (unsigned long)function;
	scnprintf(anchor->symbol, sizeof(anchor->symbol), "%pS", function);
}

static struct dmavet_module *describe(struct module *mod, u32 state)
{
	struct dmavet_module *info = kzalloc(sizeof(*info), GFP_KERNEL);
	struct compat_text text;

	if (!info) {
		dmavet_blind(DMAVET_NOBODY, "out of memory: module %s is not announced",
			     module_name(mod));
		return NULL;
	}
	compat_module_text(mod, &text);
	info->state = state;
	info->text_base = text.text_base;
	info->text_size = text.text_size;
	info->init_base = text.init_base;
	info->init_size = text.init_size;
	strscpy(info->name, module_name(mod), sizeof(info->name));
#ifdef CONFIG_MODULE_UNLOAD
	add_anchor(info, mod->exit);
#endif
	return info;
}

static void send_and_free(struct dmavet_module *info)
{
	dmavet_send(DMAVET_CALL_MODULE, DMAVET_NOBODY, info, sizeof(*info));
	kfree(info);
}

/* Tells of the module of the driver @dev is being bound to. */
void dmavet_announce_driver(struct device *dev)
{
	struct dmavet_module *info;

	if (!dev->driver->owner)
		return;
	info = describe(dev->driver->owner, DMAVET_MODULE_COMING);
	if (!info)
		return;
	if (dev->bus == &pci_bus_type) {
		const struct pci_driver *drv = to_pci_driver(dev->driver);

		add_anchor(info, drv->probe);
		add_anchor(info, drv->remove);
	} else {
		const struct platform_driver *drv = to_platform_driver(dev->driver);

		add_anchor(info, drv->probe);
		add_anchor(info, drv->remove);
	}
	send_and_free(info);
}

static int module_event(struct notifier_block *nb, unsigned long event,
			void *data)
{
	struct dmavet_module *info = NULL;
	struct module *mod = data;

	/* Its own coming was over before this was registered. */
	if (mod == THIS_MODULE && event != MODULE_STATE_LIVE)
		return NOTIFY_OK;
	switch (event) {
	case MODULE_STATE_COMING:
		/* It may lie where the init text of another one was. */
		dmavet_forget_sites();
		info = describe(mod, DMAVET_MODULE_COMING);
		if (info)
			add_anchor(info, mod->init);
		break;
	case MODULE_STATE_LIVE:
		info = describe(mod, DMAVET_MODULE_LIVE);
		break;
	case MODULE_STATE_GOING:
		dmavet_forget_sites();
		info = describe(mod, DMAVET_MODULE_GOING);
		break;
	}
	if (info)
		send_and_free(info);
	return NOTIFY_OK;
}

static struct notifier_block module_nb = { .notifier_call = module_event };

int dmavet_modules_register(void)
{
	struct dmavet_module *info;

	/* The agent's own functions are on the stacks of what it calls. */
	info = describe(THIS_MODULE, DMAVET_MODULE_COMING);
	if (info)
		send_and_free(info);
	return register_module_notifier(&module_nb);
}

void dmavet_modules_unregister(void)
{
	unregister_module_notifier(&module_nb);
}
