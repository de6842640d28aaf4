/* Input: a burst from a port is parsed, checked and demultiplexed to the bounded backlogs of instances. */
#include "demux.h"
#include "net.h"

/* Count a packet's end and give its frame back. The one place where packets end early. */
void cham_drop(struct cham_core *core, struct cham_instance *inst, u32 tenant, struct cham_frame *frame, u32 reason)
{
    if (inst)
        inst->counters->drops[reason]++;
    else if (tenant != CHAM_NONE)
        core->counters->tenants[tenant].drops[reason]++;
    else
        core->counters->drops[reason]++;
    frame_put(&core->pool, frame);
}

/* The header checks that every IPv4 packet passes, from a port or from a tenant of this host: CHAM_N_DROPS is "fine". */
static u32 check_ipv4(struct cham_frame *f)
{
    const u8 *ip = frame_ip(f);
    if (f->len < IPV4_MIN)
        return CHAM_DROP_SHORT_FRAME;
    if (ip[0] >> 4 != 4)
        return CHAM_DROP_IP_VERSION;
    u32 header = ipv4_header(ip), total = cham_be16(cham_load16(ip + IPV4_TOTAL));
    if (header < IPV4_MIN || total < header || total > f->len)
        return CHAM_DROP_IP_HEADER;
    if (ipv4_sum(ip, header) != 0xffff)
        return CHAM_DROP_IP_CHECKSUM;
    if (cham_load16(ip + IPV4_FRAGMENT) & cham_be16(0x3fff)) /* more fragments, or an offset */
        return CHAM_DROP_IP_FRAGMENT;
    f->len = (u16)total; /* link padding goes */
    return CHAM_N_DROPS;
}

/* To the backlog of whom it is for, on the core that owns its flow. The input's cycles are shared by what came from outside this
 * core; a switched packet was paid for by its sender's turn. */
void cham_deliver(struct cham_core *core, u32 network, struct cham_frame *f, enum cham_origin origin)
{
    u32 received = origin != CHAM_SWITCHED;
    const u8 *ip = frame_ip(f);
    u32 address = cham_load32(ip + IPV4_DST), source = cham_load32(ip + IPV4_SRC), protocol = ip[IPV4_PROTOCOL];
    u32 header = ipv4_header(ip), ports = 0, port = 0;
    if (f->len >= header + 4) {
        ports = cham_load32(ip + header);
        port = cham_be16((u16)(ports >> 16));
    }
    const struct cham_binding *b = demux_protocol(core, network, address, protocol, port);
    if (unlikely(!b)) {
        b = demux_address(core, network, address);
        if (!b)
            return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_IP_DESTINATION);
        core->tenants[b->tenant].burst_packets += received;
        if (protocol == IP_ICMP)
            cham_icmp(core, network, b, f);
        else
            cham_drop(core, 0, b->tenant, f, CHAM_DROP_NO_PROTOCOL);
        return;
    }
    struct cham_instance *inst = core->instances[b->instance];
    struct cham_tenant *tenant = core->tenants + b->tenant;
    tenant->burst_packets += received;
    if (unlikely(core->n_cores > 1) && origin != CHAM_HANDED_OVER) {
        u32 owner = demux_core(core, b, source, ports, port);
        if (owner != core->index)
            return cham_hand_delivery(core, owner, network, b, f);
    }
    if (unlikely(tenant->deficit < -core->max_debt))
        return cham_drop(core, inst, b->tenant, f, CHAM_DROP_DEBT);
    if (unlikely(inst->backlog_len >= CHAM_BACKLOG || inst->state == CHAM_INSTANCE_QUARANTINED))
        return cham_drop(core, inst, b->tenant, f, CHAM_DROP_BACKLOG_FULL);
    if (unlikely(tenant->frames >= tenant->frame_quota))
        return cham_drop(core, inst, b->tenant, f, CHAM_DROP_NO_FRAMES);
    tenant->frames++;
    f->tenant = b->tenant;
    f->hash = (u32)(cham_mix((u64)source << 32 | address, cham_mix(ports ^ core->secret[0], protocol ^ core->secret[1])) >> 16);
    inst->backlog[(inst->backlog_head + inst->backlog_len++) % CHAM_BACKLOG] = f->index;
}

void cham_switch(struct cham_core *core, u32 network, struct cham_frame *f)
{
    u32 reason = check_ipv4(f);
    if (unlikely(reason != CHAM_N_DROPS))
        return cham_drop(core, 0, CHAM_NONE, f, reason);
    cham_deliver(core, network, f, CHAM_SWITCHED);
}

static void input_ipv4(struct cham_core *core, struct cham_port *port, struct cham_frame *f)
{
    u32 reason = check_ipv4(f);
    if (unlikely(reason != CHAM_N_DROPS))
        return cham_drop(core, 0, CHAM_NONE, f, reason);
    u32 source = cham_load32(frame_ip(f) + IPV4_SRC);
    /* Our own addresses never come in from outside: those packets are switched, or spoofed. */
    if (unlikely(!ipv4_unicast(source) || demux_address(core, port->network, source)))
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_IP_SOURCE);
    cham_deliver(core, port->network, f, CHAM_RECEIVED);
}

void cham_input(struct cham_core *core, struct cham_port *port, struct cham_frame **frames, u32 n)
{
    for (u32 i = 0; i < n; i++) {
        if (i + 3 < n)
            __builtin_prefetch(frame_eth(frames[i + 3]));
        struct cham_frame *f = frames[i];
        const u8 *eth = frame_eth(f);
        u16 type = cham_load16(eth + 12);
        if (unlikely(!(eth[0] & 1) && __builtin_memcmp(eth, port->mac, 6)))
            cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_NOT_OUR_MAC);
        else if (likely(type == cham_be16(ETH_IPV4)))
            input_ipv4(core, port, f);
        else if (type == cham_be16(ETH_ARP))
            cham_arp(core, port, f);
        else if (type == cham_be16(ETH_VLAN) || type == cham_be16(ETH_QINQ))
            cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_VLAN);
        else
            cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_ETHERTYPE);
    }
    charge(core, (u64)n * COST_RX_PACKET);
}
