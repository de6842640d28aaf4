/* Frames: fixed buffers in engine memory that hold one packet each, and the pool they come from.
 *
 * Ownership: a frame belongs to exactly one place at a time: the pool, a port's receive burst, an instance's
 * backlog, a turn, a port's transmit queue or the parking place of a neighbour. free + held == total, always.
 * The stride is 2,112 bytes because powers of two alias in the first-level cache.
 */
#ifndef CHAM_FRAME_H
#define CHAM_FRAME_H

#include "base.h"

#define CHAM_IP_OFFSET 64   /* where the IP header begins in `bytes`; the Ethernet header lies right before it */
#define CHAM_ETH_LEN 14
#define CHAM_FRAME_BYTES 2048
#define CHAM_IP_MAX 1920    /* longest IP packet that a frame takes; every port's MTU is at most this */

#define CHAM_FRAME_CSUM_OK 1u    /* the port has verified the transport checksum, or the packet never left this host */
#define CHAM_FRAME_CSUM_LATER 2u /* the transport checksum is to be completed, see csum_start */

struct cham_frame {
    u32 index; /* its place in the pool; never changes */
    u16 len;   /* bytes of the packet, from the IP header on */
    u8 flags;
    u8 unused;
    u32 hash;   /* keyed flow hash, from demultiplexing */
    u32 tenant; /* while it waits for a next hop: who is charged for it, CHAM_NONE for the provider */
    u32 next;   /* link of whatever list holds it */
    u32 next_hop;
    u64 due;      /* fault injector: when it comes out */
    u64 received; /* ns, the core's time when it came to its instance's backlog */
    u16 csum_start, csum_at; /* with CSUM_LATER: sum from here on, into this field (bytes from the IP header) */
    u8 pad[20];
    u8 bytes[CHAM_FRAME_BYTES];
} CHAM_ALIGNED(64);
CHAM_ASSERT_SIZE(struct cham_frame, 2112);

struct cham_pool {
    struct cham_frame *frames;
    u32 *free; /* a stack of indices */
    u32 n_free;
    u32 total;
};

CHAM_INLINE u8 *frame_ip(struct cham_frame *f) { return f->bytes + CHAM_IP_OFFSET; }
CHAM_INLINE u8 *frame_eth(struct cham_frame *f) { return f->bytes + CHAM_IP_OFFSET - CHAM_ETH_LEN; }

/* A frame, or NULL when none is free. Its old bytes are still there: length 0 says that none of them is the packet's. */
CHAM_INLINE struct cham_frame *frame_get(struct cham_pool *pool)
{
    if (unlikely(!pool->n_free))
        return 0;
    struct cham_frame *f = pool->frames + pool->free[--pool->n_free];
    f->len = 0;
    f->flags = 0;
    return f;
}

CHAM_INLINE void frame_put(struct cham_pool *pool, struct cham_frame *f) { pool->free[pool->n_free++] = f->index; }

#endif
