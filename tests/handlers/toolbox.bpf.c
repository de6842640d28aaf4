/* A protocol whose handler uses the helper that the first payload byte of a UDP packet names; results come by the ring. */
#include "chamelio.h"

#define IDS 64

struct order {
    u32 what, id;
    u64 value;
};

struct result {
    u32 what, id;
    u64 value, now;
};

CHAM_RING_IN(orders, 128, struct order);
CHAM_RING_OUT(results, 1024, struct result);
struct mode {
    u32 greedy;
};

CHAM_ARRAY(modes, 1, struct mode, 0);
CHAM_TX_IDS(paced, IDS);
CHAM_TIMERS(deadlines, IDS);

CHAM_INLINE u64 tell(struct chamelio_ctx *ctx, u32 what, u32 id, u64 value)
{
    struct result r = {.what = what, .id = id, .value = value, .now = ctx->now};
    return cham_push(&results, 0, &r) ? CHAM_ERROR(1) : CHAM_DONE;
}

CHAM_INLINE void turn_round(u8 *p)
{
    struct cham_ipv4 *ip = (void *)p;
    u32 address = ip->src;
    ip->src = ip->dst;
    ip->dst = address;
}

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 36 > end)
        return CHAM_ERROR(2);
    u32 argument = *(u32 *)(p + 32), i;
    switch (p[28]) {
    case 'e': /* emit the packet `argument` times, each with its number, then one more */
        turn_round(p);
        for (i = 0; i < 4; i++) {
            if (i == argument)
                break;
            p = ctx->data;
            end = ctx->data_end;
            if (p + 36 > end)
                return CHAM_ERROR(3);
            p[29] = i;
            u8 head[36];
            for (u32 k = 0; k < 36; k++)
                head[k] = p[k];
            s64 failed = cham_emit(ctx);
            if (failed)
                return tell(ctx, 'e', i, failed);
            if (cham_resize(ctx, 36))
                return CHAM_ERROR(4);
            p = ctx->data;
            end = ctx->data_end;
            if (p + 36 > end)
                return CHAM_ERROR(3);
            for (u32 k = 0; k < 36; k++)
                p[k] = head[k];
        }
        p = ctx->data;
        end = ctx->data_end;
        if (p + 36 > end)
            return CHAM_ERROR(3);
        p[29] = 99;
        return CHAM_TX;
    case 'n': /* emit and end without a packet */
        turn_round(p);
        return cham_emit(ctx) ? CHAM_ERROR(5) : CHAM_DONE;
    case 'c': { /* answer with a checksum that the provider completes: from 20 on, in bytes 26 and 27 */
        turn_round(p);
        struct cham_ipv4 *ip = (void *)p;
        u32 length = cham_ntohs(ip->total_length) - 20;
        *(u16 *)(p + 26) = cham_fold((u64)ip->src + ip->dst + cham_htons(17) + cham_htons(length));
        if (cham_csum_later(ctx, 20, argument))
            return CHAM_ERROR(6);
        return CHAM_TX;
    }
    case 'C': /* answer with a checksum of whatever `argument` says: start << 16 | field */
        turn_round(p);
        return cham_csum_later(ctx, argument >> 16, argument & 0xffff) ? CHAM_ERROR(8) : CHAM_TX;
    case 'w': { /* send it on to address `argument`, with a checksum that is completed later, as order 'o' */
        struct cham_ipv4 *ip = (void *)p;
        p[28] = 'o';
        ip->src = ip->dst;
        ip->dst = argument;
        ip->checksum = 0;
        ip->checksum = ~cham_csum(ctx, CHAM_SPAN(0, 20), 0);
        return cham_csum_later(ctx, 20, 26) ? CHAM_ERROR(7) : CHAM_TX;
    }
    case 'o': /* is the checksum known to be right? */
        return tell(ctx, 'o', 0, ctx->csum_ok);
    }
    return CHAM_DONE;
}

CHAM_HANDLER(ring)
{
    struct order *o = ctx->entry;
    if ((void *)(o + 1) > ctx->entry_end)
        return CHAM_ERROR(20);
    u32 zero = 0;
    struct mode *mode = cham_lookup(&modes, &zero);
    switch (o->what) {
    case 'r':
        return tell(ctx, 'r', 0, cham_random(ctx));
    case 'h':
        return tell(ctx, 'h', o->id, cham_hash(ctx, o->value, o->id));
    case 's':
        return tell(ctx, 's', o->id, cham_schedule(&deadlines, o->id, o->value));
    case 'x':
        return tell(ctx, 'x', o->id, cham_cancel(&deadlines, o->id));
    case 'p':
        return tell(ctx, 'p', o->id, cham_pace(&paced, o->id, o->value));
    case 'E':
        return tell(ctx, 'E', 0, cham_emit(ctx));
    case 'z': /* from now on ids below 40 are due again at once, always */
        if (mode)
            mode->greedy = 1;
        return cham_schedule(&paced, o->id, o->value) ? CHAM_ERROR(22) : CHAM_DONE;
    case 'Z':
        return cham_schedule(&paced, o->id, o->value) ? CHAM_ERROR(22) : CHAM_DONE;
    }
    return CHAM_ERROR(21);
}

CHAM_HANDLER(timer) { return tell(ctx, 't', ctx->id, 0); }

/* What is paced goes on in steps of 100 us. */
CHAM_HANDLER(tx)
{
    u32 zero = 0;
    struct mode *mode = cham_lookup(&modes, &zero);
    if (mode && mode->greedy && ctx->id < 40)
        return cham_schedule(&paced, ctx->id, 0) ? CHAM_ERROR(31) : CHAM_DONE;
    tell(ctx, 'P', ctx->id, 0);
    return cham_pace(&paced, ctx->id, 100000) ? CHAM_ERROR(30) : CHAM_DONE;
}
