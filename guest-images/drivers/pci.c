// SPDX-License-Identifier: GPL-2.0
/* ncdma on PCI: a message for each ring and one for errors. Included by ncdma.c. */

static irqreturn_t ncdma_ring_irq(int irq, void *data)
{
	struct ncdma_ring *ring = data;

	writel(ring->irq, ring->nc->regs + NCDMA_INT_STATUS);
	complete(&ring->done);
	return IRQ_HANDLED;
}

/* Wake everybody: who waits looks at the device and sees the error. */
static irqreturn_t ncdma_error_irq(int irq, void *data)
{
	struct ncdma *nc = data;

	writel(NCDMA_INT_ERROR, nc->regs + NCDMA_INT_STATUS);
	complete(&nc->cmd.done);
	complete(&nc->tx.done);
	complete(&nc->rx.done);
	return IRQ_HANDLED;
}

static void ncdma_free_irqs(struct ncdma *nc)
{
	struct pci_dev *pdev = to_pci_dev(nc->dev);

	free_irq(pci_irq_vector(pdev, NCDMA_VECTOR_ERROR), nc);
	free_irq(pci_irq_vector(pdev, NCDMA_VECTOR_RECEIVE), &nc->rx);
	free_irq(pci_irq_vector(pdev, NCDMA_VECTOR_TRANSMIT), &nc->tx);
	free_irq(pci_irq_vector(pdev, NCDMA_VECTOR_COMMAND), &nc->cmd);
	pci_free_irq_vectors(pdev);
}

static int ncdma_request_irqs(struct ncdma *nc)
{
	struct pci_dev *pdev = to_pci_dev(nc->dev);
	struct ncdma_ring *rings[] = { &nc->cmd, &nc->tx, &nc->rx };
	unsigned int i;
	int ret;

	ret = pci_alloc_irq_vectors(pdev, NCDMA_VECTORS, NCDMA_VECTORS, PCI_IRQ_MSIX);
	if (ret < 0)
		return ret;
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		ret = request_irq(pci_irq_vector(pdev, i), ncdma_ring_irq, 0, NCDMA_NAME,
				  rings[i]);
		if (ret)
			goto fail;
	}
	ret = request_irq(pci_irq_vector(pdev, NCDMA_VECTOR_ERROR), ncdma_error_irq, 0,
			  NCDMA_NAME, nc);
	if (!ret)
		return 0;

fail:
	while (i--)
		free_irq(pci_irq_vector(pdev, i), rings[i]);
	pci_free_irq_vectors(pdev);
	return ret;
}

static int ncdma_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ncdma *nc;
	int ret;

	nc = devm_kzalloc(&pdev->dev, sizeof(*nc), GFP_KERNEL);
	if (!nc)
		return -ENOMEM;
	nc->dev = &pdev->dev;
	pci_set_drvdata(pdev, nc);

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	ret = pcim_iomap_regions(pdev, BIT(0), NCDMA_NAME);
	if (ret)
		return ret;
	nc->regs = pcim_iomap_table(pdev)[0];

	ret = ncdma_prepare(nc);
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = ncdma_request_irqs(nc);
	if (ret)
		goto free_memory;
	ret = ncdma_open(nc);
	if (!ret)
		return 0;

	ncdma_free_irqs(nc);
free_memory:
	pci_clear_master(pdev);
	ncdma_memory_free(nc);
	return ret;
}

static void ncdma_pci_remove(struct pci_dev *pdev)
{
	struct ncdma *nc = pci_get_drvdata(pdev);

	ncdma_close(nc);
	ncdma_free_irqs(nc);
	pci_clear_master(pdev);
	ncdma_memory_free(nc);
}

static const struct pci_device_id ncdma_pci_ids[] = {
	{ PCI_DEVICE(NCDMA_VENDOR_ID, NCDMA_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ncdma_pci_ids);

static struct pci_driver ncdma_pci_driver = {
	.name = NCDMA_NAME,
	.id_table = ncdma_pci_ids,
	.probe = ncdma_pci_probe,
	.remove = ncdma_pci_remove,
};
