/* The fast path as a normal process, under sanitizers, with everything that strangers write made hostile.
 *
 *     driver random SEED ROUNDS    frames, wire slots, ring contents and indices at random, one call after the other
 *     driver flip SEED ROUNDS      the same, while a second thread changes what the engine reads, as fast as it can
 *     driver guard SEED ROUNDS     each frame ends where the next byte cannot be touched
 *     driver cores SEED ROUNDS     as `random`, on two cores that take turns
 *
 * Two instances of one protocol: the first is attacked, the second is idle, in a network of its own, and not one byte of it
 * may change. Ends with 0 and a line of JSON when every frame is back and the accounts are right.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "control.h"
#include "core.h"
#include "handover.h"
#include "net.h"
#include "pool.h"
#include "port_wire.h"
#include "protocol.h"

#define FRAMES 512 /* of each core */
#define CORES 2
#define PAGE 4096
#define SECOND 1000000000ull

void cham_unit_init(struct cham_unit *unit);
void cham_core_init(struct cham_core *core, struct cham_frame *frames, u32 *free, u32 total);
void cham_instance_init(struct cham_instance *inst, u32 ring_start);
u32 cham_step(struct cham_core *core, u64 now);

static struct cham_core cores[CORES];
static struct cham_counters counters[CORES];
static struct cham_frame frames[CORES][FRAMES];
static u32 free_frames[CORES][FRAMES];
static struct cham_handover handovers[CORES];
static u32 n_cores = 1;
static struct wire_ring *rings; /* 0: the first core sends, 1: it receives */
static struct cham_wire wire;
static struct cham_port port;
static struct cham_unit unit, guarded;
static struct cham_instance *attacked[CORES], *idle[CORES];
static const u8 our_mac[6] = {2, 0, 0, 0, 0, 1}, peer_mac[6] = {2, 0, 0, 0, 0, 9};
static u64 now = SECOND, state, sent, refused, received; /* received: by a port, in rounds or not */
static u32 attachments;

static void die(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(1);
}

