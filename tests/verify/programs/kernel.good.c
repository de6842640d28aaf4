/* Programs for the kernel's hooks: XDP, tc and socket filters, with the kernel's maps and helpers. */
#include "kernel.h"

struct flow_key {
    u32 from, to;
    u16 source, destination;
    u8 protocol, pad[3];
};

struct flow {
    u64 packets, bytes, seen;
    u32 state;
    u8 mac[6];
    u16 port;
};

struct event {
    u64 when;
    u32 from, length;
    u8 bytes[32];
};

struct prefix {
    u32 bits;
    u8 address[4];
};

struct backend {
    u32 address;
    u8 mac[6];
    u16 weight;
};

MAP(flows, LRU_HASH, 1024, struct flow_key, struct flow);
MAP(counts, PERCPU_ARRAY, 256, u32, u64);
MAP_WITH_FLAGS(blocked, LPM_TRIE, 128, struct prefix, u32, NO_PREALLOCATION);
MAP(backends, ARRAY, 16, u32, struct backend);
MAP(by_port, HASH, 64, u16, u32);
MAP(settings, ARRAY, 1, u32, u64);
MAP_WITHOUT_TYPES(programs, PROG_ARRAY, 8, 4, 4);
MAP_WITHOUT_TYPES(devices, DEVMAP, 8, 4, 4);
MAP_WITHOUT_TYPES(sockets, XSKMAP, 8, 4, 4);
MAP_WITHOUT_TYPES(perf, PERF_EVENT_ARRAY, 8, 4, 4);
MAP_OF_BYTES(ring, RINGBUF, 4096);
MAP_WITHOUT_TYPES(waiting, QUEUE, 32, 0, 8);

INLINE u16 fold(u64 sum)
{
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++)
        if (sum >> 16)
            sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~sum;
}

INLINE void count(u32 what)
{
    u64 *n = bpf_map_lookup_elem(&counts, &what);
    if (n)
        *n += 1;
}

/* The IPv4 header behind up to two VLAN tags, or NULL. */
INLINE struct ipv4 *ipv4_of(void *data, void *end)
{
    struct ethernet *e = data;
    if ((void *)(e + 1) > end)
        return 0;
    u16 type = e->type;
    void *at = e + 1;
    for (int i = 0; i < 2; i++) {
        if (type != htons(0x8100) && type != htons(0x88a8))
            break;
        struct vlan *v = at;
        if ((void *)(v + 1) > end)
            return 0;
        type = v->type;
        at = v + 1;
    }
    struct ipv4 *ip = at;
    if (type != htons(0x0800) || (void *)(ip + 1) > end)
        return 0;
    return ip;
}

PROGRAM_OF(xdp, drops_what_is_blocked)
{
    struct ipv4 *ip = ipv4_of(DATA, DATA_END);
    if (!ip)
        return XDP_PASS;
    struct prefix p = {.bits = 32};
    __builtin_memcpy(p.address, &ip->from, 4);
    u32 *action = bpf_map_lookup_elem(&blocked, &p);
    count(action ? 1 : 2);
    return action ? XDP_DROP : XDP_PASS;
}

PROGRAM_OF(xdp, tracks_flows)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->words < 5)
        return XDP_PASS;
    u16 *ports = (void *)ip + ip->words * 4;
    if ((void *)(ports + 2) > end)
        return XDP_DROP;
    struct flow_key k = {.from = ip->from, .to = ip->to, .source = ports[0], .destination = ports[1], .protocol = ip->protocol};
    struct flow *f = bpf_map_lookup_elem(&flows, &k);
    if (!f) {
        struct flow fresh = {.packets = 1, .seen = bpf_ktime_get_ns()};
        bpf_map_update_elem(&flows, &k, &fresh, 0);
        return XDP_PASS;
    }
    __sync_fetch_and_add(&f->packets, 1);
    __sync_fetch_and_add(&f->bytes, ntohs(ip->length));
    f->seen = bpf_ktime_get_ns();
    return XDP_PASS;
}

PROGRAM_OF(xdp, counts_protocols)
{
    struct ipv4 *ip = ipv4_of(DATA, DATA_END);
    u32 protocol = ip ? ip->protocol : 255;
    u64 *n = bpf_map_lookup_elem(&counts, &protocol);
    if (!n)
        return XDP_ABORTED;
    *n += (u32)(ctx->data_end - ctx->data);
    return XDP_PASS;
}

