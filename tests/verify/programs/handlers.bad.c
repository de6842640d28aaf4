/* Handlers that are right but for one thing: off by one, the wrong variable, one path, one sign, one width, one address too old. */
#include "program.h"

struct udp {
    u16 source, destination, length, checksum;
};

struct tcp {
    u16 source, destination;
    u32 seq, ack;
    u8 reserved : 4, words : 4;
    u8 flags;
    u16 window, checksum, urgent;
};

struct cell {
    u32 values[8];
    u64 total;
};

CHAM_ARRAY(cells, 16, struct cell, 0);
u32 numbers[16];
u32 where;
struct {
    u32 a[7], b[9];
} everything = {.a = {1}};
static const u16 primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};

/* ---- packets ------------------------------------------------------------------------------------------------------- */

PROGRAM(header_checked_by_the_size_of_a_pointer)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((u8 *)ip + sizeof ip > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return ip->protocol; /* V102: packet offset 9..10 is not within the proven [0, 8) */
}

PROGRAM(header_checked_by_its_start)
{
    struct udp *u = ctx->data;
    if ((void *)u > ctx->data_end)
        return CHAM_ERROR(1);
    return u->destination; /* V102: read past the proven packet bytes */
}

PROGRAM(header_checked_for_one_byte_less)
{
    u8 *p = ctx->data;
    if (p + 7 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return ((struct udp *)p)->checksum; /* V102: packet offset 6..8 is not within the proven [0, 7) */
}

PROGRAM(at_the_end_is_not_before_it)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    for (u32 i = 0; i < 10; i++, p++) {
        if (p > end)
            break;
        if (*p == 0) /* V102: read past the proven packet bytes */
            return i;
    }
    return CHAM_DONE;
}

PROGRAM(inner_header_checked_as_the_outer_one)
{
    struct cham_ipv4 *ip = ctx->data;
    void *end = ctx->data_end;
    if ((void *)(ip + 1) > end)
        return CHAM_ERROR(1);
    struct cham_ipv4 *inner = (void *)ip + (ip->version_ihl & 15) * 4;
    if ((void *)(ip + 1) > end)
        return CHAM_ERROR(2);
    return inner->ttl; /* V102: the packet */
}

PROGRAM(option_longer_than_what_was_checked)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 2 > end)
        return CHAM_ERROR(1);
    u8 *next = p + 2 + p[1];
    if (next > end)
        return CHAM_ERROR(2);
    return *next; /* V102: read past the proven packet bytes */
}

PROGRAM(offset_of_16_bits_unchecked)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 24 > end)
        return CHAM_ERROR(1);
    u32 offset = cham_ntohs(*(u16 *)p);
    if (p + offset > end)
        return CHAM_ERROR(2);
    return p[offset + 1]; /* V102: read past the proven packet bytes */
}

PROGRAM(offset_of_32_bits)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 4 > end)
        return CHAM_ERROR(1);
    u32 offset = *(u32 *)p;
    if (p + offset + 1 > end) /* V114: an unbounded number is added to a pointer */
        return CHAM_ERROR(2);
    return p[offset];
}

PROGRAM(offset_may_be_negative)
{
    s8 *p = ctx->data, *end = ctx->data_end;
    if (p + 4 > end)
        return CHAM_ERROR(1);
    s32 offset = p[3];
    if (p + offset + 1 > end)
        return CHAM_ERROR(2);
    return p[offset]; /* V102: before the packet's first */
}

PROGRAM(tag_checked_on_one_path)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 4 > end)
        return CHAM_ERROR(1);
    u32 size = 4;
    if (p[0] == 0x81) {
        if (p + 8 > end)
            return CHAM_ERROR(2);
        size = 8;
    } else if (p[0] == 0x88) {
        size = 8;
    }
    u32 last = size - 1;
    asm volatile("" : "+r"(last));
    return last > 7 ? 0 : p[last & 7]; /* V102: read past the proven packet bytes */
}

PROGRAM(loop_that_reads_one_word_more)
{
    u16 *p = ctx->data, *end = ctx->data_end;
    u32 sum = 0;
    for (u32 i = 0; i < 10; i++) {
        if (p + i > end)
            break;
        sum += p[i]; /* V102: read past the proven packet bytes */
    }
    return sum;
}

PROGRAM(length_checked_signed)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 4 > end)
        return CHAM_ERROR(1);
    s32 length = *(s32 *)p;
    if (length > 64)
        return CHAM_ERROR(2);
    u8 *last = p + length; /* V114: an unbounded number is added to a pointer */
    if (last + 1 > end)
        return CHAM_ERROR(3);
    return *last;
}

