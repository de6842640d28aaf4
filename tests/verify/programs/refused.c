/* Safe programs that the verifier refuses: what it cannot see yet. One that passes is moved to a file of good programs. */
#include "program.h"

struct tcp {
    u16 source, destination;
    u32 seq, ack;
    u8 reserved : 4, words : 4;
    u8 flags;
    u16 window, checksum, urgent;
};

u32 cells[32];

/* ---- division by a variable ----------------------------------------------------------------------------------------- */

PROGRAM(divided_and_left_over)
{
    u32 a = ctx->id, b = ctx->hash % 10 + 1;
    u32 quotient = a / b, rest = a % b;
    return cells[rest] + cells[quotient % 32] + cells[a / 134217728];
}

/* ---- the compared number and the used one are the same half of a word, widened in two ways --------------------------- */

PROGRAM(index_checked_as_a_short)
{
    s16 at = (s16)ctx->hash;
    if (at < 0 || at > 31)
        return CHAM_ERROR(1);
    return cells[at];
}

/* ---- the comparison with the packet's end is removed by the compiler, to which it follows from others ---------------- */

PROGRAM(options_up_to_a_proven_end)
{
    u8 *end = ctx->data_end;
    struct tcp *t = ctx->data;
    if ((u8 *)(t + 1) > end)
        return CHAM_ERROR(1);
    u8 *at = (u8 *)(t + 1), *stop = (u8 *)t + t->words * 4;
    if (stop > end)
        return CHAM_ERROR(2);
    u32 seen = 0;
    for (u32 i = 0; i < 10; i++) {
        if (at + 1 > stop || at + 1 > end)
            break;
        seen ^= *at;
        at += 4;
    }
    return seen;
}

PROGRAM(options_of_a_proven_header)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 header = (ip[0] & 15) * 4, at = 20, seen = 0;
    if (header < 20 || ip + header > end)
        return CHAM_ERROR(2);
    while (at < header) {
        if (ip + at + 1 > end)
            return CHAM_ERROR(3);
        seen ^= ip[at];
        at += 4;
    }
    return seen;
}

PROGRAM(option_of_a_proven_length)
{
    u8 *at = ctx->data, *end = ctx->data_end;
    if (at + 2 > end)
        return CHAM_ERROR(1);
    u8 length = at[1];
    if (length < 2 || at + length > end)
        return CHAM_ERROR(2);
    if (at[0] == 3 && length == 3 && at + 3 <= end)
        return at[2];
    return CHAM_DONE;
}

/* ---- a count that is computed twice ---------------------------------------------------------------------------------- */

PROGRAM(words_counted_down)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 words = (ip[0] & 15) << 1;
    u16 *p = (u16 *)ip;
    u64 sum = 0;
    while (words-- > 0) {
        if ((void *)(p + 1) > (void *)end)
            return CHAM_ERROR(2);
        sum += *p++;
    }
    return sum;
}

/* ---- a remainder by a constant, which the compiler makes of a multiplication ----------------------------------------- */

PROGRAM(remainder_by_7)
{
    return cells[ctx->hash % 7];
}

PROGRAM(remainder_by_14)
{
    return cells[ctx->hash % 14];
}

PROGRAM(remainder_by_31)
{
    return cells[ctx->hash % 31];
}

PROGRAM(remainder_of_a_port_by_10)
{
    return cells[(u16)ctx->hash % 10];
}

/* ---- a pointer and a counter that move together ---------------------------------------------------------------------- */

PROGRAM(from_an_unknown_start)
{
    u32 sum = 0;
    for (u32 i = ctx->id & 31; i < 64; i++)
        sum += cells[i];
    return sum;
}

PROGRAM(between_unknown_ends)
{
    u32 first = ctx->id & 63, last = ctx->hash & 63, sum = 0;
    for (u32 i = first; i <= last; i++)
        sum += cells[i];
    return sum;
}

/* ---- a loop of which the compiler counts the turns by bit tricks ------------------------------------------------------- */

PROGRAM(halving)
{
    u32 n = 0;
    for (u32 v = ctx->hash; v; v >>= 1)
        n++;
    return cells[n];
}

PROGRAM(halving_64_bits)
{
    u32 n = 0;
    u64 v = ctx->now;
    while (v >>= 1)
        n++;
    return cells[n];
}

/* ---- an index within what is proven by a constant --------------------------------------------------------------------- */

/* ---- at most at the end, and not at it ---------------------------------------------------------------------------------- */

PROGRAM(bytes_up_to_a_length)
{
    u8 *p = ctx->data;
    u64 length = (u8 *)ctx->data_end - p;
    u32 sum = 0;
    for (u32 i = 0; i < 20; i++) {
        if (i >= length)
            break;
        sum += p[i];
    }
    return sum;
}

/* ---- two numbers of which the sum, or the greater, is checked --------------------------------------------------------------- */

PROGRAM(offset_and_length_within_a_name)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    u8 *p = ctx->data;
    if (!f || p + 2 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u8 offset = p[0], length = p[1];
    if (offset + length > 16 || !length)
        return CHAM_ERROR(2);
    return f->name[offset];
}

PROGRAM(below_a_count_that_is_checked_later)
{
    u32 i = ctx->id, count = ctx->hash;
    if (i < count && count <= 32)
        return cells[i];
    return CHAM_DONE;
}
