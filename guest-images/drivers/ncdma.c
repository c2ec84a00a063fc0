// SPDX-License-Identifier: GPL-2.0
/*
 * Driver for ncdma, a descriptor-ring DMA engine that is not coherent with
 * the CPU's caches. The data sheet is docs/ncdma.md.
 *
 * Who owns what:
 *
 * - Descriptors live in memory from dma_alloc_noncoherent(). The CPU owns one
 *   from the start; ncdma_desc_give() hands it to the device, ncdma_desc_own()
 *   and ncdma_desc_take() take it back.
 * - The buffers of the pool are mapped once. The device owns them at rest;
 *   whoever looks into one takes it for the CPU and gives it back.
 * - Buffers of single transfers are mapped for the transfer.
 * - Receive buffers are mapped until a long frame is handed up in its buffer;
 *   short ones are copied out and the buffer stays.
 * - The status block is coherent: only the order of reads matters.
 *
 * Rings and buffers are used by one test at a time, under ncdma::lock.
 */
#include <linux/align.h>
#include <linux/bitfield.h>
#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/jiffies.h>
#include <linux/mod_devicetable.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "ncdma.h"
#include "testdata.h"

#define NCDMA_NAME		"ncdma"
#define NCDMA_RING_ENTRIES	16
#define NCDMA_RING_BYTES	(NCDMA_RING_ENTRIES * sizeof(struct ncdma_desc))
#define NCDMA_BATCH		(NCDMA_RING_ENTRIES - 1)
#define NCDMA_TIMEOUT		HZ
#define NCDMA_POOL		2
#define NCDMA_RX_COPYBREAK	512
#define NCDMA_COUNT_MAX		1000

/* The largest cache line: parts of a buffer are synced in whole lines. */
#define NCDMA_LINE		128

/* One descriptor for ncdma_ring_push(). */
struct ncdma_request {
	u32 op;
	u32 len;
	dma_addr_t src;
	dma_addr_t dst;
	u32 param;
	bool irq;
};

/* What the device wrote into one descriptor. */
struct ncdma_done {
	u32 status;
	u32 result;
	u32 bytes;
};

/* A received frame: its own memory. */
struct ncdma_frame {
	u8 *data;
	u32 len;
};

struct ncdma_ring {
	struct ncdma *nc;
	const char *name;
	void __iomem *regs;
	u32 irq;
	__le32 *counter;		/* in the status block */
	struct ncdma_desc *desc;
	dma_addr_t dma;
	unsigned int head;		/* the oldest one the device has */
	unsigned int tail;		/* the next one to fill */
	struct completion done;
};

struct ncdma {
	struct device *dev;
	void __iomem *regs;
	int irq;			/* a platform device's only one */
	struct dentry *debugfs;
	struct mutex lock;		/* everything below */

	struct ncdma_status_block *status;
	dma_addr_t status_dma;
	struct ncdma_ring cmd;
	struct ncdma_ring tx;
	struct ncdma_ring rx;
	u8 *rx_buf[NCDMA_RING_ENTRIES];
	dma_addr_t rx_dma[NCDMA_RING_ENTRIES];

	struct ncdma_buf src[NCDMA_POOL];	/* mapped DMA_TO_DEVICE */
	struct ncdma_buf dst[NCDMA_POOL];	/* mapped DMA_FROM_DEVICE */
	struct ncdma_buf once_src;		/* mapped for each transfer */
	struct ncdma_buf once_dst;

	char why[192];				/* why a test failed */
	char result[2048];			/* what reading the file gives */
	size_t result_len;
};

static struct dentry *ncdma_debugfs;

/* ---- Errors ---- */

/* Keep the first reason: what follows from it says less. */
static __printf(3, 4) int ncdma_fail(struct ncdma *nc, int err, const char *fmt, ...)
{
	va_list args;

	if (!nc->why[0]) {
		va_start(args, fmt);
		vscnprintf(nc->why, sizeof(nc->why), fmt, args);
		va_end(args);
	}
	return err;
}

/* ---- Rings ---- */

static unsigned int ncdma_ring_next(unsigned int index)
{
	return (index + 1) % NCDMA_RING_ENTRIES;
}

static bool ncdma_ring_full(const struct ncdma_ring *ring)
{
	return ncdma_ring_next(ring->tail) == ring->head;
}

