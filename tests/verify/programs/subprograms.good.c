/* Functions that are called, not inlined: with packets, values, results by pointer, loops, and each other. */
#include "program.h"

struct header {
    u8 *at, *end;
    u32 left;
};

u32 cells[64];

NOINLINE u16 fold(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)(sum + (sum >> 16));
}

PROGRAM(result_is_used)
{
    return cells[fold(ctx->now) & 63];
}

NOINLINE u32 clamp(u32 v, u32 most)
{
    return v > most ? most : v;
}

PROGRAM(result_is_bounded_by_an_argument)
{
    return cells[clamp(ctx->hash, 63)] + cells[clamp(ctx->id, 7) * 8];
}

NOINLINE s32 index_of(u32 h)
{
    if (h % 3 == 0)
        return -1;
    return h & 63;
}

PROGRAM(result_is_negative_or_an_index)
{
    s32 i = index_of(ctx->hash);
    if (i < 0)
        return CHAM_PUNT;
    return cells[i];
}

NOINLINE struct flow *flow_of(u32 i)
{
    return cham_lookup(&flows, &i);
}

PROGRAM(result_is_a_lookup)
{
    struct flow *f = flow_of(ctx->id), *g = flow_of(ctx->core);
    if (!f || !g)
        return CHAM_PUNT;
    f->packets++;
    g->bytes += f->packets;
    return CHAM_DONE;
}

NOINLINE u32 checked_byte(u8 *p, u8 *end, u32 at)
{
    if (at > 1500 || p + at + 1 > end)
        return 256;
    return p[at];
}

PROGRAM(packet_and_its_end_as_arguments)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 a = checked_byte(p, end, ctx->id), b = checked_byte(p, end, 9);
    return a > 255 || b > 255 ? CHAM_ERROR(1) : a ^ b;
}

NOINLINE void swap_addresses(struct cham_ipv4 *ip)
{
    u32 t = ip->src;
    ip->src = ip->dst;
    ip->dst = t;
}

PROGRAM(packet_changed_by_a_function)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    swap_addresses(ip);
    ip->ttl = 64;
    return CHAM_TX;
}

NOINLINE u64 sum_words(u16 *p, void *end, u32 count)
{
    u64 sum = 0;
    for (u32 i = 0; i < 16; i++) {
        if (i >= count || (void *)(p + i + 1) > end)
            break;
        sum += p[i];
    }
    return sum;
}

PROGRAM(loop_in_a_function)
{
    u16 *p = ctx->data;
    u64 sum = sum_words(p, ctx->data_end, 10);
    sum += sum_words(p, ctx->data_end, ctx->id & 15);
    return fold(sum);
}

NOINLINE u32 step(u32 state, u32 input)
{
    switch (state) {
    case 0:
        return input & 1 ? 1 : 0;
    case 1:
        return input & 2 ? 2 : 0;
    case 2:
        return input & 4 ? 3 : 1;
    default:
        return 3;
    }
}

PROGRAM(state_machine_step_by_step)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 state = 0;
    for (u32 i = 0; i < 10 && p + i + 1 <= end; i++)
        state = step(state, p[i]);
    return state == 3 ? CHAM_DONE : CHAM_PUNT;
}

NOINLINE s64 advance(struct header *h, u32 n)
{
    if (n > 255 || h->at + n > h->end)
        return -1;
    h->at += n;
    h->left -= n;
    return 0;
}

PROGRAM(cursor_behind_a_pointer)
{
    struct header h = {ctx->data, ctx->data_end, 1500};
    if (advance(&h, 20))
        return CHAM_ERROR(1);
    if (h.at + 2 > h.end)
        return CHAM_ERROR(2);
    u32 skip = h.at[1];
    if (advance(&h, skip) || advance(&h, 2))
        return CHAM_ERROR(3);
    return h.at + 1 > h.end ? CHAM_ERROR(4) : h.at[0];
}

NOINLINE u32 leaf(u32 x)
{
    return x * 2654435761u;
}

NOINLINE u32 middle(u32 x, u32 *counts)
{
    counts[x & 3]++;
    return leaf(x) ^ leaf(x + 1);
}

NOINLINE u32 top(u32 x, u32 *counts)
{
    return middle(x, counts) + middle(x >> 8, counts);
}

PROGRAM(functions_within_functions)
{
    u32 counts[4] = {};
    u32 h = top(ctx->hash, counts);
    return h ^ counts[0] ^ counts[1] ^ counts[2] ^ counts[3];
}

NOINLINE s64 account(u32 i, u64 bytes, u64 now)
{
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return -1;
    f->bytes += bytes;
    f->packets++;
    f->window[f->packets & 7] = (u32)now;
    return 0;
}

PROGRAM(accounts_twice)
{
    u64 n = ctx->data_end - ctx->data;
    s64 failed = account(ctx->id, n, ctx->now);
    if (failed)
        failed = account(0, n, ctx->now);
    return failed ? CHAM_ERROR(1) : CHAM_DONE;
}

NOINLINE s64 reply(struct chamelio_ctx *ctx, u32 length, u8 kind)
{
    if (length > 1000 || cham_resize(ctx, 20 + length))
        return -1;
    u8 *p = ctx->data;
    if (p + 21 > (u8 *)ctx->data_end)
        return -1;
    p[0] = 0x45;
    p[9] = 17;
    p[20] = kind;
    return 0;
}

PROGRAM(packet_resized_by_a_function)
{
    u8 *p = ctx->data;
    if (p + 28 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u8 kind = p[27];
    if (reply(ctx, kind * 2, kind))
        return CHAM_ERROR(2);
    p = ctx->data;
    if (p + 21 > (u8 *)ctx->data_end)
        return CHAM_ERROR(3);
    p[8] = 64;
    return CHAM_TX;
}

NOINLINE u32 five(u32 a, u32 b, u32 c, u32 d, u32 e)
{
    return a ^ b << 1 ^ c << 2 ^ d << 3 ^ e << 4;
}

PROGRAM(five_arguments)
{
    u8 *p = ctx->data;
    if (p + 8 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return five(p[0], p[1], p[2], ctx->id, (u32)ctx->now) + five(p[3], p[4], p[5], p[6], p[7]);
}

NOINLINE u64 *counter_of(struct flow *f, u32 which)
{
    return which ? &f->packets : &f->bytes;
}

PROGRAM(result_is_within_an_argument)
{
    struct flow *f = flow_of(ctx->id);
    if (!f)
        return CHAM_PUNT;
    *counter_of(f, ctx->hash & 1) += 1;
    return CHAM_DONE;
}

/* Functions with other names that more than one program calls, and a global one. */
__attribute__((noinline)) u32 shared_by_programs(u32 v)
{
    return v >> 26;
}

PROGRAM_OF(timer, calls_a_global_function)
{
    return cells[shared_by_programs(ctx->id) & 63];
}

PROGRAM_OF(tx, calls_a_global_function_too)
{
    u32 i = shared_by_programs(ctx->id);
    return i < 64 ? cells[i] : CHAM_ERROR(1);
}
