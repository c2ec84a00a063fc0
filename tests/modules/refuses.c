// SPDX-License-Identifier: GPL-2.0
/* A module whose init fails: what does the tool say? */
#include <linux/module.h>

static int __init refuses_init(void)
{
	return -ENODEV;
}
module_init(refuses_init);

MODULE_DESCRIPTION("Refuses to load");
MODULE_LICENSE("GPL");
