// SPDX-License-Identifier: GPL-2.0
/* Virtio devices misprogrammed (virtio 1.2, sections 2 and 4.1). */
#include <linux/io.h>
#include <linux/string.h>

#include "hostile.h"

#define STATUS		0x14
#define QUEUE		0x16
#define SIZE		0x18
#define VECTOR		0x1a
#define ENABLE		0x1c
#define DESC		0x20
#define AVAIL		0x28
#define USED		0x30
#define NOTIFY		0x3000
#define ENTRIES		8
#define F_NEXT		1
#define F_WRITE		2
#define F_INDIRECT	4
#define BUFFERS		0x20000

struct desc {
	u64 address;
	u32 len;
	u16 flags, next;
};

static unsigned int queues(struct victim *v)
{
	return min_t(unsigned int, readw(v->regs + 0x12), 3);
}

static void set64(struct victim *v, unsigned int at, u64 value)
{
	writel(value, v->regs + at);
	writel(value >> 32, v->regs + at + 4);
}

static void begin(struct victim *v)
{
	unsigned int half;

	writeb(0, v->regs + STATUS);
	writeb(1, v->regs + STATUS);
	writeb(3, v->regs + STATUS);
	for (half = 0; half < 2; half++) {
		writel(half, v->regs + 0x00);
		writel(half, v->regs + 0x08);
		writel(readl(v->regs + 0x04), v->regs + 0x0c);
	}
	writeb(11, v->regs + STATUS);
}

static void set_up(struct victim *v, unsigned int queue, u16 size, u64 desc, u64 avail, u64 used)
{
	writew(queue, v->regs + QUEUE);
	writew(size, v->regs + SIZE);
	set64(v, DESC, desc);
	set64(v, AVAIL, avail);
	set64(v, USED, used);
	writew(1, v->regs + ENABLE);
}

static u64 rings(struct victim *v, unsigned int queue)
{
	return v->dma + queue * 0x8000;
}

static void kick(struct victim *v, unsigned int queue)
{
	writew(queue, v->regs + NOTIFY + 4 * queue);
}

static void kick_all(struct victim *v)
{
	unsigned int queue;

	for (queue = 0; queue < 4; queue++)
		kick(v, queue);
}

static void start_with(struct victim *v, u16 size)
{
	unsigned int queue;

	memset(v->area, 0, AREA_SIZE);
	begin(v);
	for (queue = 0; queue < queues(v); queue++)
		set_up(v, queue, size, rings(v, queue), rings(v, queue) + 0x2000,
		       rings(v, queue) + 0x4000);
	writeb(15, v->regs + STATUS);
}

static struct desc *table(struct victim *v, unsigned int queue)
{
	return (struct desc *)(v->area + queue * 0x8000);
}

static void offer(struct victim *v, unsigned int queue, u16 head, u16 index)
{
	u16 *avail = (u16 *)(v->area + queue * 0x8000 + 0x2000);
	unsigned int i;

	for (i = 0; i < ENTRIES; i++)
		avail[2 + i] = head;
	avail[1] = index;
	kick(v, queue);
}

/* The same two descriptors on every queue. */
static void chain(struct victim *v, struct desc first, struct desc second)
{
	unsigned int queue;

	start_with(v, ENTRIES);
	for (queue = 0; queue < queues(v); queue++) {
		table(v, queue)[0] = first;
		table(v, queue)[1] = second;
		offer(v, queue, 0, 1);
	}
	kick_all(v);
}

static void wrong_rings(struct victim *v, u64 desc, u64 avail, u64 used)
{
	unsigned int queue;

	begin(v);
	for (queue = 0; queue < queues(v); queue++)
		set_up(v, queue, ENTRIES, desc, avail, used);
	writeb(15, v->regs + STATUS);
	kick_all(v);
}

static void size(struct victim *v, u64 size)
{
	start_with(v, size);
	kick_all(v);
}

static void misaligned(struct victim *v, u64 by)
{
	wrong_rings(v, v->dma + by, v->dma + 0x2000 + by, v->dma + 0x4000 + by);
}

