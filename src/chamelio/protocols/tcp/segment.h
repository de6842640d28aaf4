/* Segments as they are on the wire: built from a connection, read into a `struct segment`. */
#ifndef TCP_SEGMENT_H
#define TCP_SEGMENT_H

#include "conn.h"

#define IP_TCP 6
#define IP_BYTES 20
#define TCP_BYTES 20
#define TS_BYTES 12
#define SYN_BYTES 40 /* header of a SYN: its options always take 20 bytes */
#define CHECKSUM_AT (IP_BYTES + 16)
#define TTL 64

#define F_FIN 0x01u
#define F_SYN 0x02u
#define F_RST 0x04u
#define F_PSH 0x08u
#define F_ACK 0x10u
#define F_ECE 0x40u
#define F_CWR 0x80u

#define OPTIONS_MOST 16 /* NOPs are options, too */
#define OPT_END 0
#define OPT_NOP 1
#define OPT_MSS 2
#define OPT_WSCALE 3
#define OPT_SACK_PERMITTED 4
#define OPT_SACK 5
#define OPT_TIMESTAMPS 8
#define TS_WORD 0x0a080101u /* NOP, NOP, kind 8, length 10, as loaded */

#define ECT0 2u
#define CE 3u

struct tcp_header {
    u32 ports; /* source, destination */
    u32 seq, ack;
    u8 offset, flags;
    u16 window;
    u16 checksum, urgent;
};

/* A segment that has come: its numbers in host order. */
struct segment {
    u64 key; /* of its connection */
    u32 seq, ack, window, flags;
    u32 len, payload;    /* bytes of data, and where they begin in the packet */
    u32 tsval, tsecr, has_ts;
    u32 sacks, sacks_at; /* blocks, and where they begin in the packet */
    u32 mss, wscale, sack_permitted; /* of a SYN; wscale and mss are 1 more than what was sent, 0: not sent */
    u32 tos, pad;
};

/* The segment that is being handled. It lies in a map and not on the stack: what is not known of memory need not be explored case by case. */
struct scratch {
    struct segment s;
    u32 at, pad;
};
CHAM_ARRAY(scratches, 1, struct scratch, 0);

/* ---- built ------------------------------------------------------------------------------------------------------------------- */

struct ends {
    u32 local, address;
    u32 ports; /* as in the header: ours, the peer's */
    u32 sum;   /* of both addresses, for checksums */
};

CHAM_INLINE struct ends ends_of(const struct conn *c)
{
    u32 ports = (u32)(c->key >> 32);
    return (struct ends){c->local, (u32)c->key, ports >> 16 | ports << 16, c->sum};
}

/* From one address to another; `ports` as in the header. */
CHAM_INLINE struct ends ends_between(u32 local, u32 address, u32 ports)
{
    return (struct ends){local, address, ports, cham_fold((u64)local + address)};
}

/* Fold a sum of a few 16-bit numbers. */
CHAM_INLINE u32 fold_few(u32 sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum + (sum >> 16)) & 0xffff;
}

/* Both headers in a packet of `total` bytes, of which at least 40 are there. */
CHAM_INLINE void put_headers(struct chamelio_ctx *ctx, u8 *ip, struct ends e, u32 total, u32 header, u32 seq, u32 ack, u32 flags,
                             u32 window, u32 tos)
{
    struct cham_ipv4 *i = (void *)ip;
    struct tcp_header *h = (void *)(ip + IP_BYTES);
    *(u32 *)ip = 0x45 | (tos & 255) << 8 | (u32)cham_htons(total) << 16;
    *(u32 *)(ip + 4) = (u32)cham_htons(0x4000) << 16; /* don't fragment */
    *(u32 *)(ip + 8) = TTL | IP_TCP << 8;
    i->src = e.local;
    i->dst = e.address;
    i->checksum = ~fold_few(e.sum + (0x45 | (tos & 255) << 8) + cham_htons(total) + cham_htons(0x4000) + (TTL | IP_TCP << 8));
    h->ports = e.ports;
    h->seq = cham_htonl(seq);
    h->ack = cham_htonl(ack);
    *(u32 *)(ip + IP_BYTES + 12) = (header / 4) << 4 | (flags & 255) << 8 | (u32)cham_htons(window) << 16;
    *(u32 *)(ip + IP_BYTES + 16) = fold_few(e.sum + (IP_TCP << 8) + cham_htons(total - IP_BYTES));
    cham_csum_later(ctx, IP_BYTES, CHECKSUM_AT);
}

