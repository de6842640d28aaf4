/* Programs for the kernel's hooks that are right but for one thing. */
#include "kernel.h"

struct event {
    u64 when;
    u32 a, b;
};

struct key {
    u32 address;
    u16 port;
};

MAP(table, HASH, 64, struct key, u64);
MAP(counts, ARRAY, 16, u32, u64);
MAP(values, ARRAY, 4, u32, struct event);
MAP_OF_BYTES(ring, RINGBUF, 4096);
MAP_WITHOUT_TYPES(programs, PROG_ARRAY, 8, 4, 4);
MAP_WITHOUT_TYPES(devices, DEVMAP, 8, 4, 4);
MAP_WITHOUT_TYPES(perf, PERF_EVENT_ARRAY, 8, 4, 4);
MAP_WITHOUT_TYPES(waiting, QUEUE, 32, 0, 8);
MAP_WITH_FLAGS(fixed, ARRAY, 4, u32, u64, READ_ONLY_FOR_PROGRAMS);

static const char text[] = "a message";
char changing[12] = "changing";

PROGRAM_OF(xdp, reserved_and_not_checked)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    e->when = 1; /* V108: may be NULL */
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
}

PROGRAM_OF(xdp, reserved_and_never_submitted)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_DROP;
    e->when = bpf_ktime_get_ns();
    return XDP_PASS;
} /* V117: has not been given back */

PROGRAM_OF(xdp, reserved_and_left_on_an_early_return)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_DROP;
    u8 *p = DATA;
    if (p + 4 > (u8 *)DATA_END)
        return XDP_ABORTED;
    e->a = *(u32 *)p;
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
} /* V117: has not been given back */

PROGRAM_OF(xdp, submitted_twice)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_DROP;
    e->a = 1;
    bpf_ringbuf_submit(e, 0);
    bpf_ringbuf_submit(e, 0); /* V110: is used before it has a value */
    return XDP_PASS;
}

PROGRAM_OF(xdp, written_after_it_was_submitted)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_DROP;
    bpf_ringbuf_submit(e, 0);
    e->a = 1; /* V110: is used before it has a value */
    return XDP_PASS;
}

PROGRAM_OF(xdp, written_past_what_was_reserved)
{
    u64 *e = bpf_ringbuf_reserve(&ring, sizeof(struct event), 0);
    if (!e)
        return XDP_DROP;
    e[2] = 1; /* V103: 16 */
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
}

PROGRAM_OF(xdp, reserves_an_unknown_size)
{
    u32 size = bpf_get_prandom_u32() & 63;
    void *e = bpf_ringbuf_reserve(&ring, size, 0); /* V120: argument 2 */
    if (e)
        bpf_ringbuf_discard(e, 0);
    return XDP_PASS;
}

PROGRAM_OF(xdp, submits_a_part)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_DROP;
    bpf_ringbuf_submit(&e->a, 0); /* V120: argument 1 */
    return XDP_PASS;
}

PROGRAM_OF(xdp, submits_a_map_value)
{
    u32 zero = 0;
    struct event *e = bpf_map_lookup_elem(&values, &zero);
    if (e)
        bpf_ringbuf_submit(e, 0); /* V120: argument 1 */
    return XDP_PASS;
}

INLINE struct bpf_sock *look_up(struct xdp_md *ctx)
{
    struct bpf_sock_tuple tuple = {1, 2, 3, 4};
    return bpf_sk_lookup_tcp(ctx, &tuple, sizeof tuple, -1, 0);
}

PROGRAM_OF(xdp, socket_never_released)
{
    struct bpf_sock *sk = look_up(ctx);
    return sk ? XDP_PASS : XDP_DROP; /* V117: has not been given back */
}

PROGRAM_OF(xdp, socket_released_on_one_path)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    if (sk->state == 10)
        return XDP_DROP;
    bpf_sk_release(sk);
    return XDP_PASS;
} /* V117: has not been given back */

PROGRAM_OF(xdp, socket_released_unchecked)
{
    bpf_sk_release(look_up(ctx)); /* V108: may be NULL */
    return XDP_PASS;
}

