/* Values: masks, 32 bits beside 64, signs, shifts, sequence numbers, divisions. */
#include "program.h"

static const u8 small[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
u32 cells[32];
u64 words[4];

PROGRAM(lowest_bit)
{
    u32 v = ctx->hash, n = 0;
    if (!v)
        return CHAM_DONE;
    if (!(v & 0xffff)) {
        n += 16;
        v >>= 16;
    }
    if (!(v & 0xff)) {
        n += 8;
        v >>= 8;
    }
    if (!(v & 0xf)) {
        n += 4;
        v >>= 4;
    }
    if (!(v & 3)) {
        n += 2;
        v >>= 2;
    }
    n += !(v & 1);
    return cells[n];
}

PROGRAM(bits_counted_by_a_table)
{
    u32 v = ctx->hash, n = 0;
    for (; v; v >>= 4)
        n += small[v & 15];
    return n;
}

PROGRAM(bits_counted_one_by_one)
{
    u32 v = ctx->hash & 0xffff, n = 0;
    for (u32 i = 0; i < 16; i++)
        n += v >> i & 1;
    return cells[n];
}

PROGRAM(each_set_bit)
{
    u32 mask = ctx->hash & 0xff, sum = 0;
    for (u32 i = 0; i < 8; i++)
        if (mask & 1u << i)
            sum += cells[i * 4 + (mask >> i & 3)];
    return sum;
}

PROGRAM(bit_of_a_bitmap)
{
    u32 bit = ctx->hash & 255;
    if (words[bit >> 6] & 1ull << (bit & 63))
        return CHAM_DONE;
    words[bit >> 6] |= 1ull << (bit & 63);
    return CHAM_PUNT;
}

PROGRAM(rounded_up_to_a_power)
{
    u32 v = ctx->id;
    v--;
    v |= v >> 1;
    v |= v >> 2;
    v |= v >> 4;
    v |= v >> 8;
    v |= v >> 16;
    v++;
    return v <= 32 && v ? cells[v - 1] : CHAM_ERROR(1);
}

PROGRAM(clamped_by_signs)
{
    s32 v = (s32)(ctx->id - ctx->hash);
    v = v < -16 ? -16 : v > 15 ? 15 : v;
    return cells[v + 16];
}

PROGRAM(clamped_in_64_bits)
{
    s64 v = (s64)ctx->now - 1000;
    if (v < 0)
        v = 0;
    else if (v > 31)
        v = 31;
    return cells[v];
}

PROGRAM(smaller_of_two)
{
    u32 a = ctx->id, b = ctx->hash, n = a < b ? a : b;
    return n < 32 ? cells[n] : CHAM_ERROR(1);
}

PROGRAM(sixteen_bits_subtracted)
{
    u16 a = (u16)ctx->id, b = (u16)ctx->hash;
    u16 distance = a - b;
    return distance < 32 ? cells[distance] : CHAM_ERROR(1);
}

PROGRAM(window_of_sequence_numbers)
{
    u32 i = ctx->core & 15, seq = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    u32 ahead = seq - f->next;
    if ((s32)ahead < 0)
        return CHAM_DONE;
    if (ahead >= 64)
        return CHAM_PUNT;
    f->bytes |= 1ull << ahead;
    u32 n = 0;
    while (f->bytes & 1 && n < 64) {
        f->bytes >>= 1;
        n++;
    }
    f->next += n;
    return CHAM_DONE;
}

PROGRAM(replay_window)
{
    u32 i = 0, seq = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    if (seq > f->next) {
        u32 shift = seq - f->next;
        f->bytes = shift < 64 ? f->bytes << shift | 1 : 1;
        f->next = seq;
        return CHAM_DONE;
    }
    u32 behind = f->next - seq;
    if (behind >= 64 || f->bytes >> behind & 1)
        return CHAM_ERROR(2);
    f->bytes |= 1ull << behind;
    return CHAM_DONE;
}

PROGRAM(moving_average)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    s64 sample = (s64)(ctx->now - f->bytes), error = sample - (s64)f->packets;
    f->packets += error >> 3;
    if (error < 0)
        error = -error;
    f->state += (s32)(error - f->state) / 4;
    u64 timeout = f->packets + 4 * f->state;
    if (timeout < 1000000)
        timeout = 1000000;
    return cham_schedule(&deadlines, i, ctx->now + timeout) ? CHAM_ERROR(2) : CHAM_DONE;
}

PROGRAM(scaled_by_multiplication)
{
    u32 slot = (u64)ctx->hash * 32 >> 32;
    return cells[slot];
}

PROGRAM(index_of_two_parts)
{
    u32 h = ctx->hash, high = h >> 30, low = h >> 3 & 7;
    return cells[high << 3 | low];
}

