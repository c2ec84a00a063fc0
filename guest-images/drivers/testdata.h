/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the self-test puts into buffers and how it compares: nothing here
 * touches the DMA API or the device.
 */
#ifndef NCDMA_TESTDATA_H
#define NCDMA_TESTDATA_H

#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/string.h>

#define NCDMA_BUF_SIZE		PAGE_SIZE
#define NCDMA_SG_PAGES		4
#define NCDMA_SG_BYTES		(NCDMA_SG_PAGES * PAGE_SIZE - PAGE_SIZE / 2)

/*
 * One page of data. The CPU keeps in @old what the buffer held before its last
 * change, so that a failed test can say whether the device used, or the CPU
 * read, the previous contents.
 */
struct ncdma_buf {
	u8 *cpu;
	u8 *old;
	dma_addr_t dma;
	unsigned int generation;
};

static inline int ncdma_buf_alloc(struct ncdma_buf *buf)
{
	buf->cpu = kzalloc(NCDMA_BUF_SIZE, GFP_KERNEL);
	buf->old = kzalloc(NCDMA_BUF_SIZE, GFP_KERNEL);
	return buf->cpu && buf->old ? 0 : -ENOMEM;
}

static inline void ncdma_buf_free(struct ncdma_buf *buf)
{
	kfree(buf->cpu);
	kfree(buf->old);
}

/*
 * Bytes that differ, each of them, from those of the generation before. Written
 * by words: each access to a page the device has a part of costs time.
 */
static inline void ncdma_pattern(u8 *data, size_t offset, size_t len, unsigned int generation)
{
	size_t end = offset + len, i;
	u8 word[8];

	while (offset < end) {
		for (i = 0; i < sizeof(word); i++)
			word[i] = offset + i + ((offset + i) >> 8) + generation * 37 + 1;
		if (end - offset >= sizeof(word)) {
			memcpy(data, word, sizeof(word));
			offset += sizeof(word);
			data += sizeof(word);
		} else {
			memcpy(data, word, end - offset);
			offset = end;
		}
	}
}

/* Write new contents to a part of a buffer the CPU owns. */
static inline void ncdma_buf_fill(struct ncdma_buf *buf, size_t offset, size_t len)
{
	memcpy(buf->old + offset, buf->cpu + offset, len);
	ncdma_pattern(buf->cpu + offset, offset, len, ++buf->generation);
}

/* 32-bit FNV-1a, the device's checksum. */
static inline u32 ncdma_fnv(const u8 *data, size_t len)
{
	u32 sum = 0x811c9dc5;

	while (len--)
		sum = (sum ^ *data++) * 0x01000193;
	return sum;
}

/* Describe in @why how @got differs from @want; @old may be NULL. */
static inline int ncdma_diff(char *why, size_t size, const u8 *got, const u8 *want,
			     const u8 *old, size_t len)
{
	size_t first = 0, wrong = 0, i;
	int shown;

	for (i = len; i-- > 0; ) {
		if (got[i] != want[i]) {
			first = i;
			wrong++;
		}
	}
	if (!wrong)
		return 0;
	shown = min_t(size_t, len - first, 8);
	scnprintf(why, size, "%zu of %zu bytes wrong, first at offset %zu: want %*ph got %*ph%s",
		  wrong, len, first, shown, want + first, shown, got + first,
		  old && !memcmp(got + first, old + first, shown) ?
		  " = the previous contents" : "");
	return -EIO;
}

/* A scatterlist of pages; @mapped entries of it while it is mapped. */
struct ncdma_sg {
	struct sg_table table;
	int mapped;
	enum dma_data_direction dir;
};

static inline void ncdma_sg_free(struct ncdma_sg *sg)
{
	struct scatterlist *entry;
	unsigned int i;

	for_each_sg(sg->table.sgl, entry, sg->table.orig_nents, i)
		if (sg_page(entry))
			__free_page(sg_page(entry));
	sg_free_table(&sg->table);
}

/* Half a page first (@half_first) or last, the others whole. */
static inline int ncdma_sg_alloc(struct ncdma_sg *sg, bool half_first,
				 enum dma_data_direction dir)
{
	struct scatterlist *entry;
	unsigned int i;

	sg->dir = dir;
	if (sg_alloc_table(&sg->table, NCDMA_SG_PAGES, GFP_KERNEL))
		return -ENOMEM;
	for_each_sg(sg->table.sgl, entry, sg->table.orig_nents, i) {
		bool half = i == (half_first ? 0 : NCDMA_SG_PAGES - 1);
		struct page *page = alloc_page(GFP_KERNEL | __GFP_ZERO);

		if (!page) {
			ncdma_sg_free(sg);
			return -ENOMEM;
		}
		sg_set_page(entry, page, half ? PAGE_SIZE / 2 : PAGE_SIZE,
			    half && half_first ? PAGE_SIZE / 2 : 0);
	}
	return 0;
}

#endif /* NCDMA_TESTDATA_H */