PROGRAM_OF(xdp, socket_read_after_its_release)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    bpf_sk_release(sk);
    return sk->state & 1; /* V110: is used before it has a value */
}

PROGRAM_OF(xdp, socket_written)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    sk->mark = 1; /* V113: written */
    bpf_sk_release(sk);
    return XDP_PASS;
}

PROGRAM_OF(xdp, socket_looked_up_twice_released_once)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    struct bpf_sock *other = look_up(ctx);
    bpf_sk_release(sk);
    return other ? XDP_DROP : XDP_PASS;
} /* V117: has not been given back */

PROGRAM_OF(xdp, socket_held_over_a_tail_call)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    bpf_tail_call(ctx, &programs, 1); /* V117: has not been given back */
    bpf_sk_release(sk);
    return XDP_PASS;
}

PROGRAM_OF(xdp, socket_past_its_fields)
{
    struct bpf_sock *sk = look_up(ctx);
    if (!sk)
        return XDP_PASS;
    u32 v = ((u32 *)sk)[20]; /* V105: no field of that size begins there */
    bpf_sk_release(sk);
    return v & 1;
}

PROGRAM_OF(xdp, packet_after_the_head_was_moved)
{
    u8 *p = DATA;
    if (p + 14 > (u8 *)DATA_END)
        return XDP_DROP;
    if (bpf_xdp_adjust_head(ctx, 4))
        return XDP_DROP;
    p[0] = 1; /* V110: packet addresses lost theirs */
    return XDP_PASS;
}

PROGRAM_OF(xdp, packet_after_the_tail_was_moved)
{
    u8 *p = DATA;
    if (p + 14 > (u8 *)DATA_END)
        return XDP_DROP;
    bpf_xdp_adjust_tail(ctx, -4);
    return p[0]; /* V110: packet addresses lost theirs */
}

PROGRAM_OF(xdp, end_after_the_head_was_moved)
{
    void *end = DATA_END;
    if (bpf_xdp_adjust_head(ctx, -14))
        return XDP_DROP;
    u8 *p = DATA;
    if ((void *)(p + 14) > end) /* V110: packet addresses lost theirs */
        return XDP_DROP;
    return p[0];
}

PROGRAM_OF(xdp, metadata_checked_with_the_end)
{
    u32 *meta = DATA_META;
    if ((void *)(meta + 1) > DATA_END) /* V114: not within one object */
        return XDP_PASS;
    return *meta;
}

PROGRAM_OF(xdp, metadata_after_it_was_moved)
{
    u32 *meta = DATA_META;
    if (bpf_xdp_adjust_meta(ctx, -4))
        return XDP_PASS;
    if ((void *)(meta + 1) > DATA) /* V110: packet addresses lost theirs */
        return XDP_PASS;
    *meta = 1;
    return XDP_PASS;
}

PROGRAM_OF(xdp, key_with_padding)
{
    struct key k;
    k.address = ctx->ingress_ifindex;
    k.port = 80;
    u64 *n = bpf_map_lookup_elem(&table, &k); /* V111: not all of them were written */
    return n ? (int)*n : XDP_PASS;
}

PROGRAM_OF(xdp, size_larger_than_the_buffer)
{
    u8 buffer[16];
    u32 size = bpf_get_prandom_u32() & 31;
    if (!size)
        return XDP_PASS;
    if (bpf_xdp_load_bytes(ctx, 0, buffer, size)) /* V101: stack */
        return XDP_DROP;
    return XDP_PASS;
}

PROGRAM_OF(xdp, size_that_may_be_zero)
{
    u8 buffer[32] = {};
    u32 size = bpf_get_prandom_u32() & 31;
    bpf_xdp_load_bytes(ctx, 0, buffer, size); /* V120: argument 4 */
    return buffer[0];
}

PROGRAM_OF(xdp, size_that_may_be_negative)
{
    u8 buffer[32] = {};
    s32 size = (s32)bpf_get_prandom_u32();
    if (size > 32)
        return XDP_PASS;
    bpf_xdp_load_bytes(ctx, 0, buffer, size); /* V120: argument 4 */
    return buffer[0];
}

