/* AF_XDP in copy mode: four rings shared with the kernel and one area of chunks (the UMEM) that both copy through.
 *
 * The chunks [0, XDP_RING) are for receiving: each lies in the fill ring, with the kernel, or in the receive ring, and goes
 * back to the fill ring as soon as its bytes are copied into a frame of the pool. The chunks [XDP_RING, 2 * XDP_RING) are
 * for sending: each is on the free stack or in flight (`busy`) until the completion ring returns it. So no ring can
 * overflow, and chunks are conserved: cham_xdp_check says whether they are.
 *
 * The kernel is believed as little as anybody: indices, addresses and lengths are snapshots, and a lie takes the port down.
 */
#ifndef CHAM_PORT_XDP_H
#define CHAM_PORT_XDP_H

#include "base.h"

#define XDP_RING 2048       /* entries of each ring */
#define XDP_CHUNK 2048      /* bytes of a chunk */
#define XDP_HEADROOM 256    /* of these the kernel leaves free in front of a received frame */
#define XDP_MTU_MAX 1778    /* longest IP packet that a chunk can receive */
#define XDP_KICKS 4         /* system calls of one flush, at most: the kernel sends a limited number of frames in each */
#define XDP_NEED_WAKEUP 1u
#define XDP_RETRY_NS 100000000ull /* after an error of the interface */

struct xdp_desc {
    u64 addr; /* offset into the UMEM */
    u32 len;
    u32 options;
};

struct xdp_ring {
    u32 *prod, *cons, *flags; /* shared with the kernel, which writes one of prod and cons */
    void *entries;            /* struct xdp_desc (receive, transmit) or u64 (fill, completion) */
    u32 ours;                 /* our own index: prod of fill and transmit, cons of receive and completion */
    u32 pad;
};

struct cham_xdp {
    u8 *umem;
    struct xdp_ring rx, tx, fill, completion;
    s32 fd;
    u32 link;    /* 1: the interface is up; written by the control thread only */
    u32 damaged; /* a lie was seen: out of use until opened again */
    u32 failed;  /* the last system call said that the interface is gone or down */
    u64 retry_at;
    u32 unsent;  /* frames in the transmit ring since the last kick that the kernel accepted */
    u32 n_free;  /* chunks on the stack `free` */
    u64 kicks, kick_errors;
    u32 free[XDP_RING]; /* numbers of chunks for sending */
    u8 busy[XDP_RING];  /* by chunk - XDP_RING: in flight */
};

struct cham_port;

/* 1: every chunk is where the accounts say. For the control plane, once a second, while the core does not run the port. */
u32 cham_xdp_check(const struct cham_port *port);

#endif