static void rings_at(struct victim *v, u64 address)
{
	wrong_rings(v, address & ~15ULL, address & ~1ULL, address & ~3ULL);
}

static void one_place(struct victim *v, u64 unused)
{
	unsigned int i;

	wrong_rings(v, v->dma, v->dma, v->dma);
	for (i = 0; i < 64; i++) {
		memset(v->area, i, 512);
		kick_all(v);
	}
}

static void absent(struct victim *v, u64 queue)
{
	unsigned int i;

	begin(v);
	set_up(v, queue, ENTRIES, rings(v, 0), rings(v, 0) + 0x2000, rings(v, 0) + 0x4000);
	writeb(15, v->regs + STATUS);
	for (i = 0; i < 0x100; i++)
		writew(~0, v->regs + NOTIFY + 4 * i);
}

static void early(struct victim *v, u64 status)
{
	writeb(0, v->regs + STATUS);
	writeb(status, v->regs + STATUS);
	kick_all(v);
}

static void features(struct victim *v, u64 bits)
{
	u32 select;

	writeb(0, v->regs + STATUS);
	writeb(3, v->regs + STATUS);
	for (select = 0; select < 4; select++) {
		writel(select, v->regs + 0x08);
		writel(bits, v->regs + 0x0c);
	}
	writeb(11, v->regs + STATUS);
	writeb(15, v->regs + STATUS);
	kick_all(v);
}

static void available(struct victim *v, u64 index)
{
	start_with(v, ENTRIES);
	offer(v, 0, 0, index);
	offer(v, 0, 0, 1);
}

static void head(struct victim *v, u64 head)
{
	start_with(v, ENTRIES);
	offer(v, 0, head, 1);
}

static void loop(struct victim *v, u64 next)
{
	chain(v, (struct desc) { v->dma + BUFFERS, 4, F_NEXT, next },
	      (struct desc) { v->dma + BUFFERS, 4, F_NEXT | F_WRITE, 0 });
}

static void backwards(struct victim *v, u64 unused)
{
	chain(v, (struct desc) { v->dma + BUFFERS, 4, F_NEXT | F_WRITE, 1 },
	      (struct desc) { v->dma + BUFFERS, 4, 0, 0 });
}

static void length(struct victim *v, u64 len)
{
	chain(v, (struct desc) { v->dma + BUFFERS, 16, F_NEXT, 1 },
	      (struct desc) { v->dma + BUFFERS, len, F_WRITE, 0 });
	chain(v, (struct desc) { v->dma + BUFFERS, len, 0, 0 }, (struct desc) {});
}

static void address(struct victim *v, u64 address)
{
	chain(v, (struct desc) { address, 0x1000, F_NEXT, 1 },
	      (struct desc) { address, 0x1000, F_WRITE, 0 });
}

static void over_rings(struct victim *v, u64 at)
{
	address(v, v->dma + at);
}

static void indirect(struct victim *v, u64 len)
{
	struct desc *nested = (struct desc *)(v->area + BUFFERS);

	chain(v, (struct desc) { v->dma + BUFFERS, 16, 0, 0 }, (struct desc) {});
	*nested = (struct desc) { v->dma + BUFFERS, 16, F_INDIRECT, 0 };
	table(v, 0)[0] = (struct desc) { v->dma + BUFFERS, len, F_INDIRECT, 0 };
	offer(v, 0, 0, 2);
}

static void indirect_at(struct victim *v, u64 address)
{
	chain(v, (struct desc) { address, 64, F_INDIRECT, 0 }, (struct desc) {});
}

static void request(struct victim *v, u64 kind)
{
	start_with(v, ENTRIES);
	*(u32 *)(v->area + BUFFERS) = kind;
	*(u64 *)(v->area + BUFFERS + 8) = kind << 32;
	table(v, 0)[0] = (struct desc) { v->dma + BUFFERS, 16, F_NEXT, 1 };
	table(v, 0)[1] = (struct desc) { v->dma + BUFFERS + 0x1000, 512, F_NEXT | F_WRITE, 2 };
	table(v, 0)[2] = (struct desc) { v->dma + BUFFERS + 0x2000, 1, F_WRITE, 0 };
	offer(v, 0, 0, 1);
}

