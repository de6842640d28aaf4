/* Mistakes as people make them in C; the comment says where and how each must be refused. */
#include "program.h"

static const u32 weights[4] = {1, 2, 4, 8};
u32 histogram[8];

PROGRAM(reads_without_a_check)
{
    u8 *ip = ctx->data;
    return ip[9]; /* V102: packet offset 9..10 is not within the proven [0, 0) */
}

PROGRAM(reads_past_the_check)
{
    u8 *ip = ctx->data;
    if (ip + 14 > (u8 *)ctx->data_end)
        return 0;
    return ip[20]; /* V102: packet offset 20..21 is not within the proven [0, 14) */
}

PROGRAM(checks_the_wrong_way)
{
    u8 *ip = ctx->data;
    if (ip + 20 < (u8 *)ctx->data_end)
        return 0;
    return ip[0]; /* V102: read past the proven packet bytes */
}

PROGRAM(forgets_the_options)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return 0;
    u16 *udp = (u16 *)(ip + (ip[0] & 15) * 4);
    return udp[3]; /* V102: never compared */
}

PROGRAM(checks_before_it_moves)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 60 > end)
        return 0;
    u8 *payload = ip + cham_ntohs(*(u16 *)(ip + 2));
    return *payload; /* V102: never compared */
}

PROGRAM(writes_past_the_end)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return 0;
    *(u32 *)(ip + 18) = 0; /* V102: packet offset 18..22 */
    return CHAM_TX;
}

PROGRAM(uses_the_packet_after_resize)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return 0;
    cham_resize(ctx, 64);
    ip[8] = 64; /* V110: is used before it has a value */
    return CHAM_TX;
}

PROGRAM(uses_the_packet_after_emit)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return 0;
    cham_emit(ctx);
    return ip[8]; /* V110: is used before it has a value */
}

PROGRAM(key_with_padding)
{
    struct flow_key k;
    k.address = ctx->id;
    k.port = 7;
    k.kind = 1;
    struct flow *f = cham_lookup(&table, &k); /* V111: not all of them were written */
    return f ? 1 : 0;
}

PROGRAM(half_a_message)
{
    struct message m;
    m.id = 1;
    m.when = ctx->now;
    cham_push(&events, 1, &m); /* V111: not all of them were written */
    return 0;
}

PROGRAM(lookup_without_a_check)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    f->packets++; /* V108: may be NULL */
    return 0;
}

PROGRAM(lookup_checked_too_late)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    u64 n = f->packets; /* V108: it has not been compared with NULL */
    return f ? n : 0;
}

PROGRAM(the_wrong_lookup_is_checked)
{
    u32 i = ctx->id, j = ctx->core;
    struct flow *f = cham_lookup(&flows, &i), *g = cham_lookup(&flows, &j);
    if (!g)
        return 0;
    f->bytes += 1; /* V108: may be NULL */
    return 0;
}

PROGRAM(index_past_an_array)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return 0;
    return ((u32 *)f)[sizeof *f / 4 + (i & 1)]; /* V103: map flows */
}

PROGRAM(index_from_the_packet)
{
    u8 *ip = ctx->data;
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f || ip + 1 > (u8 *)ctx->data_end)
        return 0;
    return f->name[ip[0]]; /* V103: map flows */
}

PROGRAM(index_checked_off_by_one)
{
    u32 zero = 0, i = ctx->id;
    struct flow *f = cham_lookup(&flows, &zero);
    if (!f || i > sizeof *f)
        return 0;
    return ((u8 *)f)[i]; /* V103: are not within [0, 72) */
}

PROGRAM(index_that_may_be_negative)
{
    u32 zero = 0;
    s32 i = (s32)ctx->id;
    struct flow *f = cham_lookup(&flows, &zero);
    if (!f || i >= 16)
        return 0;
    return f->name[i]; /* V114: unbounded number */
}

PROGRAM(table_index)
{
    return weights[ctx->id & 7]; /* V106: .rodata */
}

PROGRAM(global_index)
{
    histogram[(ctx->hash & 7) + 1]++; /* V106: .bss */
    return 0;
}

