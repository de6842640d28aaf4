/* Tables: flows, counters, buckets, filters, rings, timers. */
#include "program.h"

struct bucket {
    u64 tokens, filled, rate, burst;
};

struct filter {
    u64 bits[64];
};

struct slot {
    u32 tag, age;
    u64 value;
};

struct set {
    struct slot ways[4];
};

struct histogram {
    u64 counts[64];
    u64 sum, count;
};

struct queue {
    u32 head, tail;
    u16 items[32];
};

struct matrix {
    u32 cells[8][4];
    struct {
        u8 kind, length;
        u16 value;
    } rules[10];
};

CHAM_ARRAY(limits, 64, struct bucket, 0);
CHAM_ARRAY(filters, 1, struct filter, 0);
CHAM_ARRAY(sets, 256, struct set, 0);
CHAM_ARRAY(histograms, 4, struct histogram, CHAM_SHARED);
CHAM_ARRAY(queues, 16, struct queue, 0);
CHAM_ARRAY(matrices, 2, struct matrix, 0);
CHAM_HASH(by_address, 1024, u32, u64, 0);
CHAM_BYTES_POOL(pool, 64, 256, 4096, 65536);

u64 per_kind[8];
u32 recent[16];
static u32 at_recent;
struct {
    u64 packets, bytes;
    u32 sizes[12];
} totals;

PROGRAM(token_bucket)
{
    u32 i = ctx->id & 63;
    struct bucket *b = cham_lookup(&limits, &i);
    if (!b)
        return CHAM_ERROR(1);
    u64 length = ctx->data_end - ctx->data, passed = ctx->now - b->filled;
    if (passed > 1000000000)
        passed = 1000000000;
    u64 tokens = b->tokens + passed * b->rate / 1000000000;
    if (tokens > b->burst)
        tokens = b->burst;
    b->filled = ctx->now;
    if (tokens < length) {
        b->tokens = tokens;
        return CHAM_ERROR(2);
    }
    b->tokens = tokens - length;
    return CHAM_DONE;
}

PROGRAM(bloom_filter)
{
    u32 zero = 0, h = ctx->hash, step = h >> 17 | h << 15;
    struct filter *f = cham_lookup(&filters, &zero);
    if (!f)
        return CHAM_ERROR(1);
    u32 missing = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 bit = (h + i * step) % 4096;
        if (!(f->bits[bit / 64] >> bit % 64 & 1))
            missing++;
        f->bits[bit / 64] |= 1ull << bit % 64;
    }
    return missing ? CHAM_PUNT : CHAM_DONE;
}

PROGRAM(set_with_four_ways)
{
    u32 tag = ctx->hash, i = tag & 255, oldest = 0;
    struct set *s = cham_lookup(&sets, &i);
    if (!s)
        return CHAM_ERROR(1);
    for (u32 w = 0; w < 4; w++) {
        struct slot *slot = &s->ways[w];
        if (slot->tag == tag) {
            slot->age = (u32)(ctx->now >> 20);
            slot->value++;
            return CHAM_DONE;
        }
        if (s->ways[w].age < s->ways[oldest].age)
            oldest = w;
    }
    s->ways[oldest] = (struct slot){tag, (u32)(ctx->now >> 20), 1};
    return CHAM_PUNT;
}

CHAM_INLINE u32 log2_of(u32 v)
{
    u32 r = (v > 0xffff) << 4;
    v >>= r;
    u32 shift = (v > 0xff) << 3;
    v >>= shift;
    r |= shift;
    shift = (v > 0xf) << 2;
    v >>= shift;
    r |= shift;
    shift = (v > 0x3) << 1;
    v >>= shift;
    r |= shift;
    return r | v >> 1;
}

CHAM_INLINE u32 log2_of_64(u64 v)
{
    u32 high = v >> 32;
    return high ? log2_of(high) + 32 : log2_of((u32)v);
}

PROGRAM(histogram_of_powers)
{
    u32 i = ctx->core & 3;
    struct histogram *h = cham_lookup(&histograms, &i);
    if (!h)
        return CHAM_ERROR(1);
    u64 length = ctx->data_end - ctx->data;
    u32 slot = log2_of_64(length);
    if (slot >= 64)
        slot = 63;
    h->counts[slot]++;
    h->sum += length;
    h->count++;
    return CHAM_DONE;
}

PROGRAM(histogram_without_a_check)
{
    u32 i = 0;
    struct histogram *h = cham_lookup(&histograms, &i);
    if (h)
        __sync_fetch_and_add(&h->counts[log2_of((u32)ctx->now)], 1);
    return CHAM_DONE;
}

