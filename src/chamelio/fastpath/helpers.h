/* The helpers that handlers call, as the lifter and native code see them.
 *
 * Every helper takes the turn first, then the handler's own arguments: pointers as pointers, scalars as u64. The
 * verifier has proven what it can (map kinds, initialised keys and values); everything else is checked here. In
 * joint code the map descriptor is a constant and most of each function folds away.
 */
#ifndef CHAM_HELPERS_H
#define CHAM_HELPERS_H

#include "core.h"
#include "pool.h"

#define HELPER __attribute__((noinline)) /* mode `separate` calls them; the joint compiler makes them alwaysinline */

#define ZEROED_BYTES 64

CHAM_INLINE u8 *turn_base(const struct cham_turn *t) { return instance_base(t->inst); }

CHAM_INLINE void turn_packet(struct cham_turn *t, u32 len)
{
    t->frame->len = (u16)len;
    t->ctx.data = frame_ip(t->frame);
    t->ctx.data_end = frame_ip(t->frame) + len;
}

/* A hook without a packet gets its frame when it first asks for bytes. */
CHAM_INLINE u32 turn_frame(struct cham_turn *t)
{
    if (likely(t->frame))
        return 1;
    t->frame = frame_get(&t->core->pool);
    return t->frame != 0;
}

/* What lies between a packet's end and bytes that it gets further on carries nobody's old bytes. */
CHAM_INLINE void zero_gap(struct cham_frame *f, u64 from, u64 to)
{
    if (likely(!from && to <= ZEROED_BYTES)) /* headers, as a rule: what is zeroed behind them is not the packet's yet */
        __builtin_memset(frame_ip(f), 0, ZEROED_BYTES);
    else
        __builtin_memset(frame_ip(f) + from, 0, to - from);
}

CHAM_INLINE void copy_value(void *to, const void *from, u32 size) { __builtin_memcpy(to, from, size); }

HELPER void *cham_h_cham_lookup(struct cham_turn *t, const struct cham_map *m, const void *key)
{
    if (m->kind == CHAM_MAP_ARRAY)
        return array_at(turn_base(t), m, cham_load32(key));
    return hash_lookup(turn_base(t), m, t->inst->secret, key);
}

HELPER s64 cham_h_cham_update(struct cham_turn *t, const struct cham_map *m, const void *key, const void *value,
                              u64 flags)
{
    u8 *base = turn_base(t);
    (void)flags;
    if (m->kind == CHAM_MAP_ARRAY) {
        void *slot = array_at(base, m, cham_load32(key));
        if (!slot)
            return -CHAM_ENOENT;
        copy_value(slot, value, m->value_size);
        return 0;
    }
    void *found = hash_lookup(base, m, t->inst->secret, key);
    if (found) {
        copy_value(found, value, m->value_size);
        return 0;
    }
    struct hash_place p = hash_place(base, m, t->inst->secret, key);
    u32 *free = (u32 *)(base + m->free);
    struct hash_bucket *b = bucket_for(&p);
    u32 i;
    for (i = 0; i < 8 && b->slot[i]; i++)
        ;
    if (i == 8 || !free[0]) {
        t->inst->counters->events[CHAM_EVENT_HASH_FULL]++;
        return -CHAM_ENOSPC;
    }
    u32 entry = free[free[0]--];
    copy_value(base + m->keys + (u64)entry * m->key_size, key, m->key_size);
    copy_value(base + m->values + (u64)entry * m->stride, value, m->value_size);
    b->tag[i] = p.tag;
    b->slot[i] = entry + 1;
    return 0;
}

HELPER s64 cham_h_cham_delete(struct cham_turn *t, const struct cham_map *m, const void *key)
{
    u8 *base = turn_base(t);
    struct hash_place p = hash_place(base, m, t->inst->secret, key);
    struct hash_bucket *b = p.first;
    s32 i = bucket_find(base, m, b, p.tag, key);
    if (i < 0) {
        b = p.second;
        i = bucket_find(base, m, b, p.tag, key);
        if (i < 0)
            return -CHAM_ENOENT;
    }
    u32 *free = (u32 *)(base + m->free);
    free[++free[0]] = b->slot[i] - 1;
    b->slot[i] = 0;
    b->tag[i] = 0;
    return 0;
}

