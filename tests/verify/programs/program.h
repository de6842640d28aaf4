/* What the C programs of this folder share: many programs in one file, each in the section of its hook. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "chamelio.h"

#define PROGRAM_OF(hook, name)                                                                                          \
    __attribute__((section("chamelio/" #hook), used)) u64 name(struct chamelio_ctx *ctx __attribute__((unused)))
#define PROGRAM(name) PROGRAM_OF(rx, name)
#define NOINLINE static __attribute__((noinline))

struct flow_key {
    u32 address;
    u16 port;
    u8 kind; /* a byte of padding follows */
};

struct flow {
    u64 packets, bytes;
    u32 window[8];
    u8 name[16];
    u32 state, next;
};

struct counter {
    u64 value;
    u32 parts[4];
};

struct message {
    u32 id, length;
    u64 when;
};

CHAM_ARRAY(flows, 64, struct flow, 0);
CHAM_HASH(table, 64, struct flow_key, struct flow, 0);
CHAM_ARRAY(counters, 16, struct counter, CHAM_SHARED);
CHAM_RING_OUT(events, 64, struct message);
CHAM_RING_IN(requests, 64, struct message);
CHAM_BYTES(buffers, 64, 4096);
CHAM_TX_IDS(due, 64);
CHAM_TIMERS(deadlines, 64);

#endif
