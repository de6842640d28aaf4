/* Neighbours: ARP for tenants' addresses, resolution of next hops, and the packets that wait for it.
 *
 * States: free -> incomplete (asking, packets parked) -> reachable -> stale (still used, asked again) -> free.
 * Bounded everywhere: entries in a table, packets parked per entry and per tenant, questions per entry.
 */
#include "demux.h"
#include "net.h"

#define SECOND 1000000000ull
#define RETRY_NS (SECOND / 2)
#define MAX_TRIES 4
#define REACHABLE_NS (60 * SECOND)
#define AGE_NS (SECOND / 10)
#define PARKED_PER_NEIGHBOUR 32
#define PARKED_PER_TENANT 64

static struct cham_neighbour *find(struct cham_core *core, u32 network, u32 address)
{
    u32 at = (u32)cham_mix(address ^ core->secret[0], network ^ core->secret[1]);
    for (u32 i = 0; i < 8; i++) {
        struct cham_neighbour *n = core->neighbours + (at + i) % CHAM_MAX_NEIGHBOURS;
        if (n->state != CHAM_NB_FREE && n->address == address && n->network == network)
            return n;
    }
    return 0;
}

/* A free place within reach of the address's hash, or the one that expires first of those with nothing parked. */
static struct cham_neighbour *claim(struct cham_core *core, u32 network, u32 address)
{
    u32 at = (u32)cham_mix(address ^ core->secret[0], network ^ core->secret[1]);
    struct cham_neighbour *best = 0;
    for (u32 i = 0; i < 8; i++) {
        struct cham_neighbour *n = core->neighbours + (at + i) % CHAM_MAX_NEIGHBOURS;
        if (n->state == CHAM_NB_FREE)
            return n;
        if (n->parked == CHAM_NONE && (!best || n->expires < best->expires))
            best = n;
    }
    return best;
}

/* A new entry, about which nothing is known yet; `source` is the address of ours that asks. NULL: there is no place. */
static struct cham_neighbour *enter(struct cham_core *core, const struct cham_port *port, u32 address, u32 source)
{
    struct cham_neighbour *n = claim(core, port->network, address);
    if (n && n->state != CHAM_NB_FREE)
        core->version++;
    if (n)
        *n = (struct cham_neighbour){.state = CHAM_NB_INCOMPLETE, .network = port->network, .address = address,
                                     .port = port->index, .source = source, .parked = CHAM_NONE};
    return n;
}

static void arp_write(u8 *arp, u32 op, const u8 *sender_mac, u32 sender, const u8 *target_mac, u32 target)
{
    static const u8 head[6] = {0, 1, 8, 0, 6, 4}; /* Ethernet, IPv4 */
    __builtin_memcpy(arp, head, 6);
    cham_store16(arp + ARP_OP, cham_be16((u16)op));
    __builtin_memcpy(arp + ARP_SENDER_MAC, sender_mac, 6);
    cham_store32(arp + ARP_SENDER_IP, sender);
    __builtin_memcpy(arp + ARP_TARGET_MAC, target_mac, 6);
    cham_store32(arp + ARP_TARGET_IP, target);
}

static void ask(struct cham_core *core, struct cham_neighbour *n)
{
    static const u8 everybody[6] = {255, 255, 255, 255, 255, 255}, nobody[6];
    struct cham_port *port = core->ports[n->port];
    n->tries++;
    n->expires = core->now + RETRY_NS;
    struct cham_frame *f = port ? frame_get(&core->pool) : 0;
    if (!f)
        return; /* asked again when the retry is due */
    arp_write(frame_ip(f), ARP_REQUEST, port->mac, n->source, nobody, n->address);
    f->len = ARP_BYTES;
    eth_header(frame_eth(f), n->state == CHAM_NB_STALE ? n->mac : everybody, port->mac, ETH_ARP);
    cham_port_queue(core, port, f);
}

static void unpark(struct cham_core *core, struct cham_neighbour *n, u32 resolved)
{
    struct cham_port *port = core->ports[n->port];
    while (n->parked != CHAM_NONE) {
        struct cham_frame *f = core->pool.frames + n->parked;
        n->parked = f->next;
        if (f->tenant != CHAM_NONE)
            core->tenants[f->tenant].parked--;
        if (resolved && port) {
            eth_header(frame_eth(f), n->mac, port->mac, ETH_IPV4);
            cham_port_queue(core, port, f);
        } else {
            cham_drop(core, 0, f->tenant, f, CHAM_DROP_NEIGHBOUR);
        }
    }
    n->n_parked = 0;
}

static void forget(struct cham_core *core, struct cham_neighbour *n)
{
    unpark(core, n, 0);
    n->state = CHAM_NB_FREE;
    core->version++;
}

