// SPDX-License-Identifier: GPL-2.0
/*
 * The self-test of ncdma.c, which includes this file as its last user: each
 * test is one way drivers use DMA. Run by writing the name of a test to
 * /sys/kernel/debug/ncdma/<device>/selftest; reading gives a line for each.
 */

static int ncdma_test_copy(struct ncdma *nc)
{
	static const size_t lens[] = { 4096, 1000, 64, 1 };
	unsigned int i;
	int ret = 0;

	for (i = 0; i < ARRAY_SIZE(lens) && !ret; i++)
		ret = ncdma_copy_once(nc, lens[i], false);
	return ret;
}

static int ncdma_test_fill(struct ncdma *nc)
{
	return ncdma_fill(nc, 4096) ?: ncdma_fill(nc, 254);
}

/* New contents in the same buffers, again and again, whole and in part. */
static int ncdma_test_checksum(struct ncdma *nc)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < 2 * NCDMA_POOL && !ret; i++)
		ret = ncdma_checksum(nc, &nc->src[i % NCDMA_POOL], 0, NCDMA_BUF_SIZE);
	return ret ?: ncdma_checksum(nc, &nc->src[0], 1024, 512);
}

static int ncdma_test_reuse(struct ncdma *nc)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < 2 * NCDMA_POOL && !ret; i++)
		ret = ncdma_copy_pool(nc, i % NCDMA_POOL, 0, NCDMA_BUF_SIZE);
	for (i = 0; i < NCDMA_POOL && !ret; i++)
		ret = ncdma_copy_pool(nc, i, 512, 2048);
	return ret;
}

/* Two rounds with one mapping of each list: synced in between, unmapped at the end. */
static int ncdma_sg_rounds(struct ncdma *nc, struct ncdma_sg *to, struct ncdma_sg *from,
			   const u8 *first, const u8 *second, u8 *got)
{
	struct scatterlist *src = from->table.sgl, *dst = to->table.sgl;
	unsigned int nents = NCDMA_SG_PAGES;
	int ret;

	sg_copy_from_buffer(src, nents, first, NCDMA_SG_BYTES);
	ret = ncdma_sg_map(nc, from);
	if (ret)
		return ret;
	ret = ncdma_sg_map(nc, to);
	if (ret)
		goto unmap_from;

	ret = ncdma_copy_sg(nc, to, from);
	if (ret)
		goto unmap_to;
	dma_sync_sg_for_cpu(nc->dev, dst, nents, DMA_FROM_DEVICE);
	sg_copy_to_buffer(dst, nents, got, NCDMA_SG_BYTES);
	dma_sync_sg_for_device(nc->dev, dst, nents, DMA_FROM_DEVICE);
	ret = ncdma_check_data(nc, got, first, NULL, NCDMA_SG_BYTES);
	if (ret)
		goto unmap_to;

	dma_sync_sg_for_cpu(nc->dev, src, nents, DMA_TO_DEVICE);
	sg_copy_from_buffer(src, nents, second, NCDMA_SG_BYTES);
	dma_sync_sg_for_device(nc->dev, src, nents, DMA_TO_DEVICE);
	ret = ncdma_copy_sg(nc, to, from);

unmap_to:
	ncdma_sg_unmap(nc, to);
unmap_from:
	ncdma_sg_unmap(nc, from);
	if (ret)
		return ret;
	sg_copy_to_buffer(dst, nents, got, NCDMA_SG_BYTES);
	return ncdma_check_data(nc, got, second, first, NCDMA_SG_BYTES);
}

static int ncdma_test_sg(struct ncdma *nc)
{
	struct ncdma_sg from, to;
	u8 *first, *second, *got;
	int ret = -ENOMEM;

	first = kmalloc_array(3, NCDMA_SG_BYTES, GFP_KERNEL);
	if (!first)
		return ret;
	second = first + NCDMA_SG_BYTES;
	got = second + NCDMA_SG_BYTES;
	ncdma_pattern(first, 0, NCDMA_SG_BYTES, 1);
	ncdma_pattern(second, 0, NCDMA_SG_BYTES, 2);

	if (ncdma_sg_alloc(&from, true, DMA_TO_DEVICE))
		goto free_data;
	if (ncdma_sg_alloc(&to, false, DMA_FROM_DEVICE))
		goto free_from;
	ret = ncdma_sg_rounds(nc, &to, &from, first, second, got);

	ncdma_sg_free(&to);
free_from:
	ncdma_sg_free(&from);
free_data:
	kfree(first);
	return ret;
}

