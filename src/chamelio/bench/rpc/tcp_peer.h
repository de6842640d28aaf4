/* The far end of the driver's wire: clients that open connections and ask, one request at a time on each.
 *
 * Segments are whole: timestamps (RFC 7323), acknowledgement numbers, checksums unless the wire vouches for them. What the core sends is
 * checked byte by byte; anything unexpected ends the program.
 */
#ifndef TCP_PEER_H
#define TCP_PEER_H

#include "rig.h"

#define PEER_FLOWS_MAX 60000
#define PEER_PORT_LOW 1024

struct peer_flow {
    u32 snd_nxt, rcv_nxt, ts_recent;
    u32 number; /* of its last request; 0: the flow is not open */
};

extern struct peer_flow flows[PEER_FLOWS_MAX];
extern u64 peer_acks; /* segments without payload that came after the handshakes */

/* Plug the wire into the core. `offload`: ports vouch for transport checksums, in both directions. */
void peer_plug_in(u32 offload);
void peer_syn(u32 flow);
/* A request of setup.bytes bytes. */
void peer_ask(u32 flow);
/* Take what the core has sent, complete handshakes; how many answers there were. */
u32 peer_receive(void);
u64 peer_segments(void); /* on the wire so far, both directions, but for ARP */

#endif