PROGRAM_OF(xdp, answers_a_ping)
{
    void *data = DATA, *end = DATA_END;
    struct ethernet *e = data;
    struct ipv4 *ip = ipv4_of(data, end);
    if (!ip || ip->protocol != 1)
        return XDP_PASS;
    struct {
        u8 type, code;
        u16 checksum;
    } *icmp = (void *)ip + ip->words * 4;
    if ((void *)(icmp + 1) > end || icmp->type != 8)
        return XDP_PASS;
    icmp->type = 0;
    icmp->checksum = fold((u16)~icmp->checksum + (u16)~htons(0x0800));
    u32 address = ip->from;
    ip->from = ip->to;
    ip->to = address;
    u8 mac[6];
    __builtin_memcpy(mac, e->to, 6);
    __builtin_memcpy(e->to, e->from, 6);
    __builtin_memcpy(e->from, mac, 6);
    return XDP_TX;
}

PROGRAM_OF(xdp, balances_with_a_tunnel)
{
    void *data = DATA, *end = DATA_END;
    struct ipv4 *ip = ipv4_of(data, end);
    if (!ip || ip->protocol != 6)
        return XDP_PASS;
    u32 index = (ip->from * 2654435761u) >> 28, length = ntohs(ip->length);
    struct backend *b = bpf_map_lookup_elem(&backends, &index);
    if (!b || !b->weight)
        return XDP_DROP;
    if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct ipv4)))
        return XDP_ABORTED;
    data = DATA;
    end = DATA_END;
    struct ethernet *e = data, *old = data + sizeof(struct ipv4);
    struct ipv4 *outer = (void *)(e + 1);
    if ((void *)(old + 1) > end || (void *)(outer + 1) > end)
        return XDP_DROP;
    __builtin_memcpy(e->from, old->to, 6);
    __builtin_memcpy(e->to, b->mac, 6);
    e->type = htons(0x0800);
    *outer = (struct ipv4){.words = 5, .version = 4, .length = htons(length + 20), .ttl = 64, .protocol = 4, .to = b->address};
    u16 *word = (void *)outer;
    u64 sum = 0;
    for (int i = 0; i < 10; i++)
        sum += word[i];
    outer->checksum = fold(sum);
    return XDP_TX;
}

PROGRAM_OF(xdp, takes_a_tunnel_off)
{
    struct ipv4 *ip = ipv4_of(DATA, DATA_END);
    if (!ip || ip->protocol != 4 || ip->words != 5)
        return XDP_PASS;
    struct ethernet saved = *(struct ethernet *)DATA;
    if (bpf_xdp_adjust_head(ctx, sizeof *ip))
        return XDP_DROP;
    struct ethernet *e = DATA;
    if ((void *)(e + 1) > DATA_END)
        return XDP_DROP;
    *e = saved;
    return XDP_PASS;
}

PROGRAM_OF(xdp, puts_a_tag_on)
{
    if (bpf_xdp_adjust_head(ctx, -4))
        return XDP_ABORTED;
    u8 *data = DATA;
    if (data + 18 > (u8 *)DATA_END)
        return XDP_DROP;
    for (int i = 0; i < 12; i++)
        data[i] = data[i + 4];
    *(u16 *)(data + 12) = htons(0x8100);
    *(u16 *)(data + 14) = htons(42);
    return XDP_PASS;
}

PROGRAM_OF(xdp, forwards_by_a_route)
{
    void *data = DATA, *end = DATA_END;
    struct ethernet *e = data;
    struct ipv4 *ip = ipv4_of(data, end);
    if (!ip || ip->ttl <= 1)
        return XDP_PASS;
    struct bpf_fib_lookup fib = {};
    fib.family = 2;
    fib.tos = ip->tos;
    fib.l4_protocol = ip->protocol;
    fib.tot_len = ntohs(ip->length);
    fib.src[0] = ip->from;
    fib.dst[0] = ip->to;
    fib.ifindex = ctx->ingress_ifindex;
    long found = bpf_fib_lookup(ctx, &fib, sizeof fib, 0);
    if (found != 0)
        return XDP_PASS;
    u32 sum = ip->checksum + htons(0x0100);
    ip->checksum = (u16)(sum + (sum >= 0xffff));
    ip->ttl--;
    __builtin_memcpy(e->to, fib.dmac, 6);
    __builtin_memcpy(e->from, fib.smac, 6);
    return bpf_redirect_map(&devices, fib.ifindex, 0);
}

PROGRAM_OF(xdp, to_a_socket_of_its_queue)
{
    u32 queue = ctx->rx_queue_index;
    if (bpf_map_lookup_elem(&sockets, &queue))
        return bpf_redirect_map(&sockets, queue, 0);
    return XDP_PASS;
}

