/* Output: what tenants send is checked, routed, switched inside the host or given to a port with its Ethernet header. */
#include "demux.h"
#include "net.h"

void cham_port_queue(struct cham_core *core, struct cham_port *port, struct cham_frame *f)
{
    port->txq[port->n_tx++] = f;
    core->counters->tx_packets++;
    if (port->n_tx == CHAM_BURST) {
        port->ops->tx(port, port->txq, port->n_tx, core->now);
        port->n_tx = 0;
    }
}

/* The most specific route to an address, or NULL. */
static const struct cham_route *route(const struct cham_core *core, u32 network, u32 address)
{
    for (const struct cham_route *r = core->routes, *end = r + core->n_routes; r < end; r++)
        if ((address & r->mask) == r->prefix && r->network == network)
            return r;
    return 0;
}

/* Complete a transport checksum that the handler left to us. */
static void complete_checksum(struct cham_core *core, struct cham_frame *f)
{
    charge(core, f->len / COST_CHECKSUM_BYTES);
    u8 *ip = frame_ip(f);
    u16 sum = (u16)~inet_sum(ip + f->csum_start, f->len - f->csum_start);
    cham_store16(ip + f->csum_at, sum ? sum : 0xffff); /* in UDP, 0 would say that there is none; elsewhere both are the same */
    f->flags = 0;
}

/* What must be true, and done, before a packet leaves by a port: CHAM_N_DROPS is "fine". */
CHAM_INLINE u32 prepare(struct cham_core *core, const struct cham_port *port, struct cham_frame *f)
{
    if (unlikely(port->status == CHAM_PORT_DOWN))
        return CHAM_DROP_PORT_DOWN;
    if (unlikely(f->len > port->mtu))
        return CHAM_DROP_TX_MTU;
    if (f->flags & CHAM_FRAME_CSUM_LATER) {
        if (likely(port->csum_offload))
            f->flags = CHAM_FRAME_CSUM_OK;
        else
            complete_checksum(core, f);
    }
    return CHAM_N_DROPS;
}

CHAM_INLINE void queue_for(struct cham_core *core, const struct cham_destination *d, struct cham_frame *f)
{
    __builtin_memcpy(frame_eth(f) - (sizeof d->eth - CHAM_ETH_LEN), d->eth, sizeof d->eth);
    cham_port_queue(core, d->port, f);
}

CHAM_INLINE struct cham_destination *destination_of(struct cham_core *core, u32 network, u32 to)
{
    return core->destinations + ((to + network) * 0x9e3779b1u >> 24) % CHAM_DESTINATIONS;
}

/* To a destination that is not known, or not any more. */
CHAM_RARE static void find_and_send(struct cham_core *core, u32 network, struct cham_instance *inst, struct cham_frame *f)
{
    u32 to = cham_load32(frame_ip(f) + IPV4_DST), tenant = inst ? inst->tenant : CHAM_NONE;
    if (unlikely(!ipv4_unicast(to)))
        return cham_drop(core, inst, tenant, f, CHAM_DROP_TX_DESTINATION);
    if (demux_address(core, network, to)) { /* a tenant of this host */
        core->counters->switched++;
        if (f->flags & CHAM_FRAME_CSUM_LATER)
            f->flags = CHAM_FRAME_CSUM_OK; /* it has not been where it could have been damaged */
        return cham_switch(core, network, f);
    }
    const struct cham_route *r = route(core, network, to);
    struct cham_port *port = r ? core->ports[r->port] : 0;
    if (unlikely(!port))
        return cham_drop(core, inst, tenant, f, CHAM_DROP_TX_NO_ROUTE);
    u32 reason = prepare(core, port, f), next_hop = r->gateway ? r->gateway : to;
    if (unlikely(reason != CHAM_N_DROPS))
        return cham_drop(core, inst, tenant, f, reason);
    if (unlikely(port->core != core->index))
        return cham_hand_send(core, port, inst, next_hop, f);
    const struct cham_neighbour *n = cham_neighbour(core, port, next_hop);
    if (unlikely(!n))
        return cham_neighbour_send(core, port, inst, next_hop, f);
    struct cham_destination *d = destination_of(core, network, to);
    *d = (struct cham_destination){.to = (u64)network << 32 | to, .version = core->version, .port = port};
    eth_header(d->eth + sizeof d->eth - CHAM_ETH_LEN, n->mac, port->mac, ETH_IPV4);
    queue_for(core, d, f);
}

CHAM_INLINE void send(struct cham_core *core, u32 network, struct cham_instance *inst, struct cham_frame *f)
{
    u32 to = cham_load32(frame_ip(f) + IPV4_DST);
    const struct cham_destination *d = destination_of(core, network, to);
    if (unlikely(d->to != ((u64)network << 32 | to) || d->version != core->version))
        return find_and_send(core, network, inst, f);
    u32 reason = prepare(core, d->port, f);
    if (unlikely(reason != CHAM_N_DROPS))
        return cham_drop(core, inst, inst ? inst->tenant : CHAM_NONE, f, reason);
    queue_for(core, d, f);
}

void cham_send(struct cham_core *core, u32 network, struct cham_instance *inst, struct cham_frame *f)
{
    send(core, network, inst, f);
}

/* What a tenant must not send: CHAM_N_DROPS is "fine". `header` is the length that the packet claims for its own. */
CHAM_INLINE u32 refuse_ipv4(const struct cham_instance *inst, const struct cham_frame *f, u32 header)
{
    const u8 *ip = f->bytes + CHAM_IP_OFFSET;
    if (unlikely(f->len < header || cham_be16(cham_load16(ip + IPV4_TOTAL)) != f->len))
        return CHAM_DROP_TX_HEADER;
    /* the sum is written after these checks: never into the header that they are about */
    if (f->flags & CHAM_FRAME_CSUM_LATER && (unlikely(f->csum_start < header) || unlikely(f->csum_at + 2u > f->len)))
        return CHAM_DROP_TX_HEADER;
    if (unlikely(cham_load32(ip + IPV4_SRC) != inst->address))
        return CHAM_DROP_TX_SOURCE;
    if (unlikely(ip[IPV4_PROTOCOL] != inst->protocol) && ip[IPV4_PROTOCOL] != IP_ICMP)
        return CHAM_DROP_TX_PROTOCOL;
    return CHAM_N_DROPS;
}

CHAM_INLINE u32 refuse(const struct cham_instance *inst, const struct cham_frame *f)
{
    const u8 *ip = f->bytes + CHAM_IP_OFFSET;
    if (likely(f->len >= IPV4_MIN && ip[0] == IPV4_PLAIN))
        return refuse_ipv4(inst, f, IPV4_MIN);
    if (f->len < IPV4_MIN || ip[0] >> 4 != 4 || ipv4_header(ip) < IPV4_MIN)
        return CHAM_DROP_TX_HEADER;
    return refuse_ipv4(inst, f, ipv4_header(ip));
}

void cham_output(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    u64 packets = 0, bytes = 0;
    charge(core, (u64)n * COST_TX_PACKET);
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        u32 reason = refuse(inst, f);
        if (unlikely(reason != CHAM_N_DROPS)) {
            cham_drop(core, inst, inst->tenant, f, reason);
            continue;
        }
        f->flags &= CHAM_FRAME_CSUM_LATER; /* whatever the port verified, the handler may have changed it */
        packets++;
        bytes += f->len;
        send(core, inst->network, inst, f);
    }
    inst->counters->tx_packets += packets;
    inst->counters->tx_bytes += bytes;
}
