/* UDP: a peer on a shared-memory wire sends requests, an application echoes them. Prints cycles per request, one line per batch.
 *
 *     driver SETUP BATCHES BATCH
 */
#include <stdio.h>
#include <stdlib.h>

#include "chamelio_app.h"
#include "net.h"
#include "port_wire.h"
#include "rig.h"

#define WARM_UP 200

static struct wire_ring rings[2]; /* 0: the core sends, 1: the peer sends */
static struct cham_wire wire;
static struct cham_port port;
static struct cham_app app;
static struct cham_app_datagram datagram;
static const u8 peer_mac[6] = {2, 0, 0, 0, 0, 9}, our_mac[6] = {2, 0, 0, 0, 0, 1};
static u32 peer, address;
static u16 udp_port; /* packet byte order, all three */

static void open_application(void)
{
    rig_context(&app.context, 0);
    app.rx = regions[0] + setup.rx;
    app.tx = regions[0] + setup.tx;
    app.sockets = regions[0] + setup.more[0];
    app.socket_stride = setup.more[1];
    peer = setup.more[2];
    udp_port = (u16)setup.more[3];
    address = setup.more[4];
}

static void plug_in(void)
{
    wire = (struct cham_wire){.out = rings, .in = rings + 1, .bell = -1};
    port = (struct cham_port){.ops = &cham_wire_ops, .pool = &core.pool, .state = &wire, .mtu = 1500, .csum_offload = 1};
    memcpy(port.mac, our_mac, 6);
    command(CHAM_OP_ADD_PORT, 0, (u64)&port, 0, 0, 0, 0);
    command(CHAM_OP_ADD_ROUTE, 0, 0, 0, 0, 0, 0);
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
static u32 peer_receive(void)
{
    static u32 cons;
    u32 answers = 0;
    for (; cons != rings[0].prod; cons++) {
        const struct wire_slot *slot = rings[0].slots + cons % WIRE_SLOTS;
        if (slot->bytes[12] == 8 && slot->bytes[13] == 0) {
            answers += slot->len == 14 + 28 + setup.bytes;
        } else if (slot->bytes[12] == 8 && slot->bytes[13] == 6 && slot->bytes[21] == 1) {
            u8 arp[28];
            memcpy(arp, slot->bytes + 14, 28);
            arp[7] = 2;
            memcpy(arp + 18, slot->bytes + 22, 10);
            memcpy(arp + 8, peer_mac, 6);
            memcpy(arp + 14, &peer, 4);
            peer_send(arp, 28, 0x0806);
        }
    }
    publish_u32(&rings[0].cons, cons);
    return answers;
}

static u32 request(u8 *packet)
{
    u32 len = 28 + setup.bytes;
    memset(packet, 0, len);
    packet[0] = 0x45;
    packet[2] = (u8)(len >> 8);
    packet[3] = (u8)len;
    packet[8] = 64;
    packet[9] = (u8)setup.ip_protocol;
    memcpy(packet + 12, &peer, 4);
    memcpy(packet + 16, &address, 4);
    u32 sum = ~inet_sum(packet, 20) & 0xffff;
    memcpy(packet + 10, &sum, 2);
    packet[20] = 0xc0;
    memcpy(packet + 22, &udp_port, 2);
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

int main(int argc, char **argv)
{
    static u8 packet[2048];
    if (argc != 4)
        die("usage: driver SETUP BATCHES BATCH");
    rig_build(argv[1]);
    open_application();
    plug_in();
    u32 len = request(packet), batch = (u32)atoi(argv[3]);
    s64 batches = atoi(argv[2]);
    u32 answers = 0, warm = 0;
    for (s64 i = -WARM_UP; i < batches; i++) {
        for (u32 k = 0; k < batch; k++)
            peer_send(packet, len, 0x0800);
        u64 cycles = measured_round();
        application_turn();
        cycles += measured_round();
        u32 n = peer_receive();
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