PROGRAM_OF(xdp, metadata_for_later)
{
    if (bpf_xdp_adjust_meta(ctx, -8))
        return XDP_PASS;
    u32 *meta = DATA_META;
    if ((void *)(meta + 2) > DATA)
        return XDP_ABORTED;
    meta[0] = ctx->ingress_ifindex;
    meta[1] = bpf_get_smp_processor_id();
    return XDP_PASS;
}

PROGRAM_OF(xdp, reserves_and_submits)
{
    void *data = DATA, *end = DATA_END;
    struct ipv4 *ip = ipv4_of(data, end);
    if (!ip)
        return XDP_PASS;
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_PASS;
    e->when = bpf_ktime_get_ns();
    e->from = ip->from;
    e->length = (u32)(end - data);
    u8 *payload = (void *)(ip + 1);
    if ((void *)(payload + sizeof e->bytes) > end) {
        bpf_ringbuf_discard(e, 0);
        return XDP_PASS;
    }
    __builtin_memcpy(e->bytes, payload, sizeof e->bytes);
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
}

PROGRAM_OF(xdp, sends_a_sample)
{
    void *data = DATA, *end = DATA_END;
    struct {
        u32 magic, length;
        u64 when;
    } sample = {0x53414d50, (u32)(end - data), bpf_ktime_get_ns()};
    u64 flags = 0xffffffffull;
    u32 length = sample.length < 128 ? sample.length : 128;
    flags |= (u64)length << 32;
    return bpf_perf_event_output(ctx, &perf, flags, &sample, sizeof sample) ? XDP_ABORTED : XDP_PASS;
}

PROGRAM_OF(xdp, goes_on_in_another_program)
{
    void *data = DATA, *end = DATA_END;
    struct ethernet *e = data;
    if ((void *)(e + 1) > end)
        return XDP_DROP;
    u32 next = e->type == htons(0x0800) ? 0 : e->type == htons(0x86dd) ? 1 : 2;
    bpf_tail_call(ctx, &programs, next);
    count(next);
    return XDP_PASS;
}

PROGRAM_OF(xdp, reads_across_fragments)
{
    u8 header[54];
    if (bpf_xdp_load_bytes(ctx, 0, header, sizeof header))
        return XDP_DROP;
    if (header[12] != 8 || header[13] != 0)
        return XDP_PASS;
    u32 port = header[36] << 8 | header[37];
    header[22]--;
    if (port == 53)
        bpf_xdp_store_bytes(ctx, 22, &header[22], 1);
    return XDP_PASS;
}

PROGRAM_OF(xdp, shortens_the_packet)
{
    long length = DATA_END - DATA;
    if (length > 128 && bpf_xdp_adjust_tail(ctx, (int)(128 - length)))
        return XDP_ABORTED;
    return XDP_PASS;
}

PROGRAM_OF(xdp, limits_syn_packets)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->protocol != 6)
        return XDP_PASS;
    struct tcp *t = (void *)ip + ip->words * 4;
    if ((void *)(t + 1) > end || !(t->flags & TCP_SYN))
        return XDP_PASS;
    u32 zero = 0;
    u64 *limit = bpf_map_lookup_elem(&settings, &zero);
    u32 slot = 100 + (ip->from & 127);
    u64 *n = bpf_map_lookup_elem(&counts, &slot);
    if (!limit || !n)
        return XDP_PASS;
    if (++*n > *limit)
        return XDP_DROP;
    return XDP_PASS;
}

PROGRAM_OF(xdp, walks_options)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->protocol != 6)
        return XDP_PASS;
    struct tcp *t = (void *)ip + ip->words * 4;
    if ((void *)(t + 1) > end)
        return XDP_DROP;
    u32 left = TCP_WORDS(t) * 4 - 20;
    u8 *at = (void *)(t + 1);
    if (left > 40)
        return XDP_DROP;
    for (u32 i = 0; i < 10 && left; i++) {
        if ((void *)(at + 2) > end)
            break;
        u8 length = at[0] == 1 ? 1 : at[1];
        if (at[0] == 0 || !length || length > left)
            break;
        if (at[0] == 2 && length == 4) {
            if ((void *)(at + 4) > end)
                break;
            *(u16 *)(at + 2) = htons(1400);
            break;
        }
        at += length;
        left -= length;
    }
    return XDP_PASS;
}

