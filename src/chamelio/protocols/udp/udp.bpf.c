/* UDP on the fast path: datagrams to and from the applications' rings. What is rare (binding, refusing) is the slow path's. */
#include "chamelio.h"
#define FAST CHAM_FAST
#define SLOW CHAM_SLOW
#include "udp.h"

#define UNUSED __attribute__((unused)) /* native helpers take the context, BPF's do not */
#define IP_UDP 17
#ifndef UDP_TTL
#define UDP_TTL 64
#endif

enum reason { SHORT = 1, LENGTH, CHECKSUM, NO_ROOM, RING_FULL, NOT_ALLOWED, NO_SOCKET, TABLE_FULL, UNKNOWN_REQUEST };

struct header {
    u16 source, destination, length, checksum;
};

/* Connected sockets are found by all three, others under the local port alone. */
struct key {
    u32 address;
    u16 port;
    u16 local_port;
};

struct id {
    u32 socket;
};

/* What only handlers can write: nobody but the slow path's OPEN decides whose socket it is and what it may send. */
struct binding {
    u32 open;
    u32 context;
    u32 local, address; /* ours; the peer's, 0 if unconnected */
    u16 local_port, port;
    u32 rx_pos; /* end of what was put in the receive buffer */
};

struct state {
    u32 connected; /* sockets that are */
};

CHAM_ARRAY(states, 1, struct state, 0);
CHAM_HASH(table, UDP_SOCKETS, struct key, struct id, 0);
CHAM_ARRAY(bindings, UDP_SOCKETS, struct binding, 0);
CHAM_ARRAY(sockets, UDP_SOCKETS, struct udp_socket, CHAM_SHARED);
CHAM_BYTES(rx_bytes, UDP_SOCKETS, UDP_BUFFER);
CHAM_BYTES(tx_bytes, UDP_SOCKETS, UDP_BUFFER);
CHAM_RING_OUT(received, UDP_RECEIVED, struct udp_received);
CHAM_RING_IN(requests, UDP_REQUESTS, struct udp_request);

/* Sum of the pseudo header (RFC 768), in packet byte order. */
CHAM_INLINE u64 pseudo_sum(u32 from, u32 to, u32 length)
{
    return (u64)from + to + cham_htons(IP_UDP) + cham_htons(length);
}

/* The socket that a packet is for: a connected one before one that takes all. */
CHAM_INLINE struct id *find(struct chamelio_ctx *ctx UNUSED, u32 address, u16 port, u16 local_port)
{
    u32 zero = 0;
    struct state *state = cham_lookup(&states, &zero);
    struct key k = {address, port, local_port};
    if (state && state->connected) {
        struct id *id = cham_lookup(&table, &k);
        if (id)
            return id;
    }
    k.address = 0;
    k.port = 0;
    return cham_lookup(&table, &k);
}

CHAM_INLINE void count_connected(struct chamelio_ctx *ctx UNUSED, u32 change)
{
    u32 zero = 0;
    struct state *state = cham_lookup(&states, &zero);
    if (state)
        state->connected += change;
}

CHAM_HANDLER(rx)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(SHORT);
    u32 offset = (ip[0] & 15) * 4, source = *(u32 *)(ip + 12);
    struct header *h = (void *)(ip + offset);
    if ((u8 *)(h + 1) > end)
        return CHAM_ERROR(SHORT);
    u32 length = cham_ntohs(h->length);
    if (length < sizeof *h || length > (u64)(end - (u8 *)h))
        return CHAM_ERROR(LENGTH);
    if (h->checksum && !ctx->csum_ok &&
        cham_csum(ctx, CHAM_SPAN(offset, length), pseudo_sum(source, *(u32 *)(ip + 16), length)) != 0xffff)
        return CHAM_ERROR(CHECKSUM);
    u16 port = h->source, local_port = h->destination;
    struct id *id = find(ctx, source, port, local_port);
    if (!id)
        return CHAM_PUNT;
    u32 socket = id->socket;
    struct binding *b = cham_lookup(&bindings, &socket);
    struct udp_socket *s = cham_lookup(&sockets, &socket);
    if (!b || !s)
        return CHAM_ERROR(NO_SOCKET);
    length -= sizeof *h;
    u32 pos = b->rx_pos;
    if (pos - s->taken + length > UDP_BUFFER) {
        s->dropped++;
        return CHAM_ERROR(NO_ROOM);
    }
    cham_pkt_to_bytes(ctx, &rx_bytes, socket, pos, CHAM_SPAN(offset + sizeof *h, length));
    struct udp_received e = {socket, pos, length, source, port, (u16)s->generation, 0};
    if (cham_push(&received, b->context, &e)) {
        s->dropped++;
        return CHAM_ERROR(RING_FULL);
    }
    b->rx_pos = pos + length;
    s->received++;
    return CHAM_DONE;
}

