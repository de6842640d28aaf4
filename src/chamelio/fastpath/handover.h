/* Handover: a packet that arrives at one core and belongs to another goes there through a bounded ring.
 *
 * There is one ring for each ordered pair of cores, single producer, single consumer. A slot names a frame of the producer's
 * pool; the consumer copies the packet to a frame of its own and moves on, and what it has passed the producer takes back. So a
 * frame never changes pools, and the ring bounds what can be on its way. Of that a tenant has no more than it leaves free (dynamic
 * thresholds, Choudhury and Hahne, 1998): alone it fills half of the ring, and whoever else comes finds room.
 *
 *     producer  put, and at each round reclaim     frame is the producer's again once `cons` has passed its slot
 *     consumer  poll                               between prod and cons it may read slot and frame, never write
 */
#ifndef CHAM_HANDOVER_H
#define CHAM_HANDOVER_H

#include "core.h"

#define HANDOVER_SLOTS 1024

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
    u16 held[CHAM_MAX_TENANTS + 1]; /* the producer's: slots by tenant, those of the provider last */
    u32 cons CHAM_ALIGNED(64);
    u32 wait; /* the consumer's: it sleeps, and is to be woken */
    struct handover_slot slots[HANDOVER_SLOTS] CHAM_ALIGNED(64);
};

CHAM_INLINE u16 *handover_held(struct cham_handover *h, u32 tenant) { return h->held + cham_min(tenant, CHAM_MAX_TENANTS); }

/* Take back what the consumer has copied. */
CHAM_INLINE void handover_reclaim(struct cham_core *core, struct cham_handover *h)
{
    for (u32 cons = untrusted_u32(&h->cons); h->reclaimed != cons; h->reclaimed++) {
        const struct handover_slot *slot = h->slots + h->reclaimed % HANDOVER_SLOTS;
        frame_put(&core->pool, core->pool.frames + slot->frame->index);
        --*handover_held(h, slot->tenant);
    }
}

/* Whether a tenant may have one slot more. */
CHAM_INLINE u32 handover_room(struct cham_handover *h, u32 tenant)
{
    return *handover_held(h, tenant) < HANDOVER_SLOTS - (h->prod - h->reclaimed);
}

#endif
