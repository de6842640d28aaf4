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

void cham_send(struct cham_core *core, u32 network, struct cham_instance *inst, struct cham_frame *f)
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
    if (unlikely(port->status == CHAM_PORT_DOWN))
        return cham_drop(core, inst, tenant, f, CHAM_DROP_PORT_DOWN);
    if (unlikely(f->len > port->mtu))
        return cham_drop(core, inst, tenant, f, CHAM_DROP_TX_MTU);
    if (f->flags & CHAM_FRAME_CSUM_LATER) {
        if (port->csum_offload)
            f->flags = CHAM_FRAME_CSUM_OK;
        else
            complete_checksum(core, f);
    }
    f->port = (u8)port->index;
    u32 next_hop = r->gateway ? r->gateway : to;
    if (unlikely(port->core != core->index))
        return cham_hand_send(core, port, inst, next_hop, f);
    cham_neighbour_send(core, port, inst, next_hop, f);
}

/* What a tenant must not send: CHAM_N_DROPS is "fine". */
static u32 refuse(const struct cham_instance *inst, const struct cham_frame *f)
{
    const u8 *ip = f->bytes + CHAM_IP_OFFSET;
    if (f->len < IPV4_MIN || ip[0] >> 4 != 4 || ipv4_header(ip) < IPV4_MIN ||
        cham_be16(cham_load16(ip + IPV4_TOTAL)) != f->len || ipv4_header(ip) > f->len)
        return CHAM_DROP_TX_HEADER;
    /* the sum is written after these checks: never into the header that they are about */
    if (unlikely(f->flags & CHAM_FRAME_CSUM_LATER) && (f->csum_start < ipv4_header(ip) || f->csum_at + 2u > f->len))
        return CHAM_DROP_TX_HEADER;
    if (cham_load32(ip + IPV4_SRC) != inst->address)
        return CHAM_DROP_TX_SOURCE;
    if (ip[IPV4_PROTOCOL] != inst->protocol && ip[IPV4_PROTOCOL] != IP_ICMP)
        return CHAM_DROP_TX_PROTOCOL;
    return CHAM_N_DROPS;
}

void cham_output(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    charge(core, (u64)n * COST_TX_PACKET);
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        u32 reason = refuse(inst, f);
        if (unlikely(reason != CHAM_N_DROPS)) {
            cham_drop(core, inst, inst->tenant, f, reason);
            continue;
        }
        f->tenant = CHAM_NONE;
        f->flags &= CHAM_FRAME_CSUM_LATER; /* whatever the port verified, the handler may have changed it */
        inst->counters->tx_packets++;
        inst->counters->tx_bytes += f->len;
        cham_send(core, inst->network, inst, f);
    }
}
