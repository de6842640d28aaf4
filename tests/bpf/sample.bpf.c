/* One object with all that the loader knows: every kind of map, local calls, global data, tags, line information. */
#include "chamelio.h"

struct inner {
    u16 a;
    u8 b[3];
};

struct conn {
    u32 snd_una CHAM_FAST;
    u32 cwnd CHAM_SLOW;
    struct inner in;
    union {
        u64 whole;
        u32 halves[2];
    };
    void *pointer;
    enum mood { CALM = 1, TENSE = -2 } mood;
};

struct key {
    u32 src, dst;
    u16 sport, dport;
};

struct entry {
    u32 kind;
    u32 id;
    u64 arg;
};

CHAM_ARRAY(conns, 1024, struct conn, CHAM_SHARED);
CHAM_HASH(flows, 4096, struct key, u32, 0);
CHAM_RING_OUT(out, 256, struct entry);
CHAM_RING_IN(in, 128, struct entry);
CHAM_BYTES(payload, 16, 65536);
CHAM_TX_IDS(due, 1024);
CHAM_TIMERS(timers, 512);

static u64 counter;
u32 limit = 17;
const volatile u32 config = 5;
char _license[] __attribute__((section("license"), used)) = "Apache-2.0";

__attribute__((noinline)) u64 sum(u64 a, u64 b)
{
    return a * 3 + b + limit;
}

__attribute__((noinline)) static u64 twice(u64 a)
{
    return sum(a, counter) * 2;
}

CHAM_HANDLER(rx)
{
    struct key k = {1, 2, 3, 4};
    u32 *id = cham_lookup(&flows, &k);
    if (!id)
        return CHAM_PUNT;
    struct conn *c = cham_lookup(&conns, id);
    if (!c)
        return CHAM_ERROR(1);
    c->snd_una += twice(c->cwnd);
    counter++;
    struct entry e = {1, *id, config};
    cham_push(&out, 0, &e);
    cham_schedule(&due, *id, ctx->now + 1000);
    cham_schedule(&timers, *id, 0x1234567890ULL);
    cham_pkt_to_bytes(ctx, &payload, *id, 0, CHAM_SPAN(0, 20));
    return CHAM_DONE;
}

CHAM_HANDLER(ring)
{
    struct entry *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(2);
    cham_cancel(&due, e->id);
    return sum(e->arg, 1) ? CHAM_DONE : CHAM_TX;
}
