/* What the C programs for the kernel's hooks share: contexts, maps and helpers as linux/bpf.h numbers them. Verified, never run. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct __sk_buff {
    u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex, tc_index;
    u32 cb[5];
    u32 hash, tc_classid, data, data_end, napi_id, family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port;
    u32 data_meta;
    u64 flow_keys, tstamp;
    u32 wire_len, gso_segs;
    u64 sk;
    u32 gso_size;
    u8 tstamp_type, rest[3];
    u64 hwtstamp;
};

struct bpf_sock {
    u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4], src_port;
    u16 dst_port, pad;
    u32 dst_ip4, dst_ip6[4], state;
    s32 rx_queue_mapping;
};

struct bpf_tcp_sock {
    u32 snd_cwnd, srtt_us, rtt_min, snd_ssthresh, rcv_nxt, snd_nxt, snd_una, mss_cache;
};

struct bpf_sock_tuple {
    u32 saddr, daddr;
    u16 sport, dport;
};

struct bpf_fib_lookup {
    u8 family, l4_protocol;
    u16 sport, dport, tot_len;
    u32 ifindex, tos, src[4], dst[4];
    u16 vlan_proto, vlan_tci;
    u8 smac[6], dmac[6];
};

#define SECTION(name) __attribute__((section(name), used))
#define PROGRAM_OF(hook, name) KERNEL_##hook(name)
#define KERNEL_xdp(name) SECTION("xdp") int name(struct xdp_md *ctx __attribute__((unused)))
#define KERNEL_tc(name) SECTION("tc") int name(struct __sk_buff *ctx __attribute__((unused)))
#define KERNEL_socket(name) SECTION("socket") int name(struct __sk_buff *ctx __attribute__((unused)))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define DATA ((void *)(long)ctx->data)
#define DATA_END ((void *)(long)ctx->data_end)
#define DATA_META ((void *)(long)ctx->data_meta)

#define XDP_ABORTED 0
#define XDP_DROP 1
#define XDP_PASS 2
#define XDP_TX 3
#define XDP_REDIRECT 4
#define TC_OK 0
#define TC_SHOT 2

#define NO_PREALLOCATION 1
#define READ_ONLY_FOR_PROGRAMS 128

#define HASH 1
#define ARRAY 2
#define PROG_ARRAY 3
#define PERF_EVENT_ARRAY 4
#define PERCPU_HASH 5
#define PERCPU_ARRAY 6
#define LRU_HASH 9
#define LPM_TRIE 11
#define DEVMAP 14
#define XSKMAP 17
#define QUEUE 22
#define RINGBUF 27
#define BLOOM_FILTER 30

#define MAP(name, kind, entries, key_t, value_t)                                                                                \
    struct {                                                                                                                    \
        int (*type)[kind];                                                                                                      \
        int (*max_entries)[entries];                                                                                            \
        key_t *key;                                                                                                             \
        value_t *value;                                                                                                         \
    } name SECTION(".maps")
#define MAP_WITH_FLAGS(name, kind, entries, key_t, value_t, flags)                                                               \
    struct {                                                                                                                    \
        int (*type)[kind];                                                                                                      \
        int (*max_entries)[entries];                                                                                            \
        int (*map_flags)[flags];                                                                                                \
        key_t *key;                                                                                                             \
        value_t *value;                                                                                                         \
    } name SECTION(".maps")
#define MAP_WITHOUT_TYPES(name, kind, entries, key, value)                                                                      \
    struct {                                                                                                                    \
        int (*type)[kind];                                                                                                      \
        int (*max_entries)[entries];                                                                                            \
        int (*key_size)[key];                                                                                                   \
        int (*value_size)[value];                                                                                               \
    } name SECTION(".maps")
#define MAP_OF_BYTES(name, kind, bytes)                                                                                         \
    struct {                                                                                                                    \
        int (*type)[kind];                                                                                                      \
        int (*max_entries)[bytes];                                                                                              \
    } name SECTION(".maps")

#define HELPER(id, ret, name, ...) static ret (*const bpf_##name)(__VA_ARGS__) = (ret (*)(__VA_ARGS__))(id)
HELPER(1, void *, map_lookup_elem, void *map, const void *key);
HELPER(2, long, map_update_elem, void *map, const void *key, const void *value, u64 flags);
HELPER(3, long, map_delete_elem, void *map, const void *key);
HELPER(5, u64, ktime_get_ns, void);
HELPER(6, long, trace_printk, const char *format, u32 size, ...);
HELPER(7, u32, get_prandom_u32, void);
HELPER(8, u32, get_smp_processor_id, void);
HELPER(9, long, skb_store_bytes, void *ctx, u32 offset, const void *from, u32 len, u64 flags);
HELPER(10, long, l3_csum_replace, void *ctx, u32 offset, u64 from, u64 to, u64 size);
HELPER(11, long, l4_csum_replace, void *ctx, u32 offset, u64 from, u64 to, u64 flags);
HELPER(12, long, tail_call, void *ctx, void *programs, u32 index);
HELPER(13, long, clone_redirect, void *ctx, u32 ifindex, u64 flags);
HELPER(18, long, skb_vlan_push, void *ctx, u16 proto, u16 tci);
HELPER(19, long, skb_vlan_pop, void *ctx);
HELPER(23, long, redirect, u32 ifindex, u64 flags);
HELPER(25, long, perf_event_output, void *ctx, void *map, u64 flags, void *data, u64 size);
HELPER(26, long, skb_load_bytes, const void *ctx, u32 offset, void *to, u32 len);
HELPER(28, s64, csum_diff, u32 *from, u32 from_size, u32 *to, u32 to_size, u32 seed);
HELPER(38, long, skb_change_tail, void *ctx, u32 len, u64 flags);
HELPER(39, long, skb_pull_data, void *ctx, u32 len);
HELPER(44, long, xdp_adjust_head, void *ctx, int delta);
HELPER(50, long, skb_adjust_room, void *ctx, s32 delta, u32 mode, u64 flags);
HELPER(51, long, redirect_map, void *map, u64 key, u64 flags);
HELPER(54, long, xdp_adjust_meta, void *ctx, int delta);
HELPER(65, long, xdp_adjust_tail, void *ctx, int delta);
HELPER(69, long, fib_lookup, void *ctx, struct bpf_fib_lookup *params, int size, u32 flags);
HELPER(84, struct bpf_sock *, sk_lookup_tcp, void *ctx, struct bpf_sock_tuple *tuple, u32 size, u64 netns, u64 flags);
HELPER(85, struct bpf_sock *, sk_lookup_udp, void *ctx, struct bpf_sock_tuple *tuple, u32 size, u64 netns, u64 flags);
HELPER(86, long, sk_release, void *sk);
HELPER(95, struct bpf_sock *, sk_fullsock, void *sk);
HELPER(96, struct bpf_tcp_sock *, tcp_sock, void *sk);
HELPER(87, long, map_push_elem, void *map, const void *value, u64 flags);
HELPER(88, long, map_pop_elem, void *map, void *value);
HELPER(89, long, map_peek_elem, void *map, void *value);
HELPER(124, long, sk_assign, void *ctx, void *sk, u64 flags);
HELPER(130, long, ringbuf_output, void *ring, void *data, u64 size, u64 flags);
HELPER(131, void *, ringbuf_reserve, void *ring, u64 size, u64 flags);
HELPER(132, void, ringbuf_submit, void *data, u64 flags);
HELPER(133, void, ringbuf_discard, void *data, u64 flags);
HELPER(164, long, for_each_map_elem, void *map, void *callback, void *ctx, u64 flags);
HELPER(181, long, loop, u32 turns, void *callback, void *ctx, u64 flags);
HELPER(182, long, strncmp, const char *one, u32 size, const char *two);
HELPER(189, long, xdp_load_bytes, void *ctx, u32 offset, void *buffer, u32 len);
HELPER(190, long, xdp_store_bytes, void *ctx, u32 offset, void *buffer, u32 len);

#define htons(x) __builtin_bswap16((u16)(x))
#define ntohs(x) __builtin_bswap16((u16)(x))
#define htonl(x) __builtin_bswap32((u32)(x))
#define ntohl(x) __builtin_bswap32((u32)(x))

struct ethernet {
    u8 to[6], from[6];
    u16 type;
};

struct vlan {
    u16 tci, type;
};

struct ipv4 {
    u8 words : 4, version : 4;
    u8 tos;
    u16 length, id, fragment;
    u8 ttl, protocol;
    u16 checksum;
    u32 from, to;
};

struct ipv6 {
    u32 flow;
    u16 length;
    u8 next, hops;
    u32 from[4], to[4];
};

struct tcp {
    u16 source, destination;
    u32 seq, ack;
    u16 flags, window, checksum, urgent;
};

struct udp {
    u16 source, destination, length, checksum;
};

#define TCP_WORDS(t) (ntohs((t)->flags) >> 12)
#define TCP_SYN htons(2)

#endif
