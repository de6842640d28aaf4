/* One core in one process: a peer on a shared-memory wire sends UDP requests, an application echoes them, and what the core
 * spends in its rounds is counted. Linked with the provider's code and one unit, so that a simulator sees just that.
 *
 *     driver SETUP BATCHES BATCH        prints cycles per request, one line per batch
 *
 * SETUP is written by export.py: struct setup, the maps' descriptors, the instance's private parts and its region, as a
 * slow path has left them after binding a port.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../fastpath/control.h"
#include "../../fastpath/core.h"
#include "../../fastpath/net.h"
#include "../../fastpath/port_wire.h"
#include "../../sockets/c/chamelio_app.h"

#define FRAMES 2048
#define WARM_UP 200

struct setup {
    u64 secret[2];
    u64 private_bytes, region_bytes, raw_rings, private_used; /* of the instance; where the raw rings lie; what the file holds */
    u64 cold[CHAM_HOOKS];
    u32 n_maps, address, peer, ip_protocol, port, bytes; /* addresses and port in packet byte order; payload bytes */
    u32 received, received_stride, requests, requests_stride, rx, tx, sockets, socket_stride; /* offsets in the region */
};

void cham_unit_init(struct cham_unit *unit);
void cham_core_init(struct cham_core *core, struct cham_frame *frames, u32 *free, u32 total);
void cham_instance_init(struct cham_instance *inst, u32 ring_start);

static struct cham_core core;
static struct cham_counters counters;
static struct cham_frame frames[FRAMES];
static u32 free_frames[FRAMES];
static struct wire_ring rings[2]; /* 0: the core sends, 1: the peer sends */
static struct cham_wire wire;
static struct cham_port port;
static struct cham_unit unit;
static struct cham_app app;
static struct cham_app_datagram datagram;
static const u8 peer_mac[6] = {2, 0, 0, 0, 0, 9}, our_mac[6] = {2, 0, 0, 0, 0, 1};

static void die(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(1);
}

static void command(u32 op, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    core.command = (struct cham_command){op, 0, {a, b, c, d, e, f, 0}};
    cham_command(&core);
    if (core.command.status)
        die("a command was refused");
}

static void must_read(void *to, size_t size, FILE *f)
{
    if (size && fread(to, size, 1, f) != 1)
        die("the set-up file is too short");
}

static struct cham_instance *build(const struct setup *s, FILE *f)
{
    struct cham_map *maps = calloc(s->n_maps, sizeof *maps);
    u8 *base = mmap(0, s->private_bytes + s->region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!maps || base == MAP_FAILED)
        die("no memory");
    must_read(maps, s->n_maps * sizeof *maps, f);
    memcpy(core.secret, s->secret, sizeof core.secret);
    core.counters = &counters;
    core.quantum = 1ull << 40; /* there is one tenant, and a simulator is slow: it never gets into debt */
    core.max_debt = 1ll << 40;
    core.ns_per_cycle = 1ull << 31;
    cham_core_init(&core, frames, free_frames, FRAMES);
    wire = (struct cham_wire){.out = rings, .in = rings + 1};
    port = (struct cham_port){.ops = &cham_wire_ops, .pool = &core.pool, .state = &wire, .mtu = 1500, .csum_offload = 1};
    memcpy(port.mac, our_mac, 6);
    cham_unit_init(&unit);
    memcpy(unit.cold, s->cold, sizeof unit.cold);
    struct cham_instance *inst = (struct cham_instance *)base;
    memcpy(inst->secret, s->secret, sizeof inst->secret);
    inst->address = s->address;
    inst->protocol = s->ip_protocol;
    inst->maps = maps;
    inst->n_maps = s->n_maps;
    inst->raw_rings = s->private_bytes + s->raw_rings;
    cham_instance_init(inst, 0);
    must_read(base + CHAM_INSTANCE_BYTES, s->private_used - CHAM_INSTANCE_BYTES, f);
    must_read(base + s->private_bytes, s->region_bytes, f);
    command(CHAM_OP_ADD_TENANT, 0, 1, FRAMES, 0, 0, 0);
    command(CHAM_OP_BIND, 0, s->address, 0, CHAM_NONE, 0, 65535);
    command(CHAM_OP_SET_UNIT, 0, (u64)&unit, 0, 0, 0, 0);
    command(CHAM_OP_ADD_INSTANCE, (u64)inst, 0, 0, 0, 0, 0);
    command(CHAM_OP_BIND, 0, s->address, 0, 0, s->ip_protocol, 65535);
    command(CHAM_OP_ADD_PORT, 0, (u64)&port, 0, 0, 0, 0);
    command(CHAM_OP_ADD_ROUTE, 0, 0, 0, 0, 0, 0);
    command(CHAM_OP_ATTACH, 0, 0, 0, 0, 0, 0);
    command(CHAM_OP_ATTACH, 0, 1, 0, 0, 0, 0);
    return inst;
}

