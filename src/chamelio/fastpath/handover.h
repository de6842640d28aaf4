/* Handover: a packet that arrives at one core and belongs to another goes there through a bounded ring.
 *
 * There is one ring for each ordered pair of cores, single producer, single consumer. A slot names a frame of the producer's
 * pool; the consumer copies the packet to a frame of its own and moves on, and what it has passed the producer takes back. So a
 * frame never changes pools, and the ring bounds what can be on its way.
 *
 *     producer  put, and at each round reclaim     frame is the producer's again once `cons` has passed its slot
 *     consumer  poll                               between prod and cons it may read slot and frame, never write
 */
#ifndef CHAM_HANDOVER_H
#define CHAM_HANDOVER_H

#include "core.h"

#define HANDOVER_SLOTS 512

enum handover_kind {
    HANDOVER_DELIVER, /* for an instance whose flow lives there */
    HANDOVER_SEND,    /* to a next hop, by a port that is polled there */
};

struct handover_slot {
    const struct cham_frame *frame;
    u32 kind;
    u32 network;
    u32 tenant;   /* who is charged for it; CHAM_NONE: the provider */
    u32 instance; /* SEND: whose packet it is; CHAM_NONE: the provider's */
    u32 port, next_hop; /* SEND */
};

struct cham_handover {
    u32 prod CHAM_ALIGNED(64);
    u32 reclaimed; /* the producer's: every frame before this is back in its pool */
    u32 cons CHAM_ALIGNED(64);
    u32 wait; /* the consumer's: it sleeps, and is to be woken */
    struct handover_slot slots[HANDOVER_SLOTS] CHAM_ALIGNED(64);
};

/* Take back what the consumer has copied. */
CHAM_INLINE void handover_reclaim(struct cham_core *core, struct cham_handover *h)
{
    for (u32 cons = untrusted_u32(&h->cons); h->reclaimed != cons; h->reclaimed++)
        frame_put(&core->pool, core->pool.frames + h->slots[h->reclaimed % HANDOVER_SLOTS].frame->index);
}

#endif
