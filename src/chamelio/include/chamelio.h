/* What a tenant's handlers are compiled against: hooks, verdicts, maps and helpers.
 *
 * A protocol is one C file built with `chamelio protocol build FILE.c`. Its handlers are BPF programs
 * named by section; each takes the context below and returns a verdict:
 *
 *     CHAM_HANDLER(rx)    a packet for one of the instance's addresses
 *     CHAM_HANDLER(ring)  an entry that an application or the slow path put in an inbound ring
 *     CHAM_HANDLER(tx)    an id of a CHAM_MAP_TX map is due to send
 *     CHAM_HANDLER(timer) an id of a CHAM_MAP_TIMER map has passed its deadline
 *
 * The same source compiles in two ways. As BPF it is what a tenant ships: verified, lifted, jointly compiled.
 * With CHAM_NATIVE it becomes host code inside the provider: mode `fixed`, the yardstick for the tax. (There every
 * helper takes the context as a hidden first argument, so a function that calls helpers has `ctx` in scope.)
 */
#ifndef CHAMELIO_H
#define CHAMELIO_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

/* ---- context: read-only, typed for the verifier ---------------------------------------------------------- */

struct chamelio_ctx {
    void *data;      /* first byte of the packet, from the IP header on */
    void *data_end;  /* one past its last byte (exact: link padding is gone) */
    void *entry;     /* ring hook: a private copy of the ring's entry */
    void *entry_end; /* one past it */
    u64 now;         /* engine time in ns, read once per batch */
    u32 id;          /* ring: the context that wrote the entry (0 is the slow path); tx, timer: the id that is due */
    u32 hash;        /* rx: the provider's keyed hash of the flow */
    u32 core;        /* which engine core runs this */
    u32 csum_ok;     /* rx: 1 when the port has already verified the transport checksum */
};

/* ---- verdicts -------------------------------------------------------------------------------------------- */

#define CHAM_DONE 0u                                       /* finished with the buffer, if there was one */
#define CHAM_TX 1u                                         /* transmit the packet as it stands */
#define CHAM_PUNT 2u                                       /* give the packet to the slow path */
#define CHAM_ERROR(reason) (3u | (u32)(u8)(reason) << 8)   /* drop; counted under the tenant's own reason code */

/* ---- maps ------------------------------------------------------------------------------------------------ */

#define CHAM_MAP_ARRAY 1    /* values by index; an id belongs to one core */
#define CHAM_MAP_HASH 2     /* keyed hash, bounded probes, private to a core; full is an error for this tenant alone */
#define CHAM_MAP_RING_OUT 3 /* engine to application: one ring per context */
#define CHAM_MAP_RING_IN 4  /* application to engine: one ring per context; its entries run the ring hook */
#define CHAM_MAP_BYTES 5    /* per id a power-of-two byte buffer, addressed by position modulo its size */
#define CHAM_MAP_TX 6       /* ids with a due time; when it comes the tx hook runs */
#define CHAM_MAP_TIMER 7    /* ids with a deadline; when it passes the timer hook runs */

#define CHAM_EMITS 2 /* packets that one run of a handler can emit besides the one it ends with */

#define CHAM_SHARED 1 /* flag: the slow path and applications see (and may write) the values */

/* One writer per field of a shared value, declared here and enforced by the SDK. Unmarked fields are fast. */
#define CHAM_FAST __attribute__((btf_decl_tag("fast")))
#define CHAM_SLOW __attribute__((btf_decl_tag("slow")))

/* ---- the two ways to compile ----------------------------------------------------------------------------- */

#ifdef CHAM_NATIVE
#define CHAM_HANDLER(hook) u64 cham_native_##hook(struct chamelio_ctx *ctx __attribute__((unused)))
#define CHAM_MAP(name, ...) extern const char name[] __asm__("cham_map_" #name)
#define CHAM_HELPER(id, ret, name, ...) ret cham_h_##name(struct chamelio_ctx *, __VA_ARGS__)
#else
#define CHAM_HANDLER(hook) __attribute__((section("chamelio/" #hook), used))                                       \
    u64 hook(struct chamelio_ctx *ctx __attribute__((unused)))
#define CHAM_MAP(name, ...) struct { __VA_ARGS__ } name __attribute__((section(".maps"), used))
#define CHAM_HELPER(id, ret, name, ...) static ret (*const name)(__VA_ARGS__) = (ret (*)(__VA_ARGS__))(id)
#endif

#define CHAM_INLINE static inline __attribute__((always_inline))

/* A map is declared in libbpf's own way; these spell the six kinds that there are. */
#define CHAM_ARRAY(name, entries, value_t, map_flags)                                                      \
    CHAM_MAP(name, int (*type)[CHAM_MAP_ARRAY]; int (*max_entries)[entries]; int (*flags)[map_flags];      \
             u32 *key; value_t *value;)
