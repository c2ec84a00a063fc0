// SPDX-License-Identifier: GPL-2.0
/*
 * ncdma as a platform device: one level-triggered line for everything, and
 * nothing to switch on. Included by ncdma.c.
 *
 * The end is a managed resource, because ->remove() returns int in some kernels
 * and nothing in others.
 */

/* The line is high as long as something is left in INT_STATUS. */
static irqreturn_t ncdma_line_irq(int irq, void *data)
{
	struct ncdma *nc = data;
	u32 status = readl(nc->regs + NCDMA_INT_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, nc->regs + NCDMA_INT_STATUS);
	/* With an error everybody looks at the device. */
	if (status & (NCDMA_INT_COMMAND | NCDMA_INT_ERROR))
		complete(&nc->cmd.done);
	if (status & (NCDMA_INT_TRANSMIT | NCDMA_INT_ERROR))
		complete(&nc->tx.done);
	if (status & (NCDMA_INT_RECEIVE | NCDMA_INT_ERROR))
		complete(&nc->rx.done);
	return IRQ_HANDLED;
}

static void ncdma_platform_end(void *data)
{
	struct ncdma *nc = data;

	ncdma_close(nc);
	free_irq(nc->irq, nc);
	ncdma_memory_free(nc);
}

static int ncdma_platform_probe(struct platform_device *pdev)
{
	struct device *dev = &pdev->dev;
	struct ncdma *nc;
	int ret;

	nc = devm_kzalloc(dev, sizeof(*nc), GFP_KERNEL);
	if (!nc)
		return -ENOMEM;
	nc->dev = dev;
	nc->regs = devm_platform_ioremap_resource(pdev, 0);
	if (IS_ERR(nc->regs))
		return PTR_ERR(nc->regs);
	nc->irq = platform_get_irq(pdev, 0);
	if (nc->irq < 0)
		return nc->irq;

	ret = ncdma_prepare(nc);
	if (ret)
		return ret;
	ret = request_irq(nc->irq, ncdma_line_irq, 0, NCDMA_NAME, nc);
	if (ret)
		goto free_memory;
	ret = ncdma_open(nc);
	if (ret)
		goto free_line;
	return devm_add_action_or_reset(dev, ncdma_platform_end, nc);

free_line:
	free_irq(nc->irq, nc);
free_memory:
	ncdma_memory_free(nc);
	return ret;
}

/* An ACPI node with _HID PRP0001 and this string in its _DSD matches, too. */
static const struct of_device_id ncdma_of_ids[] = {
	{ .compatible = NCDMA_COMPATIBLE },
	{ }
};
MODULE_DEVICE_TABLE(of, ncdma_of_ids);

static struct platform_driver ncdma_platform_driver = {
	.probe = ncdma_platform_probe,
	.driver = {
		.name = NCDMA_NAME,
		.of_match_table = ncdma_of_ids,
	},
};