PROGRAM_OF(xdp, buffer_read_that_was_filled_in_part)
{
    u8 buffer[32];
    bpf_xdp_load_bytes(ctx, 0, buffer, 16);
    return buffer[20]; /* V111: not all of them were written */
}

PROGRAM_OF(xdp, program_array_looked_up)
{
    u32 zero = 0;
    return bpf_map_lookup_elem(&programs, &zero) ? 1 : 2; /* V120: map programs is of another kind */
}

PROGRAM_OF(xdp, redirects_to_a_hash)
{
    return bpf_redirect_map(&table, 0, 0); /* V120: map table is of another kind */
}

PROGRAM_OF(xdp, device_map_written)
{
    u32 zero = 0, *value = bpf_map_lookup_elem(&devices, &zero);
    if (value)
        *value = 1; /* V113: devices */
    return XDP_PASS;
}

PROGRAM_OF(xdp, helper_of_tc)
{
    return bpf_skb_pull_data(ctx, 20); /* V121: skb_pull_data */
}

PROGRAM_OF(xdp, sample_of_the_stack_not_written)
{
    struct event e;
    e.when = 1;
    return bpf_perf_event_output(ctx, &perf, 0, &e, sizeof e); /* V111: not all of them were written */
}

static long fills(u32 turn, u64 *slots);

PROGRAM_OF(xdp, callback_by_its_turn)
{
    u64 slots[4] = {};
    bpf_loop(8, fills, slots, 0);
    return slots[0];
}

static long fills(u32 turn, u64 *slots)
{
    slots[turn] = 1; /* V101: stack */
    return 0;
}

static long forgets_the_check(u32 turn, u64 *sum);

PROGRAM_OF(xdp, callback_without_a_check)
{
    u64 sum = 0;
    bpf_loop(4, forgets_the_check, &sum, 0);
    return (int)sum;
}

static long forgets_the_check(u32 turn, u64 *sum)
{
    u64 *n = bpf_map_lookup_elem(&counts, &turn);
    *sum += *n; /* V108: may be NULL */
    return 0;
}

static long grows(u32 turn, u32 *index);

PROGRAM_OF(xdp, index_counted_by_a_callback)
{
    u32 zero = 0, index = 0;
    struct event *v = bpf_map_lookup_elem(&values, &zero);
    if (!v)
        return XDP_PASS;
    bpf_loop(bpf_get_prandom_u32(), grows, &index, 0);
    return ((u8 *)v)[index]; /* V114: unbounded number */
}

static long grows(u32 turn, u32 *index)
{
    (void)turn;
    *index += 1;
    return 0;
}

static long visits(void *map, u32 *key, struct event *value, void *unused);

PROGRAM_OF(xdp, callback_past_its_element)
{
    bpf_for_each_map_elem(&values, visits, 0, 0);
    return XDP_PASS;
}

static long visits(void *map, u32 *key, struct event *value, void *unused)
{
    (void)map;
    (void)unused;
    return ((u64 *)value)[*key & 3]; /* V103: map values */
}

static long writes_a_key(void *map, u32 *key, struct event *value, void *unused);

PROGRAM_OF(xdp, callback_writes_its_key)
{
    bpf_for_each_map_elem(&values, writes_a_key, 0, 0);
    return XDP_PASS;
}

static long writes_a_key(void *map, u32 *key, struct event *value, void *unused)
{
    (void)map;
    (void)value;
    (void)unused;
    *key = 0; /* V113: written */
    return 0;
}

PROGRAM_OF(xdp, field_of_another_program_type)
{
    return ((u32 *)ctx)[5]; /* V105: no field of that size */
}

PROGRAM_OF(xdp, field_written)
{
    ctx->rx_queue_index = 1; /* V113: the context is written */
    return XDP_PASS;
}

PROGRAM_OF(tc, packet_after_a_store)
{
    u8 *p = DATA;
    if (p + 20 > (u8 *)DATA_END)
        return TC_SHOT;
    u8 byte = 1;
    bpf_skb_store_bytes(ctx, 0, &byte, 1, 0);
    return p[0]; /* V110: packet addresses lost theirs */
}

