/* Maps: what a handler's helpers work on.
 *
 * A descriptor is a constant of the protocol: sizes and offsets from the instance's base, the same for every instance.
 * In joint code it folds away and the base is one register. All that a lookup, ring or wheel follows lies in the
 * private part, engine memory; only values, ring entries and byte buffers may lie in the shared part (the region).
 *
 *     base -> struct cham_instance | private parts of the maps | guard | region: provider's rings, shared parts
 */
#ifndef CHAM_MAP_H
#define CHAM_MAP_H

#include "untrusted.h"

#define CHAM_MAP_ARRAY 1
#define CHAM_MAP_HASH 2
#define CHAM_MAP_RING_OUT 3
#define CHAM_MAP_RING_IN 4
#define CHAM_MAP_BYTES 5
#define CHAM_MAP_TX 6
#define CHAM_MAP_TIMER 7
#define CHAM_MAP_DATA 100 /* a protocol's own global variables */

struct cham_map {
    u32 kind;
    u32 key_size;
    u32 value_size;
    u32 max_entries; /* ring: entries per context, a power of two */
    u32 stride;      /* bytes from one value (entry, buffer) to the next */
    u32 mask;        /* hash: buckets - 1; bytes: value_size - 1 */
    u32 contexts;    /* rings: how many */
    u32 context_stride;
    u64 values; /* offset of values, ring memory or buffers */
    u64 index;  /* offset of buckets (hash), positions (rings), wheel (ids) */
    u64 keys;   /* offset of keys (hash), nodes (ids) */
    u64 free;   /* offset of the free stack (hash): its height, then indices */
};
CHAM_ASSERT_SIZE(struct cham_map, 64);

/* After a bounds check: make the index depend on the check, so that not even a mispredicted branch goes beyond. */
CHAM_INLINE u64 cham_nospec(u64 index, u64 bound)
{
    if (!cham_cfg_hardening)
        return index;
    if (bound == 1) /* a constant of the map */
        return 0;
    __asm__("" : "+r"(index)); /* hides the outcome of the branch: otherwise the mask folds away */
    return index & (u64)((s64)(index - bound) >> 63);
}

/* ---- keys ------------------------------------------------------------------------------------------------ */

/* Keyed hash of a key, in whole words, for tables that strangers fill: two secret words per instance. The last step is there for keys
 * that are alike (ports, addresses in a row): after one product of theirs with a secret, bits of some secrets' hashes are alike, too. */
CHAM_INLINE u64 key_hash(const u64 secret[2], const u8 *key, u32 size)
{
    u64 h = secret[0] ^ size;
    u32 i = 0;
    for (; i + 8 <= size; i += 8)
        h = cham_mix(h ^ cham_load64(key + i), secret[1]);
    if (size & 4) {
        h = cham_mix(h ^ cham_load32(key + i), secret[1]);
        i += 4;
    }
    if (size & 2) {
        h = cham_mix(h ^ (0x10000u | cham_load16(key + i)), secret[1]);
        i += 2;
    }
    if (size & 1)
        h = cham_mix(h ^ (0x100u | key[i]), secret[1]);
    return cham_mix(h, 0x9e3779b97f4a7c15ull);
}

CHAM_INLINE u32 key_equal(const u8 *a, const u8 *b, u32 size)
{
    u64 d = 0;
    u32 i = 0;
    for (; i + 8 <= size; i += 8)
        d |= cham_load64(a + i) ^ cham_load64(b + i);
    if (size & 4) {
        d |= cham_load32(a + i) ^ cham_load32(b + i);
        i += 4;
    }
    if (size & 2) {
        d |= (u64)(cham_load16(a + i) ^ cham_load16(b + i));
        i += 2;
    }
    if (size & 1)
        d |= (u64)(a[i] ^ b[i]);
    return d == 0;
}

/* ---- array ----------------------------------------------------------------------------------------------- */

CHAM_INLINE void *array_at(u8 *base, const struct cham_map *m, u64 index)
{
    if (unlikely(index >= m->max_entries))
        return 0;
    return base + m->values + cham_nospec(index, m->max_entries) * m->stride;
}

/* ---- hash: two buckets of eight, chosen by a keyed hash ----------------------------------------------------- */