PROGRAM(index_of_a_product)
{
    u32 row = ctx->id % 4, column = ctx->hash % 8;
    return cells[row * 8 + column];
}

PROGRAM(index_of_a_sum)
{
    u32 at = 0;
    if (ctx->id & 1)
        at += 16;
    if (ctx->id & 2)
        at += 8;
    if (ctx->hash > 100)
        at += ctx->hash & 7;
    return cells[at];
}

PROGRAM(index_of_a_difference)
{
    u32 a = ctx->id & 31;
    return cells[31 - a] + cells[a ^ 31];
}

PROGRAM(index_that_is_a_comparison)
{
    u32 at = (ctx->id > 5) + (ctx->hash > 9) * 2 + (ctx->core == 1) * 4 + !ctx->csum_ok * 8;
    return cells[at];
}

PROGRAM(index_of_a_wide_number)
{
    u64 n = ctx->now;
    if (n > 31)
        n %= 32;
    u32 narrow = (u32)n;
    return cells[narrow];
}

PROGRAM(index_of_a_swapped_port)
{
    u8 *p = ctx->data;
    if (p + 4 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u16 port = cham_ntohs(*(u16 *)(p + 2));
    if (port < 8000 || port > 8031)
        return CHAM_PUNT;
    return cells[port - 8000];
}

PROGRAM(index_checked_as_a_byte)
{
    u8 at = (u8)ctx->hash;
    if (at >= sizeof cells / sizeof *cells)
        return CHAM_ERROR(1);
    return cells[at];
}

PROGRAM(index_checked_by_its_mask)
{
    u32 at = ctx->hash;
    if (at & ~31u)
        return CHAM_ERROR(1);
    return cells[at];
}

PROGRAM(index_by_cases)
{
    u32 at;
    switch (ctx->id & 7) {
    case 0:
        at = 31;
        break;
    case 1:
    case 2:
        at = ctx->hash & 15;
        break;
    case 5:
        at = 3;
        break;
    default:
        return CHAM_ERROR(1);
    }
    return cells[at];
}

PROGRAM(square_root)
{
    u64 n = ctx->now, root = 0;
    for (int shift = 31; shift >= 0; shift--) {
        u64 candidate = root | 1ull << shift;
        if (candidate * candidate <= n)
            root = candidate;
    }
    return root;
}

PROGRAM(greatest_common_divisor)
{
    u32 a = ctx->id & 0xff, b = ctx->hash & 0xff;
    for (u32 i = 0; i < 16 && b; i++) {
        u32 t = a % b;
        a = b;
        b = t;
    }
    return a;
}

PROGRAM(random_numbers)
{
    u32 x = ctx->hash | 1;
    for (u32 i = 0; i < 8; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        cells[x >> 27] += 1;
    }
    return x;
}

PROGRAM(gray_code)
{
    u32 n = ctx->hash & 31, gray = n ^ n >> 1;
    return cells[gray];
}

PROGRAM(interleaved_bits)
{
    u32 x = ctx->id & 7, y = ctx->hash & 3;
    x = (x | x << 2) & 0x13;
    y = (y | y << 1) & 5;
    return cells[(x | y << 1) & 31];
}

PROGRAM(saturated)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    u32 sum;
    if (__builtin_add_overflow(f->state, ctx->hash, &sum))
        sum = ~0u;
    f->state = sum;
    u64 product;
    if (__builtin_mul_overflow((u64)sum, (u64)f->next, &product))
        return CHAM_ERROR(2);
    return product;
}

static const s8 steps[8] = {-4, -3, -2, -1, 1, 2, 3, 4};

PROGRAM(lowest_bit_by_multiplication)
{
    static const u8 places[32] = {0,  1,  28, 2,  29, 14, 24, 3, 30, 22, 20, 15, 25, 17, 4,  8,
                                  31, 27, 13, 23, 21, 19, 16, 7, 26, 12, 18, 6,  11, 5,  10, 9};
    u32 v = ctx->hash;
    return cells[places[(v & -v) * 0x077cb531u >> 27]];
}

PROGRAM(sign_extended_table)
{
    s32 at = 16 + steps[ctx->hash & 7];
    if (at < 0 || at >= 32)
        return CHAM_ERROR(1);
    return cells[at];
}

PROGRAM(divided_by_constants)
{
    u32 a = ctx->id, b = ctx->hash;
    return cells[a % 10] + cells[b / 10 % 32] + cells[a / 134217728];
}

PROGRAM(remainder_by_3)
{
    return cells[ctx->hash % 3];
}

PROGRAM(remainder_by_12)
{
    return cells[ctx->hash % 12];
}