PROGRAM(payload_before_the_check)
{
    struct tcp *t = ctx->data;
    u8 *payload = (u8 *)t + t->words * 4; /* V102: read past the proven packet bytes */
    if (payload + 1 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return *payload;
}

PROGRAM(check_of_another_packet)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 40 > end)
        return CHAM_ERROR(1);
    if (cham_resize(ctx, 20))
        return CHAM_ERROR(2);
    p = ctx->data;
    return p[30]; /* V102: packet offset 30..31 is not within the proven [0, 0) */
}

PROGRAM(old_end_for_a_new_packet)
{
    u8 *end = ctx->data_end;
    if (cham_resize(ctx, 60))
        return CHAM_ERROR(1);
    u8 *p = ctx->data;
    if (p + 20 > end) /* V110: is used before it has a value */
        return CHAM_ERROR(2);
    return p[0];
}

PROGRAM(payload_of_the_packet_before_the_copy)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 40 > end)
        return CHAM_ERROR(1);
    u8 *payload = p + 28;
    if (cham_bytes_to_pkt(ctx, &buffers, ctx->id, 0, CHAM_SPAN(28, 100)))
        return CHAM_ERROR(2);
    payload[0] = 1; /* V110: is used before it has a value */
    return CHAM_TX;
}

PROGRAM(packet_kept_over_a_loop_that_emits)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 20 > end)
        return CHAM_ERROR(1);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 2; i++) {
        p[8] = 64; /* V110: is used before it has a value */
        cham_emit(ctx);
    }
    return CHAM_DONE;
}

NOINLINE s64 grow(struct chamelio_ctx *ctx, u32 by)
{
    return cham_resize(ctx, 100 + (by & 63));
}

PROGRAM(packet_kept_over_a_function_that_resizes)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 20 > end)
        return CHAM_ERROR(1);
    if (grow(ctx, p[3]))
        return CHAM_ERROR(2);
    return p[8]; /* V110: is used before it has a value */
}

PROGRAM(last_byte_from_the_end)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 20 > end)
        return CHAM_ERROR(1);
    return end[-1]; /* V107: through the packet's end */
}

/* ---- tables -------------------------------------------------------------------------------------------------------- */

PROGRAM(index_of_a_global_not_masked)
{
    u32 h = ctx->hash, at = where;
    for (u32 i = 0; i < 16; i++)
        if (numbers[i] == h)
            return CHAM_DONE;
    numbers[at] = h; /* V114: unbounded number */
    where = (at + 1) % 16;
    return CHAM_PUNT;
}

PROGRAM(index_up_to_and_with_the_size)
{
    u32 i = ctx->id;
    if (i > sizeof everything / 4)
        return CHAM_ERROR(1);
    return ((u32 *)&everything)[i]; /* V106: .data */
}

PROGRAM(index_checked_in_a_copy_that_is_narrower)
{
    u32 i = ctx->hash;
    if ((u16)i >= 16)
        return CHAM_ERROR(1);
    return numbers[i]; /* V114: unbounded number */
}

PROGRAM(index_masked_for_a_larger_table)
{
    return primes[ctx->hash & 15]; /* V106: .rodata */
}

PROGRAM(index_of_the_wrong_unit)
{
    u32 i = ctx->hash & 63;
    return *(u32 *)((u8 *)&everything + i); /* V106: .data */
}

PROGRAM(index_incremented_after_the_check)
{
    u32 i = ctx->id;
    if (i >= 16)
        return CHAM_ERROR(1);
    u32 *all = (u32 *)&everything;
    all[i] = 0;
    asm volatile("" : "+r"(i));
    if (i < 16)
        i++;
    return i <= 16 ? all[i] : 0; /* V106: .data */
}

PROGRAM(index_below_zero_by_subtraction)
{
    u32 i = ctx->hash & 15;
    return numbers[i - 1]; /* V114: unbounded number */
}

PROGRAM(index_signed_and_checked_above)
{
    s64 i = (s32)ctx->id;
    if (i >= 16)
        return CHAM_ERROR(1);
    return numbers[i]; /* V114: unbounded number */
}

PROGRAM(row_checked_column_not)
{
    u32 zero = 0, i = ctx->id, j = ctx->hash;
    struct cell *c = cham_lookup(&cells, &zero);
    if (!c || i >= 8)
        return CHAM_ERROR(1);
    return c->values[j]; /* V114: unbounded number */
}

PROGRAM(either_condition_suffices)
{
    u32 i = ctx->id;
    if (i >= 16 && ctx->core)
        return CHAM_ERROR(1);
    return numbers[i]; /* V114: unbounded number */
}