/* One cache line: eight tags and eight slots. Slot 0 is empty, slot s is entry s - 1. A key is in one of two buckets, so
 * a lookup reads at most two lines of index and an insertion that finds sixteen slots taken is refused: constant worst
 * case. With as many buckets as keep the table half full this happens about never; with chosen keys it would need
 * the secret. */
struct hash_bucket {
    u32 tag[8];
    u32 slot[8];
} CHAM_ALIGNED(64);

struct hash_place {
    struct hash_bucket *first, *second;
    u32 tag;
};

CHAM_INLINE struct hash_place hash_place(u8 *base, const struct cham_map *m, const u64 secret[2], const u8 *key)
{
    u64 h = key_hash(secret, key, m->key_size);
    struct hash_bucket *buckets = (struct hash_bucket *)(base + m->index);
    struct hash_place p = {buckets + (h & m->mask), buckets + ((h >> 24) & m->mask), (u32)(h >> 32)};
    return p;
}

/* The place in a bucket that holds the key, or -1. */
CHAM_INLINE s32 bucket_find(u8 *base, const struct cham_map *m, const struct hash_bucket *b, u32 tag, const u8 *key)
{
    for (s32 i = 0; i < 8; i++)
        if (b->tag[i] == tag && b->slot[i] &&
            key_equal(base + m->keys + (u64)(b->slot[i] - 1) * m->key_size, key, m->key_size))
            return i;
    return -1;
}

CHAM_INLINE u32 bucket_used(const struct hash_bucket *b)
{
    u32 n = 0;
    for (u32 i = 0; i < 8; i++)
        n += b->slot[i] != 0;
    return n;
}

/* Where a new key goes. Its first bucket is where lookups look first; but if that were filled to the brim before the second is used,
 * some key would find both full in every table of a few thousand. Making room early for the few costs one key in twenty a
 * second line (measured over random keys), and none is refused before the table is full. */
#define BUCKET_CROWDED 6
CHAM_INLINE struct hash_bucket *bucket_for(const struct hash_place *p)
{
    u32 first = bucket_used(p->first);
    return first < BUCKET_CROWDED || first <= bucket_used(p->second) ? p->first : p->second;
}

CHAM_INLINE void *hash_lookup(u8 *base, const struct cham_map *m, const u64 secret[2], const u8 *key)
{
    struct hash_place p = hash_place(base, m, secret, key);
    s32 i = bucket_find(base, m, p.first, p.tag, key);
    struct hash_bucket *b = p.first;
    if (i < 0) {
        b = p.second;
        i = bucket_find(base, m, b, p.tag, key);
        if (i < 0)
            return 0;
    }
    return base + m->values + (u64)(b->slot[i] - 1) * m->stride;
}

/* ---- ids that come due: a timing wheel of two levels -------------------------------------------------------- */

/* A slot of the first level is a tick; a slot of the second is a revolution of the first, and when that begins, its ids move
 * to the first level. So an id is touched twice at most, or once more for each revolution of the second that it is away. What is
 * due at once when it is set waits for no tick but stands in a queue, first come, first served, in turn with the wheel. */
#define WHEEL_SLOTS 1024u
#define WHEEL_TICK_SHIFT 13 /* 8.2 us a tick, 8.4 ms a revolution of the first level, 8.6 s of the second */

#define NODE_IDLE CHAM_NONE
#define NODE_EXPIRING (2 * WHEEL_SLOTS)  /* the slot number of ids taken out of the wheel and not yet looked at */
#define NODE_QUEUED (2 * WHEEL_SLOTS + 1) /* and of those that were due at once */

struct wheel_node {
    u64 when;       /* when it is, or was last, due */
    u32 next, prev; /* ids, CHAM_NONE at the ends */
    u32 slot;       /* which list holds it; NODE_IDLE: none */
    u32 pad;
};

struct wheel {
    u64 tick;  /* every tick before this one has been emptied */
    u32 armed; /* ids in any list */
    u32 tail;  /* the last of the queue */
    u64 occupied[2 * WHEEL_SLOTS / 64]; /* which slots hold anything */
    u32 head[2 * WHEEL_SLOTS + 2];      /* first level, second level, the expiring list, the queue */
    u32 turn;                           /* whose turn it is: 1, the queue's */
    u32 pad;
};