CHAM_INLINE u64 open_socket(struct chamelio_ctx *ctx UNUSED, struct udp_request *e)
{
    struct binding *b = cham_lookup(&bindings, &e->socket);
    struct udp_socket *s = cham_lookup(&sockets, &e->socket);
    struct key k = {e->address, e->port, e->local_port};
    struct id id = {e->socket};
    if (!b || !s)
        return CHAM_ERROR(NO_SOCKET);
    if (cham_update(&table, &k, &id, 0))
        return CHAM_ERROR(TABLE_FULL);
    count_connected(ctx, e->address != 0);
    b->open = 1;
    b->context = e->context;
    b->local = e->local;
    b->address = e->address;
    b->local_port = e->local_port;
    b->port = e->port;
    b->rx_pos = s->taken;
    s->generation = s->generation + 1;
    s->received = 0;
    s->dropped = 0;
    s->sent = 0;
    return CHAM_DONE;
}

CHAM_INLINE u64 close_socket(struct chamelio_ctx *ctx UNUSED, struct udp_request *e)
{
    struct binding *b = cham_lookup(&bindings, &e->socket);
    if (!b)
        return CHAM_ERROR(NO_SOCKET);
    if (!b->open) /* a new slow path closes whatever an old one may have left */
        return CHAM_DONE;
    struct key k = {b->address, b->port, b->local_port};
    b->open = 0;
    count_connected(ctx, -(b->address != 0));
    cham_delete(&table, &k);
    return CHAM_DONE;
}

CHAM_INLINE u64 report_error(struct chamelio_ctx *ctx UNUSED, struct udp_request *e)
{
    struct binding *b = cham_lookup(&bindings, &e->socket);
    struct udp_socket *s = cham_lookup(&sockets, &e->socket);
    if (!b || !s || !b->open)
        return CHAM_ERROR(NO_SOCKET);
    struct udp_received word = {e->socket, 0, 0, b->address, b->port, (u16)s->generation, e->len};
    return cham_push(&received, b->context, &word) ? CHAM_ERROR(RING_FULL) : CHAM_DONE;
}

CHAM_HANDLER(ring)
{
    struct udp_request *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(SHORT);
    if (e->kind != UDP_SEND) {
        if (ctx->id != 0)
            return CHAM_ERROR(NOT_ALLOWED);
        if (e->kind == UDP_OPEN)
            return open_socket(ctx, e);
        if (e->kind == UDP_CLOSE)
            return close_socket(ctx, e);
        return e->kind == UDP_ERROR ? report_error(ctx, e) : CHAM_ERROR(UNKNOWN_REQUEST);
    }
    u32 socket = e->socket, length = e->len;
    struct binding *b = cham_lookup(&bindings, &socket);
    struct udp_socket *s = cham_lookup(&sockets, &socket);
    if (!b || !s || !b->open)
        return CHAM_ERROR(NO_SOCKET);
    if (b->context != ctx->id)
        return CHAM_ERROR(NOT_ALLOWED);
    if (length > UDP_PAYLOAD_MAX)
        return CHAM_ERROR(LENGTH);
    u32 address = b->address ? b->address : e->address, local = b->local;
    u16 port = b->address ? b->port : e->port, local_port = b->local_port;
    if (cham_bytes_to_pkt(ctx, &tx_bytes, socket, e->pos, CHAM_SPAN(28, length)))
        return CHAM_ERROR(NO_ROOM);
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 28 > end)
        return CHAM_ERROR(SHORT);
    u32 total = 28 + length;
    struct cham_ipv4 *i = (void *)ip;
    i->version_ihl = 0x45;
    i->tos = 0;
    i->total_length = cham_htons(total);
    i->id = 0;
    i->fragment = cham_htons(0x4000); /* don't fragment */
    i->ttl = UDP_TTL;
    i->protocol = IP_UDP;
    i->src = local;
    i->dst = address;
    i->checksum = ~cham_fold((u64)cham_htons(0x4500) + cham_htons(total) + cham_htons(0x4000) + cham_htons(UDP_TTL << 8 | IP_UDP) +
                             local + address);
    struct header *h = (void *)(ip + 20);
    h->source = local_port;
    h->destination = port;
    h->length = cham_htons(8 + length);
    h->checksum = cham_fold(pseudo_sum(local, address, 8 + length));
    cham_csum_later(ctx, 20, 26);
    s->sent++;
    return CHAM_TX;
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