static u64 draw(u64 *s) /* splitmix64 */
{
    u64 z = *s += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static u32 below(u64 *s, u32 n) { return (u32)(draw(s) % n); }

/* Numbers at which checks go wrong. */
static u32 edge(u64 *s)
{
    static const u32 edges[] = {0,      1,          2,          13,         14,         19,         20,     63,    64,
                                65,     1499,       1500,       1501,       1920,       1921,       1934,   1935,  2016,
                                2017,   2048,       4095,       4096,       4097,       65535,      65536,  65537, 0x7fffffff,
                                1u << 31, 0x80000001, 0xffffffe0, 0xfffffffe, 0xffffffff};
    return below(s, 4) ? edges[below(s, sizeof edges / sizeof *edges)] : (u32)draw(s);
}

static u32 command(u32 op, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    u32 failed = 0;
    for (u32 k = 0; k < n_cores; k++) {
        cores[k].command = (struct cham_command){op, 0, {op == CHAM_OP_ADD_INSTANCE ? (u64)((struct cham_instance **)a)[k] : a, b, c, d, e, f, 0}};
        cham_command(cores + k);
        failed |= cores[k].command.status;
    }
    return failed;
}

/* ---- the port: received frames end exactly where their packet ends ---------------------------------------------------- */

static u32 exact_rx(struct cham_port *p, struct cham_frame **burst, u32 max, u64 at)
{
    u32 n = cham_wire_ops.rx(p, burst, max, at);
    for (u32 i = 0; i < n; i++) {
        POISON(burst[i]->bytes, CHAM_IP_OFFSET - CHAM_ETH_LEN);
        POISON(frame_ip(burst[i]) + burst[i]->len, CHAM_FRAME_BYTES - CHAM_IP_OFFSET - burst[i]->len);
    }
    return n;
}

/* A handler may lengthen its packet. */
static u32 open_rx(struct cham_core *c, struct cham_instance *inst, struct cham_frame **burst, u32 n)
{
    for (u32 i = 0; i < n; i++)
        UNPOISON(burst[i]->bytes, CHAM_FRAME_BYTES);
    return unit.rx(c, inst, burst, n);
}

static void plug_in(void)
{
    static struct cham_port_ops ops;
    ops = (struct cham_port_ops){exact_rx, cham_wire_ops.tx, cham_wire_ops.flush};
    wire = (struct cham_wire){.out = rings, .in = rings + 1, .out_prod = rings[0].cons, .in_cons = rings[1].prod};
    rings[0].prod = rings[0].cons;
    rings[1].cons = rings[1].prod;
    port = (struct cham_port){.ops = &ops, .pool = &cores->pool, .state = &wire, .mtu = 1500};
    memcpy(port.mac, our_mac, 6);
    if (command(CHAM_OP_ADD_PORT, 0, (u64)&port, 0, 0, 0, 0))
        die("no port");
}

/* What a handler is given lies where nobody else can write: the entry is a copy, the packet a frame. */
void check_turn(const struct cham_turn *turn)
{
    const u8 *entry = turn->ctx.entry, *data = turn->ctx.data;
    if (entry && (entry < turn->inst->entry || (u8 *)turn->ctx.entry_end > turn->inst->entry + CHAM_ENTRY_MAX))
        die("a handler was given an entry that others can write");
    const struct cham_frame *ours = frames[turn->core->index];
    if (data && (data < (const u8 *)ours || (u8 *)turn->ctx.data_end > (const u8 *)(ours + FRAMES)))
        die("a handler was given a packet that is no frame");
}

/* ---- set-up ------------------------------------------------------------------------------------------------------------ */

/* An instance as one core sees it. */
static struct cham_instance *memory(u32 index, u32 ring_start)
{
    u64 size = PRIVATE_BYTES + (REGION_BYTES + PAGE - 1) / PAGE * PAGE;
    u8 *base = mmap(0, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + PRIVATE_BYTES - PAGE, PAGE, PROT_NONE) || mprotect(base + size, PAGE, PROT_NONE))
        die("no memory");
    struct cham_instance *inst = (void *)base;
    inst->index = index;
    inst->tenant = index;
    inst->network = index;
    inst->address = ADDRESS;
    inst->protocol = IP_PROTOCOL;
    inst->maps = protocol_maps;
    inst->n_maps = N_MAPS;
    inst->raw_rings = PRIVATE_BYTES + RAW_RINGS;
    cham_instance_init(inst, ring_start);
    return inst;
}

static void instance(struct cham_instance **inst, u32 index, u32 ring_start)
{
    for (u32 k = 0; k < n_cores; k++)
        inst[k] = memory(index, ring_start);
    if (command(CHAM_OP_ADD_TENANT, index, 1, FRAMES / 2, 0, 0, 0) || command(CHAM_OP_BIND, index, ADDRESS, index, CHAM_NONE, 0, 65535) ||
        command(CHAM_OP_ADD_INSTANCE, (u64)inst, 0, 0, 0, 0, 0) || command(CHAM_OP_BIND, index, ADDRESS, index, index, IP_PROTOCOL, 65535))
        die("no instance");
    for (u32 c = 0; c < CONTEXTS; c++)
        if (command(CHAM_OP_ATTACH, index, c, ring_start, 0, 0, 0))
            die("no context");
}