static size_t ncdma_desc_offset(unsigned int index)
{
	return index * sizeof(struct ncdma_desc);
}

/* Hand a descriptor to the device. */
static void ncdma_desc_give(struct ncdma_ring *ring, unsigned int index)
{
	dma_sync_single_range_for_device(ring->nc->dev, ring->dma, ncdma_desc_offset(index),
					 sizeof(struct ncdma_desc), DMA_BIDIRECTIONAL);
}

/*
 * Look whether the device is done with a descriptor: take its first half, look
 * at OWN, and give it back if the device still has it.
 */
static bool ncdma_desc_own(struct ncdma_ring *ring, unsigned int index)
{
	const size_t half = offsetof(struct ncdma_desc, status);
	struct device *dev = ring->nc->dev;
	u32 flags;

	dma_sync_single_range_for_cpu(dev, ring->dma, ncdma_desc_offset(index), half,
				      DMA_BIDIRECTIONAL);
	flags = le32_to_cpu(READ_ONCE(ring->desc[index].flags));
	if (flags & NCDMA_DESC_OWN) {
		dma_sync_single_range_for_device(dev, ring->dma, ncdma_desc_offset(index), half,
						 DMA_BIDIRECTIONAL);
		return false;
	}
	return true;
}

/*
 * Take what the device wrote, once ncdma_desc_own() said that it is done. The
 * second half is synced only now: a line of it the CPU fetched before the
 * device cleared OWN would be stale.
 */
static void ncdma_desc_take(struct ncdma_ring *ring, unsigned int index, struct ncdma_done *done)
{
	const size_t half = offsetof(struct ncdma_desc, status);
	const struct ncdma_desc *desc = &ring->desc[index];

	/* OWN before the rest. */
	dma_rmb();
	dma_sync_single_range_for_cpu(ring->nc->dev, ring->dma, ncdma_desc_offset(index) + half,
				      sizeof(*desc) - half, DMA_BIDIRECTIONAL);
	done->status = le32_to_cpu(READ_ONCE(desc->status));
	done->result = le32_to_cpu(READ_ONCE(desc->result));
	done->bytes = le32_to_cpu(READ_ONCE(desc->bytes));
}

/* Fill the next descriptor and hand it over; the device waits for the doorbell. */
static int ncdma_ring_push(struct ncdma_ring *ring, const struct ncdma_request *req)
{
	struct ncdma_desc *desc = &ring->desc[ring->tail];
	u32 flags = FIELD_PREP(NCDMA_DESC_OP, req->op) | NCDMA_DESC_OWN;

	if (ncdma_ring_full(ring))
		return -ENOSPC;
	if (req->irq)
		flags |= NCDMA_DESC_IRQ;

	memset(desc, 0, sizeof(*desc));
	desc->len = cpu_to_le32(req->len);
	desc->src = cpu_to_le64(req->src);
	desc->dst = cpu_to_le64(req->dst);
	desc->param = cpu_to_le32(req->param);
	/* OWN after the rest, should the line leave the cache in between. */
	dma_wmb();
	WRITE_ONCE(desc->flags, cpu_to_le32(flags));

	ncdma_desc_give(ring, ring->tail);
	ring->tail = ncdma_ring_next(ring->tail);
	return 0;
}

/* Ring the doorbell. writel() orders everything above it before it. */
static void ncdma_kick(struct ncdma_ring *ring)
{
	writel(ring->tail, ring->regs + NCDMA_RING_TAIL);
}

/* Take back the oldest descriptor; -EAGAIN while the device works on it. */
static int ncdma_ring_pop(struct ncdma_ring *ring, struct ncdma_done *done)
{
	if (ring->head == ring->tail)
		return -ENOENT;
	if (!ncdma_desc_own(ring, ring->head))
		return -EAGAIN;
	ncdma_desc_take(ring, ring->head, done);
	ring->head = ncdma_ring_next(ring->head);
	return 0;
}

/* Descriptor and ring errors stop the device until a reset. */
static int ncdma_check_halted(struct ncdma_ring *ring)
{
	struct ncdma *nc = ring->nc;
	u32 error;

	if (!(readl(nc->regs + NCDMA_STATUS) & NCDMA_STATUS_HALTED))
		return 0;
	error = readl(nc->regs + NCDMA_ERROR);
	return ncdma_fail(nc, -EIO, "%s ring halted by error %u (%s)", ring->name, error,
			  ncdma_error_name(error));
}

