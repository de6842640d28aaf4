/* The shared-memory wire: two single-producer rings of frame slots in one memfd, one per direction.
 *
 * End A transmits on ring 0 and receives on ring 1; end B the other way round. An end is an engine, a load generator
 * or a test. The other end is not trusted: indices and lengths are snapshots, and a lie takes the wire down.
 *
 *     struct wire_ring   at 0                       ring 0
 *     struct wire_ring   at sizeof(struct wire_ring)  ring 1
 */
#ifndef CHAM_PORT_WIRE_H
#define CHAM_PORT_WIRE_H

#include "base.h"

#define WIRE_SLOTS 1024
#define WIRE_SLOT_BYTES 2112
#define WIRE_FRAME_MAX (WIRE_SLOT_BYTES - 8)

struct wire_slot {
    u32 len;   /* bytes of the Ethernet frame */
    u32 flags; /* CHAM_FRAME_CSUM_OK: the sender vouches for the transport checksum (checksum offload) */
    u8 bytes[WIRE_FRAME_MAX];
};
CHAM_ASSERT_SIZE(struct wire_slot, WIRE_SLOT_BYTES);

struct wire_ring {
    u32 prod CHAM_ALIGNED(64); /* written by the producer only, as is */
    u32 rings;                 /* 1: it wakes a consumer that asks for it */
    u32 cons CHAM_ALIGNED(64); /* written by the consumer only, as is */
    u32 wait;                  /* 1: it sleeps, and is to be woken by its bell */
    struct wire_slot slots[WIRE_SLOTS] CHAM_ALIGNED(64);
};
CHAM_ASSERT_SIZE(struct wire_ring, 128 + WIRE_SLOTS * WIRE_SLOT_BYTES);

struct cham_wire { /* a port's state: the engine's own positions, which nobody else can write */
    struct wire_ring *out, *in;
    u32 out_prod, in_cons;
    u32 damaged;
    s32 bell; /* wakes the other end; -1: it has none. Written by the control thread */
};

#endif