static void set_up(u32 ring_start)
{
    rings = mmap(0, 2 * sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (u32 k = 0; k < n_cores; k++) {
        struct cham_core *core = cores + k;
        core->counters = counters + k;
        core->index = k;
        core->n_cores = n_cores;
        core->quantum = 1 << 20;
        core->max_debt = 1 << 22;
        core->ns_per_cycle = 1ull << 31;
        cham_core_init(core, frames[k], free_frames[k], FRAMES);
        for (u32 i = 0; i < FRAMES; i++)
            POISON(frames[k][i].bytes, CHAM_FRAME_BYTES);
    }
    if (n_cores > 1)
        for (u32 k = 0; k < CORES; k++)
            cores[k].to[1 - k] = cores[1 - k].from[k] = handovers + k;
    cham_unit_init(&unit);
    guarded = unit;
    guarded.rx = open_rx;
    command(CHAM_OP_SET_UNIT, 0, (u64)&guarded, 0, 0, 0, 0);
    instance(attacked, 0, ring_start);
    instance(idle, 1, ring_start);
    plug_in();
    if (command(CHAM_OP_ADD_ROUTE, 0, 0, 0, 0, 0, 0))
        die("no route");
}

/* ---- what comes in by the wire ------------------------------------------------------------------------------------------ */

static void checksum(u8 *ip, u32 room)
{
    u32 header = ipv4_header(ip);
    if (header < IPV4_MIN || header > room)
        return;
    cham_store16(ip + IPV4_CHECKSUM, 0);
    cham_store16(ip + IPV4_CHECKSUM, (u16)~inet_sum(ip, header));
}

static u32 ipv4(u64 *s, u8 *ip, u32 protocol, u32 payload)
{
    u32 header = below(s, 3) ? IPV4_MIN : IPV4_MIN + 4 * below(s, 11); /* options: zeros, or noise with lengths of 0 */
    memset(ip, 0, header);
    ip[0] = (u8)(0x40 | header / 4);
    cham_store16(ip + IPV4_TOTAL, cham_be16((u16)(header + payload)));
    ip[IPV4_TTL] = 64;
    ip[IPV4_PROTOCOL] = (u8)protocol;
    cham_store32(ip + IPV4_SRC, PEER);
    cham_store32(ip + IPV4_DST, ADDRESS);
    for (u32 i = IPV4_MIN; i < header; i++)
        ip[i] = (u8)below(s, 256);
    for (u32 i = 0; i < payload; i++)
        ip[header + i] = (u8)draw(s);
    checksum(ip, header);
    return header;
}

/* A frame from its Ethernet header on, sensible at first and then spoilt; returns its length. */
static u32 make_frame(u64 *s, u8 *eth)
{
    u8 *ip = eth + CHAM_ETH_LEN;
    u32 len = below(s, 2) ? below(s, 64) : below(s, 1400), type = ETH_IPV4, header;
    memcpy(eth, our_mac, 6);
    memcpy(eth + 6, peer_mac, 6);
    switch (below(s, 8)) {
    case 0:
        type = ETH_ARP;
        memcpy(ip, "\0\1\10\0\6\4\0", 8);
        ip[ARP_OP + 1] = (u8)(1 + below(s, 2));
        memcpy(ip + ARP_SENDER_MAC, peer_mac, 6);
        cham_store32(ip + ARP_SENDER_IP, PEER);
        cham_store32(ip + ARP_TARGET_IP, ADDRESS);
        len = ARP_BYTES + below(s, 20);
        break;
    case 1: { /* ICMP: echo, or an error that quotes a packet of ours */
        len += ICMP_MIN;
        header = ipv4(s, ip, IP_ICMP, len);
        u8 *icmp = ip + header;
        icmp[0] = below(s, 2) ? ICMP_ECHO : (u8)(3 + below(s, 10));
        icmp[1] = 0;
        if (icmp[0] != ICMP_ECHO && len >= ICMP_MIN + IPV4_MIN + 4) {
            icmp[ICMP_MIN] = (u8)(0x40 | (5 + below(s, 11)));
            icmp[ICMP_MIN + IPV4_PROTOCOL] = IP_PROTOCOL;
            cham_store32(icmp + ICMP_MIN + IPV4_SRC, ADDRESS);
        }
        cham_store16(icmp + 2, 0);
        cham_store16(icmp + 2, (u16)~inet_sum(icmp, len));
        len += header;
        break;
    }
    default: { /* a datagram whose first byte tells the handler what to do */
        static const char orders[] = RX_ORDERS;
        len += 16;
        header = ipv4(s, ip, IP_PROTOCOL, len);
        u8 *udp = ip + header;
        udp[0] = udp[2] = 0;
        udp[1] = (u8)below(s, 64); /* flows of both cores */
        udp[3] = 7;
        cham_store16(udp + 4, cham_be16((u16)len));
        cham_store16(udp + 6, 0);
        udp[8] = (u8)orders[below(s, sizeof orders - 1)];
        cham_store32(udp + 12, below(s, 2) ? below(s, 32) : edge(s));
        len += header;
    }
    }
    for (u32 i = below(s, 3) ? 0 : 1 + below(s, 3); i; i--) /* spoil something */
        ip[below(s, 2) ? below(s, 28) : below(s, len)] = (u8)draw(s);
    if (type == ETH_IPV4 && below(s, 2))
        checksum(ip, len);
    if (!below(s, 8))
        len = below(s, len + 1); /* cut short */
    else if (!below(s, 4))
        len += below(s, 40); /* padding */
    if (!below(s, 16))
        type = below(s, 2) ? ETH_VLAN : (u32)draw(s);
    cham_store16(eth + 12, cham_be16((u16)type));
    return CHAM_ETH_LEN + len;
}

static void peer_sends(u64 *s)
{
    struct wire_slot *slot = rings[1].slots + rings[1].prod % WIRE_SLOTS;
    slot->len = make_frame(s, slot->bytes);
    slot->flags = (u32)draw(s);
    if (!below(s, 64))
        slot->len = edge(s);
    publish_u32(&rings[1].prod, rings[1].prod + 1);
    sent++;
}

/* ---- what the tenant writes ------------------------------------------------------------------------------------------------ */

static u32 aimed; /* at which core's part of the region: values and rings */

static u8 *region(u64 at) { return (u8 *)attacked[aimed] + PRIVATE_BYTES + at; }

static void poke(u64 at, u32 v) { __atomic_store_n((u32 *)region(at), v, __ATOMIC_RELAXED); }

/* A raw packet of the slow path, a ring entry, an index, or noise anywhere. */
static void tenant_writes(u64 *s)
{
    static const u64 punt = RAW_RINGS, xmit = RAW_RINGS + CHAM_RAW_RING_BYTES;
    static const char orders[] = RING_ORDERS;
    u32 what = below(s, 64);
    aimed = below(s, n_cores);
    if (what == 0) {
        poke((below(s, 2) ? xmit : punt) + (below(s, 2) ? 64 : 0), *(u32 *)region(xmit) + edge(s));
    } else if (what == 1) {
        poke(below(s, REGION_BYTES / 4) * 4u, edge(s));
    } else if (what < 12) {
        u32 prod = *(u32 *)region(xmit);
        struct cham_raw *raw = (struct cham_raw *)(region(xmit) + 128) + prod % CHAM_RAW_SLOTS;
        u32 payload = below(s, 1500), header = ipv4(s, raw->bytes, below(s, 8) ? IP_PROTOCOL : IP_ICMP, payload);
        cham_store32(raw->bytes + IPV4_SRC, below(s, 4) ? ADDRESS : PEER);
        cham_store32(raw->bytes + IPV4_DST, below(s, 2) ? PEER : edge(s));
        raw->len = below(s, 2) ? header + payload : edge(s);
        raw->flags = below(s, 8) ? 0 : edge(s);
        raw->now = 0;
        raw->hash = 0;
        memset(raw->reserved, 0, sizeof raw->reserved);
        poke(xmit, prod + 1);
    } else {
        const struct cham_map *m = protocol_maps + below(s, N_MAPS);
        if (m->kind != CHAM_MAP_RING_IN && m->kind != CHAM_MAP_RING_OUT)
            return;
        u64 ring = m->values - PRIVATE_BYTES + (u64)below(s, CONTEXTS) * m->context_stride;
        u32 *index = (u32 *)region(ring + (m->kind == CHAM_MAP_RING_IN ? 0 : 64)), moved = 1;
        if (m->kind == CHAM_MAP_RING_IN) {
            u64 entry = ring + 128 + (u64)(*index & (m->max_entries - 1)) * m->stride;
            poke(entry, below(s, 8) ? (u8)orders[below(s, sizeof orders - 1)] : draw(s));
            for (u32 i = 4; i + 4 <= m->value_size; i += 4) {
                u32 sort = below(s, 8);
                poke(entry + i, sort == 0 ? edge(s) : sort == 1 ? below(s, 1500) : sort < 4 ? below(s, 64) : 0);
            }
        } else {
            moved = below(s, 64); /* drained, as far as that goes */
        }
        poke((u64)((u8 *)index - region(0)), *index + (below(s, 400) ? moved : edge(s)));
    }
}

static void *flipper(void *stop)
{
    u64 s = 77;
    u64 at = 0;
    for (u64 i = 0; !__atomic_load_n((int *)stop, __ATOMIC_RELAXED); i++) {
        u64 slot = RAW_RINGS + CHAM_RAW_RING_BYTES + 128 + below(&s, CHAM_RAW_SLOTS) * sizeof(struct cham_raw);
        if (i % 16 == 0)
            at = below(&s, REGION_BYTES / 4) * 4u;
        poke(at, edge(&s));                     /* whatever this is */
        poke(slot, i & 1 ? 60 : 0xffffffff);    /* the length of a raw packet */
        rings[1].slots[i % WIRE_SLOTS].len = i & 2 ? 60 : edge(&s);
        const struct cham_map *m = protocol_maps + i % N_MAPS;
        if (m->kind == CHAM_MAP_RING_IN) {
            u64 ring = m->values - PRIVATE_BYTES + (i / N_MAPS % CONTEXTS) * m->context_stride;
            u64 entry = ring + 128 + below(&s, m->max_entries) * m->stride;
            for (u32 k = 0; k + 4 <= m->value_size; k += 4)
                poke(entry + k, i & 1 ? 4 : edge(&s));
        }
    }
    return 0;
}

/* The peer takes what has come: nothing leaves in another's name. */
static void peer_receives(void)
{
    for (u32 i = rings[0].cons, prod = rings[0].prod; prod - i <= WIRE_SLOTS && i != prod; i++) {
        const u8 *eth = rings[0].slots[i % WIRE_SLOTS].bytes;
        if (cham_load16(eth + 12) == cham_be16(ETH_IPV4) && cham_load32(eth + CHAM_ETH_LEN + IPV4_SRC) != ADDRESS)
            die("a packet has left with another's source address");
    }
    publish_u32(&rings[0].cons, rings[0].prod);
}

/* A tenant whose ring is damaged attaches again; a wire that is down is opened again. */
static void recover(u64 *s)
{
    u32 start = below(s, 2) ? 0 : 0xfffffffd;
    u32 quarantined = 0;
    for (u32 k = 0; k < n_cores; k++)
        quarantined |= attacked[k]->state != CHAM_INSTANCE_ACTIVE;
    if (quarantined && !below(s, 4)) {
        for (u32 c = 0; c < CONTEXTS; c++)
            if (command(CHAM_OP_ATTACH, 0, c, start, 0, 0, 0))
                die("cannot attach");
        attachments++;
    }
    if (port.status == CHAM_PORT_DOWN) {
        refused += port.counters.rx_refused;
        if (command(CHAM_OP_REMOVE_PORT, 0, 0, 0, 0, 0, 0))
            die("cannot remove the port");
        plug_in();
    }
}

static void attack(u64 rounds)
{
    u64 s = state;
    for (u64 i = 0; i < rounds; i++) {
        for (u32 n = below(&s, 40); n; n--)
            peer_sends(&s);
        for (u32 n = below(&s, 20); n; n--)
            tenant_writes(&s);
        if (!below(&s, 500)) /* an index of the wire that cannot be true */
            publish_u32(below(&s, 2) ? &rings[1].prod : &rings[0].cons, edge(&s));
        now += below(&s, 300) ? below(&s, 20000) : below(&s, 4) ? 10000000ull : 9 * SECOND;
        for (u32 k = 0; k < n_cores; k++)
            if (n_cores == 1 || below(&s, 4)) /* sometimes one of them is held up */
                cham_step(cores + k, now);
        if (below(&s, 8))
            peer_receives();
        recover(&s);
    }
}

/* ---- frames at the end of a page ----------------------------------------------------------------------------------------- */

static void guard(u64 rounds)
{
    u64 s = state;
    u8 *pages = mmap(0, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || mprotect(pages + 2 * PAGE, PAGE, PROT_NONE))
        die("no memory");
    for (u64 i = 0; i < rounds; i++) {
        struct cham_core *core = cores;
        struct cham_frame *f = frame_get(&core->pool);
        u8 made[2048];
        u32 len = make_frame(&s, made) - CHAM_ETH_LEN;
        u64 head = (u64)(f->bytes - (u8 *)f) + CHAM_IP_OFFSET;
        struct cham_frame *at_end = (void *)(pages + 2 * PAGE - head - len);
        memcpy(at_end, f, head);
        memcpy(frame_eth(at_end), made, CHAM_ETH_LEN + len);
        at_end->len = (u16)len;
        cham_input(core, &port, &at_end, 1);
        if (!core->pool.n_free || core->pool.free[core->pool.n_free - 1] != f->index) { /* somebody keeps it */
            memcpy(f, at_end, head);
            memcpy(frame_eth(f), frame_eth(at_end), CHAM_ETH_LEN + len);
        }
        for (u32 k = 0; k < port.n_tx; k++)
            port.txq[k] = port.txq[k] == at_end ? f : port.txq[k];
        sent++;
        if (i % 8 == 7) {
            cham_step(core, now += 10000);
            publish_u32(&rings[0].cons, rings[0].prod);
        }
    }
    received += sent;
}

/* Packets that are received and not served: what waits when the instance is removed. */
static void fill_backlog(void)
{
    struct cham_frame *burst[CHAM_BURST];
    u64 s = state;
    for (u32 n = 0; n < CHAM_BURST; n++)
        peer_sends(&s);
    u32 n = exact_rx(&port, burst, CHAM_BURST, now);
    cham_input(cores, &port, burst, n);
    received += n;
}

/* ---- the end ------------------------------------------------------------------------------------------------------------- */

/* Every packet that was received had one fate, or waits: in a backlog, or on its way to the other core. */
static u64 fates(void)
{
    u64 n = 0;
    for (u32 k = 0; k < n_cores; k++) {
        const struct cham_instance_counters *c = counters[k].instances;
        n += counters[k].arp_handled + counters[k].icmp_handled + c->rx_packets + c->drops[CHAM_DROP_NO_HANDLER];
        n += c->drops[CHAM_DROP_BACKLOG_FULL] + c->drops[CHAM_DROP_DEBT] + c->drops[CHAM_DROP_NO_FRAMES];
        for (u32 i = 0; i < CHAM_DROP_BACKLOG_FULL; i++)
            n += counters[k].drops[i] + counters[k].tenants[0].drops[i];
        n += attacked[k]->backlog_len;
        for (u32 i = handovers[k].cons; i != handovers[k].prod; i++)
            n += handovers[k].slots[i % HANDOVER_SLOTS].kind == HANDOVER_DELIVER;
    }
    return n;
}

/* No byte of a pool belongs to two, and none to nobody. */
static void check_pools(struct cham_instance *inst)
{
    for (u32 i = 0; i < N_MAPS; i++) {
        const struct cham_map *m = protocol_maps + i;
        if (m->kind != CHAM_MAP_BYTES || !pool_is(m))
            continue;
        u8 *owned = calloc(m->stride, 1);
        const struct pool_entry *entries = (const void *)((u8 *)inst + m->index);
        struct pool *pool = pool_of((u8 *)inst, m);
        for (u32 id = 0; id < m->max_entries; id++)
            for (u32 k = 0; k < entries[id].size >> m->key_size; k++)
                owned[(entries[id].offset >> m->key_size) + k]++;
        for (u32 order = 0; order <= m->mask; order++)
            for (u32 block = pool->head[order]; block != CHAM_NONE; block = pool_nodes(pool)[block].next)
                for (u32 k = 0; k < 1u << order; k++)
                    owned[block + k]++;
        for (u32 k = 0; k < m->stride; k++)
            if (owned[k] != 1)
                die("a block of a pool has no owner or two");
        free(owned);
    }
}

static u64 total(u64 of)
{
    u64 n = 0;
    for (u32 k = 0; k < n_cores; k++)
        n += *(u64 *)((u8 *)(counters + k) + of);
    return n;
}

#define TOTAL(field) total((u64)((u8 *)&counters->field - (u8 *)counters))

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    state = strtoull(argv[2], 0, 10);
    u64 rounds = strtoull(argv[3], 0, 10), bytes = PRIVATE_BYTES - PAGE;
    n_cores = strcmp(argv[1], "cores") ? 1 : CORES;
    set_up(state & 1 ? 0xfffffffd : 0);
    static u8 *private[CORES], *shared[CORES];
    for (u32 k = 0; k < n_cores; k++) {
        private[k] = malloc(bytes);
        shared[k] = malloc(REGION_BYTES);
        memcpy(private[k], idle[k], bytes);
        memcpy(shared[k], (u8 *)idle[k] + PRIVATE_BYTES, REGION_BYTES);
    }
    static int stop;
    pthread_t thread;
    int flip = !strcmp(argv[1], "flip");
    if (flip && pthread_create(&thread, 0, flipper, &stop))
        die("no thread");
    if (!strcmp(argv[1], "guard"))
        guard(rounds);
    else
        attack(rounds);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    if (flip)
        pthread_join(thread, 0);
    if (strcmp(argv[1], "guard"))
        fill_backlog();
    for (u32 k = 0; k < n_cores; k++) {
        if (memcmp(private[k], idle[k], bytes) || memcmp(shared[k], (u8 *)idle[k] + PRIVATE_BYTES, REGION_BYTES))
            die("the idle instance has changed");
        check_pools(attacked[k]);
    }
    received += TOTAL(rx_packets);
    /* what found no room on the way to the other core was received, or was to be sent */
    u64 came = received + TOTAL(switched), ended = fates(), lost = TOTAL(instances[0].drops[CHAM_DROP_HANDOVER_FULL]);
    if (ended > came || came > ended + lost) {
        fprintf(stderr, "%llu received, %llu switched, %llu with a fate or waiting\n", received, TOTAL(switched), ended);
        die("packets without a fate");
    }
    if (command(CHAM_OP_REMOVE_INSTANCE, 0, 0, 0, 0, 0, 0) || command(CHAM_OP_REMOVE_PORT, 0, 0, 0, 0, 0, 0) ||
        command(CHAM_OP_REMOVE_TENANT, 0, 0, 0, 0, 0, 0))
        die("the attacked tenant cannot be removed");
    for (u32 i = 0; n_cores > 1 && i < 2 * CORES * HANDOVER_SLOTS / CHAM_BURST; i++)
        cham_step(cores + i % CORES, now += 1000); /* what is on its way arrives, and is taken back */
    for (u32 k = 0; k < n_cores; k++) {
        if (cores[k].pool.n_free != FRAMES)
            die("a frame is missing");
        u8 seen[FRAMES] = {0};
        for (u32 i = 0; i < FRAMES; i++)
            if (seen[free_frames[k][i]]++)
                die("a frame is free twice");
    }
    printf("{\"sent\":%llu,\"refused\":%llu,\"received\":%llu,\"handled\":%llu,\"transmitted\":%llu,\"injected\":%llu,\"entries\":%llu,"
           "\"damaged\":%llu,\"attachments\":%u,\"arp\":%llu,\"icmp\":%llu,\"punted\":%llu,\"handed_over\":%llu}\n",
           sent, refused, received, TOTAL(instances[0].rx_packets) + TOTAL(instances[0].drops[CHAM_DROP_NO_HANDLER]),
           TOTAL(instances[0].tx_packets), TOTAL(instances[0].injected),
           TOTAL(instances[0].hooks[CHAM_RING].runs), TOTAL(instances[0].events[CHAM_EVENT_RING_DAMAGED]), attachments,
           TOTAL(arp_handled), TOTAL(icmp_handled), TOTAL(instances[0].punted), TOTAL(handed_over));
    return 0;
}
