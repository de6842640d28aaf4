/* Included before everything else: frames in the pool are poisoned, so that touching one after it was given back is found. */
#ifndef HOSTILE_FRAMES_H
#define HOSTILE_FRAMES_H

#define frame_get frame_pop
#define frame_put frame_push
#include "frame.h"
#undef frame_get
#undef frame_put

#ifdef __SANITIZE_ADDRESS__
void __asan_poison_memory_region(const volatile void *at, unsigned long size);
void __asan_unpoison_memory_region(const volatile void *at, unsigned long size);
#define POISON(at, size) __asan_poison_memory_region(at, size)
#define UNPOISON(at, size) __asan_unpoison_memory_region(at, size)
#else
#define POISON(at, size) ((void)(at), (void)(size))
#define UNPOISON(at, size) ((void)(at), (void)(size))
#endif

CHAM_INLINE struct cham_frame *frame_get(struct cham_pool *pool)
{
    struct cham_frame *f = frame_pop(pool);
    if (f)
        UNPOISON(f->bytes, sizeof f->bytes);
    return f;
}

CHAM_INLINE void frame_put(struct cham_pool *pool, struct cham_frame *f)
{
    POISON(pool->frames[f->index].bytes, sizeof f->bytes);
    frame_push(pool, f);
}

#endif