PROGRAM(element_behind_the_last)
{
    u32 zero = 0, sum = 0;
    struct cell *c = cham_lookup(&cells, &zero);
    if (!c)
        return CHAM_ERROR(1);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i <= 10; i++)
        sum += ((u32 *)c)[i]; /* V103: map cells */
    return sum;
}

PROGRAM(wider_than_the_field)
{
    u32 zero = 0, i = ctx->hash & 15;
    struct cell *c = cham_lookup(&cells, &zero);
    if (!c)
        return CHAM_ERROR(1);
    return *(u64 *)((u8 *)c + i * 4 - 24); /* V103: map cells */
}

PROGRAM(value_of_one_branch_only)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f && ctx->core)
        return CHAM_ERROR(1);
    f->packets++; /* V107: not an address */
    return CHAM_DONE;
}

PROGRAM(value_after_the_second_lookup)
{
    u32 i = ctx->id, j = 0;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f) {
        f = cham_lookup(&flows, &j);
        if (f)
            f->packets = 1; /* V108: may be NULL */
    }
    f->bytes = 2;
    return CHAM_DONE;
}

PROGRAM(field_of_nothing)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    u32 *window = f->window;
    if (!window)
        return CHAM_ERROR(1);
    asm volatile("" : "+r"(window));
    return window[0]; /* V108: it has not been compared with NULL */
}

PROGRAM(value_in_a_loop_checked_once)
{
    u64 sum = 0;
    struct flow *f = 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < 4; i++) {
        u32 at = ctx->hash >> i & 63;
        f = cham_lookup(&flows, &at);
        if (i == 0 && !f)
            return CHAM_ERROR(1);
        sum += f->bytes; /* V108: may be NULL */
    }
    return sum;
}

NOINLINE struct flow *flow_of(u32 i)
{
    return cham_lookup(&flows, &i);
}

PROGRAM(value_of_a_function_unchecked)
{
    return flow_of(ctx->id)->bytes; /* V108: may be NULL */
}

/* ---- keys, values, entries ----------------------------------------------------------------------------------------- */

PROGRAM(key_assigned_whole_leaves_its_padding)
{
    struct flow_key k;
    k.address = ctx->hash;
    k.port = (u16)ctx->id;
    k.kind = 6;
    struct flow fresh = {};
    return cham_update(&table, &k, &fresh, 0); /* V111: not all of them were written */
}

PROGRAM(key_filled_on_one_path)
{
    u32 key;
    if (ctx->hash & 1)
        key = ctx->id;
    asm volatile("" : : "r"(&key) : "memory");
    return cham_lookup(&flows, &key) != 0; /* V111: not all of them were written */
}

PROGRAM(key_shorter_than_the_tables)
{
    u32 address = ctx->hash;
    return cham_lookup(&table, &address) != 0; /* V101: stack */
}

PROGRAM(value_filled_in_part)
{
    struct flow f;
    u32 i = ctx->id;
    f.packets = 1;
    f.bytes = 0;
    asm volatile("" : : "r"(&f) : "memory");
    return cham_update(&flows, &i, &f, 0); /* V111: not all of them were written */
}

PROGRAM(value_that_is_a_number)
{
    u32 i = ctx->id;
    return cham_update(&flows, &i, (void *)1, 0); /* V120: argument 3 */
}

PROGRAM(array_by_the_wrong_helper)
{
    u32 i = ctx->id;
    return cham_delete(&flows, &i); /* V120: map flows is of another kind */
}

PROGRAM(timer_in_a_table_of_values)
{
    return cham_schedule(&flows, ctx->id, ctx->now); /* V120: map flows is of another kind */
}

PROGRAM(context_in_the_place_of_a_map)
{
    u32 i = 0;
    return cham_lookup(ctx, &i) != 0; /* V120: argument 1 */
}

PROGRAM_OF(ring, entry_pushed_on_as_it_is_longer)
{
    u64 *m = ctx->entry;
    return cham_push(&events, 1, m + 1); /* V104: the ring's entry */
}

PROGRAM(entry_of_a_packet_unchecked)
{
    return cham_push(&events, 1, ctx->data); /* V102: packet offset 0..16 */
}

PROGRAM(key_behind_the_check)
{
    u8 *p = ctx->data;
    if (p + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return cham_lookup(&flows, p + 17) != 0; /* V102: packet offset 17..21 */
}

/* ---- addresses ----------------------------------------------------------------------------------------------------- */

PROGRAM(address_returned_by_mistake)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_DONE;
    return (u64)&f->bytes;
} /* V112: is returned */

u64 leak;

PROGRAM(address_kept_in_a_global)
{
    leak = (u64)ctx->data_end; /* V112: is stored */
    return CHAM_DONE;
}

