/* A port is where frames come from and go to: a handful of function pointers over private state.
 *
 *     n = port->ops->rx(port, frames, max, now);    frames filled from the pool, len = bytes after the Ethernet header
 *     port->ops->tx(port, frames, n, now);          takes ownership of all n; what does not fit is dropped and counted
 *     port->ops->flush(port, now);                  one kick per batch
 *
 * A port copies what others could write into frames of the pool; after rx returns, nobody else can touch a frame.
 * Wrappers (fault injector, pcapng tap) are ports that hold an inner port. A receive function leaves the Ethernet
 * header at frame_eth(), the payload at frame_ip(), and sets `len` to the payload's length; frames shorter than an
 * Ethernet header never appear. No port blocks.
 */
#ifndef CHAM_PORT_H
#define CHAM_PORT_H

#include "catalogue.h"
#include "frame.h"

#define CHAM_BURST 64

enum cham_port_state { CHAM_PORT_UP, CHAM_PORT_DOWN };

struct cham_port;

struct cham_port_ops {
    u32 (*rx)(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now);
    void (*tx)(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now);
    void (*flush)(struct cham_port *port, u64 now);
    void (*ask)(struct cham_port *port, u32 ring); /* NULL, or: ask the other side to ring when it sends, or not to */
};

struct cham_port_counters {
    u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
    u64 rx_refused; /* frames too long, too short, or of a damaged ring: never became a frame of ours */
    u64 tx_full;    /* dropped because the transmit ring was full */
    u64 tx_down;    /* dropped because the port was down */
    u64 faults;     /* fault injector: packets touched */
};

struct cham_port {
    const struct cham_port_ops *ops;
    struct cham_pool *pool;
    void *state;             /* of the implementation */
    struct cham_port *inner; /* of a wrapper */
    u32 index;
    u32 network; /* the virtual network whose packets this port carries */
    u32 mtu;     /* longest IP packet */
    u32 status;  /* enum cham_port_state */
    u32 core;    /* which core polls it; the others hand over what they send by it */
    u8 mac[6];
    u8 csum_offload; /* 1: received transport checksums are verified by the port */
    u8 pad;
    struct cham_port_counters counters;
    u32 n_tx; /* frames collected in this round, sent at its end or when full */
    struct cham_frame *txq[CHAM_BURST];
};

/* A transmitted frame's Ethernet bytes: header and packet are contiguous. */
CHAM_INLINE u32 frame_wire_len(const struct cham_frame *f) { return f->len + CHAM_ETH_LEN; }

extern const struct cham_port_ops cham_wire_ops, cham_xdp_ops, cham_tap_ops, cham_fault_ops, cham_pcap_ops;

#endif