PROGRAM_OF(tc, packet_after_a_pull)
{
    u8 *p = DATA, *end = DATA_END;
    if (p + 20 > end) {
        if (bpf_skb_pull_data(ctx, 20))
            return TC_SHOT;
    }
    return p[0]; /* V110: packet addresses lost theirs */
}

PROGRAM_OF(tc, tag_pushed_and_checked_no_more)
{
    if (bpf_skb_vlan_push(ctx, htons(0x8100), 7))
        return TC_SHOT;
    u16 *type = DATA + 12;
    return *type; /* V102: packet offset 12..14 is not within the proven [0, 0) */
}

PROGRAM_OF(tc, hash_written)
{
    ctx->hash = 7; /* V113: the context is written */
    return TC_OK;
}

PROGRAM_OF(tc, own_socket_unchecked)
{
    struct bpf_sock *sk = (void *)ctx->sk;
    return sk->state; /* V108: may be NULL */
}

PROGRAM_OF(tc, full_socket_of_a_common_one)
{
    struct bpf_sock *sk = (void *)ctx->sk;
    if (!sk)
        return TC_OK;
    return sk->priority; /* V105: no field of that size */
}

PROGRAM_OF(tc, tunnel_of_a_number)
{
    return bpf_csum_diff((u32 *)8, 8, 0, 0, 0) & 1; /* V120: argument 1 */
}

PROGRAM_OF(tc, checksum_over_more_than_there_is)
{
    u32 words[2] = {1, 2};
    return bpf_csum_diff(words, 12, 0, 0, 0) & 1; /* V101: stack */
}

PROGRAM_OF(socket, packet_of_a_socket_filter)
{
    u8 *p = (void *)(long)ctx->data; /* V105: no field of that size */
    return p[0];
}

PROGRAM_OF(socket, loads_more_than_its_buffer)
{
    u8 bytes[8];
    if (bpf_skb_load_bytes(ctx, 0, bytes, 16)) /* V101: stack */
        return 0;
    return bytes[0];
}

PROGRAM_OF(socket, mark_written)
{
    ctx->mark = 1; /* V113: the context is written */
    return 0;
}

/* ---- memory of helpers ---------------------------------------------------------------------------------------------- */

static long counts_in_a_key(void *map, u32 *key, struct event *value, void *unused);

PROGRAM_OF(xdp, callback_counts_in_its_key)
{
    bpf_for_each_map_elem(&values, counts_in_a_key, 0, 0);
    return XDP_PASS;
}

static long counts_in_a_key(void *map, u32 *key, struct event *value, void *unused)
{
    (void)map;
    (void)value;
    (void)unused;
    __sync_fetch_and_add(key, 1); /* V113: written */
    return 0;
}

static long loads_into_a_key(void *map, u32 *key, struct event *value, struct xdp_md **ctx);

PROGRAM_OF(xdp, callback_loads_into_its_key)
{
    struct xdp_md *c = ctx;
    bpf_for_each_map_elem(&values, loads_into_a_key, &c, 0);
    return XDP_PASS;
}

static long loads_into_a_key(void *map, u32 *key, struct event *value, struct xdp_md **ctx)
{
    (void)map;
    (void)value;
    return bpf_xdp_load_bytes(*ctx, 0, key, 4) & 1; /* V113: written */
}

PROGRAM_OF(xdp, loads_bytes_into_the_packet)
{
    u8 *p = DATA;
    if (p + 8 > (u8 *)DATA_END)
        return XDP_PASS;
    return bpf_xdp_load_bytes(ctx, 8, p, 8) ? XDP_DROP : XDP_PASS; /* V120: argument 3 */
}

PROGRAM_OF(xdp, route_of_a_question_in_the_packet)
{
    struct bpf_fib_lookup *fib = DATA;
    if ((void *)(fib + 1) > DATA_END)
        return XDP_PASS;
    return bpf_fib_lookup(ctx, fib, sizeof *fib, 0) ? XDP_DROP : XDP_PASS; /* V120: argument 2 */
}

