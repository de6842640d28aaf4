/* A load generator at the far end of a shared-memory wire: wire_load WIRE FROM TO PORT [--outstanding N] [--bytes N] [--seconds S]
 *
 * WIRE is the link to the wire's memory; its end b is taken. UDP requests go from address FROM to TO, N of them are outstanding.
 * Whoever answers writes the number of its version in the byte behind the request's number: how often it changed is reported.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "measure.h"
#include "net.h"
#include "port_wire.h"
#include "untrusted.h"

#define HEADERS (14 + 20 + 8)
#define MIN_BYTES 10
#define MAX_BYTES 1472
#define ARP_EVERY_NS 20000000ull
#define ARP_PATIENCE_NS 5000000000ull

static const u8 our_mac[6] = {2, 0, 0, 0, 0, 9};
static struct wire_ring *out, *in;
static u32 prod, cons, from, to;
static u8 their_mac[6];
static int know_mac, bell = -1;
static struct measure m;
static u8 version;
static u32 changes;

static int take_wire(const char *path)
{
    struct flock end = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fcntl(fd, F_OFD_SETLK, &end) < 0)
        return -1;
    struct wire_ring *rings = mmap(0, 2 * sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (rings == MAP_FAILED)
        return -1;
    char path_of_bell[4096];
    snprintf(path_of_bell, sizeof path_of_bell, "%s.a.bell", path);
    bell = open(path_of_bell, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    signal(SIGPIPE, SIG_IGN); /* the other end may go */
    out = rings + 1;
    publish_u32(&out->rings, bell >= 0);
    in = rings;
    prod = out->prod;
    cons = in->cons;
    return 0;
}

/* What was written to the wire is there; wake the other end if it sleeps. */
static void publish(void)
{
    publish_u32(&out->prod, ++prod);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (untrusted_u32(&out->wait) && bell >= 0 && write(bell, "", 1) < 0)
        return; /* it has been rung often enough */
}

static u32 room(void) { return WIRE_SLOTS - (prod - untrusted_u32(&out->cons)); }

static struct wire_slot *begin_frame(u32 len, u16 type, const u8 *mac)
{
    struct wire_slot *slot = out->slots + prod % WIRE_SLOTS;
    memcpy(slot->bytes, mac, 6);
    memcpy(slot->bytes + 6, our_mac, 6);
    cham_store16(slot->bytes + 12, cham_be16(type));
    slot->len = len;
    slot->flags = 0;
    return slot;
}

static void send_arp(u16 op, const u8 *mac, u32 address)
{
    static const u8 everybody[6] = {255, 255, 255, 255, 255, 255};
    static const u8 head[6] = {0, 1, 8, 0, 6, 4};
    if (!room())
        return;
    u8 *arp = begin_frame(14 + ARP_BYTES, ETH_ARP, op == ARP_REQUEST ? everybody : mac)->bytes + 14;
    memcpy(arp, head, 6);
    cham_store16(arp + ARP_OP, cham_be16(op));
    memcpy(arp + ARP_SENDER_MAC, our_mac, 6);
    cham_store32(arp + ARP_SENDER_IP, from);
    memcpy(arp + ARP_TARGET_MAC, mac, 6);
    cham_store32(arp + ARP_TARGET_IP, address);
    publish();
}

static void take_arp(const u8 *arp)
{
    if (cham_load32(arp + ARP_TARGET_IP) != from || cham_load32(arp + ARP_SENDER_IP) != to)
        return;
    memcpy(their_mac, arp + ARP_SENDER_MAC, 6);
    know_mac = 1;
    if (cham_load16(arp + ARP_OP) == cham_be16(ARP_REQUEST))
        send_arp(ARP_REPLY, arp + ARP_SENDER_MAC, to);
}

static void take_answer(const u8 *payload, u32 len, u32 bytes)
{
    u64 id;
    memcpy(&id, payload, 8);
    measure_answer(&m, id, len == bytes && payload[len - 1] == (u8)id, now_ns());
    changes += m.total.answered > 1 && payload[8] != version;
    version = payload[8];
}