PROGRAM(histogram_of_a_global)
{
    u64 size = ctx->data_end - ctx->data;
    u32 slot = 0;
    for (u32 limit = 64; slot < 11 && size > limit; slot++)
        limit *= 2;
    totals.sizes[slot]++;
    totals.packets++;
    totals.bytes += size;
    return CHAM_DONE;
}

PROGRAM(queue_with_masked_ends)
{
    u32 i = ctx->core & 15;
    struct queue *q = cham_lookup(&queues, &i);
    if (!q)
        return CHAM_ERROR(1);
    if (q->head - q->tail >= 32)
        return CHAM_ERROR(2);
    q->items[q->head & 31] = (u16)ctx->hash;
    q->head++;
    u32 sum = 0;
    u32 at = q->tail;
    for (u32 n = 0; n < 32 && at != q->head; n++, at++)
        sum += q->items[at & 31];
    return sum;
}

PROGRAM(queue_taken_from)
{
    u32 i = ctx->core & 15;
    struct queue *q = cham_lookup(&queues, &i);
    if (!q || q->head == q->tail)
        return CHAM_DONE;
    u32 tail = q->tail;
    u16 item = q->items[tail % 32];
    q->tail = tail + 1;
    return item;
}

PROGRAM(row_and_column)
{
    u32 zero = 0, row = ctx->hash >> 29, column = ctx->id;
    struct matrix *m = cham_lookup(&matrices, &zero);
    if (!m || column >= 4)
        return CHAM_ERROR(1);
    m->cells[row][column] += 1;
    u32 total = 0;
    for (u32 r = 0; r < 8; r++)
        for (u32 c = 0; c < 4; c++)
            total += m->cells[r][c];
    return total;
}

PROGRAM(first_rule_that_matches)
{
    u32 zero = 0;
    u8 *ip = ctx->data;
    struct matrix *m = cham_lookup(&matrices, &zero);
    if (!m || ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    int found = -1;
    for (int i = 0; i < 10; i++) {
        if (m->rules[i].kind == ip[9]) {
            found = i;
            break;
        }
    }
    if (found < 0)
        return CHAM_PUNT;
    return m->rules[found].value;
}

PROGRAM(counts_by_kind)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u32 kind;
    switch (ip[9]) {
    case 1:
        kind = 1;
        break;
    case 6:
        kind = 2;
        break;
    case 17:
        kind = 3;
        break;
    case 58:
        kind = 4;
        break;
    default:
        kind = 0;
    }
    per_kind[kind]++;
    return kind;
}

PROGRAM(recently_seen)
{
    u32 h = ctx->hash;
    for (u32 i = 0; i < 16; i++)
        if (recent[i] == h)
            return CHAM_DONE;
    recent[at_recent % 16] = h;
    at_recent++;
    return CHAM_PUNT;
}

u32 position;

PROGRAM(position_kept_in_memory)
{
    u32 at = position;
    if (at >= 16)
        at = 0;
    recent[at] = ctx->hash;
    position = at + 1;
    return CHAM_DONE;
}

PROGRAM(value_by_address)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u32 address = *(u32 *)(ip + 12);
    u64 one = 1, *n = cham_lookup(&by_address, &address);
    if (n) {
        *n += one;
        return *n > 1000 ? CHAM_ERROR(2) : CHAM_DONE;
    }
    return cham_update(&by_address, &address, &one, 0) ? CHAM_ERROR(3) : CHAM_DONE;
}

