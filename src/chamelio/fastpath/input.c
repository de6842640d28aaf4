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

/* The checks of a header of so many bytes: CHAM_N_DROPS is "fine". */
CHAM_INLINE u32 check_header(struct cham_frame *f, u32 header)
{
    const u8 *ip = frame_ip(f);
    u32 total = cham_be16(cham_load16(ip + IPV4_TOTAL));
    if (unlikely(total < header || total > f->len))
        return CHAM_DROP_IP_HEADER;
    if (unlikely(header == IPV4_MIN ? !ipv4_plain_sum(ip) : inet_sum(ip, header) != 0xffff))
        return CHAM_DROP_IP_CHECKSUM;
    if (unlikely(cham_load16(ip + IPV4_FRAGMENT) & cham_be16(0x3fff))) /* more fragments, or an offset */
        return CHAM_DROP_IP_FRAGMENT;
    f->len = (u16)total; /* link padding goes */
    return CHAM_N_DROPS;
}

/* What every IPv4 packet passes, from a port or from a tenant of this host. */
static u32 check_ipv4(struct cham_frame *f)
{
    const u8 *ip = frame_ip(f);
    if (f->len < IPV4_MIN)
        return CHAM_DROP_SHORT_FRAME;
    if (ip[0] >> 4 != 4)
        return CHAM_DROP_IP_VERSION;
    u32 header = ipv4_header(ip);
    return header < IPV4_MIN ? CHAM_DROP_IP_HEADER : check_header(f, header);
}

/* A packet for no instance. */
CHAM_RARE static void deliver_elsewhere(struct cham_core *core, u32 network, struct cham_frame *f, enum cham_origin origin)
{
    const struct cham_binding *b = demux_address(core, network, cham_load32(frame_ip(f) + IPV4_DST));
    if (!b)
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_IP_DESTINATION);
    core->tenants[b->tenant].burst_packets += origin != CHAM_SWITCHED;
    if (frame_ip(f)[IPV4_PROTOCOL] == IP_ICMP)
        cham_icmp(core, network, b, f);
    else
        cham_drop(core, 0, b->tenant, f, CHAM_DROP_NO_PROTOCOL);
}

CHAM_INLINE void deliver(struct cham_core *core, u32 network, struct cham_frame *f, enum cham_origin origin, u32 header)
{
    const u8 *ip = frame_ip(f);
    u32 address = cham_load32(ip + IPV4_DST), source = cham_load32(ip + IPV4_SRC), protocol = ip[IPV4_PROTOCOL];
    u32 ports = likely(f->len >= header + 4) ? cham_load32(ip + header) : 0, port = cham_be16((u16)(ports >> 16));
    const struct cham_binding *b = demux_protocol(core, network, address, protocol, port);
    if (unlikely(!b))
        return deliver_elsewhere(core, network, f, origin);
    u32 owner = b->tenant;
    struct cham_instance *inst = core->instances[b->instance];
    struct cham_tenant *tenant = core->tenants + owner;
    tenant->burst_packets += origin != CHAM_SWITCHED;
    if (unlikely(core->n_cores > 1) && origin != CHAM_HANDED_OVER) {
        u32 to = demux_core(core, b, source, ports, port);
        if (to != core->index)
            return cham_hand_delivery(core, to, network, b, f);
    }
    if (cham_cfg_policy == CHAM_POLICY_CYCLES && unlikely(tenant->deficit + core->max_debt < 0))
        return cham_drop(core, inst, owner, f, CHAM_DROP_DEBT);
    u32 len = inst->backlog_len;
    if (unlikely(len >= CHAM_BACKLOG || inst->state == CHAM_INSTANCE_QUARANTINED))
        return cham_drop(core, inst, owner, f, CHAM_DROP_BACKLOG_FULL);
    u32 held = tenant->frames;
    if (unlikely(held >= tenant->frame_quota))
        return cham_drop(core, inst, owner, f, CHAM_DROP_NO_FRAMES);
    tenant->frames = held + 1;
    if (cham_cfg_policy == CHAM_POLICY_ARRIVAL)
        f->next = core->arrivals++;
    f->hash = (u32)(cham_mix(cham_load64(ip + IPV4_SRC), cham_mix(ports ^ core->secret[0], protocol ^ core->secret[1])) >> 16);
    f->received = core->now;
    inst->backlog[(inst->backlog_head + len) % CHAM_BACKLOG] = f->index;
    inst->backlog_len = len + 1;
}

/* To the backlog of whom it is for, on the core that owns its flow. The input's cycles are shared by what came from outside this
 * core; a switched packet was paid for by its sender's turn. */
void cham_deliver(struct cham_core *core, u32 network, struct cham_frame *f, enum cham_origin origin)
{
    deliver(core, network, f, origin, ipv4_header(frame_ip(f)));
}

void cham_switch(struct cham_core *core, u32 network, struct cham_frame *f)
{
    u32 reason = check_ipv4(f);
    if (unlikely(reason != CHAM_N_DROPS))
        return cham_drop(core, 0, CHAM_NONE, f, reason);
    cham_deliver(core, network, f, CHAM_SWITCHED);
}

/* A packet from outside that has passed all checks of its header. */
CHAM_INLINE void input_checked(struct cham_core *core, u32 network, struct cham_frame *f, u32 header)
{
    u32 source = cham_load32(frame_ip(f) + IPV4_SRC);
    /* Our own addresses never come in from outside: those packets are switched, or spoofed. */
    if (unlikely(!ipv4_unicast(source) || demux_address(core, network, source)))
        return cham_drop(core, 0, CHAM_NONE, f, CHAM_DROP_IP_SOURCE);
    deliver(core, network, f, CHAM_RECEIVED, header);
}

/* Whatever is not an IPv4 packet for our MAC, without options in its header. */
CHAM_RARE static void input_other(struct cham_core *core, struct cham_port *port, struct cham_frame *f)
{
    const u8 *eth = frame_eth(f);
    u32 type = cham_be16(cham_load16(eth + 12)), reason = CHAM_DROP_ETHERTYPE;
    if (!(eth[0] & 1) && __builtin_memcmp(eth, port->mac, 6)) {
        reason = CHAM_DROP_NOT_OUR_MAC;
    } else if (type == ETH_IPV4) {
        reason = check_ipv4(f);
        if (reason == CHAM_N_DROPS)
            return input_checked(core, port->network, f, ipv4_header(frame_ip(f)));
    } else if (type == ETH_ARP) {
        return cham_arp(core, port, f);
    } else if (type == ETH_VLAN || type == ETH_QINQ) {
        reason = CHAM_DROP_VLAN;
    }
    cham_drop(core, 0, CHAM_NONE, f, reason);
}

__attribute__((noinline)) /* the round has enough registers to keep */
void cham_input(struct cham_core *core, struct cham_port *port, struct cham_frame **frames, u32 n)
{
    u64 ours = mac_bits(port->mac);
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        const u8 *eth = frame_eth(f), *ip = frame_ip(f);
        if (unlikely(mac_bits(eth) != ours || cham_load16(eth + 12) != cham_be16(ETH_IPV4) || f->len < IPV4_MIN || ip[0] != IPV4_PLAIN)) {
            input_other(core, port, f);
            continue;
        }
        u32 reason = check_header(f, IPV4_MIN);
        if (likely(reason == CHAM_N_DROPS))
            input_checked(core, port->network, f, IPV4_MIN);
        else
            cham_drop(core, 0, CHAM_NONE, f, reason);
    }
    charge(core, (u64)n * COST_RX_PACKET);
}
