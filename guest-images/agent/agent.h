/* SPDX-License-Identifier: GPL-2.0 */
/* What the agent's files share. */
#ifndef DMAVET_AGENT_H
#define DMAVET_AGENT_H

#include <linux/device.h>
#include <linux/dma-map-ops.h>
#include <linux/pci.h>

#include "dmavet_abi.h"

/* Platform devices under test are numbered by the host from 0 on. */
#define DMAVET_MAX_NODES	16

/* Not a requester: the host refuses it. */
#define DMAVET_NOBODY	0xffffffff

/* agent_port.c: slots and the doorbell */
int dmavet_port_open(struct pci_dev *pdev);
void dmavet_port_close(void);
bool dmavet_port_ready(void);
bool dmavet_is_agent(const struct device *dev);
u64 dmavet_required_mask(void);

struct dmavet_slot *dmavet_begin(unsigned long *flags);
void dmavet_end(unsigned long flags);
void *dmavet_payload(struct dmavet_slot *slot);
void dmavet_prepare(struct dmavet_slot *slot, u16 call, u32 requester, u64 site,
		    u32 length);
u32 dmavet_ring(struct dmavet_slot *slot);
void dmavet_drop(void);

u32 dmavet_send(u16 call, u32 requester, const void *payload, u32 length);
void dmavet_blind(u32 requester, const char *fmt, ...) __printf(2, 3);
void dmavet_panicking(const char *message);

/* agent_stack.c: where a call comes from */
u64 dmavet_site(struct dmavet_slot *slot);
u64 dmavet_site_of(struct dmavet_slot *slot, unsigned long caller, bool warning);
void dmavet_forget_sites(void);

/* agent_ops.c, agent_alloc.c, agent_call.c: the DMA API */
extern const struct dma_map_ops dmavet_ops;
bool dmavet_nothing_mapped(void);

/* agent_bind.c: whose DMA API */
u32 dmavet_requester(const struct device *dev);
u32 dmavet_node_named(const char *name);
int dmavet_bind_register(void);
void dmavet_bind_unregister(void);
void dmavet_report_early_drivers(void);

/* agent_module.c: where modules lie */
int dmavet_modules_register(void);
void dmavet_modules_unregister(void);
void dmavet_announce_driver(struct device *dev);

/* agent_rejected.c: what the kernel rejects before any operation is called */
void dmavet_rejected_register(void);
void dmavet_rejected_unregister(void);

/* agent_dev.c: /dev/dmavet and /dev/dmavet-out */
int dmavet_devices_register(void);
void dmavet_devices_unregister(void);

#endif /* DMAVET_AGENT_H */
