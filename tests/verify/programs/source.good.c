/* Handlers as people write them. */
#include "program.h"

static const u32 weights[4] = {1, 2, 4, 8};
u32 histogram[8];
u64 total;

#define IP_TCP 6
#define OPTIONS 10

struct tcp {
    u16 source, destination;
    u32 seq, ack;
    u8 offset, flags;
    u16 window, checksum, urgent;
};

PROGRAM(fixed_header)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    return ip->protocol == 17 && ip->ttl > 1 ? CHAM_PUNT : CHAM_DONE;
}

PROGRAM(ip_options_then_tcp_options)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    struct tcp *t = (void *)(ip + (ip[0] & 15) * 4);
    if ((u8 *)(t + 1) > end)
        return CHAM_ERROR(2);
    u8 *option = (u8 *)(t + 1), *stop = (u8 *)t + (t->offset >> 4) * 4;
    u32 mss = 536;
    if (stop > end)
        return CHAM_ERROR(3);
    for (u32 i = 0; i < OPTIONS; i++) {
        if (option + 2 > end)
            break;
        if (option[0] == 0)
            break;
        if (option[0] == 1) {
            option++;
            continue;
        }
        if (option[0] == 2 && option + 4 <= end)
            mss = cham_ntohs(*(u16 *)(option + 2));
        if (option[1] < 2)
            return CHAM_ERROR(4);
        option += option[1];
    }
    return mss;
}

PROGRAM(stacked_tags)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 depth = 0;
    for (u32 i = 0; i < 4; i++) {
        if (p + 4 > end)
            return CHAM_ERROR(1);
        if (*(u16 *)p != cham_htons(0x8100))
            break;
        depth++;
        p += 4;
    }
    return depth;
}

PROGRAM(swaps_addresses_and_sends)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 from = ip->src;
    ip->src = ip->dst;
    ip->dst = from;
    return CHAM_TX;
}

PROGRAM(checksum_of_the_header)
{
    u16 *word = ctx->data;
    u64 sum = 0;
    if ((u8 *)word + 60 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < 30; i++)
        sum += word[i];
    return cham_fold(sum);
}

PROGRAM(checksum_of_a_variable_header)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    u64 sum = 0;
    if (ip + 20 > end)
        return CHAM_ERROR(1);
    u32 words = (ip[0] & 15) * 2;
    u16 *word = (void *)ip;
    for (u32 i = 0; i < 30 && i < words; i++) {
        if ((void *)(word + i + 1) > (void *)end)
            return CHAM_ERROR(2);
        sum += word[i];
    }
    return cham_fold(sum);
}

PROGRAM(whole_key)
{
    struct flow_key k = {};
    k.address = ctx->id;
    k.port = (u16)ctx->hash;
    k.kind = 3;
    struct flow *f = cham_lookup(&table, &k);
    if (!f)
        return CHAM_PUNT;
    f->packets++;
    return CHAM_DONE;
}

PROGRAM(finds_or_inserts)
{
    struct flow_key k = {};
    struct flow fresh = {};
    k.address = ctx->hash;
    struct flow *f = cham_lookup(&table, &k);
    if (!f) {
        if (cham_update(&table, &k, &fresh, 0))
            return CHAM_ERROR(1);
        f = cham_lookup(&table, &k);
        if (!f)
            return CHAM_ERROR(2);
    }
    f->bytes += (u8 *)ctx->data_end - (u8 *)ctx->data;
    return CHAM_DONE;
}

PROGRAM(index_checked)
{
    u32 zero = 0, i = ctx->id;
    struct flow *f = cham_lookup(&flows, &zero);
    if (!f || i >= 8)
        return 0;
    return f->window[i];
}

PROGRAM(index_clamped_both_ways)
{
    u32 zero = 0;
    s32 i = (s32)ctx->id;
    struct flow *f = cham_lookup(&flows, &zero);
    if (!f)
        return 0;
    if (i < 0)
        i = 0;
    if (i > 15)
        i = 15;
    return f->name[i];
}

PROGRAM(index_masked)
{
    u32 zero = 0;
    struct flow *f = cham_lookup(&flows, &zero);
    return f ? f->window[ctx->hash & 7] + weights[ctx->hash >> 30] : 0;
}

