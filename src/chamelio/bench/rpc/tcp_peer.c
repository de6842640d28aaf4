/* Segments, made and checked. */
#include "tcp_peer.h"

#include "net.h"
#include "port_wire.h"

#define IP_TCP 6
#define ETH 14
#define SYN_OPTIONS 20
#define OPTIONS 12
#define WINDOW_SCALE 7
#define FIN 1
#define SYN 2
#define RST 4
#define PSH 8
#define ACK 16

struct peer_flow flows[PEER_FLOWS_MAX];
u64 peer_acks;

static struct wire_ring rings[2]; /* 0: the core sends, 1: the peer sends */
static struct cham_wire wire;
static struct cham_port port;
static const u8 peer_mac[6] = {2, 0, 0, 0, 0, 9}, our_mac[6] = {2, 0, 0, 0, 0, 1};
static u32 offloaded, peer, address, prod, cons;
static u16 tcp_port;
static u64 segments;

void peer_plug_in(u32 offload)
{
    address = setup.more[5];
    peer = setup.more[6];
    tcp_port = (u16)setup.more[7];
    offloaded = offload;
    wire = (struct cham_wire){.out = rings, .in = rings + 1, .bell = -1};
    port = (struct cham_port){.ops = &cham_wire_ops, .pool = &core.pool, .state = &wire, .mtu = 1500, .csum_offload = (u8)offload};
    memcpy(port.mac, our_mac, 6);
    command(CHAM_OP_ADD_PORT, 0, (u64)&port, 0, 0, 0, 0);
    command(CHAM_OP_ADD_ROUTE, 0, 0, 0, 0, 0, 0);
}

u64 peer_segments(void) { return segments; }

/* ---- sending ------------------------------------------------------------------------------------------------------------------------ */

static struct wire_slot *frame(u16 type)
{
    struct wire_slot *slot = rings[1].slots + prod % WIRE_SLOTS;
    if (prod - rings[1].cons >= WIRE_SLOTS)
        die("the core does not take what is sent");
    memcpy(slot->bytes, our_mac, 6);
    memcpy(slot->bytes + 6, peer_mac, 6);
    cham_store16(slot->bytes + 12, cham_be16(type));
    slot->flags = 0;
    return slot;
}

static void publish(struct wire_slot *slot, u32 len)
{
    slot->len = ETH + len;
    publish_u32(&rings[1].prod, ++prod);
}

static u32 be(u32 x) { return __builtin_bswap32(x); }

/* Sum of the pseudo header and a segment (RFC 9293, 3.1); 0xffff if the segment carries the right checksum. */
static u32 transport_sum(const u8 *ip, u32 len)
{
    u64 sum = (u64)cham_load32(ip + IPV4_SRC) + cham_load32(ip + IPV4_DST) + cham_be16(IP_TCP) + cham_be16((u16)len);
    return inet_fold(sum + inet_sum(ip + IPV4_MIN, len));
}

static u32 milliseconds(void) { return (u32)(core.now / 1000000); }

/* Headers and options of a flow's segment; where its payload goes. */
static u8 *begin(struct wire_slot *slot, u32 flow, u32 flags, u32 options, u32 payload)
{
    struct peer_flow *f = flows + flow;
    u8 *ip = slot->bytes + ETH, *tcp = ip + IPV4_MIN, *o = tcp + 20;
    u32 len = IPV4_MIN + 20 + options + payload;
    memset(ip, 0, len - payload);
    ip[0] = 0x45;
    cham_store16(ip + IPV4_TOTAL, cham_be16((u16)len));
    ip[6] = 0x40; /* do not fragment */
    ip[IPV4_TTL] = 64;
    ip[IPV4_PROTOCOL] = IP_TCP;
    cham_store32(ip + IPV4_SRC, peer);
    cham_store32(ip + IPV4_DST, address);
    cham_store16(ip + IPV4_CHECKSUM, (u16)~inet_sum(ip, IPV4_MIN));
    cham_store16(tcp, cham_be16((u16)(PEER_PORT_LOW + flow)));
    cham_store16(tcp + 2, tcp_port);
    cham_store32(tcp + 4, be(f->snd_nxt));
    cham_store32(tcp + 8, flags & ACK ? be(f->rcv_nxt) : 0);
    tcp[12] = (u8)((20 + options) / 4 << 4);
    tcp[13] = (u8)flags;
    cham_store16(tcp + 14, cham_be16(flags & SYN ? 65535 : 1024));
    if (options == SYN_OPTIONS) {
        static const u8 fixed[] = {2, 4, 1460 >> 8, 1460 & 255, 4, 2, 8, 10};
        memcpy(o, fixed, sizeof fixed);
        o[16] = 1;
        o[17] = o[18] = 3;
        o[19] = WINDOW_SCALE;
        o += 8;
    } else {
        o[0] = o[1] = 1;
        o[2] = 8;
        o[3] = 10;
        o += 4;
    }
    cham_store32(o, be(milliseconds()));
    cham_store32(o + 4, be(f->ts_recent));
    return tcp + 20 + options;
}

