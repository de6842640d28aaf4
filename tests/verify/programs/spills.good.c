/* Values and pointers that live on the stack: spilled over calls, in local arrays and structures, written and read in parts. */
#include "program.h"

struct parsed {
    u8 *l3, *l4, *payload;
    u32 addresses[2];
    u16 ports[2];
    u8 protocol, flags;
    u16 length;
};

/* So that what is live has to lie on the stack. */
#define KEEP(x) asm volatile("" : "+r"(x))

PROGRAM(pointers_over_many_calls)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 40 > end)
        return CHAM_ERROR(1);
    u32 a = ctx->id, b = ctx->hash & 63, c = ctx->core, d = p[9];
    struct flow *f = cham_lookup(&flows, &a), *g = cham_lookup(&flows, &b), *h = cham_lookup(&flows, &c);
    if (!f || !g || !h)
        return CHAM_PUNT;
    u64 n = cham_hash(ctx, d, a) ^ cham_random(ctx);
    f->bytes += p[20] + n;
    g->bytes += p[30];
    h->window[b & 7] = d;
    return p[39] + (u64)(end - p);
}

NOINLINE s64 parse(struct chamelio_ctx *ctx, struct parsed *out)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 20 > end)
        return -1;
    out->l3 = p;
    out->protocol = p[9];
    out->addresses[0] = *(u32 *)(p + 12);
    out->addresses[1] = *(u32 *)(p + 16);
    u8 *l4 = p + (p[0] & 15) * 4;
    if (l4 + 8 > end)
        return -2;
    out->l4 = l4;
    out->ports[0] = *(u16 *)l4;
    out->ports[1] = *(u16 *)(l4 + 2);
    out->payload = l4 + 8;
    out->length = (u16)(end - out->payload);
    out->flags = 1;
    return 0;
}

PROGRAM(pointers_in_a_structure_filled_by_a_function)
{
    struct parsed h = {};
    if (parse(ctx, &h))
        return CHAM_ERROR(1);
    if (h.protocol != 17)
        return CHAM_PUNT;
    h.l3[8]--;
    *(u16 *)(h.l4 + 6) = 0;
    if (h.payload + 4 > (u8 *)ctx->data_end)
        return CHAM_DONE;
    return *(u32 *)h.payload ^ h.ports[1];
}

PROGRAM(index_kept_over_a_call)
{
    u32 i = ctx->id, at = ctx->hash & 7;
    KEEP(at);
    u32 index = at;
    if (index >= 8)
        return CHAM_ERROR(1);
    struct flow *f = cham_lookup(&flows, &i);
    u64 extra = cham_hash(ctx, 1, 2);
    return f ? f->window[index] + extra : CHAM_PUNT;
}

PROGRAM(local_array_by_a_checked_index)
{
    u16 values[10] = {1, 2, 3, 5, 7, 11, 13, 17, 19, 23};
    u32 i = ctx->id;
    if (i >= 10)
        return CHAM_ERROR(1);
    values[i] = (u16)ctx->hash;
    u32 sum = 0;
    for (u32 k = 0; k < 10; k++)
        sum += values[k];
    return sum;
}