#define CHAM_HASH(name, entries, key_t, value_t, map_flags)                                                \
    CHAM_MAP(name, int (*type)[CHAM_MAP_HASH]; int (*max_entries)[entries]; int (*flags)[map_flags];       \
             key_t *key; value_t *value;)
#define CHAM_RING_OUT(name, entries, entry_t)                                                              \
    CHAM_MAP(name, int (*type)[CHAM_MAP_RING_OUT]; int (*max_entries)[entries]; entry_t *value;)
#define CHAM_RING_IN(name, entries, entry_t)                                                               \
    CHAM_MAP(name, int (*type)[CHAM_MAP_RING_IN]; int (*max_entries)[entries]; entry_t *value;)
#define CHAM_BYTES(name, ids, size)                                                                        \
    CHAM_MAP(name, int (*type)[CHAM_MAP_BYTES]; int (*max_entries)[ids]; int (*value_size)[size];)
/* Buffers that come and go: an id has none until cham_bytes_open gives it one of `min` to `max` bytes (powers of two) out of
 * `total` bytes of each core. Where an id's buffer lies is told to the tenant beside the buffers (struct cham_place). */
#define CHAM_BYTES_POOL(name, ids, min, max, total)                                                        \
    CHAM_MAP(name, int (*type)[CHAM_MAP_BYTES]; int (*max_entries)[ids]; int (*value_size)[max];           \
             int (*min_size)[min]; int (*total_size)[total];)
#define CHAM_TX_IDS(name, ids) CHAM_MAP(name, int (*type)[CHAM_MAP_TX]; int (*max_entries)[ids];)
#define CHAM_TIMERS(name, ids) CHAM_MAP(name, int (*type)[CHAM_MAP_TIMER]; int (*max_entries)[ids];)

/* ---- helpers: each has a cost in the contract ------------------------------------------------------------ */

/* The value of `key` in an array or hash map, or NULL. */
CHAM_HELPER(1, void *, cham_lookup, const void *map, const void *key);
/* Insert or overwrite. 0, or -ENOSPC (hash full), -ENOENT (array index out of range). */
CHAM_HELPER(2, s64, cham_update, const void *map, const void *key, const void *value, u64 flags);
/* Remove from a hash map. 0, or -ENOENT. */
CHAM_HELPER(3, s64, cham_delete, const void *map, const void *key);

/* Put a copy of `entry` (the ring's value type) in the ring of a context. 0, -ENOSPC (full), -EINVAL (no such
 * context, or its ring is damaged). */
CHAM_HELPER(0x101, s64, cham_push, const void *ring, u64 context, const void *entry);

/* Spans: a part of the packet, `off` and `len` in bytes from the IP header, checked by the helper at run time. */
#define CHAM_SPAN(off, len) ((u64)(u32)(off) << 32 | (u32)(len))

/* Set the packet's length; what it gains is zero. 0, or -EINVAL (beyond the MTU). Packet pointers end here. */
CHAM_HELPER(0x102, s64, cham_resize, struct chamelio_ctx *ctx, u64 len);
/* Copy a span of the packet to position `pos` of buffer `id`. 0, or -EINVAL (span, id, or longer than the buffer). */
CHAM_HELPER(0x103, s64, cham_pkt_to_bytes, struct chamelio_ctx *ctx, const void *bytes, u64 id, u64 pos, u64 span);
/* Copy from position `pos` of buffer `id` to a span, which may extend the packet. Packet pointers end here. */
CHAM_HELPER(0x104, s64, cham_bytes_to_pkt, struct chamelio_ctx *ctx, const void *bytes, u64 id, u64 pos, u64 span);
/* Ones' complement sum (RFC 1071) of a span, not inverted, folded to 16 bits in packet byte order, plus `seed`
 * (32 bits, same order). -EINVAL if the span is not within the packet. */
CHAM_HELPER(0x105, s64, cham_csum, struct chamelio_ctx *ctx, u64 span, u64 seed);
/* Make `id` due at `when` (ns; the past is now), replacing what was set. 0, or -ENOENT (no such id). */
CHAM_HELPER(0x106, s64, cham_schedule, const void *ids, u64 id, u64 when);
/* Forget `id`. 0, or -ENOENT (no such id, or it was not set). */
CHAM_HELPER(0x107, s64, cham_cancel, const void *ids, u64 id);
/* Make `id` due `gap` ns after it was due last, or now if that has passed: pacing. 0, or -ENOENT (no such id). */
CHAM_HELPER(0x108, s64, cham_pace, const void *ids, u64 id, u64 gap);
/* 64 random bits, of a generator of the instance's own. */
CHAM_HELPER(0x109, u64, cham_random, struct chamelio_ctx *ctx);
/* Keyed hash of two words, with a secret of the instance's own: cookies, initial sequence numbers. */
CHAM_HELPER(0x10a, u64, cham_hash, struct chamelio_ctx *ctx, u64 a, u64 b);
/* Transmit the packet as it stands and go on without one: what the handler builds next is another packet. At most
 * CHAM_EMITS in a run. 0, or -ENOSPC (too many), -EINVAL (there is no packet). Packet pointers end here. */
