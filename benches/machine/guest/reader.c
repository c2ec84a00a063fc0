// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * reader DISK RANDOM SEQUENTIAL - reads a disk past the page cache, one request at a time
 *
 * RANDOM reads of 4 KiB all over the disk, then SEQUENTIAL reads of 1 MiB from its beginning. The disk is the one the benchmark
 * makes: every 4 KiB begin with their number, little-endian, which is checked.
 *
 * Marks of equal length on the console, each followed by a pause, let the one who watches the machine count what happens between
 * them: "idle" to "rand" is a pause and nothing else, "rand" to "next" the same pause and the small reads, "next" to "done" the
 * large ones. The figures follow, with the number of requests the kernel made of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#define SMALL	4096UL
#define LARGE	(1UL << 20)

static int console;

static void say(const char *format, ...)
{
	char line[256];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (write(console, line, length) != length)
		exit(3);
}

static void fail(const char *what)
{
	say("@bench failed: %s: %m\n", what);
	exit(1);
}

static void mark(const char *name)
{
	say("@bench %s\n", name);
	/* The console goes on sending after the write; whoever counts does so now. */
	usleep(400000);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* Reads the kernel has completed on the disk. */
static unsigned long requests(const char *disk)
{
	const char *name = strrchr(disk, '/');
	unsigned long reads = 0;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", name ? name + 1 : disk);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%lu", &reads) != 1)
		fail(path);
	fclose(file);
	return reads;
}

static void fetch(int disk, unsigned char *buffer, size_t size, uint64_t offset)
{
	uint64_t number;
	size_t at;

	if (pread(disk, buffer, size, offset) != (ssize_t)size)
		fail("read");
	for (at = 0; at < size; at += SMALL) {
		memcpy(&number, buffer + at, sizeof(number));
		if (number != (offset + at) / SMALL) {
			say("@bench failed: block %" PRIu64 " holds %#" PRIx64 "\n", (offset + at) / SMALL, number);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	uint64_t size, seed = 0x9e3779b97f4a7c15ULL, start, random_ns, large_ns;
	unsigned long small, large, first, second, third, i;
	unsigned char *buffer;
	int disk;

	console = open("/dev/console", O_WRONLY | O_NOCTTY);
	if (console < 0 || argc != 4)
		return 3;
	small = strtoul(argv[2], NULL, 10);
	large = strtoul(argv[3], NULL, 10);
	disk = open(argv[1], O_RDONLY | O_DIRECT);
	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size))
		fail(argv[1]);
	if (posix_memalign((void **)&buffer, LARGE, LARGE))
		fail("memory");
	memset(buffer, 1, LARGE);

	mark("idle");
	mark("rand");
	first = requests(argv[1]);
	start = now();
	for (i = 0; i < small; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		fetch(disk, buffer, SMALL, seed % (size / SMALL) * SMALL);
	}
	random_ns = now() - start;
	second = requests(argv[1]);
	mark("next");
	start = now();
	for (i = 0; i < large; i++)
		fetch(disk, buffer, LARGE, i % (size / LARGE) * LARGE);
	large_ns = now() - start;
	third = requests(argv[1]);
	mark("done");
	say("@bench figures %lu %lu %" PRIu64 " %lu %lu %" PRIu64 "\n", small, second - first, random_ns, large, third - second,
	    large_ns);
	return 0;
}
