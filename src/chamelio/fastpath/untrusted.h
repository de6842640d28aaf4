/* Memory that a tenant can write: each field is loaded once, into a local copy, checked, then used.
 *
 * Everything in the fast path that reads a region goes through this header. A value obtained here is a snapshot;
 * the tenant may have changed the original already, which is its own affair.
 */
#ifndef CHAM_UNTRUSTED_H
#define CHAM_UNTRUSTED_H

#include "base.h"

/* One load, never repeated by the compiler. Acquire: what the writer published before is visible after. */
CHAM_INLINE u32 untrusted_u32(const u32 *p) { return __atomic_load_n((const volatile u32 *)p, __ATOMIC_ACQUIRE); }

/* Publish to a tenant: everything stored before is visible to who sees the new value. */
CHAM_INLINE void publish_u32(u32 *p, u32 v) { __atomic_store_n((volatile u32 *)p, v, __ATOMIC_RELEASE); }

/* Copy `len` bytes out of a region, once: after the barrier the compiler cannot go back to the source. */
CHAM_INLINE void untrusted_copy(void *to, const void *from, u64 len)
{
    __builtin_memcpy(to, from, len);
    __asm__ volatile("" : : "r"(to) : "memory");
}

CHAM_INLINE void untrusted_copy_packet(void *to, const void *from, u64 len)
{
    cham_copy_packet(to, from, len);
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* How many entries lie between our position and the index that the peer claims; more than the ring holds is a lie. */
#define UNTRUSTED_LIE CHAM_NONE
CHAM_INLINE u32 untrusted_distance(u32 claimed, u32 ours, u32 capacity)
{
    u32 n = claimed - ours;
    return likely(n <= capacity) ? n : UNTRUSTED_LIE;
}

#endif