PROGRAM(address_in_an_entry)
{
    struct message m = {.id = 1, .when = (u64)ctx->data};
    return cham_push(&events, 1, &m); /* V112: it would leave the handler */
}

PROGRAM(address_in_a_key)
{
    struct flow *f;
    u64 key = (u64)&key;
    f = cham_lookup(&table, &key); /* V112: it would leave the handler */
    return f != 0;
}

PROGRAM(address_added_to_a_counter)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        __sync_fetch_and_add(&f->bytes, (u64)f); /* V114: needs a number */
    return CHAM_DONE;
}

PROGRAM(address_compared_with_a_limit)
{
    u8 *p = ctx->data;
    return (u64)p < 4096 ? CHAM_DONE : CHAM_PUNT; /* V114: compared */
}

PROGRAM(address_rounded_up)
{
    u8 *p = ctx->data;
    p = (u8 *)(((u64)p + 7) & ~7ull); /* V114: an operation on */
    if (p + 8 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return *p;
}

/* ---- memory that is not to be written, or not so ---------------------------------------------------------------------- */

PROGRAM(table_of_constants_written)
{
    u16 *table_ = (u16 *)primes;
    asm volatile("" : "+r"(table_));
    table_[ctx->hash & 7] = 0; /* V113: .rodata */
    return CHAM_DONE;
}

PROGRAM(time_set_back)
{
    ctx->now = 0; /* V113: the context is written */
    return CHAM_DONE;
}

PROGRAM(counter_in_the_packet)
{
    u64 *n = ctx->data;
    if ((void *)(n + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    __sync_fetch_and_add(n, 1); /* V115: not known to be aligned */
    return CHAM_TX;
}

PROGRAM(counter_at_an_odd_place)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        __sync_fetch_and_add((u64 *)((u8 *)f + 20), 1); /* V115: misaligned */
    return CHAM_DONE;
}

PROGRAM(shared_field_read_across_its_neighbour)
{
    u32 i = ctx->id;
    struct counter *c = cham_lookup(&counters, &i);
    return c ? *(u64 *)((u8 *)c + 4) : 0; /* V115: misaligned */
}

/* ---- stack --------------------------------------------------------------------------------------------------------- */

PROGRAM(local_array_read_before_it_is_written)
{
    u32 seen[8];
    asm volatile("" : : "r"(seen) : "memory");
    return seen[ctx->hash & 7]; /* V111: not all of them were written */
}

PROGRAM(local_array_written_behind_its_end)
{
    u8 buffer[16] = {};
    u8 *p = ctx->data;
    if (p + 1 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u32 at = p[0];
    u8 *b = buffer;
    asm volatile("" : "+r"(b));
    b[at] = 1; /* V101: stack */
    return buffer[3];
}

PROGRAM(large_local_array_behind_its_end)
{
    u8 big[400];
    u64 i = ctx->hash & 255;
    u8 *b = big;
    asm volatile("" : "+r"(b));
    b[i + 150] = 1; /* V101: stack */
    return CHAM_DONE;
}

/* ---- loops and calls ----------------------------------------------------------------------------------------------- */

PROGRAM(counter_that_wraps)
{
    u32 sum = 0;
#pragma clang loop unroll(disable)
    for (u8 i = 0; i < 250; i++) {
        asm volatile("" : "+r"(i)); /* V130: may never end */
        if (i == 20)
            i = 0;
        sum += numbers[i & 15];
    }
    return sum;
}

PROGRAM(waits_for_a_flag)
{
    volatile u32 *flag = &where;
    while (*flag == 0) /* V130: may never end */
        ;
    return CHAM_DONE;
}

PROGRAM(list_followed_to_its_end)
{
    u32 at = ctx->id;
    for (;;) {
        struct flow *f = cham_lookup(&flows, &at);
        if (!f) /* V130: may never end */
            return CHAM_DONE;
        asm volatile("" : "+r"(f));
        at = f->next;
    }
}

NOINLINE u32 odd(u32 n, u32 *steps);
NOINLINE u32 even(u32 n, u32 *steps);

PROGRAM(functions_that_call_each_other)
{
    u32 steps = 0;
    return even(ctx->hash & 3, &steps);
}

NOINLINE u32 odd(u32 n, u32 *steps)
{
    *steps += 1;
    return n ? even(n - 1, steps) + *steps : 0; /* V131: calls itself */
}

NOINLINE u32 even(u32 n, u32 *steps)
{
    *steps += 2;
    return n ? odd(n - 1, steps) + *steps : 1;
}

PROGRAM(function_at_an_address)
{
    u64 (*f)(u64) = (void *)ctx->now;
    return f(1); /* V140: callx */
}