PROGRAM_OF(xdp, packet_put_out_as_a_sample)
{
    u8 *p = DATA;
    if (p + 64 > (u8 *)DATA_END)
        return XDP_PASS;
    return bpf_ringbuf_output(&ring, p, 64, 0) ? XDP_DROP : XDP_PASS; /* V120: argument 2 */
}

PROGRAM_OF(xdp, packet_as_a_sample_of_itself)
{
    u8 *p = DATA;
    if (p + 64 > (u8 *)DATA_END)
        return XDP_PASS;
    return bpf_perf_event_output(ctx, &perf, 0, p, 64) ? XDP_DROP : XDP_PASS; /* V120: argument 4 */
}

PROGRAM_OF(xdp, element_taken_into_the_packet)
{
    u64 *p = DATA;
    if ((void *)(p + 1) > DATA_END)
        return XDP_PASS;
    return bpf_map_pop_elem(&waiting, p) ? XDP_DROP : XDP_PASS; /* V120: argument 2 */
}

PROGRAM_OF(tc, bytes_of_the_packet_stored_in_it)
{
    u8 *p = DATA;
    if (p + 8 > (u8 *)DATA_END)
        return TC_OK;
    return bpf_skb_store_bytes(ctx, 8, p, 8, 0) ? TC_SHOT : TC_OK; /* V120: argument 3 */
}

PROGRAM_OF(xdp, read_only_map_updated)
{
    u32 zero = 0;
    u64 value = 1;
    return bpf_map_update_elem(&fixed, &zero, &value, 0) ? XDP_DROP : XDP_PASS; /* V113: fixed */
}

PROGRAM_OF(xdp, read_only_map_written)
{
    u32 zero = 0;
    u64 *value = bpf_map_lookup_elem(&fixed, &zero);
    if (value)
        *value = 1; /* V113: fixed */
    return XDP_PASS;
}

PROGRAM_OF(xdp, read_only_map_filled_by_a_helper)
{
    u32 zero = 0;
    u64 *value = bpf_map_lookup_elem(&fixed, &zero);
    if (value)
        bpf_xdp_load_bytes(ctx, 0, value, 8); /* V113: fixed */
    return XDP_PASS;
}

PROGRAM_OF(xdp, element_taken_into_less)
{
    u32 half;
    return bpf_map_pop_elem(&waiting, &half) ? XDP_DROP : XDP_PASS; /* V101: stack */
}

PROGRAM_OF(xdp, program_array_updated)
{
    u32 zero = 0;
    return bpf_map_update_elem(&programs, &zero, &zero, 0) ? XDP_DROP : XDP_PASS; /* V120: map programs is of another kind */
}

PROGRAM_OF(xdp, constant_text_overwritten_by_a_helper)
{
    char *t = (char *)text;
    asm volatile("" : "+r"(t));
    return bpf_xdp_load_bytes(ctx, 0, t, 4) ? XDP_DROP : XDP_PASS; /* V113: .rodata */
}

PROGRAM_OF(xdp, message_longer_than_its_text)
{
    return bpf_trace_printk(text, 100) & 1; /* V106: .rodata */
}

PROGRAM_OF(xdp, compared_with_a_text_that_can_change)
{
    return bpf_strncmp(changing, sizeof changing, changing) ? XDP_DROP : XDP_PASS; /* V120: argument 3 */
}

/* ---- what callbacks leave behind -------------------------------------------------------------------------------------- */

static long reserves_and_forgets(u32 turn, void *unused);

PROGRAM_OF(xdp, callback_reserves_and_forgets)
{
    return bpf_loop(3, reserves_and_forgets, 0, 0) ? XDP_PASS : XDP_DROP; /* V117: has not been given back */
}

static long reserves_and_forgets(u32 turn, void *unused)
{
    (void)turn;
    (void)unused;
    return bpf_ringbuf_reserve(&ring, 8, 0) == 0;
}

static long moves_the_head(u32 turn, struct xdp_md **ctx);

