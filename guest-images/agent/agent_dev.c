// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/dmavet takes commands, one per write; /dev/dmavet-out takes the output of
 * the workload. The result of a run travels here, never over the console.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "agent.h"

#define COMMAND_MAX	4096

static int send_text(u16 call, const char *text, size_t length)
{
	u32 status = dmavet_send(call, DMAVET_NOBODY, text,
				 min_t(size_t, length, DMAVET_PAYLOAD_SIZE));

	return status == DMAVET_STATUS_OK ? 0 : -EIO;
}

static int send_exit(const char *number)
{
	struct dmavet_exit payload = { };
	int code, ret;

	ret = kstrtoint(number, 10, &code);
	if (ret)
		return ret;
	payload.code = code;
	return send_text(DMAVET_CALL_EXIT, (const char *)&payload,
			 sizeof(payload));
}

/* @word followed by white space or the end: returns what follows, else NULL. */
static const char *after(const char *line, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(line, word, length))
		return NULL;
	line += length;
	return *line && *line != ' ' ? NULL : skip_spaces(line);
}

static int command(const char *line)
{
	const char *rest;

	rest = after(line, "exit");
	if (rest)
		return send_exit(rest);
	rest = after(line, "phase");
	if (rest && *rest)
		return send_text(DMAVET_CALL_PHASE, rest, strlen(rest));
	rest = after(line, "fail");
	if (rest)
		return send_text(DMAVET_CALL_FAIL, rest, strlen(rest));
	rest = after(line, "end");
	if (rest && !*rest)
		return send_text(DMAVET_CALL_END, NULL, 0);
	return -EINVAL;
}

static ssize_t command_write(struct file *file, const char __user *buf,
			     size_t count, loff_t *ppos)
{
	char *text;
	int ret;

	/* A long complaint is cut, not lost. */
	text = memdup_user_nul(buf, min_t(size_t, count, COMMAND_MAX));
	if (IS_ERR(text))
		return PTR_ERR(text);
	ret = command(strim(text));
	kfree(text);
	return ret ?: count;
}

static ssize_t output_write(struct file *file, const char __user *buf,
			    size_t count, loff_t *ppos)
{
	size_t done = 0;
	void *chunk;
	int ret = 0;

	chunk = kmalloc(DMAVET_PAYLOAD_SIZE, GFP_KERNEL);
	if (!chunk)
		return -ENOMEM;
	while (done < count) {
		size_t n = min_t(size_t, count - done, DMAVET_PAYLOAD_SIZE);

		ret = -EFAULT;
		if (copy_from_user(chunk, buf + done, n))
			break;
		ret = send_text(DMAVET_CALL_OUTPUT, chunk, n);
		if (ret)
			break;
		done += n;
		ret = -EINTR;
		if (fatal_signal_pending(current))
			break;
		ret = 0;
	}
	kfree(chunk);
	return done ?: ret;
}

static const struct file_operations command_fops = {
	.owner	= THIS_MODULE,
	.write	= command_write,
};

static const struct file_operations output_fops = {
	.owner	= THIS_MODULE,
	.write	= output_write,
};

static struct miscdevice command_dev = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dmavet",
	.fops	= &command_fops,
	.mode	= 0200,
};

static struct miscdevice output_dev = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "dmavet-out",
	.fops	= &output_fops,
	.mode	= 0222,
};

int dmavet_devices_register(void)
{
	int ret = misc_register(&command_dev);

	if (ret)
		return ret;
	ret = misc_register(&output_dev);
	if (ret)
		misc_deregister(&command_dev);
	return ret;
}

void dmavet_devices_unregister(void)
{
	misc_deregister(&output_dev);
	misc_deregister(&command_dev);
}