CHAM_HELPER(0x10b, s64, cham_emit, struct chamelio_ctx *ctx);
/* Let the provider complete the checksum of what is transmitted, from byte `start` to the end, in the field at byte `at`, which
 * holds the sum of the pseudo header: on the wire if the port can, in software if not, not at all inside the host. 0, or -EINVAL. */
CHAM_HELPER(0x10c, s64, cham_csum_later, struct chamelio_ctx *ctx, u64 start, u64 at);

/* Give `id` of a pool a buffer of at least `size` bytes, in place of the one that it has; what was in that is gone, but for `keep`:
 * CHAM_SPAN-like, position << 32 | bytes (at most a packet's), which stays at its position. 0, -ENOSPC (the pool has none), or
 * -EINVAL (no such id, a size beyond the largest, a fixed map, or more to keep than fits). */
CHAM_HELPER(0x10d, s64, cham_bytes_open, const void *bytes, u64 id, u64 size, u64 keep);
/* Take the buffer of `id` back. 0, or -ENOENT (it has none). */
CHAM_HELPER(0x10e, s64, cham_bytes_close, const void *bytes, u64 id);
/* Bytes of the buffer of `id`, 0: it has none. */
CHAM_HELPER(0x10f, u64, cham_bytes_size, const void *bytes, u64 id);

#ifdef CHAM_NATIVE
#define cham_lookup(...) cham_h_cham_lookup(ctx, __VA_ARGS__)
#define cham_update(...) cham_h_cham_update(ctx, __VA_ARGS__)
#define cham_delete(...) cham_h_cham_delete(ctx, __VA_ARGS__)
#define cham_push(...) cham_h_cham_push(ctx, __VA_ARGS__)
#define cham_resize(...) cham_h_cham_resize(ctx, __VA_ARGS__)
#define cham_pkt_to_bytes(...) cham_h_cham_pkt_to_bytes(ctx, __VA_ARGS__)
#define cham_bytes_to_pkt(...) cham_h_cham_bytes_to_pkt(ctx, __VA_ARGS__)
#define cham_csum(...) cham_h_cham_csum(ctx, __VA_ARGS__)
#define cham_schedule(...) cham_h_cham_schedule(ctx, __VA_ARGS__)
#define cham_cancel(...) cham_h_cham_cancel(ctx, __VA_ARGS__)
#define cham_pace(...) cham_h_cham_pace(ctx, __VA_ARGS__)
#define cham_random(...) cham_h_cham_random(ctx, __VA_ARGS__)
#define cham_hash(...) cham_h_cham_hash(ctx, __VA_ARGS__)
#define cham_emit(...) cham_h_cham_emit(ctx, __VA_ARGS__)
#define cham_csum_later(...) cham_h_cham_csum_later(ctx, __VA_ARGS__)
#define cham_bytes_open(...) cham_h_cham_bytes_open(ctx, __VA_ARGS__)
#define cham_bytes_close(...) cham_h_cham_bytes_close(ctx, __VA_ARGS__)
#define cham_bytes_size(...) cham_h_cham_bytes_size(ctx, __VA_ARGS__)
#endif

/* ---- byte order and the headers that every transport meets ------------------------------------------------ */

#define cham_htons(x) __builtin_bswap16((u16)(x))
#define cham_ntohs(x) __builtin_bswap16((u16)(x))
#define cham_htonl(x) __builtin_bswap32((u32)(x))
#define cham_ntohl(x) __builtin_bswap32((u32)(x))

struct cham_ipv4 {
    u8 version_ihl;
    u8 tos;
    u16 total_length;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u32 src;
    u32 dst;
};

/* A checksum field after a 16-bit word under it changed from `old` to `new`, all in packet byte order (RFC 1624, equation 3). */
#define cham_csum_replace(field, old, new) ((u16)~cham_fold((u64)(u16)~(field) + (u16)~(old) + (u16)(new)))

/* Fold a ones' complement sum to 16 bits. */
CHAM_INLINE u32 cham_fold(u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u32)sum;
}

#endif
