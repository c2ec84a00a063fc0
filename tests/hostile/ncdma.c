// SPDX-License-Identifier: GPL-2.0
/* The reference device misprogrammed; offsets are those of docs/ncdma.md. */
#include <linux/io.h>
#include <linux/string.h>

#include "hostile.h"

#define CTRL	0x00c
#define OWN	0xc0000000U	/* with IRQ */

static const unsigned int rings[] = { 0x100, 0x140, 0x180 };
static const u32 opcodes[] = { 0x01, 0x10, 0x20 };

static void ring(struct victim *v, unsigned int at, u64 base, u32 size)
{
	writel(base, v->regs + at);
	writel(base >> 32, v->regs + at + 0x04);
	writel(size, v->regs + at + 0x08);
	writel(1, v->regs + at + 0x14);
}

static void start(struct victim *v, u64 base, u32 size)
{
	unsigned int i;

	writel(2, v->regs + CTRL);
	writel(0xf, v->regs + 0x24);
	writel(5, v->regs + CTRL);
	for (i = 0; i < ARRAY_SIZE(rings); i++)
		ring(v, rings[i], base, size);
}

static void tails(struct victim *v, u32 tail)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rings); i++)
		writel(tail, v->regs + rings[i] + 0x10);
}

/* A full ring of the same descriptor, on each ring in turn. */
static void full(struct victim *v, u32 len, u64 src, u64 dst)
{
	unsigned int i, n;

	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		start(v, v->dma, 256);
		for (n = 0; n < 256; n++) {
			u32 *desc = (u32 *)(v->area + n * 128);

			desc[1] = len;
			*(u64 *)&desc[2] = src;
			*(u64 *)&desc[4] = dst;
			desc[6] = 0;
			desc[7] = 0;
			desc[0] = opcodes[i] | OWN;
		}
		writel(1, v->regs + 0x74);
		writel(255, v->regs + rings[i] + 0x10);
		writel(64, v->regs + 0x64);
		writel(16, v->regs + 0x68);
	}
}

static void wrong_size(struct victim *v, u64 size)
{
	start(v, v->dma, size);
	tails(v, 1);
}

static void wrong_base(struct victim *v, u64 base)
{
	start(v, base, 256);
	tails(v, 255);
}

static void misaligned(struct victim *v, u64 by)
{
	wrong_base(v, v->dma + by);
}

static void past_mapping(struct victim *v, u64 unused)
{
	wrong_base(v, v->dma + AREA_SIZE - 128);
}

static void wrong_tail(struct victim *v, u64 tail)
{
	start(v, v->dma, 8);
	tails(v, tail);
}

static void off(struct victim *v, u64 unused)
{
	u32 tail;

	writel(2, v->regs + CTRL);
	for (tail = 0; tail < 64; tail++)
		tails(v, tail);
}

static void garbage(struct victim *v, u64 byte)
{
	memset(v->area, byte, AREA_SIZE);
	start(v, v->dma, 256);
	tails(v, 255);
}

static void length(struct victim *v, u64 len)
{
	full(v, len, v->dma + 0x10000, v->dma + 0x20000);
}

static void unmapped(struct victim *v, u64 address)
{
	full(v, 4096, address, address);
}

static void over_rings(struct victim *v, u64 unused)
{
	full(v, 0x4000, v->dma + 0x40, v->dma);
}

static void status_block(struct victim *v, u64 address)
{
	writel(address, v->regs + 0x40);
	writel(address >> 32, v->regs + 0x44);
	full(v, 64, v->dma + 0x10000, v->dma + 0x20000);
}

static void many_frames(struct victim *v, u64 len)
{
	full(v, 0x10000, v->dma, v->dma + 0x20000);
	writel(len, v->regs + 0x64);
	writel(~0, v->regs + 0x68);
}

static void reset_in_flight(struct victim *v, u64 unused)
{
	unsigned int i;

	for (i = 0; i < 4; i++) {
		full(v, 64 + i, v->dma + 0x10000, v->dma + 0x20000);
		writel(2, v->regs + CTRL);
	}
}

static void moved(struct victim *v, u64 unused)
{
	unsigned int i;

	start(v, v->dma, 256);
	for (i = 0; i < 64; i++) {
		ring(v, rings[i % 3], v->dma + i * 128, 2 << i % 8);
		tails(v, 1);
		writel(i % 3 ? 5 : 2, v->regs + CTRL);
	}
}

static void interrupt_storm(struct victim *v, u64 unused)
{
	unsigned int i;

	full(v, 4, v->dma + 0x10000, v->dma + 0x20000);
	for (i = 0; i < 256; i++) {
		writel(i & 0xf, v->regs + 0x24);
		writel(i >> 2 & 0xf, v->regs + 0x20);
		writel(i & 5, v->regs + CTRL);
	}
	writel(2, v->regs + CTRL);
}

const struct attack ncdma_attacks[] = {
	{ "rings: size 0", wrong_size, 0 },
	{ "rings: size 3", wrong_size, 3 },
	{ "rings: size 2 to the 31st", wrong_size, 1U << 31 },
	{ "rings: not aligned", misaligned, 64 },
	{ "rings: at address 0", wrong_base, 0 },
	{ "rings: in memory nobody mapped", wrong_base, 0x100000 },
	{ "rings: at the end of the address space", wrong_base, ~127ULL },
	{ "rings: past the end of their mapping", past_mapping },
	{ "tails: beyond the ring", wrong_tail, 8 },
	{ "tails: ones", wrong_tail, ~0U },
	{ "tails: of rings that are off", off },
	{ "descriptors: ones", garbage, 0xff },
	{ "descriptors: zeros", garbage, 0 },
	{ "descriptors: length 0", length, 0 },
	{ "descriptors: length 4 GiB - 1", length, ~0U },
	{ "descriptors: length 1 MiB over 128 KiB", length, 0x100000 },
	{ "descriptors: memory nobody mapped", unmapped, 0x100000 },
	{ "descriptors: the end of the address space", unmapped, ~0ULL - 100 },
	{ "descriptors: buffers over the rings", over_rings },
	{ "status block: nobody mapped it", status_block, 0x100000 },
	{ "status block: the end of the address space", status_block, ~0ULL },
	{ "frames: 4 billion of 64 KiB", many_frames, 65536 },
	{ "frames: 4 billion of 4 GiB - 1", many_frames, ~0U },
	{ "reset in flight", reset_in_flight },
	{ "rings moved while they are full", moved },
	{ "interrupts in a storm", interrupt_storm },
};
const unsigned int ncdma_count = ARRAY_SIZE(ncdma_attacks);