PROGRAM_OF(xdp, callback_ends_packet_addresses)
{
    u8 *p = DATA;
    struct xdp_md *c = ctx;
    if (p + 4 > (u8 *)DATA_END)
        return XDP_PASS;
    bpf_loop(1, moves_the_head, &c, 0);
    return p[0]; /* V110: packet addresses lost theirs */
}

static long moves_the_head(u32 turn, struct xdp_md **ctx)
{
    return bpf_xdp_adjust_head(*ctx, (int)turn) & 1;
}

static long clears_a_pointer(u32 turn, u64 **value);

PROGRAM_OF(xdp, callback_clears_a_pointer)
{
    u32 zero = 0;
    u64 *value = bpf_map_lookup_elem(&counts, &zero);
    if (!value)
        return XDP_PASS;
    bpf_loop(1, clears_a_pointer, &value, 0);
    return (int)*value; /* V107: not an address */
}

static long clears_a_pointer(u32 turn, u64 **value)
{
    (void)turn;
    *value = 0;
    return 0;
}

static long hands_out_its_stack(u32 turn, u64 **p);

PROGRAM_OF(xdp, callback_hands_out_its_own_stack)
{
    u64 mine = 5, *p = &mine;
    bpf_loop(1, hands_out_its_stack, &p, 0);
    return (int)*p;
}

static long hands_out_its_stack(u32 turn, u64 **p)
{
    u64 local = turn;
    asm volatile("" : : "r"(&local) : "memory");
    *p = &local; /* V112: stored in the caller's frame */
    return 0;
}

PROGRAM_OF(tc, own_socket_released)
{
    struct bpf_sock *sk = (void *)ctx->sk;
    if (sk)
        bpf_sk_release(sk); /* V117: argument 1 was not acquired */
    return TC_OK;
}

PROGRAM_OF(tc, facts_of_a_connection_after_its_release)
{
    struct bpf_sock_tuple tuple = {};
    struct bpf_sock *sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof tuple, -1, 0);
    if (!sk)
        return TC_OK;
    struct bpf_tcp_sock *t = bpf_tcp_sock(sk);
    bpf_sk_release(sk);
    return t ? (int)t->snd_cwnd : TC_OK; /* V110: value */
}

PROGRAM_OF(tc, tuple_longer_than_what_holds_it)
{
    u32 word = 0;
    struct bpf_sock *sk = bpf_sk_lookup_tcp(ctx, (void *)&word, 12, -1, 0); /* V101: stack */
    if (sk)
        bpf_sk_release(sk);
    return TC_OK;
}

NOINLINE int jumps_away(struct xdp_md *ctx);

PROGRAM_OF(xdp, tail_call_in_a_function)
{
    u8 *p = DATA;
    if (p + 4 > (u8 *)DATA_END)
        return XDP_PASS;
    int failed = jumps_away(ctx);
    return p[0] + failed; /* V110: packet addresses lost theirs */
}

NOINLINE int jumps_away(struct xdp_md *ctx)
{
    bpf_tail_call(ctx, &programs, 0);
    return 1;
}

PROGRAM_OF(xdp, metadata_written_unchecked)
{
    *(u32 *)DATA_META = 1; /* V102: packet offset 0..4 */
    return XDP_PASS;
}

PROGRAM_OF(xdp, metadata_beyond_the_packet)
{
    u32 *meta = DATA_META;
    if ((void *)(meta + 1) > DATA)
        return XDP_PASS;
    return (int)meta[1]; /* V102: packet offset 4..8 */
}

PROGRAM_OF(xdp, before_the_packet_by_its_metadata)
{
    u8 *meta = DATA_META, *data = DATA;
    if (meta + 4 > data)
        return XDP_PASS;
    return data[-4]; /* V102: before */
}

PROGRAM_OF(tc, private_words_beyond_the_last)
{
    *(u64 *)&ctx->cb[4] = 1; /* V105: no field of that size */
    return TC_OK;
}

PROGRAM_OF(tc, mark_written_by_a_byte)
{
    *(u8 *)&ctx->mark = 1; /* V105: of that size */
    return TC_OK;
}