static void finish(struct wire_slot *slot, u32 options, u32 payload)
{
    u8 *ip = slot->bytes + ETH;
    u32 len = 20 + options + payload;
    if (offloaded)
        slot->flags = CHAM_FRAME_CSUM_OK;
    else
        cham_store16(ip + IPV4_MIN + 16, (u16)~transport_sum(ip, len));
    segments++;
    publish(slot, IPV4_MIN + len);
}

void peer_syn(u32 flow)
{
    struct wire_slot *slot = frame(ETH_IPV4);
    flows[flow].snd_nxt = 0x10000000u * (flow % 15) + flow;
    begin(slot, flow, SYN, SYN_OPTIONS, 0);
    finish(slot, SYN_OPTIONS, 0);
    flows[flow].snd_nxt++;
}

static void request(u8 *payload, u32 flow)
{
    memset(payload, (int)(flows[flow].number & 255), setup.bytes);
    cham_store32(payload, flow);
    cham_store32(payload + 4, flows[flow].number);
}

void peer_ask(u32 flow)
{
    struct wire_slot *slot = frame(ETH_IPV4);
    flows[flow].number++;
    request(begin(slot, flow, PSH | ACK, OPTIONS, setup.bytes), flow);
    finish(slot, OPTIONS, setup.bytes);
    flows[flow].snd_nxt += setup.bytes;
}

/* ---- receiving ---------------------------------------------------------------------------------------------------------------------- */

/* The core asks who we are. */
static void answer_arp(const u8 *asked)
{
    struct wire_slot *slot = frame(ETH_ARP);
    u8 *arp = slot->bytes + ETH;
    memcpy(arp, asked, ARP_BYTES);
    arp[ARP_OP + 1] = ARP_REPLY;
    memcpy(arp + ARP_TARGET_MAC, asked + ARP_SENDER_MAC, 10);
    memcpy(arp + ARP_SENDER_MAC, peer_mac, 6);
    memcpy(arp + ARP_SENDER_IP, &peer, 4);
    publish(slot, ARP_BYTES);
}

static void take_timestamp(struct peer_flow *f, const u8 *options, const u8 *end)
{
    while (options < end && *options) {
        if (*options == 8)
            f->ts_recent = be(cham_load32(options + 2));
        options += *options == 1 ? 1 : options[1] ? options[1] : 40;
    }
}

/* One segment; 1: it is an answer. */
static u32 take(const u8 *ip, u32 size, u32 flags)
{
    const u8 *tcp = ip + IPV4_MIN, *payload = tcp + (tcp[12] >> 4) * 4, *end = ip + cham_be16(cham_load16(ip + IPV4_TOTAL));
    u32 flow = cham_be16(cham_load16(tcp + 2)) - PEER_PORT_LOW, seq = be(cham_load32(tcp + 4)), ack = be(cham_load32(tcp + 8));
    struct peer_flow *f = flows + flow;
    if (ip[0] != 0x45 || (u32)(end - ip) != size || ip[IPV4_PROTOCOL] != IP_TCP || inet_sum(ip, IPV4_MIN) != 0xffff)
        die("the core sends something else than TCP");
    if (flow >= PEER_FLOWS_MAX || cham_load16(tcp) != tcp_port || payload > end || tcp[13] & (FIN | RST))
        die("the core sends a segment that no flow of ours waits for");
    if (flags & CHAM_FRAME_CSUM_OK ? !offloaded : transport_sum(ip, (u32)(end - tcp)) != 0xffff)
        die("a segment's checksum is wrong");
    take_timestamp(f, tcp + 20, payload);
    segments++;
    if (tcp[13] & SYN) {
        f->rcv_nxt = seq + 1;
        struct wire_slot *slot = frame(ETH_IPV4);
        begin(slot, flow, ACK, OPTIONS, 0);
        finish(slot, OPTIONS, 0);
        return 0;
    }
    if (seq != f->rcv_nxt || (s32)(ack - f->snd_nxt) > 0)
        die("a segment has wrong numbers");
    f->rcv_nxt += (u32)(end - payload);
    if (payload == end) {
        peer_acks += f->number > 0;
        return 0;
    }
    static u8 expected[CHAM_IP_MAX];
    request(expected, flow);
    if (ack != f->snd_nxt || (u32)(end - payload) != setup.bytes || memcmp(payload, expected, setup.bytes))
        die("an answer is not what was asked for");
    return 1;
}

u32 peer_receive(void)
{
    u32 answers = 0;
    for (; cons != rings[0].prod; cons++) {
        const struct wire_slot *slot = rings[0].slots + cons % WIRE_SLOTS;
        const u8 *packet = slot->bytes + ETH;
        if (cham_load16(slot->bytes + 12) == cham_be16(ETH_IPV4))
            answers += take(packet, slot->len - ETH, slot->flags);
        else if (packet[ARP_OP + 1] == ARP_REQUEST)
            answer_arp(packet);
    }
    publish_u32(&rings[0].cons, cons);
    return answers;
}