PROGRAM(key_in_the_packet)
{
    u8 *ip = ctx->data;
    if (ip + 20 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    u64 *n = cham_lookup(&by_address, ip + 16);
    if (n && ++*n == 0)
        cham_delete(&by_address, ip + 16);
    return CHAM_DONE;
}

PROGRAM(either_of_two_keys)
{
    u8 *ip = ctx->data;
    if (ip + 24 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    struct flow_key k = {};
    k.address = *(u32 *)(ip + 12);
    k.port = *(u16 *)(ip + 20);
    struct flow *f = cham_lookup(&table, &k);
    if (!f) {
        k.port = 0;
        f = cham_lookup(&table, &k);
    }
    if (!f) {
        k.address = 0;
        f = cham_lookup(&table, &k);
    }
    if (!f)
        return CHAM_PUNT;
    f->packets++;
    return CHAM_DONE;
}

PROGRAM(value_of_one_table_leads_to_another)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_PUNT;
    for (u32 hop = 0; hop < 8; hop++) {
        u32 next = f->next;
        if (next == i)
            return CHAM_ERROR(1);
        f = cham_lookup(&flows, &next);
        if (!f)
            return CHAM_DONE;
        if (f->state == ctx->hash)
            return CHAM_TX;
    }
    return CHAM_ERROR(2);
}

PROGRAM(search_by_halves)
{
    u32 zero = 0, want = ctx->hash;
    struct filter *f = cham_lookup(&filters, &zero);
    if (!f)
        return CHAM_ERROR(1);
    u32 low = 0, high = 64;
    for (u32 i = 0; i < 7 && low < high; i++) {
        u32 middle = (low + high) / 2;
        if (middle > 63)
            break;
        if (f->bits[middle] < want)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

PROGRAM(swapped_into_order)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    for (u32 a = 1; a < 8; a++) {
        for (u32 b = a; b > 0; b--) {
            if (f->window[b - 1] <= f->window[b])
                break;
            u32 t = f->window[b];
            f->window[b] = f->window[b - 1];
            f->window[b - 1] = t;
        }
    }
    return f->window[4];
}

PROGRAM(structure_copied_out_and_in)
{
    u32 i = ctx->id, j = ctx->core;
    struct flow *f = cham_lookup(&flows, &i), *g = cham_lookup(&flows, &j);
    if (!f || !g)
        return CHAM_ERROR(1);
    struct flow copy = *f;
    copy.packets += g->packets;
    copy.window[copy.state & 7] = (u32)ctx->now;
    *g = copy;
    return cham_update(&flows, &i, &copy, 0) ? CHAM_ERROR(2) : CHAM_DONE;
}

PROGRAM(payload_kept_from_a_position)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f || ip + 40 > end)
        return CHAM_PUNT;
    u32 header = (ip[0] & 15) * 4, total = cham_ntohs(*(u16 *)(ip + 2));
    if (header < 20 || total > (u64)(end - ip) || total < header + 20)
        return CHAM_ERROR(1);
    u32 offset = header + 20, length = total - offset, room = 4096 - (f->next - f->state);
    if (length > room)
        length = room;
    if (!length)
        return CHAM_DONE;
    if (cham_pkt_to_bytes(ctx, &buffers, i, f->next, CHAM_SPAN(offset, length)))
        return CHAM_ERROR(2);
    f->next += length;
    return CHAM_DONE;
}

PROGRAM(buffer_of_a_pool)
{
    u32 id = ctx->id & 63;
    u64 size = cham_bytes_size(&pool, id);
    u32 need = ctx->data_end - ctx->data;
    if (size < need && cham_bytes_open(&pool, id, need, CHAM_SPAN(0, size)))
        return CHAM_ERROR(1);
    if (cham_pkt_to_bytes(ctx, &pool, id, 0, CHAM_SPAN(0, need)))
        return CHAM_ERROR(2);
    return need > 1000 ? cham_bytes_close(&pool, id) & 3 : CHAM_DONE;
}

PROGRAM_OF(ring, command_of_an_application)
{
    struct message *m = ctx->entry;
    u32 i = m->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f || f->state != ctx->id)
        return CHAM_ERROR(1);
    switch (m->length) {
    case 0:
        f->packets = f->bytes = 0;
        return CHAM_DONE;
    case 1:
        return cham_schedule(&due, i, m->when) ? CHAM_ERROR(2) : CHAM_DONE;
    case 2:
        return cham_cancel(&deadlines, i) ? CHAM_ERROR(3) : CHAM_DONE;
    case 3: {
        struct message answer = {.id = i, .length = (u32)f->bytes, .when = ctx->now};
        return cham_push(&events, ctx->id, &answer) ? CHAM_ERROR(4) : CHAM_DONE;
    }
    }
    return CHAM_ERROR(5);
}

PROGRAM_OF(timer, doubles_its_time)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    u32 tries = f->state;
    if (tries >= 6) {
        struct message m = {i, tries, ctx->now};
        return cham_push(&events, 0, &m) ? CHAM_ERROR(2) : CHAM_DONE;
    }
    f->state = tries + 1;
    u64 wait = 200000000ull << tries;
    return cham_schedule(&deadlines, i, ctx->now + wait) ? CHAM_ERROR(3) : CHAM_DONE;
}

PROGRAM_OF(tx, next_segment)
{
    u32 i = ctx->id;
    struct flow *f = cham_lookup(&flows, &i);
    if (!f)
        return CHAM_ERROR(1);
    u32 length = f->next - f->state;
    if (!length)
        return CHAM_DONE;
    if (length > 1400)
        length = 1400;
    if (cham_resize(ctx, 28 + length))
        return CHAM_ERROR(2);
    if (cham_bytes_to_pkt(ctx, &buffers, i, f->state, CHAM_SPAN(28, length)))
        return CHAM_ERROR(3);
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) + 8 > ctx->data_end)
        return CHAM_ERROR(4);
    ip->version_ihl = 0x45;
    ip->total_length = cham_htons(28 + length);
    ip->ttl = 64;
    ip->protocol = 17;
    ip->dst = (u32)f->packets;
    f->state += length;
    if (f->state != f->next)
        cham_pace(&due, i, 8ull * length);
    return CHAM_TX;
}