PROGRAM(ring_of_samples)
{
    u32 zero = 0;
    struct flow *f = cham_lookup(&flows, &zero);
    if (!f)
        return 0;
    u32 at = f->next++ % 8;
    f->window[at] = (u32)ctx->now;
    u32 most = 0;
    for (u32 i = 0; i < 8; i++)
        if (f->window[i] > most)
            most = f->window[i];
    return most;
}

PROGRAM(shared_counters)
{
    u32 i = ctx->core & 15;
    struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return 0;
    c->value++;
    c->parts[ctx->hash & 3] += 1;
    return 0;
}

#if __BPF_CPU_VERSION__ >= 3
PROGRAM(atomics_on_counters)
{
    u32 i = ctx->core & 15;
    struct counter *c = cham_lookup(&counters, &i);
    if (!c)
        return 0;
    __sync_fetch_and_add(&c->value, 1);
    return __sync_val_compare_and_swap(&c->parts[0], 0, 1);
}
#endif

PROGRAM(globals)
{
    histogram[ctx->hash % 8]++;
    total += histogram[0];
    return total;
}

PROGRAM(tells_an_application)
{
    struct message m = {};
    m.id = ctx->id;
    m.when = ctx->now;
    return cham_push(&events, 1, &m) ? CHAM_ERROR(1) : CHAM_DONE;
}

PROGRAM(payload_to_a_buffer)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + 28 > end)
        return CHAM_ERROR(1);
    u32 offset = (ip[0] & 15) * 4 + 8, length = cham_ntohs(*(u16 *)(ip + 2));
    if (length < offset || length > (u64)(end - ip))
        return CHAM_ERROR(2);
    return cham_pkt_to_bytes(ctx, &buffers, ctx->id, 0, CHAM_SPAN(offset, length - offset)) ? CHAM_ERROR(3) : CHAM_DONE;
}

PROGRAM_OF(ring, builds_a_packet)
{
    struct message *m = ctx->entry;
    u32 length = m->length;
    if (length > 1400 || cham_resize(ctx, 28 + length))
        return CHAM_ERROR(1);
    u8 *ip = ctx->data;
    if (ip + 28 > (u8 *)ctx->data_end)
        return CHAM_ERROR(2);
    *(struct cham_ipv4 *)ip = (struct cham_ipv4){0x45, 0, cham_htons(28 + length), 0, 0, 64, 17, 0, m->id, 0};
    if (cham_bytes_to_pkt(ctx, &buffers, m->id, 0, CHAM_SPAN(28, length)))
        return CHAM_ERROR(3);
    return CHAM_TX;
}

PROGRAM_OF(tx, paces)
{
    cham_schedule(&due, ctx->id, ctx->now + 1000);
    return cham_pace(&due, ctx->id, 500) ? CHAM_ERROR(1) : CHAM_DONE;
}

PROGRAM_OF(timer, emits_two_packets)
{
    for (u32 i = 0; i < 2; i++) {
        if (cham_resize(ctx, 40))
            return CHAM_ERROR(1);
        u8 *ip = ctx->data;
        if (ip + 40 > (u8 *)ctx->data_end)
            return CHAM_ERROR(2);
        ip[0] = 0x45;
        ip[9] = (u8)i;
        if (cham_emit(ctx))
            return CHAM_ERROR(3);
    }
    return CHAM_DONE;
}

NOINLINE u32 mix(u32 a, u32 b)
{
    a ^= b * 0x9e3779b1u;
    return a << 13 | a >> 19;
}

PROGRAM(functions)
{
    u32 h = mix(ctx->id, ctx->hash);
    return mix(h, ctx->core) & 7;
}

NOINLINE void fill(struct flow_key *k, struct chamelio_ctx *ctx)
{
    k->address = ctx->hash;
    k->port = 9;
}

PROGRAM(function_that_fills_a_key)
{
    struct flow_key k = {};
    fill(&k, ctx);
    return cham_lookup(&table, &k) ? 1 : 0;
}