static int ncdma_test_tx(struct ncdma *nc)
{
	return ncdma_tx(nc, 1514) ?: ncdma_tx(nc, 61);
}

/* Have the device receive @count frames of its own making. */
static void ncdma_rx_generate(struct ncdma *nc, u32 seed, u32 len, u32 count)
{
	reinit_completion(&nc->rx.done);
	writel(seed, nc->regs + NCDMA_GEN_SEED);
	writel(len, nc->regs + NCDMA_GEN_LEN);
	writel(count, nc->regs + NCDMA_GEN_COUNT);
}

/* Take one frame and compare it. */
static int ncdma_rx_expect(struct ncdma *nc, const u8 *want, u32 len)
{
	struct ncdma_frame frame;
	int ret;

	ret = ncdma_rx_poll(nc, &frame);
	if (ret)
		return ret;
	if (frame.len == len)
		ret = ncdma_check_data(nc, frame.data, want, NULL, len);
	else
		ret = ncdma_fail(nc, -EIO, "frame of %u bytes, want %u", frame.len, len);
	kfree(frame.data);
	return ret;
}

static int ncdma_rx(struct ncdma *nc, u32 len, u32 count)
{
	struct ncdma_buf *want = &nc->once_src;
	const u32 seed = len ^ 0x5a;
	u32 frame, i;
	int ret;

	frame = readl(nc->regs + NCDMA_GEN_DONE) + readl(nc->regs + NCDMA_GEN_DROPPED);
	ncdma_rx_generate(nc, seed, len, count);
	ret = ncdma_ring_wait(&nc->rx);
	for (; count && !ret; count--, frame++) {
		for (i = 0; i < len; i++)
			want->cpu[i] = seed + frame + i + (i >> 8);
		ret = ncdma_rx_expect(nc, want->cpu, len);
	}
	if (ret)
		ncdma_recover(nc);
	else
		ret = ncdma_rx_refill(nc);
	return ret;
}

/* Frames to copy and frames to hand up, more of them than there are descriptors. */
static int ncdma_test_rx(struct ncdma *nc)
{
	static const u32 lens[] = { 64, 1514, 300, 4096 };
	unsigned int i;
	int ret = 0;

	for (i = 0; i < ARRAY_SIZE(lens) && !ret; i++)
		ret = ncdma_rx(nc, lens[i], NCDMA_RING_ENTRIES / 2);
	return ret;
}

static int ncdma_test_loopback(struct ncdma *nc)
{
	static const u32 lens[] = { 200, 2000 };
	unsigned int i, copies;
	int ret = 0;

	writel(NCDMA_TX_CTRL_LOOPBACK, nc->regs + NCDMA_TX_CTRL);
	for (i = 0; i < ARRAY_SIZE(lens) && !ret; i++) {
		ret = ncdma_tx(nc, lens[i]);
		for (copies = 2; copies && !ret; copies--)
			ret = ncdma_rx_expect(nc, nc->once_src.cpu, lens[i]);
		if (!ret)
			ret = ncdma_rx_refill(nc);
	}
	if (ret)
		ncdma_recover(nc);
	writel(0, nc->regs + NCDMA_TX_CTRL);
	return ret;
}

/* Peek at descriptors the device has not finished, then poll one until it has. */
static int ncdma_test_polled(struct ncdma *nc)
{
	struct ncdma_buf *src = &nc->src[0];
	struct ncdma_request req = { .op = NCDMA_OP_CHECKSUM, .len = NCDMA_BUF_SIZE };
	struct ncdma_done done;
	int ret;

	ncdma_src_write(nc, src, 0, NCDMA_BUF_SIZE);
	req.src = src->dma;
	ret = ncdma_ring_push(&nc->cmd, &req);
	if (ret)
		return ret;
	if (ncdma_ring_pop(&nc->cmd, &done) != -EAGAIN || ncdma_ring_pop(&nc->rx, &done) != -EAGAIN)
		ret = ncdma_fail(nc, -EIO, "a descriptor is done before the device had it");
	if (!ret)
		ret = ncdma_ring_run(&nc->cmd, true);
	if (!ret)
		ret = ncdma_ring_reap(&nc->cmd, &done, true);
	if (ret) {
		ncdma_recover(nc);
		return ret;
	}
	return ncdma_check_sum(nc, src, 0, NCDMA_BUF_SIZE, done.result) ?:
	       ncdma_copy_once(nc, 2048, true);
}

