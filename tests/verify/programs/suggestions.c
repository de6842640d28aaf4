/* For each code a program that is refused, and the same with the code's suggestion applied, which is accepted. */
#include "program.h"

static const u32 weights[4] = {1, 2, 4, 8};
u32 histogram[8];

PROGRAM(V101_before)
{
    u8 buffer[16] = {}, *b = buffer;
    u32 i = ctx->hash & 63;
    asm volatile("" : "+r"(b));
    b[i] = 1; /* V101: outside the stack */
    return CHAM_DONE;
}

PROGRAM(V101_after)
{
    u8 buffer[16] = {}, *b = buffer;
    u32 i = ctx->hash & 63;
    asm volatile("" : "+r"(b));
    if (i < sizeof buffer)
        b[i] = 1;
    return CHAM_DONE;
}

PROGRAM(V102_before)
{
    u8 *ip = ctx->data;
    if (ip + 14 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return ip[20]; /* V102: past the proven packet bytes */
}

PROGRAM(V102_after)
{
    u8 *ip = ctx->data;
    if (ip + 21 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return ip[20];
}

PROGRAM(V103_before)
{
    u32 zero = 0;
    struct flow *f = cham_lookup(&flows, &zero);
    return f ? f->name[(ctx->hash & 63) + 56] : 0; /* V103: outside a map's value */
}

PROGRAM(V103_after)
{
    u32 zero = 0, i = (ctx->hash & 63) + 56;
    struct flow *f = cham_lookup(&flows, &zero);
    return f && i < sizeof f->name ? f->name[i] : 0;
}

PROGRAM_OF(ring, V104_before)
{
    u64 *entry = ctx->entry;
    return entry[2]; /* V104: outside the ring's entry */
}

PROGRAM_OF(ring, V104_after)
{
    struct message *entry = ctx->entry;
    return entry->when;
}

PROGRAM(V105_before)
{
    return ((u32 *)ctx)[14]; /* V105: outside the context */
}

PROGRAM(V105_after)
{
    return ctx->csum_ok;
}

PROGRAM(V106_before)
{
    return weights[ctx->hash & 7]; /* V106: outside global data */
}

PROGRAM(V106_after)
{
    u32 i = ctx->hash & 7;
    return i < sizeof weights / sizeof *weights ? weights[i] : 0;
}

PROGRAM(V107_before)
{
    u8 *p = (u8 *)ctx->now;
    return *p; /* V107: not an address */
}

PROGRAM(V107_after)
{
    u8 *p = ctx->data;
    return p + 1 > (u8 *)ctx->data_end ? CHAM_ERROR(1) : *p;
}

PROGRAM(V108_before)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    f->packets++; /* V108: may be NULL */
    return CHAM_DONE;
}

PROGRAM(V108_after)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    f->packets++;
    return CHAM_DONE;
}

PROGRAM(V110_before)
{
    u8 *ip = ctx->data;
    if (cham_resize(ctx, 60))
        return CHAM_ERROR(1);
    if (ip + 20 > (u8 *)ctx->data_end) /* V110: is used before it has a value */
        return CHAM_ERROR(2);
    return ip[9];
}

PROGRAM(V110_after)
{
    if (cham_resize(ctx, 60))
        return CHAM_ERROR(1);
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(2);
    return ip[9];
}

PROGRAM(V111_before)
{
    struct flow_key k;
    k.address = ctx->hash;
    k.port = 80;
    k.kind = 6;
    return cham_lookup(&table, &k) ? CHAM_DONE : CHAM_PUNT; /* V111: Stack bytes read before */
}

PROGRAM(V111_after)
{
    struct flow_key k = {};
    k.address = ctx->hash;
    k.port = 80;
    k.kind = 6;
    return cham_lookup(&table, &k) ? CHAM_DONE : CHAM_PUNT;
}

PROGRAM(V112_before)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        f->bytes = (u64)ctx->data; /* V112: would leave the handler */
    return CHAM_DONE;
}

PROGRAM(V112_after)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        f->bytes = ctx->data_end - ctx->data;
    return CHAM_DONE;
}

PROGRAM(V113_before)
{
    ctx->id &= 63; /* V113: read-only */
    return ctx->id;
}

PROGRAM(V113_after)
{
    u32 id = ctx->id;
    id &= 63;
    return id;
}

PROGRAM(V114_before)
{
    return histogram[ctx->id]; /* V114: Arithmetic that pointers do not have */
}

PROGRAM(V114_after)
{
    return ctx->id < 8 ? histogram[ctx->id] : 0;
}

PROGRAM(V115_before)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        __sync_fetch_and_add((u64 *)((u8 *)f + 20), 1); /* V115: may be misaligned */
    return CHAM_DONE;
}

