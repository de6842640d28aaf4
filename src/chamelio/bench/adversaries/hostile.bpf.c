/* What tenants can do against their neighbours by ordinary means: the first payload byte of a UDP packet says which.
 *
 * Every handler here is within the contract. What is hostile is how often it runs, and that nobody takes what it produces.
 */
#include "chamelio.h"

#define TIMERS 4096
#define KEYS 16384

struct entry {
    u32 what, context;
    u64 value;
};

struct cell {
    u64 words[8]; /* a cache line */
};

CHAM_RING_IN(requests, 64, struct entry);
CHAM_RING_OUT(answers, 64, struct entry);
CHAM_TIMERS(deadlines, TIMERS);
CHAM_HASH(table, KEYS, u64, struct cell, 0);

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

/* A key that is as good as random touches as many lines as a hash map can make a handler touch. */
CHAM_INLINE u64 thrash(struct chamelio_ctx *ctx)
{
    u64 key = cham_random(ctx) & (2 * KEYS - 1);
    struct cell *c = cham_lookup(&table, &key);
    if (c) {
        c->words[0]++;
        return cham_delete(&table, &key) ? CHAM_ERROR(5) : CHAM_DONE;
    }
    struct cell fresh = {{key}};
    return cham_update(&table, &key, &fresh, 0) ? CHAM_ERROR(6) : CHAM_DONE;
}

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 36 > end)
        return CHAM_ERROR(1);
    struct entry e = {.what = p[28], .context = 0, .value = ctx->now};
    switch (p[28]) {
    case 'e': /* echo */
        return turn_round(p);
    case 'f': /* fail */
        return CHAM_ERROR(9);
    case 'v': /* a verdict that does not exist */
        return 77;
    case 'p': /* to the slow path, whole */
        return CHAM_PUNT;
    case 's': /* an event for the slow path */
        return cham_push(&answers, 0, &e) ? CHAM_ERROR(2) : CHAM_DONE;
    case 'a': /* an event for an application */
        return cham_push(&answers, 1, &e) ? CHAM_ERROR(3) : CHAM_DONE;
    case 'h':
        return thrash(ctx);
    }
    return CHAM_DONE;
}

/* 1: an answer to whoever asks; 2: timer `value` is due from now on, always again. */
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
        return cham_schedule(&deadlines, e->value, ctx->now) ? CHAM_ERROR(22) : CHAM_DONE;
    }
    return CHAM_ERROR(25);
}

CHAM_HANDLER(timer)
{
    return cham_schedule(&deadlines, ctx->id, ctx->now) ? CHAM_ERROR(30) : CHAM_DONE;
}