CHAM_INLINE void wheel_unlink(struct wheel *w, struct wheel_node *nodes, u32 id)
{
    struct wheel_node *n = nodes + id;
    if (n->prev != CHAM_NONE)
        nodes[n->prev].next = n->next;
    else
        w->head[n->slot] = n->next;
    if (n->next != CHAM_NONE) {
        nodes[n->next].prev = n->prev;
        if (n->prev == CHAM_NONE) /* only the head of the expiring list knows where it is */
            nodes[n->next].slot = n->slot;
    }
    if (n->slot == NODE_QUEUED && n->next == CHAM_NONE)
        w->tail = n->prev;
    if (n->slot < NODE_EXPIRING && w->head[n->slot] == CHAM_NONE)
        w->occupied[n->slot / 64] &= ~(1ull << n->slot % 64);
    n->slot = NODE_IDLE;
    w->armed--;
}

CHAM_INLINE void wheel_link(struct wheel *w, struct wheel_node *nodes, u32 id, u64 when)
{
    u64 tick = when >> WHEEL_TICK_SHIFT, turns;
    if (tick < w->tick)
        tick = w->tick;
    u32 slot = (u32)(tick % WHEEL_SLOTS);
    if (tick - w->tick >= WHEEL_SLOTS) {
        turns = tick / WHEEL_SLOTS - w->tick / WHEEL_SLOTS;
        if (turns >= WHEEL_SLOTS) /* beyond the second level: as far as it goes, then again */
            turns = WHEEL_SLOTS - 1;
        slot = WHEEL_SLOTS + (u32)((w->tick / WHEEL_SLOTS + turns) % WHEEL_SLOTS);
    }
    struct wheel_node *n = nodes + id;
    n->when = when;
    n->slot = slot;
    n->prev = CHAM_NONE;
    n->next = w->head[slot];
    if (n->next != CHAM_NONE)
        nodes[n->next].prev = id;
    w->head[slot] = id;
    w->occupied[slot / 64] |= 1ull << slot % 64;
    w->armed++;
}

/* It is due now: to the end of the queue. */
CHAM_INLINE void wheel_queue(struct wheel *w, struct wheel_node *nodes, u32 id, u64 when)
{
    struct wheel_node *n = nodes + id;
    n->when = when;
    n->slot = NODE_QUEUED;
    n->next = CHAM_NONE;
    n->prev = w->head[NODE_QUEUED] == CHAM_NONE ? CHAM_NONE : w->tail;
    if (n->prev == CHAM_NONE)
        w->head[NODE_QUEUED] = id;
    else
        nodes[n->prev].next = id;
    w->tail = id;
    w->armed++;
}

CHAM_INLINE void wheel_expire_slot(struct wheel *w, struct wheel_node *nodes, u32 slot)
{
    u32 id = w->head[slot];
    w->head[slot] = CHAM_NONE;
    w->occupied[slot / 64] &= ~(1ull << slot % 64);
    w->head[NODE_EXPIRING] = id;
    nodes[id].slot = NODE_EXPIRING;
}

/* Move on to the next occupied slot that time has passed, within this revolution; 0: there is none before `now_tick`. */
CHAM_INLINE u32 wheel_advance(struct wheel *w, struct wheel_node *nodes, u64 now_tick)
{
    u64 tick = w->tick, end = (tick / WHEEL_SLOTS + 1) * WHEEL_SLOTS;
    u32 coarse = WHEEL_SLOTS + (u32)(tick / WHEEL_SLOTS % WHEEL_SLOTS);
    if (tick >= now_tick)
        return 0;
    if (tick % WHEEL_SLOTS == 0 && w->occupied[coarse / 64] >> coarse % 64 & 1) {
        wheel_expire_slot(w, nodes, coarse);
        return 1;
    }
    if (end > now_tick)
        end = now_tick;
    while (tick < end && !(w->occupied[tick % WHEEL_SLOTS / 64] >> tick % 64))
        tick = (tick | 63) + 1; /* the rest of this word is empty */
    if (tick < end)
        tick += (u64)__builtin_ctzll(w->occupied[tick % WHEEL_SLOTS / 64] >> tick % 64);
    if (tick >= end) {
        w->tick = end;
        return 1;
    }
    w->tick = tick + 1;
    wheel_expire_slot(w, nodes, (u32)(tick % WHEEL_SLOTS));
    return 1;
}

