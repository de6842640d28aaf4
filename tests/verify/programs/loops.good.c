/* Loops: upwards, downwards, by pointers, over bytes and 8- or 32-bit counters, with exits in the middle, nested. */
#include "program.h"

u32 cells[64];
u8 bytes[256];

#define NO_UNROLL _Pragma("clang loop unroll(disable)")

PROGRAM(counter_of_8_bits)
{
    u32 sum = 0;
    NO_UNROLL
    for (u8 i = 0; i < 200; i++)
        sum += bytes[i];
    return sum;
}

PROGRAM(counter_of_8_bits_downwards)
{
    u32 sum = 0;
    NO_UNROLL
    for (u8 i = 63; i != 255; i--)
        sum += cells[i];
    return sum;
}

PROGRAM(counter_of_16_bits_in_steps)
{
    u32 sum = 0;
    NO_UNROLL
    for (u16 i = 0; i < 256; i += 8)
        sum += bytes[i] ^ bytes[i + 7];
    return sum;
}

PROGRAM(signed_counter_downwards)
{
    u32 sum = 0;
    NO_UNROLL
    for (int i = 63; i >= 0; i--)
        sum = sum * 31 + cells[i];
    return sum;
}

PROGRAM(counter_of_64_bits)
{
    u64 sum = 0;
    NO_UNROLL
    for (u64 i = 0; i < 64; i++)
        sum += (u64)cells[i] << (i & 31);
    return sum;
}

PROGRAM(doubling)
{
    u32 sum = 0;
    NO_UNROLL
    for (u32 i = 1; i < 64; i <<= 1)
        sum += cells[i];
    return sum;
}

PROGRAM(to_an_unknown_end)
{
    u32 sum = 0, n = ctx->id;
    if (n > 64)
        n = 64;
    NO_UNROLL
    for (u32 i = 0; i < n; i++)
        sum += cells[i];
    return sum;
}

PROGRAM(ends_in_the_middle)
{
    u32 i = 0;
    NO_UNROLL
    for (;;) {
        if (i >= 64)
            return CHAM_PUNT;
        if (cells[i] == ctx->hash)
            break;
        i++;
    }
    cells[i] = 0;
    return i;
}

PROGRAM(walks_by_a_pointer)
{
    u32 sum = 0;
    NO_UNROLL
    for (u32 *p = cells; p < cells + 64; p++)
        sum += *p;
    return sum;
}

PROGRAM(walks_a_value_by_a_pointer)
{
    u32 i = ctx->id, sum = 0;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    NO_UNROLL
    for (u32 *p = f->window, *stop = p + 8; p != stop; p++)
        sum += *p;
    return sum;
}

PROGRAM(walks_the_packet_in_words)
{
    u32 sum = 0, turns = 0;
    NO_UNROLL
    for (u32 *p = ctx->data; (void *)(p + 1) <= ctx->data_end && turns < 100; p++, turns++)
        sum ^= *p;
    return sum;
}

PROGRAM(walks_the_packet_in_records)
{
    struct record {
        u16 kind, length;
        u32 value;
    } *r = ctx->data;
    u32 sum = 0;
    NO_UNROLL
    for (u32 i = 0; i < 40; i++, r++) {
        if ((void *)(r + 1) > ctx->data_end)
            break;
        if (r->kind == 7)
            sum += r->value;
    }
    return sum;
}

PROGRAM(two_pointers_approach)
{
    u32 low = 0, high = 63, turns = 0;
    NO_UNROLL
    while (low < high && turns < 24) {
        if (cells[low & 63] + cells[high & 63] > 100)
            high--;
        else
            low++;
        turns++;
    }
    return low;
}

PROGRAM(nested_with_a_triangle)
{
    u32 pairs = 0;
    NO_UNROLL
    for (u32 i = 0; i < 12; i++) {
        NO_UNROLL
        for (u32 j = i + 1; j < 12; j++)
            if (cells[i] == cells[j])
                pairs++;
    }
    return pairs;
}

PROGRAM(three_deep)
{
    u32 sum = 0;
    NO_UNROLL
    for (u32 i = 0; i < 4; i++) {
        NO_UNROLL
        for (u32 j = 0; j < 4; j++) {
            NO_UNROLL
            for (u32 k = 0; k < 4; k++)
                sum += cells[i * 16 + j * 4 + k];
        }
    }
    return sum;
}

PROGRAM(do_while_with_a_flag)
{
    u32 again, turns = 0;
    do {
        again = 0;
        NO_UNROLL
        for (u32 i = 0; i + 1 < 6; i++) {
            if (cells[i] > cells[i + 1]) {
                u32 t = cells[i];
                cells[i] = cells[i + 1];
                cells[i + 1] = t;
                again = 1;
            }
        }
    } while (again && ++turns < 6);
    return turns;
}

PROGRAM(skips_and_goes_on)
{
    u32 sum = 0;
    NO_UNROLL
    for (u32 i = 0; i < 64; i++) {
        if (!(ctx->hash >> (i & 31) & 1))
            continue;
        if (cells[i] > 1000)
            break;
        sum += cells[i];
    }
    return sum;
}

PROGRAM(probes_a_table_of_its_own)
{
    u32 want = ctx->hash | 1;
    NO_UNROLL
    for (u32 i = 0; i < 8; i++) {
        u32 at = (want + i) % 64;
        if (cells[at] == want)
            return CHAM_DONE;
        if (!cells[at]) {
            cells[at] = want;
            return CHAM_PUNT;
        }
    }
    return CHAM_ERROR(1);
}

PROGRAM(clears_what_it_counted)
{
    u32 total = 0;
    NO_UNROLL
    for (u32 i = 0; i < sizeof cells / sizeof *cells; i++) {
        total += cells[i];
        cells[i] = 0;
    }
    __builtin_memset(bytes, 0, 64);
    return total;
}

PROGRAM(as_many_turns_as_a_header_says)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 words = ip[0] & 15, sum = 0;
    NO_UNROLL
    for (u32 i = 5; i < words; i++) {
        u32 *option = (u32 *)(ip + i * 4);
        if ((u8 *)(option + 1) > end)
            return CHAM_ERROR(2);
        sum ^= *option;
    }
    return sum;
}

PROGRAM(batches_of_lookups)
{
    u32 found = 0;
    NO_UNROLL
    for (u32 i = 0; i < 32; i++) {
        struct flow *f = cham_lookup(&flows, &i);
        if (!f)
            break;
        if (f->state)
            found++;
        f->packets = 0;
    }
    return found;
}

PROGRAM(walk_until_the_end)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 sum = 0;
    for (u8 *q = p; q < end; q++) {
        sum += *q;
        if (q - p > 20)
            break;
    }
    return sum;
}