HELPER s64 cham_h_cham_push(struct cham_turn *t, const struct cham_map *m, u64 context, const void *entry)
{
    u8 *base = turn_base(t);
    if (unlikely(context >= m->contexts))
        return -CHAM_EINVAL;
    u32 c = (u32)cham_nospec(context, m->contexts);
    struct cham_ring *ours = ring_ours(base, m, c);
    struct ring_shared *ring = ring_at(base, m, c);
    if (unlikely(ours->pos - ours->peer >= m->max_entries)) { /* full by what we know: look again */
        u32 cons = untrusted_u32(&ring->cons);
        if (ours->damaged)
            return -CHAM_EINVAL;
        if (untrusted_distance(ours->pos, cons, m->max_entries) == UNTRUSTED_LIE) {
            cham_ring_damaged(t->core, t->inst, ours);
            return -CHAM_EINVAL;
        }
        ours->peer = cons;
        if (ours->pos - cons >= m->max_entries) {
            t->inst->counters->events[CHAM_EVENT_RING_FULL]++;
            return -CHAM_ENOSPC;
        }
    }
    copy_value(ring->entries + (u64)(ours->pos & (m->max_entries - 1)) * m->stride, entry, m->value_size);
    publish_u32(&ring->prod, ++ours->pos);
    t->inst->woken |= 1u << c;
    return 0;
}

HELPER s64 cham_h_cham_resize(struct cham_turn *t, struct chamelio_ctx *ctx, u64 len)
{
    (void)ctx;
    if (unlikely(len > CHAM_IP_MAX))
        return -CHAM_EINVAL;
    if (unlikely(!turn_frame(t)))
        return -CHAM_ENOSPC;
    u32 old = t->frame->len;
    if (len > old)
        zero_gap(t->frame, old, len);
    turn_packet(t, (u32)len);
    return 0;
}

/* A span that lies in a packet of `limit` bytes. */
CHAM_INLINE u32 span_fits(u64 off, u64 len, u64 limit) { return off <= limit && len <= limit - off; }

/* The buffer of an id: its address and size. 0 bytes: the id has none, or there is no such id. */
struct buffer {
    u8 *at;
    u64 size;
};

CHAM_INLINE struct buffer buffer_of(u8 *base, const struct cham_map *m, u64 id)
{
    if (unlikely(id >= m->max_entries))
        return (struct buffer){0, 0};
    u64 i = cham_nospec(id, m->max_entries);
    if (!pool_is(m))
        return (struct buffer){base + m->values + i * m->stride, m->value_size};
    const struct pool_entry *e = (const struct pool_entry *)(base + m->index) + i;
    return (struct buffer){base + m->values + e->offset, e->size};
}

HELPER s64 cham_h_cham_pkt_to_bytes(struct cham_turn *t, struct chamelio_ctx *ctx, const struct cham_map *m, u64 id,
                                    u64 pos, u64 span)
{
    u64 off = span >> 32, len = (u32)span;
    (void)ctx;
    struct buffer b = buffer_of(turn_base(t), m, id);
    if (unlikely(!t->frame || !span_fits(off, len, t->frame->len) || !b.size || len > b.size))
        return -CHAM_EINVAL;
    u64 at = pos & (b.size - 1), head = b.size - at;
    const u8 *from = frame_ip(t->frame) + cham_nospec(off, CHAM_IP_MAX + 1);
    if (likely(len <= head)) {
        cham_copy(b.at + at, from, len);
    } else {
        __builtin_memcpy(b.at + at, from, head);
        __builtin_memcpy(b.at, from + head, len - head);
    }
    return 0;
}

HELPER s64 cham_h_cham_bytes_to_pkt(struct cham_turn *t, struct chamelio_ctx *ctx, const struct cham_map *m, u64 id,
                                    u64 pos, u64 span)
{
    u64 off = span >> 32, len = (u32)span;
    (void)ctx;
    struct buffer b = buffer_of(turn_base(t), m, id);
    if (unlikely(!span_fits(off, len, CHAM_IP_MAX) || !b.size || len > b.size))
        return -CHAM_EINVAL;
    if (unlikely(!turn_frame(t)))
        return -CHAM_ENOSPC;
    u32 old = t->frame->len;
    if (off > old)
        zero_gap(t->frame, old, off);
    u64 at = pos & (b.size - 1), head = b.size - at;
    u8 *to = frame_ip(t->frame) + cham_nospec(off, CHAM_IP_MAX + 1);
    if (likely(len <= head)) {
        cham_copy(to, b.at + at, len);
    } else {
        __builtin_memcpy(to, b.at + at, head);
        __builtin_memcpy(to + head, b.at, len - head);
    }
    turn_packet(t, off + len > old ? (u32)(off + len) : old);
    return 0;
}