/* The next number, `from` or more, whose slot of a level is occupied, or ~0. */
CHAM_INLINE u64 wheel_occupied(const u64 level[WHEEL_SLOTS / 64], u64 from)
{
    for (u64 at = from; at < from + WHEEL_SLOTS; at = (at | 63) + 1) {
        u64 word = level[at % WHEEL_SLOTS / 64] >> at % 64;
        if (word)
            return at + (u64)__builtin_ctzll(word);
    }
    return ~0ull;
}

/* When the next occupied slot is to be looked at (ns), or ~0: one of the first level when its tick has passed, one of the second
 * when the first tick of its revolution has, for what moves up then may be due in that tick. */
CHAM_INLINE u64 wheel_due(const struct wheel *w)
{
    if (!w->armed)
        return ~0ull;
    if (w->head[NODE_EXPIRING] != CHAM_NONE || w->head[NODE_QUEUED] != CHAM_NONE)
        return 0;
    u64 tick = wheel_occupied(w->occupied, w->tick);
    u64 turn = wheel_occupied(w->occupied + WHEEL_SLOTS / 64, (w->tick + WHEEL_SLOTS - 1) / WHEEL_SLOTS);
    if (turn != ~0ull && turn * WHEEL_SLOTS < tick)
        tick = turn * WHEEL_SLOTS;
    return (tick + 1) << WHEEL_TICK_SHIFT;
}

/* Whether there is nothing to look at before time moves on. */
CHAM_INLINE u32 wheel_rests(const struct wheel *w, u64 now)
{
    return !w->armed || (w->tick >= now >> WHEEL_TICK_SHIFT && w->head[NODE_EXPIRING] == CHAM_NONE && w->head[NODE_QUEUED] == CHAM_NONE);
}

/* The next id whose tick has passed, or CHAM_NONE; *budget limits how many ids and revolutions are looked at, *moved counts the
 * ids that only moved up. An id is never early, and one tick late at most when the budget suffices. */
CHAM_INLINE u32 wheel_next(struct wheel *w, struct wheel_node *nodes, u64 now, u32 *budget, u32 *moved)
{
    u64 now_tick = now >> WHEEL_TICK_SHIFT;
    while (w->armed && *budget) {
        u32 id = w->head[NODE_QUEUED];
        w->turn ^= 1;
        if (id == CHAM_NONE || !w->turn) {
            if (w->head[NODE_EXPIRING] == CHAM_NONE && wheel_advance(w, nodes, now_tick)) {
                if (w->tick % WHEEL_SLOTS == 0)
                    --*budget;
                continue;
            }
            if (w->head[NODE_EXPIRING] != CHAM_NONE)
                id = w->head[NODE_EXPIRING];
            if (id == CHAM_NONE)
                return CHAM_NONE;
        }
        u64 when = nodes[id].when;
        wheel_unlink(w, nodes, id);
        --*budget;
        if (when <= now)
            return id;
        wheel_link(w, nodes, id, when);
        ++*moved;
    }
    return CHAM_NONE;
}

/* ---- rings: one per context and direction, single producer, single consumer --------------------------------- */

/* What lies in the region. Each half is written by one side only; by `wait` the consumer asks the producer to ring its
 * doorbell: the application of an outbound ring, the engine of an inbound one. */
struct ring_shared {
    u32 prod CHAM_ALIGNED(64);
    u32 cons CHAM_ALIGNED(64);
    u32 wait;
    u8 entries[] CHAM_ALIGNED(64);
};
CHAM_ASSERT_SIZE(struct ring_shared, 128);

/* The engine's half: positions that nobody else can write. */
struct cham_ring {
    u32 pos;     /* ours: producer of an outbound ring, consumer of an inbound one */
    u32 peer;    /* the other side's index as last checked */
    u32 damaged; /* the peer told a lie; out of use */
    u32 pad;
};

CHAM_INLINE struct ring_shared *ring_at(u8 *base, const struct cham_map *m, u32 context)
{
    return (struct ring_shared *)(base + m->values + (u64)context * m->context_stride);
}

CHAM_INLINE struct cham_ring *ring_ours(u8 *base, const struct cham_map *m, u32 context)
{
    return (struct cham_ring *)(base + m->index) + context;
}

#endif