NOINLINE s64 parse(struct chamelio_ctx *ctx, struct message *out)
{
    u8 *p = ctx->data;
    if (p + 12 > (u8 *)ctx->data_end)
        return -1;
    out->id = *(u32 *)p;
    out->length = *(u32 *)(p + 4);
    out->when = *(u32 *)(p + 8);
    return 0;
}

PROGRAM(function_that_parses)
{
    struct message m;
    if (parse(ctx, &m))
        return CHAM_ERROR(1);
    return cham_push(&events, m.id, &m) ? CHAM_ERROR(2) : CHAM_DONE;
}

PROGRAM(bits_and_pieces)
{
    u32 h = ctx->hash;
    u32 ones = h - (h >> 1 & 0x55555555u);
    ones = (ones & 0x33333333u) + (ones >> 2 & 0x33333333u);
    ones = ((ones + (ones >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
    s32 delta = (s32)(ctx->id - h);
    if (delta < 0)
        delta = -delta;
    return ones + (u32)(delta / 3) % 5;
}

PROGRAM(sequence_numbers)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    u8 *p = ctx->data;
    if (!f || p + 8 > (u8 *)ctx->data_end)
        return CHAM_PUNT;
    u32 seq = cham_ntohl(*(u32 *)p), len = cham_ntohs(*(u16 *)(p + 4));
    if ((s32)(seq - f->next) > 0 || len > 1460)
        return CHAM_PUNT;
    u32 skip = f->next - seq;
    if (skip >= len)
        return CHAM_DONE;
    f->next += len - skip;
    return CHAM_TX;
}

PROGRAM(state_machine)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_PUNT;
    switch (f->state) {
    case 0:
        f->state = ctx->hash & 1 ? 1 : 2;
        break;
    case 1:
        f->state = 3;
        break;
    case 2:
        f->state = f->packets > 10 ? 3 : 2;
        break;
    case 3:
        return CHAM_PUNT;
    default:
        return CHAM_ERROR(9);
    }
    f->packets++;
    return CHAM_DONE;
}

PROGRAM(bounded_search)
{
    for (u32 i = 0; i < 16; i++) {
        u32 at = (ctx->hash + i) & 63;
        struct flow *f = cham_lookup(&flows, &at);
        if (f && f->state == ctx->id)
            return at;
    }
    return CHAM_PUNT;
}

PROGRAM(copies_bytes)
{
    u8 *p = ctx->data;
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f || p + 16 > (u8 *)ctx->data_end)
        return 0;
    __builtin_memcpy(f->name, p, 16);
    for (u32 k = 0; k < 16; k++)
        if (f->name[k] == ' ')
            f->name[k] = '_';
    return 0;
}

/* ---- distances to the packet's end ---------------------------------------------------------------------------------- */

PROGRAM(length_first)
{
    u8 *ip = ctx->data;
    u64 length = (u8 *)ctx->data_end - ip;
    if (length < 28)
        return CHAM_ERROR(1);
    return ip[27];
}

PROGRAM(length_as_an_int)
{
    u8 *ip = ctx->data;
    int length = (u8 *)ctx->data_end - ip;
    if (length < 20)
        return CHAM_ERROR(1);
    return ip[19];
}

PROGRAM(what_is_left_behind_the_options)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (end - ip < 20)
        return CHAM_ERROR(1);
    u8 *udp = ip + (ip[0] & 15) * 4;
    if (end - udp < 8)
        return CHAM_ERROR(2);
    return udp[7];
}

PROGRAM(length_without_the_header)
{
    u8 *ip = ctx->data;
    s64 payload = (u8 *)ctx->data_end - ip - 28;
    asm volatile("" : "+r"(payload));
    if (payload <= 3)
        return CHAM_ERROR(1);
    return ip[28 + 3];
}

PROGRAM(length_that_lives_over_a_join)
{
    u8 *ip = ctx->data;
    u64 length = (u8 *)ctx->data_end - ip;
    asm volatile("" : "+r"(length));
    u32 tag = ctx->id & 1 ? 3 : 4;
    if (length < 16)
        return CHAM_ERROR(tag);
    return ip[15] + tag;
}