CHAM_INLINE void put_timestamps(u8 *at, u32 tsval, u32 tsecr)
{
    u32 *w = (void *)at;
    w[0] = TS_WORD;
    w[1] = cham_htonl(tsval);
    w[2] = cham_htonl(tsecr);
}

CHAM_INLINE u32 tsval_of(struct chamelio_ctx *ctx, const struct conn *c) { return clock_of(ctx) + c->ts_offset; }

/* The window as a segment says it, rounded up so that the edge does not move back, if that fits the buffer, too; what was said is accepted. */
CHAM_INLINE u32 window_field(struct conn *c)
{
    u32 scale = c->rcv_wscale & 15, left = after(c->rcv_edge, c->rcv_nxt) ? c->rcv_edge - c->rcv_nxt : 0;
    u32 window = (left + (1u << scale) - 1) >> scale;
    if (after(c->rcv_nxt + (window << scale), c->taken + max_u32(c->rx_size, TCP_BUFFER)))
        window = left >> scale;
    if (window > 65535)
        return 65535;
    c->rcv_said = later(c->rcv_said, c->rcv_nxt + (window << scale));
    return window;
}

/* Every segment but a SYN acknowledges: nothing is owed after it. */
CHAM_INLINE void has_acknowledged(struct conn *c)
{
    c->last_ack = c->rcv_nxt;
    c->segments = 0;
    c->ack_at = 0;
    c->flags &= ~ACK_NOW;
}

/* A segment of `len` bytes from `seq` on, in an empty packet. 0, or not. */
CHAM_INLINE u32 put_segment(struct chamelio_ctx *ctx, struct conn *c, u32 id, u32 seq, u32 len, u32 flags, u32 tos)
{
    u32 stamped = c->options & TCP_OPT_TIMESTAMPS, header = stamped ? TCP_BYTES + TS_BYTES : TCP_BYTES;
    if (len ? cham_bytes_to_pkt(ctx, &tx_bytes, id, seq, CHAM_SPAN(IP_BYTES + header, len)) : cham_resize(ctx, IP_BYTES + header))
        return 1;
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES + TCP_BYTES > end)
        return 1;
    if (stamped) {
        if (ip + IP_BYTES + TCP_BYTES + TS_BYTES > end)
            return 1;
        put_timestamps(ip + IP_BYTES + TCP_BYTES, tsval_of(ctx, c), c->ts_recent);
    }
    if (c->flags & ECHO_CE)
        flags |= F_ECE;
    put_headers(ctx, ip, ends_of(c), IP_BYTES + header + len, header, seq, c->rcv_nxt, flags | F_ACK, window_field(c), tos);
    has_acknowledged(c);
    return 0;
}

/* SACK blocks that go out with the next acknowledgement: the one that came twice, then what we have (RFC 2018, 2883). */
CHAM_INLINE u32 count_blocks(const struct conn *c)
{
    u32 n = c->waiting + !is_empty(&c->dsack), most = c->options & TCP_OPT_TIMESTAMPS ? 3 : 4;
    if (!(c->options & TCP_OPT_SACK))
        return 0;
    return n < most ? n : most;
}