PROGRAM(V115_after)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        __sync_fetch_and_add((u64 *)((u8 *)f + 24), 1);
    return CHAM_DONE;
}

PROGRAM(V120_before)
{
    return cham_lookup(&flows, (void *)(u64)ctx->id) != 0; /* V120: does not take */
}

PROGRAM(V120_after)
{
    u32 i = ctx->id;
    return cham_lookup(&flows, &i) != 0;
}

PROGRAM(V121_before)
{
    u64 (*bpf_ktime_get_ns)(void) = (void *)5;
    return bpf_ktime_get_ns() & 3; /* V121: No such helper */
}

PROGRAM(V121_after)
{
    return ctx->now & 3;
}

PROGRAM(V122_before)
{
    u32 i = ctx->core & 15;
    struct counter *c = cham_lookup(&counters, &i);
    return c && cham_lookup(&flows, &c->parts[0]) ? CHAM_DONE : CHAM_PUNT; /* V122: Shared memory */
}

PROGRAM(V122_after)
{
    u32 i = ctx->core & 15;
    struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return CHAM_PUNT;
    u32 key = c->parts[0];
    return cham_lookup(&flows, &key) ? CHAM_DONE : CHAM_PUNT;
}

PROGRAM(V130_before)
{
    u32 i = ctx->core & 15;
    volatile struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return CHAM_PUNT;
    while (!c->value) /* V130: may never end */
        ;
    return CHAM_DONE;
}

PROGRAM(V130_after)
{
    u32 i = ctx->core & 15;
    volatile struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return CHAM_PUNT;
    for (u32 turns = 0; turns < 100 && !c->value; turns++)
        ;
    return CHAM_DONE;
}

NOINLINE u64 sum_of(u32 n, u32 *p);

PROGRAM(V131_before)
{
    return sum_of(ctx->id & 7, histogram);
}

NOINLINE u64 sum_of(u32 n, u32 *p)
{
    return n ? *p * sum_of(n - 1, p) + *p : 1; /* V131: Recursion */
}

PROGRAM(V131_after)
{
    u64 sum = 1;
    for (u32 n = ctx->id & 7; n; n--)
        sum = histogram[0] * sum + histogram[0];
    return sum;
}

#define DEEPER(name, next)                                                                                              \
    NOINLINE u32 name(u32 x, u32 *p)                                                                                    \
    {                                                                                                                   \
        *p += x;                                                                                                        \
        return next(x ^ *p, p) + *p;                                                                                    \
    }

NOINLINE u32 two(u32 x, u32 *p);

DEEPER(three, two)
DEEPER(four, three)
DEEPER(five, four)
DEEPER(six, five)
DEEPER(seven, six)
DEEPER(eight, seven)

PROGRAM(V132_before)
{
    u32 v = 0;
    return eight(ctx->id, &v);
}

NOINLINE u32 one(u32 x, u32 *p)
{
    *p += x;
    return *p;
}

DEEPER(two, one) /* V132: Calls nest too deeply */

DEEPER(two_with_one, one)
DEEPER(four_with_three, two_with_one)

PROGRAM(V132_after)
{
    u32 v = 0;
    return four_with_three(ctx->id, &v);
}

PROGRAM(V140_before)
{
    u64 (*function)(u64) = ctx->id ? (void *)ctx->now : (void *)&histogram;
    return function(1); /* V140: not supported */
}

PROGRAM(V140_after)
{
    return ctx->id ? ctx->now : histogram[0];
}

u64 elsewhere(u64 x);

PROGRAM(V144_before)
{
    return elsewhere(ctx->now); /* V144: cannot be resolved */
}

NOINLINE u64 here(u64 x)
{
    return x * 3;
}

PROGRAM(V144_after)
{
    return here(ctx->now);
}

PROGRAM(V160_before)
{
    u32 sum = 0;
#pragma clang loop unroll(disable)
    for (u8 *p = ctx->data; p + 1 <= (u8 *)ctx->data_end; p++) /* V160: Too much to explore */
        sum += *p;
    return sum;
}

PROGRAM(V160_after)
{
    u32 sum = 0, turns = 0;
#pragma clang loop unroll(disable)
    for (u8 *p = ctx->data; p + 1 <= (u8 *)ctx->data_end && turns < 100; p++, turns++)
        sum += *p;
    return sum;
}

PROGRAM(V161_before)
{
    u32 sum = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 64; i++)
        sum += cham_hash(ctx, i, sum); /* V161: costs more than the hook's budget */
    return sum;
}

PROGRAM(V161_after)
{
    u32 sum = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 4; i++)
        sum += cham_hash(ctx, i, sum);
    return sum;
}