static struct cham_app_ring app_ring(u8 *at, u32 stride, u32 slots)
{
    return (struct cham_app_ring){(void *)at, (void *)(at + 64), (void *)(at + 68), at + 128, stride, slots, 0};
}

static void open_application(const struct setup *s, u8 *region)
{
    app.context.bell = app.context.fd = app.context.core[0].wake = -1;
    app.context.region = region;
    app.context.region_bytes = s->region_bytes;
    app.context.cores = 1;
    app.context.core[0].out = app_ring(region + s->received, s->received_stride, UDP_RECEIVED);
    app.context.core[0].in = app_ring(region + s->requests, s->requests_stride, UDP_REQUESTS);
    app.rx = region + s->rx;
    app.tx = region + s->tx;
    app.sockets = region + s->sockets;
    app.socket_stride = s->socket_stride;
}

/* ---- the peer ---------------------------------------------------------------------------------------------------- */

static void peer_send(const u8 *packet, u32 len, u16 type)
{
    static u32 prod;
    struct wire_slot *slot = rings[1].slots + prod % WIRE_SLOTS;
    memcpy(slot->bytes, our_mac, 6);
    memcpy(slot->bytes + 6, peer_mac, 6);
    slot->bytes[12] = (u8)(type >> 8);
    slot->bytes[13] = (u8)type;
    memcpy(slot->bytes + 14, packet, len);
    slot->len = 14 + len;
    slot->flags = CHAM_FRAME_CSUM_OK;
    publish_u32(&rings[1].prod, ++prod);
}

/* Take what the core has sent: answers are counted, ARP requests answered. */
static u32 peer_receive(const struct setup *s)
{
    static u32 cons;
    u32 answers = 0;
    for (; cons != rings[0].prod; cons++) {
        const struct wire_slot *slot = rings[0].slots + cons % WIRE_SLOTS;
        if (slot->bytes[12] == 8 && slot->bytes[13] == 0) {
            answers += slot->len == 14 + 28 + s->bytes;
        } else if (slot->bytes[12] == 8 && slot->bytes[13] == 6 && slot->bytes[21] == 1) {
            u8 arp[28];
            memcpy(arp, slot->bytes + 14, 28);
            arp[7] = 2;
            memcpy(arp + 18, slot->bytes + 22, 10);
            memcpy(arp + 8, peer_mac, 6);
            memcpy(arp + 14, &s->peer, 4);
            peer_send(arp, 28, 0x0806);
        }
    }
    publish_u32(&rings[0].cons, cons);
    return answers;
}

static u32 request(const struct setup *s, u8 *packet)
{
    u32 len = 28 + s->bytes;
    memset(packet, 0, len);
    packet[0] = 0x45;
    packet[2] = (u8)(len >> 8);
    packet[3] = (u8)len;
    packet[8] = 64;
    packet[9] = (u8)s->ip_protocol;
    memcpy(packet + 12, &s->peer, 4);
    memcpy(packet + 16, &s->address, 4);
    u32 sum = ~inet_sum(packet, 20) & 0xffff;
    memcpy(packet + 10, &sum, 2);
    packet[20] = 0xc0;
    memcpy(packet + 22, &s->port, 2);
    packet[24] = (u8)((len - 20) >> 8);
    packet[25] = (u8)(len - 20);
    return len;
}

static void application_turn(void)
{
    while (cham_app_receive(&app, &datagram)) {
        cham_app_send(&app, (int)datagram.socket, datagram.address, datagram.port, datagram.payload, datagram.len);
        cham_app_done(&app, &datagram);
    }
}

static u64 measured_round(void)
{
    u64 start = __builtin_readcyclecounter();
    cham_round(&core);
    return __builtin_readcyclecounter() - start;
}

int main(int argc, char **argv)
{
    static u8 packet[2048];
    struct setup s;
    FILE *f = argc == 4 ? fopen(argv[1], "rb") : 0;
    if (!f)
        die("usage: driver SETUP BATCHES BATCH");
    must_read(&s, sizeof s, f);
    struct cham_instance *inst = build(&s, f);
    fclose(f);
    open_application(&s, (u8 *)inst + s.private_bytes);
    u32 len = request(&s, packet), batch = (u32)atoi(argv[3]);
    s64 batches = atoi(argv[2]);
    u32 answers = 0, warm = 0;
    for (s64 i = -WARM_UP; i < batches; i++) {
        for (u32 k = 0; k < batch; k++)
            peer_send(packet, len, 0x0800);
        u64 cycles = measured_round();
        application_turn();
        cycles += measured_round();
        u32 n = peer_receive(&s);
        answers += n;
        if (i < 0)
            warm += n;
        else
            printf("%.2f\n", (double)cycles / batch);
    }
    if (answers - warm != (u64)batches * batch) {
        fprintf(stderr, "driver: %u answers to %lld requests\n", answers - warm, (long long)batches * batch);
        return 1;
    }
    return 0;
}