/* RFC 1071 over `len` bytes, 32 bits at a time; the odd byte counts as the first of a pair. */
CHAM_INLINE u64 csum_bytes(const u8 *p, u64 len, u64 sum)
{
    for (; len >= 4; p += 4, len -= 4)
        sum += cham_load32(p);
    if (len & 2) {
        sum += cham_load16(p);
        p += 2;
    }
    if (len & 1)
        sum += *p;
    return sum;
}

HELPER s64 cham_h_cham_csum(struct cham_turn *t, struct chamelio_ctx *ctx, u64 span, u64 seed)
{
    u64 off = span >> 32, len = (u32)span;
    (void)ctx;
    if (unlikely(!t->frame || !span_fits(off, len, t->frame->len)))
        return -CHAM_EINVAL;
    return cham_fold(csum_bytes(frame_ip(t->frame) + cham_nospec(off, CHAM_IP_MAX + 1), len, (u32)seed + (seed >> 32)));
}

HELPER s64 cham_h_cham_schedule(struct cham_turn *t, const struct cham_map *m, u64 id, u64 when)
{
    if (unlikely(id >= m->max_entries))
        return -CHAM_ENOENT;
    struct wheel *w = (struct wheel *)(turn_base(t) + m->index);
    struct wheel_node *nodes = (struct wheel_node *)(turn_base(t) + m->keys);
    u32 i = (u32)cham_nospec(id, m->max_entries);
    if (nodes[i].slot != NODE_IDLE)
        wheel_unlink(w, nodes, i);
    if (!w->armed)
        w->tick = t->core->now >> WHEEL_TICK_SHIFT;
    if (when <= t->core->now)
        wheel_queue(w, nodes, i, when);
    else
        wheel_link(w, nodes, i, when);
    return 0;
}

HELPER s64 cham_h_cham_cancel(struct cham_turn *t, const struct cham_map *m, u64 id)
{
    if (unlikely(id >= m->max_entries))
        return -CHAM_ENOENT;
    struct wheel *w = (struct wheel *)(turn_base(t) + m->index);
    struct wheel_node *nodes = (struct wheel_node *)(turn_base(t) + m->keys);
    u32 i = (u32)cham_nospec(id, m->max_entries);
    if (nodes[i].slot == NODE_IDLE)
        return -CHAM_ENOENT;
    wheel_unlink(w, nodes, i);
    return 0;
}


HELPER s64 cham_h_cham_pace(struct cham_turn *t, const struct cham_map *m, u64 id, u64 gap)
{
    if (unlikely(id >= m->max_entries))
        return -CHAM_ENOENT;
    struct wheel_node *nodes = (struct wheel_node *)(turn_base(t) + m->keys);
    u64 due = nodes[cham_nospec(id, m->max_entries)].when + gap, now = t->core->now;
    return cham_h_cham_schedule(t, m, id, due < now || due < gap ? now : due);
}

HELPER u64 cham_h_cham_random(struct cham_turn *t, struct chamelio_ctx *ctx)
{
    (void)ctx;
    t->inst->random += 0x9e3779b97f4a7c15ull;
    return cham_mix(t->inst->random ^ t->inst->cookie_secret[0], t->inst->random ^ t->inst->cookie_secret[1]);
}

HELPER u64 cham_h_cham_hash(struct cham_turn *t, struct chamelio_ctx *ctx, u64 a, u64 b)
{
    (void)ctx;
    return cham_mix(cham_mix(a ^ t->inst->cookie_secret[0], t->inst->cookie_secret[1]) ^ b, t->inst->cookie_secret[1]);
}