/* Batches of all sizes, several times around the ring. */
static int ncdma_test_wrap(struct ncdma *nc)
{
	struct ncdma_request req[NCDMA_BATCH] = {};
	struct ncdma_done done[NCDMA_BATCH];
	struct ncdma_buf *src = &nc->src[1];
	unsigned int count, i;
	int ret;

	for (count = 1; count <= NCDMA_BATCH; count += 2) {
		ncdma_src_write(nc, src, 0, count * NCDMA_LINE);
		for (i = 0; i < count; i++) {
			req[i].op = NCDMA_OP_CHECKSUM;
			req[i].src = src->dma + i * NCDMA_LINE;
			req[i].len = NCDMA_LINE;
			req[i].irq = i == count - 1;
		}
		ret = ncdma_run(&nc->cmd, req, count, done, false);
		for (i = 0; i < count && !ret; i++)
			ret = ncdma_check_sum(nc, src, i * NCDMA_LINE, NCDMA_LINE, done[i].result);
		if (ret)
			return ret;
	}
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct ncdma *nc);
} ncdma_tests[] = {
	{ "copy", ncdma_test_copy },
	{ "fill", ncdma_test_fill },
	{ "checksum", ncdma_test_checksum },
	{ "reuse", ncdma_test_reuse },
	{ "sg", ncdma_test_sg },
	{ "tx", ncdma_test_tx },
	{ "rx", ncdma_test_rx },
	{ "loopback", ncdma_test_loopback },
	{ "wrap", ncdma_test_wrap },
	{ "polled", ncdma_test_polled },
};

/* Run one test @count times, or until it fails, and add its line to the result. */
static int ncdma_run_test(struct ncdma *nc, unsigned int test, unsigned int count)
{
	const char *name = ncdma_tests[test].name;
	unsigned int round;
	int ret = 0;

	nc->why[0] = '\0';
	for (round = 1; round <= count && !ret; round++)
		ret = ncdma_tests[test].run(nc);

	if (ret)
		nc->result_len += scnprintf(nc->result + nc->result_len,
					    sizeof(nc->result) - nc->result_len,
					    "%s: FAIL %s (round %u of %u, %pe)\n", name,
					    nc->why[0] ? nc->why : "without a reason", round - 1,
					    count, ERR_PTR(ret));
	else
		nc->result_len += scnprintf(nc->result + nc->result_len,
					    sizeof(nc->result) - nc->result_len,
					    "%s: ok (%u of %u)\n", name, count, count);
	return ret;
}

/* "<test> [count]", where <test> may be "all". */
static ssize_t ncdma_selftest_write(struct file *file, const char __user *data, size_t len,
				    loff_t *pos)
{
	struct ncdma *nc = file->private_data;
	char line[32], name[16];
	unsigned int count = 1, i;
	bool all, found = false;
	int ret = 0, err;

	if (len >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, data, len))
		return -EFAULT;
	line[len] = '\0';
	if (sscanf(line, "%15s %u", name, &count) < 1 || !count || count > NCDMA_COUNT_MAX)
		return -EINVAL;
	all = !strcmp(name, "all");

	mutex_lock(&nc->lock);
	nc->result_len = 0;
	for (i = 0; i < ARRAY_SIZE(ncdma_tests); i++) {
		if (!all && strcmp(name, ncdma_tests[i].name))
			continue;
		found = true;
		err = ncdma_run_test(nc, i, count);
		ret = ret ?: err;
	}
	mutex_unlock(&nc->lock);
	if (!found)
		return -EINVAL;
	return ret ?: len;
}

static ssize_t ncdma_selftest_read(struct file *file, char __user *data, size_t len, loff_t *pos)
{
	struct ncdma *nc = file->private_data;
	ssize_t ret;

	mutex_lock(&nc->lock);
	ret = simple_read_from_buffer(data, len, pos, nc->result, nc->result_len);
	mutex_unlock(&nc->lock);
	return ret;
}

static const struct file_operations ncdma_selftest_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = ncdma_selftest_read,
	.write = ncdma_selftest_write,
	.llseek = default_llseek,
};
