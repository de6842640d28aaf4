/* Words of the fast path: integer types, constants of a build, small arithmetic. */
#ifndef CHAM_BASE_H
#define CHAM_BASE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define CHAM_INLINE static inline __attribute__((always_inline))
#define CHAM_RARE __attribute__((noinline, cold)) /* keeps out of the way of what is hot */
#define CHAM_ALIGNED(n) __attribute__((aligned(n)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define CHAM_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is pinned at " #bytes " bytes")

/* Configuration is linked in as a module of constants, never as macros: one bitcode serves every build. */
extern const u32 cham_cfg_virtual;   /* 1: time and cycles are counted by the cost model, not by the machine */
extern const u32 cham_cfg_hardening; /* 1: accesses at checked variable offsets are masked as well */
extern const u32 cham_cfg_policy;    /* enum cham_policy: how tenants share a core */

#define CHAM_NONE 0xffffffffu

#define CHAM_ENOENT 2
#define CHAM_EINVAL 22
#define CHAM_ENOSPC 28

CHAM_INLINE u16 cham_be16(u16 x) { return __builtin_bswap16(x); }
CHAM_INLINE u32 cham_be32(u32 x) { return __builtin_bswap32(x); }
CHAM_INLINE u32 cham_min(u32 a, u32 b) { return a < b ? a : b; }

/* Unaligned loads and stores: packets align nothing. */
CHAM_INLINE u16 cham_load16(const u8 *p) { u16 v; __builtin_memcpy(&v, p, 2); return v; }
CHAM_INLINE u32 cham_load32(const u8 *p) { u32 v; __builtin_memcpy(&v, p, 4); return v; }
CHAM_INLINE u64 cham_load64(const u8 *p) { u64 v; __builtin_memcpy(&v, p, 8); return v; }
CHAM_INLINE void cham_store16(u8 *p, u16 v) { __builtin_memcpy(p, &v, 2); }
CHAM_INLINE void cham_store32(u8 *p, u32 v) { __builtin_memcpy(p, &v, 4); }

typedef u64 cham_vector __attribute__((vector_size(32), aligned(1)));

/* So many vectors from either end of `len` bytes; they meet or overlap. Everything is loaded before anything is stored. */
#define CHAM_COPY_ENDS(n)                                                            \
    do {                                                                             \
        cham_vector first[n], last[n];                                               \
        for (u32 i = 0; i < (n); i++) {                                              \
            first[i] = *(const cham_vector *)((const u8 *)from + 32 * i);            \
            last[i] = *(const cham_vector *)((const u8 *)from + len - 32 * ((n) - i)); \
        }                                                                            \
        for (u32 i = 0; i < (n); i++) {                                              \
            *(cham_vector *)((u8 *)to + 32 * i) = first[i];                          \
            *(cham_vector *)((u8 *)to + len - 32 * ((n) - i)) = last[i];             \
        }                                                                            \
    } while (0)

/* memcpy, without a call for the sizes of small messages. */
CHAM_INLINE void cham_copy(void *to, const void *from, u64 len)
{
    if (len - 32 <= 32)
        CHAM_COPY_ENDS(1);
    else if (len - 64 <= 64)
        CHAM_COPY_ENDS(2);
    else
        __builtin_memcpy(to, from, len);
}

/* The same for the packets that carry them. */
CHAM_INLINE void cham_copy_packet(void *to, const void *from, u64 len)
{
    if (len - 64 <= 64)
        CHAM_COPY_ENDS(2);
    else if (len - 128 <= 128)
        CHAM_COPY_ENDS(4);
    else
        __builtin_memcpy(to, from, len);
}

/* 64 x 64 -> 128 bit multiply, folded: the mixing step of the keyed hashes. */
CHAM_INLINE u64 cham_mix(u64 a, u64 b)
{
    unsigned __int128 r = (unsigned __int128)a * b;
    return (u64)r ^ (u64)(r >> 64);
}

#endif