PROGRAM(key_built_byte_by_byte)
{
    u8 *p = ctx->data;
    if (p + 24 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u8 key[8];
    for (u32 i = 0; i < 4; i++)
        key[i] = p[12 + i];
    key[4] = p[20];
    key[5] = p[21];
    key[6] = p[9];
    key[7] = 0;
    return cham_lookup(&table, key) ? CHAM_DONE : CHAM_PUNT;
}

PROGRAM(bytes_written_and_a_word_read)
{
    u8 address[16] = {};
    u8 *p = ctx->data;
    if (p + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    address[10] = address[11] = 0xff;
    __builtin_memcpy(address + 12, p + 12, 4);
    return *(u64 *)(address + 8) ^ *(u64 *)address;
}

PROGRAM(one_of_two_pointers)
{
    u32 i = ctx->id, j = ctx->hash & 63;
    struct flow *f = cham_lookup(&flows, &i), *g = cham_lookup(&flows, &j);
    if (!f || !g)
        return CHAM_PUNT;
    struct flow *busy = f->packets > g->packets ? f : g, *idle = busy == f ? g : f;
    busy->packets--;
    idle->packets++;
    return idle->window[j & 7];
}

PROGRAM(pointer_that_may_be_null_for_a_while)
{
    struct flow *best = 0;
    u32 least = ~0u;
    for (u32 i = 0; i < 6; i++) {
        u32 at = (ctx->hash >> i) & 63;
        struct flow *f = cham_lookup(&flows, &at);
        if (!f)
            continue;
        if (f->state < least) {
            least = f->state;
            best = f;
        }
    }
    if (!best)
        return CHAM_PUNT;
    best->state++;
    return CHAM_DONE;
}

PROGRAM(stack_of_positions)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u8 open[4];
    u32 depth = 0;
    for (u32 i = 0; i < 20; i++) {
        if (p + i + 1 > end)
            break;
        if (p[i] == '(') {
            if (depth >= 4)
                return CHAM_ERROR(1);
            open[depth++] = (u8)i;
        } else if (p[i] == ')') {
            if (depth == 0)
                return CHAM_ERROR(2);
            depth--;
        }
    }
    return depth;
}

PROGRAM(address_of_a_local_passed_down)
{
    u64 total = 0, *where = &total;
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (f)
        where = &f->bytes;
    *where += ctx->now;
    return total;
}

PROGRAM(message_of_several_parts)
{
    struct message m[2] = {};
    for (u32 i = 0; i < 2; i++) {
        m[i].id = i;
        m[i].length = ctx->hash >> i;
        m[i].when = ctx->now + i;
    }
    for (u32 i = 0; i < 2; i++)
        if (cham_push(&events, i, &m[i]))
            return CHAM_ERROR(1);
    return CHAM_DONE;
}

PROGRAM(key_used_again_with_one_field_changed)
{
    struct flow_key k = {.address = ctx->hash, .port = 80, .kind = 6};
    k = (struct flow_key){};
    k.address = ctx->hash;
    u32 found = 0;
    for (u32 i = 0; i < 4; i++) {
        k.port = (u16)(80 + i);
        if (cham_lookup(&table, &k))
            found |= 1u << i;
    }
    return found;
}

PROGRAM(packet_loaded_again_after_it_was_resized)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 20 > end)
        return CHAM_ERROR(1);
    struct cham_ipv4 saved = *(struct cham_ipv4 *)p;
    u32 length = end - p;
    if (cham_resize(ctx, length + 20))
        return CHAM_ERROR(2);
    p = ctx->data;
    end = ctx->data_end;
    if (p + 40 > end)
        return CHAM_ERROR(3);
    *(struct cham_ipv4 *)(p + 20) = saved;
    saved.protocol = 4;
    saved.total_length = cham_htons(cham_ntohs(saved.total_length) + 20);
    *(struct cham_ipv4 *)p = saved;
    return CHAM_TX;
}

PROGRAM(local_array_by_a_masked_index)
{
    u32 seen[8] = {};
    u8 *p = ctx->data, *end = ctx->data_end;
    for (u32 i = 0; i < 16; i++) {
        if (p + i + 1 > end)
            break;
        seen[p[i] & 7]++;
    }
    u32 most = 0;
    for (u32 i = 1; i < 8; i++)
        if (seen[i] > seen[most])
            most = i;
    return most;
}

PROGRAM(word_written_and_bytes_read)
{
    union {
        u64 whole;
        u32 half[2];
        u16 quarter[4];
        u8 byte[8];
    } v;
    v.whole = ctx->now;
    u32 i = v.byte[2] & 7;
    v.half[1] = ctx->hash;
    return v.quarter[3] + v.byte[i];
}
