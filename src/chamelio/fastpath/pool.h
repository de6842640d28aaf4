/* Pools of byte buffers: power-of-two sizes out of one arena of a core, by the buddy system (Knowlton, 1965).
 *
 * The arena lies in the region; everything that decides where a buffer is lies in engine memory: a table by id, lists of free blocks
 * by order, a node for each block of the smallest size. Taking and giving back touch one block for each order at most. The tenant
 * is told where a buffer lies by a table of its own (struct cham_place), which is never read here.
 */
#ifndef CHAM_POOL_H
#define CHAM_POOL_H

#include "map.h"

#define POOL_ORDERS 16
#define POOL_TAKEN 0xffu

struct cham_place { /* for the tenant: where in the arena the buffer of an id lies; size 0: nowhere */
    u32 offset, size;
};

struct pool_entry { /* ours: the same */
    u32 offset, size;
};

struct pool_node {
    u32 next, prev; /* blocks of the same list, CHAM_NONE at the ends */
    u32 order;      /* of a free block; POOL_TAKEN otherwise */
    u32 pad;
};

struct pool {
    u32 head[POOL_ORDERS]; /* free blocks of each order */
};

/* A map's descriptor reads: key_size log2 of the smallest size, mask the largest order, stride how many smallest blocks there are;
 * values the arena, index the table by id, keys the pool and its nodes, free the tenant's table. */
CHAM_INLINE u32 pool_is(const struct cham_map *m) { return m->key_size != 0; }
CHAM_INLINE struct pool *pool_of(u8 *base, const struct cham_map *m) { return (struct pool *)(base + m->keys); }
CHAM_INLINE struct pool_node *pool_nodes(struct pool *p) { return (struct pool_node *)(p + 1); }

CHAM_INLINE void pool_push(struct pool *p, u32 block, u32 order)
{
    struct pool_node *nodes = pool_nodes(p);
    nodes[block] = (struct pool_node){.next = p->head[order], .prev = CHAM_NONE, .order = order};
    if (p->head[order] != CHAM_NONE)
        nodes[p->head[order]].prev = block;
    p->head[order] = block;
}

CHAM_INLINE void pool_unlink(struct pool *p, u32 block)
{
    struct pool_node *nodes = pool_nodes(p), *n = nodes + block;
    if (n->prev != CHAM_NONE)
        nodes[n->prev].next = n->next;
    else
        p->head[n->order] = n->next;
    if (n->next != CHAM_NONE)
        nodes[n->next].prev = n->prev;
    n->order = POOL_TAKEN;
}

/* Every block of the largest order is free. */
CHAM_INLINE void pool_init(u8 *base, const struct cham_map *m)
{
    struct pool *p = pool_of(base, m);
    for (u32 order = 0; order < POOL_ORDERS; order++)
        p->head[order] = CHAM_NONE;
    for (u32 block = 0; block < m->stride; block++)
        pool_nodes(p)[block].order = POOL_TAKEN;
    for (u32 block = m->stride; block; block -= 1u << m->mask)
        pool_push(p, block - (1u << m->mask), m->mask);
}

/* A block of an order, or CHAM_NONE: the smallest that is large enough, split. */
CHAM_INLINE u32 pool_take(struct pool *p, u32 order, u32 largest)
{
    u32 from = order;
    while (from <= largest && p->head[from] == CHAM_NONE)
        from++;
    if (from > largest)
        return CHAM_NONE;
    u32 block = p->head[from];
    pool_unlink(p, block);
    while (from > order) {
        from--;
        pool_push(p, block + (1u << from), from);
    }
    return block;
}

/* A block goes back, joined with its buddy as long as that is free too. */
CHAM_INLINE void pool_give(struct pool *p, u32 block, u32 order, u32 largest)
{
    for (; order < largest && pool_nodes(p)[block ^ 1u << order].order == order; order++) {
        pool_unlink(p, block ^ 1u << order);
        block &= ~(1u << order);
    }
    pool_push(p, block, order);
}

CHAM_INLINE u32 pool_order(const struct cham_map *m, u64 size)
{
    u32 order = 0;
    while ((u64)1 << (m->key_size + order) < size)
        order++;
    return order;
}

#endif