static void learn(struct cham_core *core, struct cham_neighbour *n, const u8 *mac)
{
    core->version += __builtin_memcmp(n->mac, mac, 6) != 0;
    __builtin_memcpy(n->mac, mac, 6);
    n->state = CHAM_NB_REACHABLE;
    n->tries = 0;
    n->expires = core->now + REACHABLE_NS;
    unpark(core, n, 1);
}

void cham_arp(struct cham_core *core, struct cham_port *port, struct cham_frame *f)
{
    static const u8 head[6] = {0, 1, 8, 0, 6, 4};
    u8 *arp = frame_ip(f);
    if (f->len < ARP_BYTES)
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_SHORT_FRAME);
    u32 op = cham_be16(cham_load16(arp + ARP_OP));
    u32 sender = cham_load32(arp + ARP_SENDER_IP), target = cham_load32(arp + ARP_TARGET_IP);
    if (__builtin_memcmp(arp, head, 6) || (op != ARP_REQUEST && op != ARP_REPLY) || arp[ARP_SENDER_MAC] & 1)
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_ARP_MALFORMED);
    if (!demux_address(core, port->network, target) || demux_address(core, port->network, sender))
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_ARP_NOT_OURS);
    core->counters->arp_handled++;
    struct cham_neighbour *n = find(core, port->network, sender);
    if (!n && op == ARP_REQUEST && ipv4_unicast(sender))
        n = enter(core, port, sender, target); /* who asks for us will be spoken to soon (RFC 826) */
    if (n && n->port == port->index && (op == ARP_REQUEST || n->tries)) /* a reply counts only when we asked */
        learn(core, n, arp + ARP_SENDER_MAC);
    if (op == ARP_REPLY)
        return frame_put(&core->pool, f);
    u8 mac[6];
    __builtin_memcpy(mac, arp + ARP_SENDER_MAC, 6);
    arp_write(arp, ARP_REPLY, port->mac, target, mac, sender);
    f->len = ARP_BYTES;
    f->flags = 0;
    eth_header(frame_eth(f), mac, port->mac, ETH_ARP);
    cham_port_queue(core, port, f);
}

/* The neighbour that packets to a next hop can be sent to at once, or NULL. */
const struct cham_neighbour *cham_neighbour(struct cham_core *core, const struct cham_port *port, u32 next_hop)
{
    const struct cham_neighbour *n = find(core, port->network, next_hop);
    return likely(n && n->state != CHAM_NB_INCOMPLETE && n->port == port->index) ? n : 0;
}

void cham_neighbour_send(struct cham_core *core, struct cham_port *port, struct cham_instance *inst, u32 next_hop,
                         struct cham_frame *f)
{
    const struct cham_neighbour *known = cham_neighbour(core, port, next_hop);
    if (likely(known)) {
        eth_header(frame_eth(f), known->mac, port->mac, ETH_IPV4);
        return cham_port_queue(core, port, f);
    }
    struct cham_neighbour *n = find(core, port->network, next_hop);
    u32 tenant = inst ? inst->tenant : CHAM_NONE;
    if (n && n->port != port->index)
        forget(core, n), n = 0;
    if (!n) {
        n = enter(core, port, next_hop, cham_load32(frame_ip(f) + IPV4_SRC));
        if (!n)
            return cham_drop(core, inst, tenant, f, CHAM_DROP_NEIGHBOUR);
        ask(core, n);
    }
    if (n->n_parked >= PARKED_PER_NEIGHBOUR || (inst && core->tenants[tenant].parked >= PARKED_PER_TENANT))
        return cham_drop(core, inst, tenant, f, CHAM_DROP_PARKED_FULL);
    f->tenant = tenant;
    f->next = CHAM_NONE; /* behind the others: order is kept */
    u32 *link = &n->parked;
    while (*link != CHAM_NONE)
        link = &core->pool.frames[*link].next;
    *link = f->index;
    n->n_parked++;
    if (inst)
        core->tenants[tenant].parked++;
}

void cham_neighbours_age(struct cham_core *core)
{
    core->neighbours_due = core->now + AGE_NS;
    for (u32 i = 0; i < CHAM_MAX_NEIGHBOURS; i++) {
        struct cham_neighbour *n = core->neighbours + i;
        if (n->state == CHAM_NB_FREE || core->now < n->expires)
            continue;
        if (n->state == CHAM_NB_REACHABLE) {
            n->state = CHAM_NB_STALE; /* used on, for a while, as we ask it again */
            n->tries = 0;
        } else if (n->tries >= MAX_TRIES) {
            forget(core, n);
            continue;
        }
        ask(core, n);
    }
}

void cham_neighbours_forget_port(struct cham_core *core, u32 port)
{
    for (u32 i = 0; i < CHAM_MAX_NEIGHBOURS; i++)
        if (core->neighbours[i].state != CHAM_NB_FREE && core->neighbours[i].port == port)
            forget(core, core->neighbours + i);
}