static void receive(u32 bytes)
{
    u32 end = untrusted_u32(&in->prod);
    for (; cons != end; cons++) {
        const struct wire_slot *slot = in->slots + cons % WIRE_SLOTS;
        const u8 *eth = slot->bytes, *ip = eth + 14;
        if (slot->len >= 14 + ARP_BYTES && eth[12] == 8 && eth[13] == 6)
            take_arp(ip);
        else if (slot->len >= HEADERS + MIN_BYTES && eth[12] == 8 && eth[13] == 0 && cham_load32(ip + IPV4_SRC) == to)
            take_answer(eth + HEADERS, slot->len - HEADERS, bytes);
    }
    publish_u32(&in->cons, cons);
}

static void send_request(u16 port, u32 bytes, u64 now)
{
    struct wire_slot *slot = begin_frame(HEADERS + bytes, ETH_IPV4, their_mac);
    u8 *ip = slot->bytes + 14, *udp = ip + 20, *payload = udp + 8;
    memset(ip, 0, 28);
    ip[0] = 0x45;
    cham_store16(ip + IPV4_TOTAL, cham_be16((u16)(28 + bytes)));
    ip[IPV4_TTL] = 64;
    ip[IPV4_PROTOCOL] = 17;
    cham_store32(ip + IPV4_SRC, from);
    cham_store32(ip + IPV4_DST, to);
    cham_store16(ip + IPV4_CHECKSUM, (u16)~inet_sum(ip, 20));
    cham_store16(udp, cham_be16(40000));
    cham_store16(udp + 2, cham_be16(port));
    cham_store16(udp + 4, cham_be16((u16)(8 + bytes)));
    memcpy(payload, &m.next, 8);
    payload[8] = 0;
    payload[bytes - 1] = (u8)m.next;
    measure_sent(&m, now);
    publish();
}

static int resolve(void)
{
    for (u64 start = now_ns(), asked = 0; !know_mac;) {
        u64 now = now_ns();
        if (now - start > ARP_PATIENCE_NS)
            return -1;
        if (now - asked > ARP_EVERY_NS) {
            send_arp(ARP_REQUEST, our_mac, to);
            asked = now;
        }
        receive(MIN_BYTES);
    }
    return 0;
}

static int usage(const char *name)
{
    fprintf(stderr, "usage: %s WIRE FROM TO PORT [--outstanding N] [--bytes N] [--seconds S]\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    u32 outstanding = 64, bytes = 64;
    double seconds = 3;
    if (argc < 5 || argc % 2 == 0)
        return usage(argv[0]);
    for (int i = 5; i < argc; i += 2) {
        if (!strcmp(argv[i], "--outstanding"))
            outstanding = (u32)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--bytes"))
            bytes = (u32)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds"))
            seconds = atof(argv[i + 1]);
        else
            return usage(argv[0]);
    }
    if (!outstanding || outstanding > WIRE_SLOTS / 2 || bytes < MIN_BYTES || bytes > MAX_BYTES || !(seconds > 0) ||
        inet_pton(AF_INET, argv[2], &from) != 1 || inet_pton(AF_INET, argv[3], &to) != 1)
        return usage(argv[0]);
    if (take_wire(argv[1])) {
        fprintf(stderr, "wire_load: %s: end b cannot be taken: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (resolve()) {
        fprintf(stderr, "wire_load: nobody on this wire has the address %s\n", argv[3]);
        return 1;
    }
    u16 port = (u16)atoi(argv[4]);
    u64 start = now_ns(), end = start + (u64)(seconds * 1e9), under_way;
    printf("sending\n");
    fflush(stdout);
    do {
        receive(bytes);
        u64 now = now_ns();
        under_way = measure_expire(&m, now);
        for (; now < end && m.next - m.oldest < outstanding && room(); under_way++)
            send_request(port, bytes, now);
        __builtin_ia32_pause();
    } while (now_ns() < end || under_way);
    char more[64];
    snprintf(more, sizeof more, ",\"version\":%u,\"version_changes\":%u", version, changes);
    measure_print(&m.total, (double)(now_ns() - start) / 1e9, 1, more);
    return 0;
}