/* Take back the oldest descriptor within a second, by polling or by interrupt. */
static int ncdma_ring_reap(struct ncdma_ring *ring, struct ncdma_done *done, bool polled)
{
	unsigned long deadline = jiffies + NCDMA_TIMEOUT;
	int ret;

	for (;;) {
		ret = ncdma_ring_pop(ring, done);
		if (ret != -EAGAIN)
			return ret;
		ret = ncdma_check_halted(ring);
		if (ret)
			return ret;
		if (time_after(jiffies, deadline))
			return ncdma_fail(ring->nc, -ETIMEDOUT,
					  "timeout: OWN of descriptor %u of the %s ring is still set",
					  ring->head, ring->name);
		if (polled)
			usleep_range(500, 1000);
		else
			wait_for_completion_timeout(&ring->done, NCDMA_TIMEOUT / 10);
	}
}

/* Wait for the interrupt of a descriptor or of an error. */
static int ncdma_ring_wait(struct ncdma_ring *ring)
{
	unsigned long left = wait_for_completion_timeout(&ring->done, NCDMA_TIMEOUT);
	int ret = ncdma_check_halted(ring);

	if (ret || left)
		return ret;
	return ncdma_fail(ring->nc, -ETIMEDOUT, "timeout: no %s interrupt", ring->name);
}

/* Have the device work on what was pushed. */
static int ncdma_ring_run(struct ncdma_ring *ring, bool polled)
{
	reinit_completion(&ring->done);
	ncdma_kick(ring);
	return polled ? ncdma_check_halted(ring) : ncdma_ring_wait(ring);
}

static u32 ncdma_ring_count(const struct ncdma_ring *ring)
{
	u32 count = le32_to_cpu(READ_ONCE(*ring->counter));

	/* The counter before what it counts. */
	dma_rmb();
	return count;
}

static int ncdma_ring_alloc(struct ncdma *nc, struct ncdma_ring *ring)
{
	ring->desc = dma_alloc_noncoherent(nc->dev, NCDMA_RING_BYTES, &ring->dma,
					   DMA_BIDIRECTIONAL, GFP_KERNEL);
	return ring->desc ? 0 : -ENOMEM;
}

static void ncdma_ring_free(struct ncdma *nc, struct ncdma_ring *ring)
{
	if (ring->desc)
		dma_free_noncoherent(nc->dev, NCDMA_RING_BYTES, ring->desc, ring->dma,
				     DMA_BIDIRECTIONAL);
}

static void ncdma_ring_start(struct ncdma_ring *ring)
{
	writel(lower_32_bits(ring->dma), ring->regs + NCDMA_RING_BASE_LO);
	writel(upper_32_bits(ring->dma), ring->regs + NCDMA_RING_BASE_HI);
	writel(NCDMA_RING_ENTRIES, ring->regs + NCDMA_RING_SIZE);
	writel(NCDMA_RING_CTRL_ENABLE, ring->regs + NCDMA_RING_CTRL);
}

/* Take back what a device that was stopped still has. */
static void ncdma_ring_reclaim(struct ncdma_ring *ring)
{
	struct device *dev = ring->nc->dev;

	for (; ring->head != ring->tail; ring->head = ncdma_ring_next(ring->head))
		dma_sync_single_range_for_cpu(dev, ring->dma, ncdma_desc_offset(ring->head),
					      sizeof(struct ncdma_desc), DMA_BIDIRECTIONAL);
	ring->head = 0;
	ring->tail = 0;
}

/* ---- Receive ring ---- */