PROGRAM_OF(xdp, names_of_dns)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->protocol != 17)
        return XDP_PASS;
    u8 *at = (void *)ip + ip->words * 4 + 8 + 12;
    u8 name[32] = {};
    for (u32 i = 0; i < sizeof name - 1; i++) {
        if ((void *)(at + i + 1) > end || at[i] == 0)
            break;
        name[i] = at[i];
    }
    u32 hash = 0;
    for (u32 i = 0; i < sizeof name; i++)
        hash = hash * 31 + name[i];
    count(hash & 255);
    return XDP_PASS;
}

PROGRAM_OF(xdp, extension_headers)
{
    void *data = DATA, *end = DATA_END;
    struct ethernet *e = data;
    struct ipv6 *ip = (void *)(e + 1);
    if ((void *)(ip + 1) > end || e->type != htons(0x86dd))
        return XDP_PASS;
    u8 next = ip->next;
    u8 *at = (void *)(ip + 1);
    for (int i = 0; i < 4; i++) {
        if (next != 0 && next != 43 && next != 60)
            break;
        if ((void *)(at + 2) > end)
            return XDP_DROP;
        next = at[0];
        at += (at[1] + 1) * 8;
    }
    if (next == 59)
        return XDP_DROP;
    if (next == 17) {
        struct udp *u = (void *)at;
        if ((void *)(u + 1) > end)
            return XDP_DROP;
        u32 *rule = bpf_map_lookup_elem(&by_port, &u->destination);
        return rule ? (int)(*rule & 3) : XDP_PASS;
    }
    return XDP_PASS;
}

static long add_up(u32 turn, void *sum)
{
    u32 key = turn;
    u64 *n = bpf_map_lookup_elem(&counts, &key);
    if (!n)
        return 1;
    *(u64 *)sum += *n;
    return 0;
}

PROGRAM_OF(xdp, sums_by_a_callback)
{
    u64 sum = 0;
    bpf_loop(64, add_up, &sum, 0);
    return sum > 1000000 ? XDP_DROP : XDP_PASS;
}

struct oldest {
    u64 seen;
    struct flow_key key;
};

static long find_oldest(void *map, const struct flow_key *key, struct flow *value, struct oldest *found)
{
    if (value->seen < found->seen) {
        found->seen = value->seen;
        found->key = *key;
    }
    (void)map;
    return 0;
}

PROGRAM_OF(xdp, oldest_of_a_table)
{
    struct oldest found = {.seen = ~0ull};
    bpf_for_each_map_elem(&flows, find_oldest, &found, 0);
    if (found.seen != ~0ull)
        bpf_map_delete_elem(&flows, &found.key);
    return XDP_PASS;
}

PROGRAM_OF(xdp, socket_looked_up_and_released)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->protocol != 6)
        return XDP_PASS;
    u16 *ports = (void *)ip + ip->words * 4;
    if ((void *)(ports + 2) > end)
        return XDP_PASS;
    struct bpf_sock_tuple tuple = {ip->from, ip->to, ports[0], ports[1]};
    struct bpf_sock *sk = bpf_sk_lookup_tcp(ctx, &tuple, sizeof tuple, -1, 0);
    if (!sk)
        return XDP_DROP;
    u32 state = sk->state;
    bpf_sk_release(sk);
    return state == 10 ? XDP_PASS : XDP_DROP;
}

PROGRAM_OF(xdp, time_stamps_in_a_queue)
{
    u64 now = bpf_ktime_get_ns(), oldest;
    if (bpf_map_push_elem(&waiting, &now, 0)) {
        if (bpf_map_pop_elem(&waiting, &oldest))
            return XDP_ABORTED;
        return now - oldest > 1000000 ? XDP_DROP : XDP_PASS;
    }
    return XDP_PASS;
}

PROGRAM_OF(tc, marks_and_classifies)
{
    void *data = DATA, *end = DATA_END;
    struct ipv4 *ip = ipv4_of(data, end);
    if (!ip)
        return TC_OK;
    ctx->mark = ip->tos >> 2;
    ctx->priority = ip->protocol == 17 ? 1 : 2;
    ctx->cb[0] = ip->to;
    return TC_OK;
}

PROGRAM_OF(tc, pulls_what_it_needs)
{
    void *data = DATA, *end = DATA_END;
    if (data + 54 > end) {
        if (bpf_skb_pull_data(ctx, 54))
            return TC_SHOT;
        data = DATA;
        end = DATA_END;
        if (data + 54 > end)
            return TC_OK;
    }
    struct ipv4 *ip = data + 14;
    return ip->protocol == 6 ? ((u8 *)data)[47] : TC_OK;
}