static void reset_in_flight(struct victim *v, u64 unused)
{
	unsigned int i;

	for (i = 0; i < 16; i++) {
		start_with(v, ENTRIES);
		table(v, 0)[0] = (struct desc) { v->dma + BUFFERS, 4096, F_WRITE, 0 };
		offer(v, 0, 0, ENTRIES);
		writeb(0, v->regs + STATUS);
		kick_all(v);
	}
}

static void moved(struct victim *v, u64 unused)
{
	unsigned int i;

	start_with(v, ENTRIES);
	for (i = 0; i < 32; i++) {
		set_up(v, 0, 1 << i % 4, v->dma + i * 16, v->dma + 0x2000 + i * 2,
		       v->dma + 0x4000 + i * 4);
		kick(v, 0);
	}
}

static void vector(struct victim *v, u64 vector)
{
	start_with(v, ENTRIES);
	writew(vector, v->regs + 0x10);
	writew(0, v->regs + QUEUE);
	writew(vector, v->regs + VECTOR);
	table(v, 0)[0] = (struct desc) { v->dma + BUFFERS, 64, F_WRITE, 0 };
	offer(v, 0, 0, 1);
}

static void device_config(struct victim *v, u64 unused)
{
	unsigned int at;

	start_with(v, ENTRIES);
	for (at = 0x2000; at < 0x2080; at++) {
		writeq(~0ULL, v->regs + at);
		(void)readq(v->regs + at);
	}
}

const struct attack virtio_attacks[] = {
	{ "queues: size 0", size, 0 },
	{ "queues: size 7", size, 7 },
	{ "queues: size 16384", size, 0x4000 },
	{ "queues: size 65535", size, 0xffff },
	{ "rings: not aligned", misaligned, 1 },
	{ "rings: at address 0", rings_at, 0 },
	{ "rings: in memory nobody mapped", rings_at, 0x100000 },
	{ "rings: at the end of the address space", rings_at, ~0ULL },
	{ "rings: all at one place", one_place },
	{ "queues: number 3", absent, 3 },
	{ "queues: number 65535", absent, 0xffff },
	{ "status: notified after reset", early, 0 },
	{ "status: DRIVER_OK first", early, 4 },
	{ "status: every bit", early, 0xff },
	{ "features: all there are", features, ~0U },
	{ "features: none", features, 0 },
	{ "available index: 9 ahead in a ring of 8", available, 9 },
	{ "available index: 65535 ahead", available, 0xffff },
	{ "head: 8 in a table of 8", head, 8 },
	{ "head: 65535", head, 0xffff },
	{ "chain: a loop of one", loop, 0 },
	{ "chain: a loop of two", loop, 1 },
	{ "chain: a next behind the table", loop, 0xffff },
	{ "chain: readable behind writable", backwards },
	{ "chain: length 0", length, 0 },
	{ "chain: length 4 GiB - 1", length, ~0U },
	{ "buffer: address 0", address, 0 },
	{ "buffer: memory nobody mapped", address, 0x100000 },
	{ "buffer: the end of the address space", address, ~0ULL - 10 },
	{ "buffer: over the descriptors", over_rings, 0 },
	{ "buffer: over the available ring", over_rings, 0x2000 },
	{ "buffer: over the used ring", over_rings, 0x4000 },
	{ "table: a table in a table", indirect, 16 },
	{ "table: length 0", indirect, 0 },
	{ "table: a descriptor and a half", indirect, 24 },
	{ "table: 4 GiB - 1", indirect, ~0U },
	{ "table: at the end of the address space", indirect_at, ~15ULL },
	{ "table: memory nobody mapped", indirect_at, 0x100000 },
	{ "request: of kind 3", request, 3 },
	{ "request: of kind 11", request, 11 },
	{ "request: of kind 4 billion", request, ~0U },
	{ "reset in flight", reset_in_flight },
	{ "rings moved while they are live", moved },
	{ "vector: 127", vector, 127 },
	{ "vector: 65535", vector, 0xffff },
	{ "device configuration: every offset", device_config },
};
const unsigned int virtio_count = ARRAY_SIZE(virtio_attacks);
