// SPDX-License-Identifier: GPL-2.0
/*
 * Stands in for the agent in tests of the init script: what is written to
 * /dev/dmavet and /dev/dmavet-out appears on the console.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

static ssize_t tell(const char *who, const char __user *from, size_t len)
{
	char text[256];
	size_t n = min(len, sizeof(text) - 1);

	if (copy_from_user(text, from, n))
		return -EFAULT;
	text[n] = 0;
	pr_emerg("%s: %s", who, text);
	return n;
}

static ssize_t agent_write(struct file *f, const char __user *from, size_t len, loff_t *pos)
{
	return tell("AGENT", from, len);
}

static ssize_t out_write(struct file *f, const char __user *from, size_t len, loff_t *pos)
{
	return tell("OUT", from, len);
}

static const struct file_operations agent_fops = { .owner = THIS_MODULE, .write = agent_write };
static const struct file_operations out_fops = { .owner = THIS_MODULE, .write = out_write };
static struct miscdevice agent = { .minor = MISC_DYNAMIC_MINOR, .name = "dmavet", .fops = &agent_fops };
static struct miscdevice out = { .minor = MISC_DYNAMIC_MINOR, .name = "dmavet-out", .fops = &out_fops };

static int __init fake_init(void)
{
	int err = misc_register(&agent);

	return err ? err : misc_register(&out);
}
module_init(fake_init);
MODULE_DESCRIPTION("Stand-in for the agent");
MODULE_LICENSE("GPL");
