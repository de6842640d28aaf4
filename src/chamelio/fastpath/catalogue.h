/* The fates of packets and the events that are counted: declared once, here.
 *
 * Python reads names and texts from the tables that catalogue.c makes of these lists; enumerations, metrics,
 * `chamelio stats` and the documentation all come from them.
 */
#ifndef CHAM_CATALOGUE_H
#define CHAM_CATALOGUE_H

/* X(NAME, "name", "what happened, and whose doing it is") */
#define CHAM_DROPS(X)                                                                                             \
    X(SHORT_FRAME, "short_frame", "the frame ends before the headers it announces")                              \
    X(VLAN, "vlan", "a VLAN tag; networks are per port for now")                                                  \
    X(ETHERTYPE, "unknown_ethertype", "neither ARP nor IPv4")                                                     \
    X(NOT_OUR_MAC, "not_our_mac", "unicast to another station")                                                   \
    X(ARP_MALFORMED, "arp_malformed", "an ARP packet that is not Ethernet and IPv4, or has a bad source")         \
    X(ARP_NOT_OURS, "arp_not_ours", "ARP for an address that no tenant has")                                      \
    X(IP_VERSION, "bad_ip_version", "not IPv4")                                                                   \
    X(IP_HEADER, "bad_ip_header", "header length or total length contradict the frame")                          \
    X(IP_CHECKSUM, "bad_ip_checksum", "the IPv4 header checksum is wrong")                                        \
    X(IP_FRAGMENT, "ip_fragment", "a fragment; reassembly is not offered")                                        \
    X(IP_SOURCE, "bad_ip_source", "source is multicast, broadcast, loopback or an address of this host")          \
    X(IP_DESTINATION, "unknown_address", "no tenant has this address")                                            \
    X(NO_PROTOCOL, "no_protocol", "the tenant runs no protocol of this number (or port)")                         \
    X(ICMP, "icmp_ignored", "an ICMP message that nobody here wants, or a malformed one")                         \
    X(BACKLOG_FULL, "backlog_full", "the instance's backlog is full: it gets more than its share serves")         \
    X(DEBT, "debt", "the tenant is far in debt: dropped first and cheapest")                                      \
    X(NO_FRAMES, "no_frames", "the engine has no free frame, or the tenant holds its quota of them")              \
    X(HANDLER_ERROR, "handler_error", "the handler returned an error; see its own reason codes")                  \
    X(BAD_VERDICT, "bad_verdict", "the handler returned a verdict that does not exist")                           \
    X(NO_HANDLER, "no_handler", "the protocol has no handler for this hook")                                      \
    X(PUNT_FULL, "punt_full", "the slow path does not drain its punt ring")                                       \
    X(PUNT_DAMAGED, "punt_damaged", "the punt ring is damaged")                                                   \
    X(TX_HEADER, "tx_bad_header", "an outgoing packet whose IPv4 header contradicts its length")                  \
    X(TX_SOURCE, "tx_spoofed_source", "an outgoing packet whose source is not the instance's address")            \
    X(TX_PROTOCOL, "tx_protocol", "an outgoing packet of another IP protocol than the instance's or ICMP")        \
    X(TX_DESTINATION, "tx_destination", "an outgoing packet to multicast, broadcast or nowhere")                  \
    X(TX_MTU, "tx_mtu", "an outgoing packet longer than the port's MTU")                                          \
    X(TX_NO_ROUTE, "tx_no_route", "no route to the destination")                                                  \
    X(NEIGHBOUR, "neighbour_unresolved", "nobody answered ARP for the next hop")                                  \
    X(PARKED_FULL, "parked_full", "too many packets already wait for a next hop")                                 \
    X(PORT_FULL, "port_full", "the port's transmit ring is full")                                                 \
    X(PORT_DOWN, "port_down", "the port is down")                                                                 \
    X(XMIT_REFUSED, "xmit_refused", "a raw packet of the slow path with a bad length or reserved bits")           \
    X(HANDOVER_FULL, "handover_full", "too many packets are on their way to the core that owns the flow or polls the port") \
    X(INSTANCE_GONE, "instance_gone", "the instance was removed while packets of it were queued")

/* Events that are no packet's fate. */
#define CHAM_EVENTS(X)                                                                                            \
    X(RING_DAMAGED, "ring_damaged", "a ring index that cannot be true; the ring is out of use until re-attached") \
    X(BOUND_EXCEEDED, "bound_exceeded", "a turn took longer than its contract's cold bound")                      \
    X(WAKEUPS, "wakeups", "doorbells rung for a sleeping application or slow path")                               \
    X(RING_FULL, "ring_full", "a handler's push found the ring full")                                             \
    X(HASH_FULL, "hash_full", "an insertion found no place in a hash map")                                        \
    X(POOL_EMPTY, "pool_empty", "a pool had no buffer of the size that was asked for")                            \
    X(QUARANTINED, "quarantined", "an instance was put out of service because a ring is damaged")

#define CHAM_ENUM_DROP(NAME, name, text) CHAM_DROP_##NAME,
#define CHAM_ENUM_EVENT(NAME, name, text) CHAM_EVENT_##NAME,
enum cham_drop { CHAM_DROPS(CHAM_ENUM_DROP) CHAM_N_DROPS };
enum cham_event { CHAM_EVENTS(CHAM_ENUM_EVENT) CHAM_N_EVENTS };

#endif