/* An acknowledgement with SACK blocks. */
RARE static u32 put_sack(struct chamelio_ctx *ctx, struct conn *c)
{
    u32 blocks = c->blocks & 7;
    u32 stamped = c->options & TCP_OPT_TIMESTAMPS, plain = stamped ? TCP_BYTES + TS_BYTES : TCP_BYTES;
    u32 header = plain + 4 + 8 * blocks;
    if (cham_resize(ctx, IP_BYTES + header))
        return 1;
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES + TCP_BYTES + 4 > end)
        return 1;
    if (stamped) {
        if (ip + IP_BYTES + TCP_BYTES + TS_BYTES + 4 > end)
            return 1;
        put_timestamps(ip + IP_BYTES + TCP_BYTES, tsval_of(ctx, c), c->ts_recent);
        *(u32 *)(ip + IP_BYTES + TCP_BYTES + TS_BYTES) = OPT_NOP | OPT_NOP << 8 | OPT_SACK << 16 | (2 + 8 * blocks) << 24;
    } else {
        *(u32 *)(ip + IP_BYTES + TCP_BYTES) = OPT_NOP | OPT_NOP << 8 | OPT_SACK << 16 | (2 + 8 * blocks) << 24;
    }
    u32 flags = F_ACK | (c->flags & ECHO_CE ? F_ECE : 0);
    put_headers(ctx, ip, ends_of(c), IP_BYTES + header, header, c->snd_nxt, c->rcv_nxt, flags, window_field(c), 0);
    u8 *at = ip + IP_BYTES + plain + 4;
    if (!is_empty(&c->dsack) && at + 8 <= end) {
        ((u32 *)at)[0] = cham_htonl(c->dsack.start);
        ((u32 *)at)[1] = cham_htonl(c->dsack.end);
        at += 8;
    }
    c->dsack.start = c->dsack.end = 0;
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->ooo[i].start, e = c->ooo[i].end;
        if (s == e)
            continue;
        if (at + 8 > end)
            break;
        ((u32 *)at)[0] = cham_htonl(s);
        ((u32 *)at)[1] = cham_htonl(e);
        at += 8;
    }
    has_acknowledged(c);
    return 0;
}

/* An acknowledgement in the place of the packet that there is: a verdict. */
CHAM_INLINE u64 send_ack(struct chamelio_ctx *ctx, struct conn *c, u32 id)
{
    c->blocks = count_blocks(c);
    FORGET;
    u32 failed = c->blocks ? put_sack(ctx, c) : cham_resize(ctx, 0) || put_segment(ctx, c, id, c->snd_nxt, 0, 0, 0);
    return failed ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
}

/* A SYN, or its answer. 20 bytes of options: what is not sent are NOPs. */
CHAM_INLINE u32 put_syn(struct chamelio_ctx *ctx, struct ends e, u32 seq, u32 ack, u32 flags, u32 window, u32 mss, u32 options,
                        u32 tsval, u32 tsecr)
{
    if (cham_resize(ctx, 0) || cham_resize(ctx, IP_BYTES + SYN_BYTES))
        return 1;
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES + SYN_BYTES > end)
        return 1;
    u32 *w = (void *)(ip + IP_BYTES + TCP_BYTES);
    w[0] = OPT_MSS | 4 << 8 | (u32)cham_htons(mss) << 16;
    w[1] = options & TCP_OPT_SACK ? OPT_SACK_PERMITTED | 2 << 8 : OPT_NOP | OPT_NOP << 8;
    if (options & TCP_OPT_TIMESTAMPS) {
        w[1] |= OPT_TIMESTAMPS << 16 | 10 << 24;
        w[2] = cham_htonl(tsval);
        w[3] = cham_htonl(tsecr);
    } else {
        w[1] |= OPT_NOP << 16 | OPT_NOP << 24;
        w[2] = 0x01010101;
        w[3] = 0x01010101;
    }
    w[4] = options & TCP_OPT_WSCALE ? OPT_NOP | OPT_WSCALE << 8 | 3 << 16 | WSCALE << 24 : 0x01010101;
    put_headers(ctx, ip, e, IP_BYTES + SYN_BYTES, SYN_BYTES, seq, ack, flags, window, 0);
    return 0;
}

/* The SYN of a connection, or SYN and ACK, again or for the first time. */
RARE static u32 put_syn_of(struct chamelio_ctx *ctx, struct conn *c)
{
    struct tcp_config *g = config_of(ctx);
    if (!g)
        return 1;
    u32 answers = c->state == TCP_SYN_RCVD, flags = answers ? F_SYN | F_ACK : F_SYN;
    if (c->options & TCP_OPT_ECN)
        flags |= answers ? F_ECE : F_ECE | F_CWR;
    u32 window = c->rcv_edge - c->rcv_nxt;
    c->last_ack = c->rcv_nxt;
    return put_syn(ctx, ends_of(c), c->iss, answers ? c->rcv_nxt : 0, flags, window < 65535 ? window : 65535, g->mss, c->options,
                   tsval_of(ctx, c), c->ts_recent);
}