PROGRAM(waits_for_the_slow_path)
{
    u32 zero = ctx->core;
    volatile struct counter *c = cham_lookup(&counters, &zero);
    if (!c)
        return 0;
    while (!c->value) /* V130: may never end */
        ;
    return 0;
}

PROGRAM(loop_over_the_whole_packet)
{
    u64 sum = 0;
    for (u8 *p = ctx->data; p + 1 <= (u8 *)ctx->data_end; p++) /* V160: the loop that ends here */
        sum += *p;
    return sum;
}

PROGRAM(writes_the_context)
{
    ctx->id = 7; /* V113: the context is written */
    return 0;
}

PROGRAM(returns_an_address)
{
    return (u64)ctx->data; /* V112: a packet address is returned */
}

PROGRAM(stores_an_address)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        f->bytes = (u64)ctx; /* V112: the context is stored */
    return 0;
}

PROGRAM(hashes_an_address)
{
    return cham_hash(ctx, (u64)ctx->data, 1); /* V120: argument 2 (a) is a packet address */
}

PROGRAM(key_in_shared_memory)
{
    u32 i = ctx->id;
    struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return 0;
    return cham_lookup(&flows, &c->parts[0]) != 0; /* V122: could change while it is used */
}

PROGRAM(map_of_the_wrong_kind)
{
    struct message m = {.id = ctx->id};
    return cham_push(&requests, 1, &m); /* V120: map requests is of another kind */
}

PROGRAM(no_such_helper)
{
    long (*unknown)(void *) = (void *)99;
    return unknown(ctx); /* V121: helper 99 */
}

NOINLINE u32 depth(u32 n, u64 *out);

PROGRAM(recursion_in_c)
{
    u64 sum = 0;
    return depth(ctx->id & 3, &sum);
}

NOINLINE u32 depth(u32 n, u64 *out)
{
    *out += n;
    return n ? depth(n - 1, out) + 1 + (u32)*out : 0; /* V131: a function calls itself */
}

NOINLINE u8 third_byte(u8 *p);

PROGRAM(a_function_needs_more_than_was_checked)
{
    u8 *ip = ctx->data;
    if (ip + 2 > (u8 *)ctx->data_end)
        return 0;
    return third_byte(ip);
}

NOINLINE u8 third_byte(u8 *p)
{
    return p[2]; /* V102: packet offset 2..3 is not within the proven [0, 2) */
}

PROGRAM_OF(ring, entry_is_shorter)
{
    struct message *m = ctx->entry;
    return ((u64 *)m)[2]; /* V104: the ring's entry */
}

PROGRAM_OF(timer, no_entry_in_a_timer)
{
    struct message *m = ctx->entry;
    return m->id; /* V104: not within [0, 0) */
}

/* ---- distances to the packet's end ---------------------------------------------------------------------------------- */

PROGRAM(length_off_by_one)
{
    u8 *ip = ctx->data;
    u64 length = (u8 *)ctx->data_end - ip;
    if (length < 28)
        return CHAM_ERROR(1);
    return ip[28]; /* V102: packet offset 28..29 is not within the proven [0, 28) */
}

PROGRAM(length_of_another_base)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (end - ip < 20)
        return CHAM_ERROR(1);
    u8 *udp = ip + (ip[0] & 15) * 4;
    if (end - ip < 28)
        return CHAM_ERROR(2);
    return udp[7]; /* V102: never compared */
}

PROGRAM(length_that_is_negative)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (end - ip < 20)
        return CHAM_ERROR(1);
    u8 *udp = ip + (ip[0] & 15) * 4;
    u64 left = end - udp; // may lie below 0, and is large then
    if (left < 8)
        return CHAM_ERROR(2);
    return udp[7]; /* V102: read past the proven packet bytes */
}

PROGRAM(length_before_a_resize)
{
    u64 length = (u8 *)ctx->data_end - (u8 *)ctx->data;
    asm volatile("" : "+r"(length));
    if (cham_resize(ctx, 20))
        return CHAM_ERROR(1);
    u8 *ip = ctx->data;
    if (length < 64)
        return CHAM_ERROR(2);
    return ip[63]; /* V102: packet offset 63..64 */
}
