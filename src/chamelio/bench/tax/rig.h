/* One core in one process, from a set-up that export.py has written: for drivers that count what the core spends in its rounds.
 *
 * Linked with the provider's code and one unit, so that a simulator sees just that. All instances run unit 0; instance k is tenant
 * k's. Their memory is as slow paths have left it; rings begin empty.
 */
#ifndef TAX_RIG_H
#define TAX_RIG_H

#include "control.h"
#include "core.h"
#include "chamelio_context.h"

#define MAX_INSTANCES 2

struct ring_place {
    u32 at, stride, slots; /* in the region, of context 1 */
};

struct setup {
    u64 now; /* the clock that the memory was written by, ns */
    u64 cold[CHAM_HOOKS];
    u64 private_bytes, region_bytes, raw_rings, private_used; /* of an instance; where the raw rings lie; what the file holds */
    u32 n_maps, n_instances, ip_protocol, bytes;              /* bytes: of a request's payload */
    struct ring_place out, in;
    u32 rx, tx; /* buffers, in the region */
    u32 more[8]; /* what the driver of this protocol wants to know */
};

struct instance_setup { /* each followed by its private parts and its region */
    u64 secret[2], cookie_secret[2], random;
    u32 address, pad; /* packet byte order */
};

extern struct cham_core core;
extern struct setup setup;
extern u8 *regions[MAX_INSTANCES];

void die(const char *what);
void command(u32 op, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);
/* Read the set-up and build the core. */
void rig_build(const char *path);
/* A C application's context 1 of an instance, without an agent. */
void rig_context(struct cham_context *c, u32 instance);
/* One round; the cycles that it took. */
u64 measured_round(void);

#endif