HELPER s64 cham_h_cham_emit(struct cham_turn *t, struct chamelio_ctx *ctx)
{
    struct cham_outcome *o = t->outcome;
    struct cham_frame *f = t->frame;
    (void)ctx;
    if (unlikely(!f))
        return -CHAM_EINVAL;
    if (unlikely(!t->emits))
        return -CHAM_ENOSPC;
    t->emits--;
    o->out[o->n_out++] = f;
    t->frame = 0;
    t->ctx.data = 0;
    t->ctx.data_end = 0;
    return 0;
}

HELPER s64 cham_h_cham_csum_later(struct cham_turn *t, struct chamelio_ctx *ctx, u64 start, u64 at)
{
    struct cham_frame *f = t->frame;
    (void)ctx;
    if (unlikely(!f || at < start || at > CHAM_IP_MAX))
        return -CHAM_EINVAL;
    f->csum_start = (u16)start;
    f->csum_at = (u16)at;
    f->flags |= CHAM_FRAME_CSUM_LATER;
    return 0;
}

/* Move bytes that are to be kept from one ring buffer to another, each to its position; at most a packet's. */
CHAM_INLINE void buffer_keep(struct buffer to, struct buffer from, u64 pos, u64 len)
{
    u8 bytes[CHAM_IP_MAX];
    u64 at = pos & (from.size - 1), head = from.size - at < len ? from.size - at : len;
    __builtin_memcpy(bytes, from.at + at, head);
    __builtin_memcpy(bytes + head, from.at, len - head);
    at = pos & (to.size - 1);
    head = to.size - at < len ? to.size - at : len;
    __builtin_memcpy(to.at + at, bytes, head);
    __builtin_memcpy(to.at, bytes + head, len - head);
}

CHAM_INLINE void pool_tell(u8 *base, const struct cham_map *m, u64 i, u32 offset, u32 size)
{
    struct pool_entry *e = (struct pool_entry *)(base + m->index) + i;
    struct cham_place *place = (struct cham_place *)(base + m->free) + i;
    *e = (struct pool_entry){offset, size};
    publish_u32(&place->size, 0); /* so that nobody takes the new place for one of the old size */
    publish_u32(&place->offset, offset);
    publish_u32(&place->size, size);
}

HELPER s64 cham_h_cham_bytes_open(struct cham_turn *t, const struct cham_map *m, u64 id, u64 size, u64 keep)
{
    u8 *base = turn_base(t);
    u64 pos = keep >> 32, len = (u32)keep;
    struct buffer old = buffer_of(base, m, id);
    if (unlikely(!pool_is(m) || id >= m->max_entries || !size || size > m->value_size || len > CHAM_IP_MAX || len > old.size))
        return -CHAM_EINVAL;
    u64 i = cham_nospec(id, m->max_entries);
    u32 order = pool_order(m, size), bytes = 1u << (m->key_size + order);
    struct pool *p = pool_of(base, m);
    if (unlikely(len > bytes))
        return -CHAM_EINVAL;
    u32 block = pool_take(p, order, m->mask);
    if (unlikely(block == CHAM_NONE)) {
        t->inst->counters->events[CHAM_EVENT_POOL_EMPTY]++;
        return -CHAM_ENOSPC;
    }
    u32 offset = block << m->key_size;
    if (len)
        buffer_keep((struct buffer){base + m->values + offset, bytes}, old, pos, len);
    if (old.size)
        pool_give(p, (u32)(old.at - (base + m->values)) >> m->key_size, pool_order(m, old.size), m->mask);
    pool_tell(base, m, i, offset, bytes);
    return 0;
}

HELPER s64 cham_h_cham_bytes_close(struct cham_turn *t, const struct cham_map *m, u64 id)
{
    u8 *base = turn_base(t);
    struct buffer old = buffer_of(base, m, id);
    if (unlikely(!pool_is(m) || !old.size))
        return -CHAM_ENOENT;
    pool_give(pool_of(base, m), (u32)(old.at - (base + m->values)) >> m->key_size, pool_order(m, old.size), m->mask);
    pool_tell(base, m, cham_nospec(id, m->max_entries), 0, 0);
    return 0;
}

HELPER u64 cham_h_cham_bytes_size(struct cham_turn *t, const struct cham_map *m, u64 id)
{
    return buffer_of(turn_base(t), m, id).size;
}

#endif