PROGRAM_OF(tc, rewrites_by_helpers)
{
    void *end = DATA_END;
    struct ipv4 *ip = DATA + 14;
    if ((void *)(ip + 1) > end || ip->protocol != 6)
        return TC_OK;
    u32 old = ip->to, new = htonl(0x0a000001), offset = 14 + ip->words * 4;
    if (bpf_l4_csum_replace(ctx, offset + 16, old, new, 0x10 | 4))
        return TC_SHOT;
    if (bpf_l3_csum_replace(ctx, 14 + 10, old, new, 4))
        return TC_SHOT;
    return bpf_skb_store_bytes(ctx, 14 + 16, &new, sizeof new, 0) ? TC_SHOT : TC_OK;
}

PROGRAM_OF(tc, tag_on_or_off)
{
    if (ctx->vlan_present)
        return bpf_skb_vlan_pop(ctx) ? TC_SHOT : TC_OK;
    return bpf_skb_vlan_push(ctx, htons(0x8100), 7) ? TC_SHOT : TC_OK;
}

PROGRAM_OF(tc, socket_assigned)
{
    void *end = DATA_END;
    struct ipv4 *ip = ipv4_of(DATA, end);
    if (!ip || ip->protocol != 17)
        return TC_OK;
    struct bpf_sock_tuple *tuple = (void *)&ip->from;
    if ((void *)(tuple + 1) > end)
        return TC_SHOT;
    struct bpf_sock *sk = bpf_sk_lookup_udp(ctx, tuple, sizeof *tuple, -1, 0);
    if (!sk)
        return TC_OK;
    long failed = bpf_sk_assign(ctx, sk, 0);
    bpf_sk_release(sk);
    return failed ? TC_SHOT : TC_OK;
}

PROGRAM_OF(tc, about_its_own_socket)
{
    struct bpf_sock *sk = (void *)ctx->sk;
    if (!sk)
        return TC_OK;
    sk = bpf_sk_fullsock(sk);
    if (!sk || sk->protocol != 6)
        return TC_OK;
    struct bpf_tcp_sock *t = bpf_tcp_sock(sk);
    return t && t->snd_cwnd > 10 ? TC_SHOT : TC_OK;
}

PROGRAM_OF(tc, clones_and_shortens)
{
    u32 length = ctx->len;
    if (length > 256)
        length = 256;
    if (bpf_clone_redirect(ctx, 3, 0))
        return TC_SHOT;
    return bpf_skb_change_tail(ctx, length, 0) ? TC_SHOT : TC_OK;
}

PROGRAM_OF(tc, sums_of_two_blocks)
{
    u32 old[2] = {1, 2}, new[2] = {3, ctx->hash};
    s64 sum = bpf_csum_diff(old, sizeof old, new, sizeof new, 0);
    if (sum < 0)
        return TC_SHOT;
    return fold(sum) & 1;
}

PROGRAM_OF(socket, loads_what_it_reads)
{
    struct ipv4 ip;
    if (bpf_skb_load_bytes(ctx, 14, &ip, sizeof ip))
        return 0;
    if (ip.protocol != 17 || ip.words < 5)
        return 0;
    struct udp u;
    if (bpf_skb_load_bytes(ctx, 14 + ip.words * 4, &u, sizeof u))
        return 0;
    return u.destination == htons(53) ? -1 : 0;
}

PROGRAM_OF(socket, counts_kinds_of_packets)
{
    u32 kind = ctx->pkt_type & 7;
    u64 *n = bpf_map_lookup_elem(&counts, &kind);
    if (n)
        __sync_fetch_and_add(n, ctx->len);
    return kind == 4 ? 0 : (int)ctx->len;
}

PROGRAM_OF(socket, prefix_of_a_variable_length)
{
    u8 bytes[64] = {};
    u32 length = ctx->len;
    if (length > sizeof bytes)
        length = sizeof bytes;
    if (length < 1 || bpf_skb_load_bytes(ctx, 0, bytes, length))
        return 0;
    u32 sum = 0;
    for (u32 i = 0; i < sizeof bytes; i++)
        sum += bytes[i];
    return sum;
}

PROGRAM_OF(tc, loads_as_much_as_there_is)
{
    u8 bytes[64];
    u32 length = ctx->len;
    if (length > sizeof bytes)
        length = sizeof bytes;
    if (length < 20 || bpf_skb_load_bytes(ctx, 0, bytes, length))
        return TC_OK;
    return bytes[0];
}