/* Post a buffer in every free descriptor but one. */
static int ncdma_rx_refill(struct ncdma *nc)
{
	struct ncdma_ring *ring = &nc->rx;
	int ret = 0;

	while (!ncdma_ring_full(ring)) {
		struct ncdma_request req = { .op = NCDMA_OP_RECEIVE, .irq = true };
		unsigned int slot = ring->tail;

		if (!nc->rx_buf[slot]) {
			u8 *buf = kzalloc(NCDMA_BUF_SIZE, GFP_KERNEL);
			dma_addr_t dma;

			if (!buf) {
				ret = -ENOMEM;
				break;
			}
			dma = dma_map_single(nc->dev, buf, NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
			if (dma_mapping_error(nc->dev, dma)) {
				kfree(buf);
				ret = -ENOMEM;
				break;
			}
			nc->rx_buf[slot] = buf;
			nc->rx_dma[slot] = dma;
		}
		req.dst = nc->rx_dma[slot];
		req.len = NCDMA_BUF_SIZE;
		ret = ncdma_ring_push(ring, &req);
		if (ret)
			break;
	}
	ncdma_kick(ring);
	return ret;
}

static void ncdma_rx_free(struct ncdma *nc)
{
	unsigned int i;

	for (i = 0; i < NCDMA_RING_ENTRIES; i++) {
		if (!nc->rx_buf[i])
			continue;
		dma_unmap_single(nc->dev, nc->rx_dma[i], NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
		kfree(nc->rx_buf[i]);
		nc->rx_buf[i] = NULL;
	}
}

/*
 * Take the oldest frame. A short one is copied out and its buffer, given back
 * to the device, is posted again; a long one goes up in its buffer.
 */
static int ncdma_rx_poll(struct ncdma *nc, struct ncdma_frame *frame)
{
	unsigned int slot = nc->rx.head;
	struct ncdma_done done;
	size_t span;
	int ret;

	ret = ncdma_ring_reap(&nc->rx, &done, false);
	if (ret)
		return ret;
	if (done.status != NCDMA_DESC_OK || done.bytes > NCDMA_BUF_SIZE)
		return ncdma_fail(nc, -EIO, "receive descriptor %u: status 0x%08x, %u bytes", slot,
				  done.status, done.bytes);

	frame->len = done.bytes;
	if (frame->len > NCDMA_RX_COPYBREAK) {
		dma_unmap_single(nc->dev, nc->rx_dma[slot], NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
		frame->data = nc->rx_buf[slot];
		nc->rx_buf[slot] = NULL;
		return 0;
	}

	frame->data = kmalloc(NCDMA_RX_COPYBREAK, GFP_KERNEL);
	if (!frame->data)
		return -ENOMEM;
	span = ALIGN(frame->len, NCDMA_LINE);
	dma_sync_single_for_cpu(nc->dev, nc->rx_dma[slot], span, DMA_FROM_DEVICE);
	memcpy(frame->data, nc->rx_buf[slot], frame->len);
	dma_sync_single_for_device(nc->dev, nc->rx_dma[slot], span, DMA_FROM_DEVICE);
	return 0;
}

/* ---- The device as a whole ---- */

static void ncdma_stop(struct ncdma *nc)
{
	writel(0, nc->regs + NCDMA_INT_MASK);
	writel(NCDMA_CTRL_RESET, nc->regs + NCDMA_CTRL);
}

static int ncdma_start(struct ncdma *nc)
{
	memset(nc->status, 0, sizeof(*nc->status));
	writel(lower_32_bits(nc->status_dma), nc->regs + NCDMA_STATUS_BLOCK_LO);
	writel(upper_32_bits(nc->status_dma), nc->regs + NCDMA_STATUS_BLOCK_HI);
	writel(NCDMA_INT_ALL, nc->regs + NCDMA_INT_STATUS);
	writel(NCDMA_INT_ALL, nc->regs + NCDMA_INT_MASK);
	ncdma_ring_start(&nc->cmd);
	ncdma_ring_start(&nc->tx);
	ncdma_ring_start(&nc->rx);
	writel(NCDMA_CTRL_ENABLE | NCDMA_CTRL_INT_ENABLE, nc->regs + NCDMA_CTRL);
	return ncdma_rx_refill(nc);
}

/* After an error: nothing may be in flight when the caller unmaps its data. */
static void ncdma_recover(struct ncdma *nc)
{
	ncdma_stop(nc);
	ncdma_ring_reclaim(&nc->cmd);
	ncdma_ring_reclaim(&nc->tx);
	ncdma_ring_reclaim(&nc->rx);
	if (ncdma_start(nc))
		dev_warn(nc->dev, "receive ring not full after a reset\n");
}

/* Run up to NCDMA_BATCH requests on the command or transmit ring. */
static int ncdma_run(struct ncdma_ring *ring, const struct ncdma_request *req, unsigned int count,
		     struct ncdma_done *done, bool polled)
{
	u32 before = ncdma_ring_count(ring);
	struct ncdma *nc = ring->nc;
	unsigned int i;
	int ret = 0;

	for (i = 0; i < count && !ret; i++)
		ret = ncdma_ring_push(ring, &req[i]);
	if (!ret)
		ret = ncdma_ring_run(ring, polled);
	for (i = 0; i < count && !ret; i++)
		ret = ncdma_ring_reap(ring, &done[i], polled);
	if (ret) {
		ncdma_recover(nc);
		return ret;
	}

	for (i = 0; i < count; i++) {
		u32 code = FIELD_GET(NCDMA_DESC_ERROR_CODE, done[i].status);

		if (done[i].status & NCDMA_DESC_ERROR)
			return ncdma_fail(nc, -EIO, "%s %u of %u: error %u (%s)", ring->name, i + 1,
					  count, code, ncdma_error_name(code));
		if (done[i].status != NCDMA_DESC_OK)
			return ncdma_fail(nc, -EIO, "%s %u of %u: want status 1 got %u", ring->name,
					  i + 1, count, done[i].status);
	}
	/* The counters follow OWN and precede the interrupt. */
	if (!polled && ncdma_ring_count(ring) - before != count)
		return ncdma_fail(nc, -EIO, "status block counts %u %s descriptors, want %u",
				  ncdma_ring_count(ring) - before, ring->name, count);
	return 0;
}

/* ---- Buffers and their contents ---- */

/* Write new contents to a part of a buffer of the pool, which the device owns at rest. */
static void ncdma_src_write(struct ncdma *nc, struct ncdma_buf *buf, size_t offset, size_t len)
{
	dma_sync_single_range_for_cpu(nc->dev, buf->dma, offset, len, DMA_TO_DEVICE);
	ncdma_buf_fill(buf, offset, len);
	dma_sync_single_range_for_device(nc->dev, buf->dma, offset, len, DMA_TO_DEVICE);
}

static int ncdma_check_data(struct ncdma *nc, const u8 *got, const u8 *want, const u8 *old,
			    size_t len)
{
	return ncdma_diff(nc->why, sizeof(nc->why), got, want, old, len);
}

static int ncdma_check_sum(struct ncdma *nc, const struct ncdma_buf *buf, size_t offset, size_t len,
			   u32 got)
{
	u32 want = ncdma_fnv(buf->cpu + offset, len);
	u32 old = ncdma_fnv(buf->old + offset, len);

	if (got == want)
		return 0;
	return ncdma_fail(nc, -EIO, "want 0x%08x (new data) got 0x%08x%s", want, got,
			  got == old ? " = checksum of the previous contents" : "");
}

/* Look at what the device wrote to a buffer of the pool. */
static int ncdma_dst_check(struct ncdma *nc, struct ncdma_buf *buf, size_t offset, size_t len,
			   const u8 *want)
{
	int ret;

	dma_sync_single_range_for_cpu(nc->dev, buf->dma, offset, len, DMA_FROM_DEVICE);
	ret = ncdma_check_data(nc, buf->cpu + offset, want, buf->old + offset, len);
	memcpy(buf->old + offset, buf->cpu + offset, len);
	dma_sync_single_range_for_device(nc->dev, buf->dma, offset, len, DMA_FROM_DEVICE);
	return ret;
}

static int ncdma_pool_map(struct ncdma *nc, struct ncdma_buf *buf, enum dma_data_direction dir)
{
	buf->dma = dma_map_single(nc->dev, buf->cpu, NCDMA_BUF_SIZE, dir);
	return dma_mapping_error(nc->dev, buf->dma) ? -ENOMEM : 0;
}

static void ncdma_pool_unmap(struct ncdma *nc, struct ncdma_buf *buf, enum dma_data_direction dir)
{
	if (buf->dma != DMA_MAPPING_ERROR)
		dma_unmap_single(nc->dev, buf->dma, NCDMA_BUF_SIZE, dir);
}

static void ncdma_pool_exit(struct ncdma *nc)
{
	unsigned int i;

	for (i = 0; i < NCDMA_POOL; i++) {
		ncdma_pool_unmap(nc, &nc->src[i], DMA_TO_DEVICE);
		ncdma_pool_unmap(nc, &nc->dst[i], DMA_FROM_DEVICE);
		ncdma_buf_free(&nc->src[i]);
		ncdma_buf_free(&nc->dst[i]);
	}
	ncdma_buf_free(&nc->once_src);
	ncdma_buf_free(&nc->once_dst);
}

/* Allocate all buffers and map those of the pool. */
static int ncdma_pool_init(struct ncdma *nc)
{
	unsigned int i;

	for (i = 0; i < NCDMA_POOL; i++) {
		nc->src[i].dma = DMA_MAPPING_ERROR;
		nc->dst[i].dma = DMA_MAPPING_ERROR;
	}
	if (ncdma_buf_alloc(&nc->once_src) || ncdma_buf_alloc(&nc->once_dst))
		goto fail;
	for (i = 0; i < NCDMA_POOL; i++) {
		if (ncdma_buf_alloc(&nc->src[i]) || ncdma_buf_alloc(&nc->dst[i]))
			goto fail;
		if (ncdma_pool_map(nc, &nc->src[i], DMA_TO_DEVICE) ||
		    ncdma_pool_map(nc, &nc->dst[i], DMA_FROM_DEVICE))
			goto fail;
	}
	return 0;

fail:
	ncdma_pool_exit(nc);
	return -ENOMEM;
}

/* ---- Transfers ---- */

/* Copy @len bytes between two buffers mapped for this transfer. */
static int ncdma_copy_once(struct ncdma *nc, size_t len, bool polled)
{
	struct ncdma_buf *src = &nc->once_src, *dst = &nc->once_dst;
	struct ncdma_request req = { .op = NCDMA_OP_COPY, .len = len, .irq = !polled };
	struct ncdma_done done;
	int ret;

	ncdma_buf_fill(src, 0, len);
	src->dma = dma_map_single(nc->dev, src->cpu, len, DMA_TO_DEVICE);
	if (dma_mapping_error(nc->dev, src->dma))
		return -ENOMEM;
	dst->dma = dma_map_single(nc->dev, dst->cpu, NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
	ret = dma_mapping_error(nc->dev, dst->dma);
	if (ret)
		goto unmap_src;

	req.src = src->dma;
	req.dst = dst->dma;
	ret = ncdma_run(&nc->cmd, &req, 1, &done, polled);

	dma_unmap_single(nc->dev, dst->dma, NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
unmap_src:
	dma_unmap_single(nc->dev, src->dma, len, DMA_TO_DEVICE);
	if (!ret && done.bytes != len)
		ret = ncdma_fail(nc, -EIO, "want %zu bytes written got %u", len, done.bytes);
	if (!ret)
		ret = ncdma_check_data(nc, dst->cpu, src->cpu, dst->old, len);
	memcpy(dst->old, dst->cpu, len);
	return ret;
}

/* Fill @len bytes of a buffer mapped for this transfer. */
static int ncdma_fill(struct ncdma *nc, size_t len)
{
	struct ncdma_buf *want = &nc->once_src, *buf = &nc->once_dst;
	struct ncdma_request req = { .op = NCDMA_OP_FILL, .len = len, .irq = true };
	struct ncdma_done done;
	size_t i;
	int ret;

	req.param = 0x01020408 * (++want->generation % 15 + 1);
	for (i = 0; i < len; i++)
		want->cpu[i] = req.param >> (i % 4 * 8);
	buf->dma = dma_map_single(nc->dev, buf->cpu, NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(nc->dev, buf->dma))
		return -ENOMEM;

	req.dst = buf->dma;
	ret = ncdma_run(&nc->cmd, &req, 1, &done, false);

	dma_unmap_single(nc->dev, buf->dma, NCDMA_BUF_SIZE, DMA_FROM_DEVICE);
	if (!ret)
		ret = ncdma_check_data(nc, buf->cpu, want->cpu, buf->old, len);
	memcpy(buf->old, buf->cpu, len);
	return ret;
}

/* Checksum new contents of a part of a buffer of the pool. */
static int ncdma_checksum(struct ncdma *nc, struct ncdma_buf *src, size_t offset, size_t len)
{
	struct ncdma_request req = { .op = NCDMA_OP_CHECKSUM, .len = len, .irq = true };
	struct ncdma_done done;
	int ret;

	ncdma_src_write(nc, src, offset, len);
	req.src = src->dma + offset;
	ret = ncdma_run(&nc->cmd, &req, 1, &done, false);
	return ret ?: ncdma_check_sum(nc, src, offset, len, done.result);
}

/* Copy a part of one buffer of the pool to the same part of another. */
static int ncdma_copy_pool(struct ncdma *nc, unsigned int index, size_t offset, size_t len)
{
	struct ncdma_buf *src = &nc->src[index], *dst = &nc->dst[index];
	struct ncdma_request req = { .op = NCDMA_OP_COPY, .len = len, .irq = true };
	struct ncdma_done done;
	int ret;

	ncdma_src_write(nc, src, offset, len);
	req.src = src->dma + offset;
	req.dst = dst->dma + offset;
	ret = ncdma_run(&nc->cmd, &req, 1, &done, false);
	return ret ?: ncdma_dst_check(nc, dst, offset, len, src->cpu + offset);
}

/*
 * Send one frame twice at once, as a retransmission does: the same bytes under
 * two mappings. What the device read shows in its checksums.
 */
static int ncdma_tx(struct ncdma *nc, size_t len)
{
	struct ncdma_buf *buf = &nc->once_src;
	struct ncdma_request req[2] = {
		{ .op = NCDMA_OP_SEND, .len = len },
		{ .op = NCDMA_OP_SEND, .len = len, .irq = true },
	};
	struct ncdma_done done[2];
	int ret;

	ncdma_buf_fill(buf, 0, len);
	req[0].src = dma_map_single(nc->dev, buf->cpu, len, DMA_TO_DEVICE);
	if (dma_mapping_error(nc->dev, req[0].src))
		return -ENOMEM;
	req[1].src = dma_map_page(nc->dev, virt_to_page(buf->cpu), offset_in_page(buf->cpu), len,
				  DMA_TO_DEVICE);
	ret = dma_mapping_error(nc->dev, req[1].src);
	if (ret)
		goto unmap_first;

	ret = ncdma_run(&nc->tx, req, 2, done, false);

	dma_unmap_page(nc->dev, req[1].src, len, DMA_TO_DEVICE);
unmap_first:
	dma_unmap_single(nc->dev, req[0].src, len, DMA_TO_DEVICE);
	if (!ret)
		ret = ncdma_check_sum(nc, buf, 0, len, done[0].result);
	if (!ret)
		ret = ncdma_check_sum(nc, buf, 0, len, done[1].result);
	return ret;
}

static int ncdma_sg_map(struct ncdma *nc, struct ncdma_sg *sg)
{
	sg->mapped = dma_map_sg(nc->dev, sg->table.sgl, sg->table.orig_nents, sg->dir);
	return sg->mapped ? 0 : -ENOMEM;
}

static void ncdma_sg_unmap(struct ncdma *nc, struct ncdma_sg *sg)
{
	dma_unmap_sg(nc->dev, sg->table.sgl, sg->table.orig_nents, sg->dir);
}

/* One COPY for each piece that is contiguous in both lists. */
static int ncdma_copy_sg(struct ncdma *nc, const struct ncdma_sg *to, const struct ncdma_sg *from)
{
	struct scatterlist *src = from->table.sgl, *dst = to->table.sgl;
	struct ncdma_request req[NCDMA_BATCH] = {};
	struct ncdma_done done[NCDMA_BATCH];
	int src_left = from->mapped, dst_left = to->mapped;
	u32 src_done = 0, dst_done = 0;
	unsigned int count = 0;

	while (src_left && dst_left && count < NCDMA_BATCH) {
		struct ncdma_request *piece = &req[count++];

		piece->op = NCDMA_OP_COPY;
		piece->src = sg_dma_address(src) + src_done;
		piece->dst = sg_dma_address(dst) + dst_done;
		piece->len = min(sg_dma_len(src) - src_done, sg_dma_len(dst) - dst_done);
		src_done += piece->len;
		dst_done += piece->len;
		if (src_done == sg_dma_len(src)) {
			src = sg_next(src);
			src_left--;
			src_done = 0;
		}
		if (dst_done == sg_dma_len(dst)) {
			dst = sg_next(dst);
			dst_left--;
			dst_done = 0;
		}
	}
	req[count - 1].irq = true;
	return ncdma_run(&nc->cmd, req, count, done, false);
}

#include "selftest.c"

/* ---- What every bus needs ---- */

static void ncdma_memory_free(struct ncdma *nc)
{
	ncdma_rx_free(nc);
	ncdma_pool_exit(nc);
	ncdma_ring_free(nc, &nc->rx);
	ncdma_ring_free(nc, &nc->tx);
	ncdma_ring_free(nc, &nc->cmd);
	dma_free_coherent(nc->dev, sizeof(*nc->status), nc->status, nc->status_dma);
}

static int ncdma_memory_alloc(struct ncdma *nc)
{
	nc->status = dma_alloc_coherent(nc->dev, sizeof(*nc->status), &nc->status_dma, GFP_KERNEL);
	if (!nc->status)
		return -ENOMEM;
	nc->cmd.counter = &nc->status->command_done;
	nc->tx.counter = &nc->status->transmit_done;
	nc->rx.counter = &nc->status->receive_done;

	if (!ncdma_ring_alloc(nc, &nc->cmd) && !ncdma_ring_alloc(nc, &nc->tx) &&
	    !ncdma_ring_alloc(nc, &nc->rx) && !ncdma_pool_init(nc))
		return 0;
	ncdma_ring_free(nc, &nc->rx);
	ncdma_ring_free(nc, &nc->tx);
	ncdma_ring_free(nc, &nc->cmd);
	dma_free_coherent(nc->dev, sizeof(*nc->status), nc->status, nc->status_dma);
	return -ENOMEM;
}

static void ncdma_ring_init(struct ncdma *nc, struct ncdma_ring *ring, const char *name,
			    unsigned int regs, u32 irq)
{
	ring->nc = nc;
	ring->name = name;
	ring->regs = nc->regs + regs;
	ring->irq = irq;
	init_completion(&ring->done);
}

/* Look at the device behind nc->regs, and get its memory. It is stopped then. */
static int ncdma_prepare(struct ncdma *nc)
{
	struct device *dev = nc->dev;
	u32 caps;
	int ret;

	mutex_init(&nc->lock);
	if (readl(nc->regs + NCDMA_ID) != NCDMA_ID_VALUE ||
	    FIELD_GET(NCDMA_VERSION_MAJOR, readl(nc->regs + NCDMA_VERSION)) != 1)
		return dev_err_probe(dev, -ENODEV, "unknown device\n");
	ncdma_ring_init(nc, &nc->cmd, "command", NCDMA_COMMAND_RING, NCDMA_INT_COMMAND);
	ncdma_ring_init(nc, &nc->tx, "transmit", NCDMA_TRANSMIT_RING, NCDMA_INT_TRANSMIT);
	ncdma_ring_init(nc, &nc->rx, "receive", NCDMA_RECEIVE_RING, NCDMA_INT_RECEIVE);

	caps = readl(nc->regs + NCDMA_CAPS);
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(FIELD_GET(NCDMA_CAPS_DMA_BITS, caps)));
	if (ret)
		return dev_err_probe(dev, ret, "no usable DMA addresses\n");
	dma_set_max_seg_size(dev, FIELD_GET(NCDMA_CAPS_BUF_KIB, caps) * SZ_1K);

	ret = ncdma_memory_alloc(nc);
	if (ret)
		return ret;
	ncdma_stop(nc);
	return 0;
}

/* Start it and let users in. Interrupts are requested by now. */
static int ncdma_open(struct ncdma *nc)
{
	int ret = ncdma_start(nc);

	if (ret) {
		ncdma_stop(nc);
		return ret;
	}
	nc->debugfs = debugfs_create_dir(dev_name(nc->dev), ncdma_debugfs);
	debugfs_create_file("selftest", 0600, nc->debugfs, nc, &ncdma_selftest_fops);
	return 0;
}

/* Users first, then the device; what it could have touched may go then. */
static void ncdma_close(struct ncdma *nc)
{
	debugfs_remove(nc->debugfs);
	ncdma_stop(nc);
}

#include "pci.c"
#include "platform.c"

static int __init ncdma_init(void)
{
	int ret;

	ncdma_debugfs = debugfs_create_dir(NCDMA_NAME, NULL);
	ret = pci_register_driver(&ncdma_pci_driver);
	if (ret)
		goto remove;
	ret = platform_driver_register(&ncdma_platform_driver);
	if (ret)
		goto unregister;
	return 0;

unregister:
	pci_unregister_driver(&ncdma_pci_driver);
remove:
	debugfs_remove(ncdma_debugfs);
	return ret;
}
module_init(ncdma_init);

static void __exit ncdma_exit(void)
{
	platform_driver_unregister(&ncdma_platform_driver);
	pci_unregister_driver(&ncdma_pci_driver);
	debugfs_remove(ncdma_debugfs);
}
module_exit(ncdma_exit);

MODULE_DESCRIPTION("Reference driver for the ncdma non-coherent DMA engine");
MODULE_LICENSE("GPL");
