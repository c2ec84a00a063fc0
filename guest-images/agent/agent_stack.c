// SPDX-License-Identifier: GPL-2.0
/*
 * Call stacks as sites.
 *
 * A stack travels as a 64-bit hash. Before a hash is used for the first time the
 * stack behind it is announced with the kernel's own names for its addresses.
 * Which ones were announced is kept in a table without locks; a stack that finds
 * no place in it is announced every time.
 */
#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/stacktrace.h>
#include <linux/string.h>

#include "agent.h"

#define SEEN_BITS	13
#define SEEN_SIZE	(1u << SEEN_BITS)
#define SEEN_PROBES	16
/* A few of our own frames come on top. */
#define STACK_DEPTH	(DMAVET_MAX_FRAMES + 4)

static u64 seen[SEEN_SIZE];
static atomic_t generation = ATOMIC_INIT(1);

static bool seen_has(u64 hash)
{
	unsigned int i;

	for (i = 0; i < SEEN_PROBES; i++) {
		u64 entry = READ_ONCE(seen[(hash + i) % SEEN_SIZE]);

		if (entry == hash)
			return true;
		if (!entry)
			return false;
	}
	return false;
}

static void seen_add(u64 hash)
{
	unsigned int i;

	for (i = 0; i < SEEN_PROBES; i++) {
		u64 *entry = &seen[(hash + i) % SEEN_SIZE];

		if (!cmpxchg64(entry, 0, hash))
			return;
	}
}

/*
 * Addresses may mean something else from now on. The generation goes into every
 * hash, so a CPU that is on its way with an older one does no harm.
 */
void dmavet_forget_sites(void)
{
	atomic_inc(&generation);
	memset(seen, 0, sizeof(seen));
}

static u64 hash_stack(const unsigned long *entries, unsigned int count)
{
	u64 hash = atomic_read(&generation) * 0xff51afd7ed558ccdULL;
	unsigned int i;

	for (i = 0; i < count; i++) {
		hash = (hash ^ entries[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return hash ?: 1;
}

static void announce(struct dmavet_slot *slot, u64 hash,
		     const unsigned long *entries, unsigned int count)
{
	struct dmavet_frame *frame = dmavet_payload(slot);
	unsigned int i;

	memset(frame, 0, count * sizeof(*frame));
	for (i = 0; i < count; i++, frame++) {
		frame->address = entries[i];
		/* %pB: a return address after a call that is the last instruction */
		scnprintf(frame->symbol, sizeof(frame->symbol), "%pB",
			  (void *)entries[i]);
	}
	dmavet_prepare(slot, DMAVET_CALL_SITE, DMAVET_NOBODY, hash,
		       count * sizeof(*frame));
	if (dmavet_ring(slot) == DMAVET_STATUS_OK)
		seen_add(hash);
}

/* A warning may be an exception; who raised it is below its entry then. */
static bool is_warning(unsigned long entry)
{
	char name[32];

	scnprintf(name, sizeof(name), "%ps", (void *)entry);
	return !strcmp(name, "asm_exc_invalid_op");
}

/*
 * dmavet_site_of - the hash of the current call stack from @caller on
 *
 * Announces it through @slot, which must be this CPU's, when it is new. Frames
 * below the entry of an interrupt belong to whatever was interrupted and are cut.
 * Frames above the return address @caller are cut, too, if it is there: those of
 * a probe. 0 cuts our own. With @warning the stack is that of a warning.
 */
u64 dmavet_site_of(struct dmavet_slot *slot, unsigned long caller, bool warning)
{
	unsigned long entries[STACK_DEPTH];
	unsigned int all, count, i, own = 0;
	u64 hash;

	all = stack_trace_save(entries, STACK_DEPTH, 0);
	count = filter_irq_stacks(entries, all);
	if (warning && count < all && is_warning(entries[count - 1]))
		count += filter_irq_stacks(entries + count, all - count);
	while (own < count && within_module(entries[own], THIS_MODULE))
		own++;
	for (i = own; caller && i < count; i++) {
		if (entries[i] == caller) {
			own = i;
			break;
		}
	}
	count = min_t(unsigned int, count - own, DMAVET_MAX_FRAMES);
	if (!count)
		return 0;
	hash = hash_stack(entries + own, count);
	if (!seen_has(hash))
		announce(slot, hash, entries + own, count);
	return hash;
}

u64 dmavet_site(struct dmavet_slot *slot)
{
	return dmavet_site_of(slot, 0, false);
}
