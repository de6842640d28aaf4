/* A protocol whose handler does what the first payload byte of a UDP packet says: for tests of the provider's checks. */
#include "chamelio.h"

struct entry {
    u32 what, context;
    u64 value;
};

struct cell {
    u64 value;
};

CHAM_RING_IN(requests, 64, struct entry);
CHAM_RING_OUT(answers, 64, struct entry);
CHAM_BYTES(buffers, 4, 4096);
CHAM_TX_IDS(paced, 16);
CHAM_TIMERS(deadlines, 16);
CHAM_HASH(table, 64, u64, struct cell, 0);
CHAM_ARRAY(cells, 16, struct cell, CHAM_SHARED);

CHAM_INLINE u64 turn_round(u8 *p)
{
    struct cham_ipv4 *ip = (void *)p;
    u32 address = ip->src;
    ip->src = ip->dst;
    ip->dst = address;
    u16 *udp = (void *)(p + 20), port = udp[0];
    udp[0] = udp[1];
    udp[1] = port;
    return CHAM_TX;
}

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 36 > end)
        return CHAM_ERROR(1);
    u32 argument = *(u32 *)(p + 32);
    struct entry e = {.what = p[28], .context = 0, .value = ctx->now};
    switch (p[28]) {
    case 'e': /* an honest echo */
        return turn_round(p);
    case 'v': /* a verdict that does not exist */
        return 77;
    case 'x': /* an error of the tenant's own */
        return CHAM_ERROR(9);
    case 'p':
        return CHAM_PUNT;
    case 's': /* another's source address */
        turn_round(p);
        *(u32 *)(p + 12) = argument;
        return CHAM_TX;
    case 'l': /* a length that is not the packet's */
        turn_round(p);
        p[3]++;
        return CHAM_TX;
    case 'q': /* another protocol */
        turn_round(p);
        p[9] = 6;
        return CHAM_TX;
    case 'd': /* a destination of the packet's choice */
        turn_round(p);
        *(u32 *)(p + 16) = argument;
        *(u16 *)(p + 10) = 0;
        *(u16 *)(p + 10) = ~cham_csum(ctx, CHAM_SPAN(0, 20), 0);
        return CHAM_TX;
    case 'g': /* grow without writing: what is gained must be zero */
        if (cham_resize(ctx, 1000))
            return CHAM_ERROR(2);
        p = ctx->data;
        end = ctx->data_end;
        if (p + 1000 > end)
            return CHAM_ERROR(3);
        p[2] = 1000 >> 8;
        p[3] = 1000 & 0xff;
        p[10] = p[11] = 0;
        return turn_round(p);
    case 'r': /* tell a context */
        return cham_push(&answers, argument, &e) ? CHAM_ERROR(4) : CHAM_DONE;
    case 't': /* come back later */
        return cham_schedule(&deadlines, argument & 0xff, ctx->now + 1000000) ? CHAM_ERROR(5) : CHAM_DONE;
    case 'a': { /* count in a shared value */
        u32 index = argument & 15;
        struct cell *c = cham_lookup(&cells, &index);
        if (!c)
            return CHAM_ERROR(6);
        c->value++;
        return CHAM_DONE;
    }
    case 'h': { /* insert in the hash */
        u64 key = argument;
        struct cell c = {ctx->now};
        return cham_update(&table, &key, &c, 0) ? CHAM_ERROR(7) : CHAM_DONE;
    }
    }
    return CHAM_DONE;
}

/* An entry with what = 1 is answered, 2 sends id `value` at once, 3 sets a timer, 4 to 6 send from buffer `value`. */
CHAM_HANDLER(ring)
{
    struct entry *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(20);
    struct entry answer = {.what = e->what, .context = ctx->id, .value = e->value};
    switch (e->what) {
    case 1:
        return cham_push(&answers, ctx->id, &answer) ? CHAM_ERROR(21) : CHAM_DONE;
    case 2:
        return cham_schedule(&paced, e->value, ctx->now) ? CHAM_ERROR(22) : CHAM_DONE;
    case 3:
        return cham_schedule(&deadlines, e->value, ctx->now + 1000000) ? CHAM_ERROR(23) : CHAM_DONE;
    case 4:
        return cham_bytes_to_pkt(ctx, &buffers, e->value, 0, CHAM_SPAN(0, e->context)) ? CHAM_ERROR(24) : CHAM_TX;
    case 5: /* a header, and four bytes at offset `context`: what lies between was written by nobody */
        if (cham_bytes_to_pkt(ctx, &buffers, e->value, 0, CHAM_SPAN(0, 20)) ||
            cham_bytes_to_pkt(ctx, &buffers, e->value, 20, CHAM_SPAN(e->context, 4)))
            return CHAM_ERROR(26);
        return CHAM_TX;
    case 6: /* a packet that grows by itself to `context` bytes, and then gets its header */
        if (cham_resize(ctx, e->context) || cham_bytes_to_pkt(ctx, &buffers, e->value, 0, CHAM_SPAN(0, 20)))
            return CHAM_ERROR(27);
        return CHAM_TX;
    }
    return CHAM_ERROR(25);
}

CHAM_HANDLER(timer)
{
    struct entry e = {.what = 100, .context = ctx->id, .value = ctx->now};
    return cham_push(&answers, 0, &e) ? CHAM_ERROR(30) : CHAM_DONE;
}

CHAM_HANDLER(tx)
{
    struct entry e = {.what = 101, .context = ctx->id, .value = ctx->now};
    return cham_push(&answers, 0, &e) ? CHAM_ERROR(31) : CHAM_DONE;
}