/* A reset of a connection, in the place of the packet that there is. */
RARE static u64 put_reset(struct chamelio_ctx *ctx, struct conn *c)
{
    if (cham_resize(ctx, 0) || cham_resize(ctx, IP_BYTES + TCP_BYTES))
        return CHAM_ERROR(NO_ROOM);
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES + TCP_BYTES > end)
        return CHAM_ERROR(NO_ROOM);
    put_headers(ctx, ip, ends_of(c), IP_BYTES + TCP_BYTES, TCP_BYTES, c->snd_nxt, c->rcv_nxt, F_RST | F_ACK, 0, 0);
    return CHAM_TX;
}

/* The answer to a segment that belongs to no connection (RFC 9293, 3.10.7.1): a reset in its place. */
RARE static u64 refuse(struct chamelio_ctx *ctx, const struct segment *s)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES > end)
        return CHAM_ERROR(SHORT);
    struct cham_ipv4 *i = (void *)ip;
    u32 local = i->dst, address = i->src, offset = (ip[0] & 15) * 4;
    u8 *tcp = ip + offset;
    if (tcp + 4 > end)
        return CHAM_ERROR(SHORT);
    u32 ports = *(u32 *)tcp;
    if (s->flags & F_RST)
        return CHAM_ERROR(NO_CONNECTION);
    if (cham_resize(ctx, 0) || cham_resize(ctx, IP_BYTES + TCP_BYTES))
        return CHAM_ERROR(NO_ROOM);
    ip = ctx->data;
    end = ctx->data_end;
    if (ip + IP_BYTES + TCP_BYTES > end)
        return CHAM_ERROR(NO_ROOM);
    u32 length = s->len + !!(s->flags & F_SYN) + !!(s->flags & F_FIN), acks = s->flags & F_ACK;
    put_headers(ctx, ip, ends_between(local, address, ports >> 16 | ports << 16), IP_BYTES + TCP_BYTES, TCP_BYTES,
                acks ? s->ack : 0, acks ? 0 : s->seq + length, acks ? F_RST : F_RST | F_ACK, 0, 0);
    return CHAM_TX;
}

/* ---- read -------------------------------------------------------------------------------------------------------------------- */

/* Options one by one. What is malformed ends the list, as does its end (RFC 9293, 3.1, MUST-7). They are copied first, so that no access
 * to the packet depends on what they say. */
RARE static u32 read_options(struct chamelio_ctx *ctx, struct scratch *m, u32 tcp_at, u32 length)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    u32 words[13] = {0};
    u8 *bytes = (u8 *)words, *options = ip + (tcp_at & 63) + TCP_BYTES;
    struct segment *s = &m->s;
#pragma unroll
    for (u32 i = 0; i < 10; i++)
        if (options + 4 * i + 4 <= end)
            words[i] = *(u32 *)(options + 4 * i);
    m->at = 0;
    for (u32 turn = 0; turn < OPTIONS_MOST; turn++) {
        u32 at = *(volatile u32 *)&m->at;
        if (at >= length || at >= 40)
            break;
        u32 kind = bytes[at], size = bytes[at + 1];
        if (kind == OPT_END)
            break;
        if (kind == OPT_NOP) {
            *(volatile u32 *)&m->at = at + 1;
            continue;
        }
        if (size < 2 || at + size > length || at + size > 40)
            break;
        *(volatile u32 *)&m->at = at + size;
        if (kind == OPT_MSS && size == 4) {
            s->mss = 1 + ((u32)bytes[at + 2] << 8 | bytes[at + 3]);
        } else if (kind == OPT_WSCALE && size == 3) {
            s->wscale = 1 + bytes[at + 2];
        } else if (kind == OPT_SACK_PERMITTED && size == 2) {
            s->sack_permitted = 1;
        } else if (kind == OPT_TIMESTAMPS && size == 10) {
            s->has_ts = 1;
            s->tsval = (u32)bytes[at + 2] << 24 | (u32)bytes[at + 3] << 16 | (u32)bytes[at + 4] << 8 | bytes[at + 5];
            s->tsecr = (u32)bytes[at + 6] << 24 | (u32)bytes[at + 7] << 16 | (u32)bytes[at + 8] << 8 | bytes[at + 9];
        } else if (kind == OPT_SACK && size >= 10) {
            s->sacks = (size - 2) / 8;
            s->sacks_at = (tcp_at & 63) + TCP_BYTES + at + 2;
        }
    }
    return 0;
}

#endif
