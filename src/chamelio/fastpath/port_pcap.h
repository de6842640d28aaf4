/* A wrapper that records what passes: packets are copied into a byte ring, from which a thread of Python writes a file.
 *
 * One producer (the core), one consumer (the writer). The core never waits: a record that finds no room is counted as
 * lost. A record is a struct pcap_record and its bytes, padded to a multiple of 8; it may go round the ring's end.
 */
#ifndef CHAM_PORT_PCAP_H
#define CHAM_PORT_PCAP_H

#include "base.h"

enum pcap_direction { PCAP_INBOUND = 1, PCAP_OUTBOUND = 2 }; /* as in the flags of an enhanced packet block */

struct pcap_record {
    u32 captured; /* bytes that follow, without the padding */
    u32 original; /* length of the frame */
    u64 now;      /* engine time, ns */
    u32 direction;
    u32 reserved;
};
CHAM_ASSERT_SIZE(struct pcap_record, 24);

struct cham_pcap {
    u32 prod CHAM_ALIGNED(64); /* bytes ever written; the core only */
    u64 recorded, lost;
    u32 cons CHAM_ALIGNED(64); /* bytes ever taken; the writer only */
    u8 *ring CHAM_ALIGNED(64);
    u32 size;    /* bytes of the ring, a power of two of at least 4096 */
    u32 snaplen; /* bytes of a frame that are kept, at most */
};

#endif
