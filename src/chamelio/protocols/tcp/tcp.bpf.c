/* TCP (RFC 9293) on the fast path. Read on: conn.h, what a connection is; segment.h, its segments; output.h, what is sent; ack.h, what
 * acknowledgements say; input.h, what comes; predict.h, what nearly always comes and is sent; handshake.h, how connections begin. What is rare
 * or a matter of policy (timeouts, congestion control, who may listen) is the slow path's, slowpath.py. */
#include "handshake.h"

/* The end of a run: an acknowledgement if one was asked for, and the timer. */
CHAM_INLINE u64 done(struct chamelio_ctx *ctx, struct conn *c, u32 id, u64 verdict)
{
    FORGET;
    set_timer(ctx, c, id);
    return verdict == GO_ACK ? send_ack(ctx, c, id) : verdict;
}

/* ---- a segment ------------------------------------------------------------------------------------------------------------------- */

/* One for a connection in TIME_WAIT: a new one may take its place (RFC 9293, 3.10.7.4; RFC 6191). 1: it does, from *iss on. */
CHAM_INLINE u32 makes_room(const struct conn *c, const struct segment *s, u32 *iss)
{
    if (c->state != TCP_TIME_WAIT || (s->flags & (F_SYN | F_RST | F_ACK)) != F_SYN)
        return 0;
    u32 stamped = s->has_ts && c->options & TCP_OPT_TIMESTAMPS && s->tsval != c->ts_recent;
    u32 newer = stamped ? after(s->tsval, c->ts_recent) : after(s->seq, c->rcv_nxt);
    *iss = c->snd_max + 65536;
    *iss += !*iss;
    return newer;
}

/* One that was not foreseen: it goes through everything that it may mean. */
RARE static u64 unforeseen(struct chamelio_ctx *ctx, struct segment *s, const struct tcp_config *g, u32 id)
{
    u32 iss = 0;
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (c && a && makes_room(c, s, &iss)) {
        step(c, a, INPUT_EXPIRED);
        conclude(ctx, c, a, id, 0);
        return begins_anew(ctx, s, iss);
    }
    if (!c || !a) {
        u64 verdict = belongs_to_none(ctx, s, &id);
        if (verdict != GO_ON)
            return verdict;
        c = cham_lookup(&conns, &id);
        a = cham_lookup(&about, &id);
        if (!c || !a)
            return CHAM_ERROR(NO_CONNECTION);
    }
    return done(ctx, c, id, c->state == TCP_SYN_SENT ? answered(ctx, c, a, id, s) : arrives(ctx, c, a, g, id, s));
}

CHAM_HANDLER(rx)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES > end)
        return CHAM_ERROR(SHORT);
    if (ip[9] != IP_TCP) /* ICMP about us */
        return CHAM_PUNT;
    u32 at = (ip[0] & 15) * 4, source = *(u32 *)(ip + 12), local = *(u32 *)(ip + 16), tos = ip[1];
    struct tcp_header *h = (void *)(ip + at);
    if ((u8 *)(h + 1) > end)
        return CHAM_ERROR(SHORT);
    u32 size = (u32)(end - (u8 *)h), header = (h->offset >> 4) * 4;
    if (header < TCP_BYTES || header > size)
        return CHAM_ERROR(BAD_OFFSET);
    if (!ctx->csum_ok && cham_csum(ctx, CHAM_SPAN(at, size), (u64)source + local + (IP_TCP << 8) + cham_htons(size)) != 0xffff)
        return CHAM_ERROR(CHECKSUM);
    u32 id = TCP_CONNECTIONS, zero = 0;
    u64 key = source | (u64)h->ports << 32;
    struct foreseen f = {cham_ntohl(h->seq), cham_ntohl(h->ack), 0, 0, cham_ntohs(h->window), size - header, at + header};
    struct flow *flow = cham_lookup(&flows, &key);
    struct tcp_config *g = config_of(ctx);
    if (flow)
        id = flow->id;
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    u32 stamped = header == TCP_BYTES + TS_BYTES && (u8 *)h + TCP_BYTES + TS_BYTES <= end && *(u32 *)(h + 1) == TS_WORD;
    if (stamped) {
        f.tsval = cham_ntohl(((u32 *)(h + 1))[1]);
        f.tsecr = cham_ntohl(((u32 *)(h + 1))[2]);
        if ((h->flags & ~F_PSH) == F_ACK && (tos & 3) != CE && c && a && g && is_foreseen(c, a, &f))
            return done(ctx, c, id, takes_foreseen(ctx, c, a, g, id, &f));
    }
    struct scratch *m = cham_lookup(&scratches, &zero);
    if (!m || !g)
        return CHAM_ERROR(NOT_CONFIGURED);
    struct segment *s = &m->s;
    s->key = key;
    s->seq = f.seq;
    s->ack = f.ack;
    s->window = f.window;
    s->flags = h->flags;
    s->len = f.len;
    s->payload = f.payload;
    s->tos = tos;
    s->has_ts = stamped;
    s->tsval = f.tsval;
    s->tsecr = f.tsecr;
    s->sacks = 0;
    s->mss = 0;
    s->wscale = 0;
    s->sack_permitted = 0;
    if (header > TCP_BYTES && !stamped)
        read_options(ctx, m, at, header - TCP_BYTES);
    return unforeseen(ctx, s, g, id);
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------ */

CHAM_HANDLER(tx)
{
    u32 id = ctx->id;
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    struct tcp_config *g = config_of(ctx);
    if (!c || !a || !g)
        return CHAM_DONE;
    c->flags &= ~DUE;
    if (c->state == TCP_CLOSED)
        return CHAM_DONE;
    return done(ctx, c, id, output(ctx, c, a, g, id, 1 + CHAM_EMITS));
}

/* What was owed to an application whose ring was full. */
RARE static u32 tell_again(struct chamelio_ctx *ctx, struct conn *c, u32 id)
{
    u32 owed = c->owed;
    c->owed = 0;
    if (owed & 1u << TCP_DATA)
        tell(ctx, c, id, TCP_DATA, c->taken, c->rcv_nxt - !!(c->flags & FIN_SEEN), 0, 0);
    if (owed & 1u << TCP_FIN)
        tell(ctx, c, id, TCP_FIN, c->rcv_nxt - 1, c->rcv_nxt - 1, 0, 0);
    if (owed & 1u << TCP_WRITABLE)
        tell(ctx, c, id, TCP_WRITABLE, 0, c->snd_una, 0, 0);
    if (owed & 1u << TCP_GROWN)
        tell(ctx, c, id, TCP_GROWN, 0, c->snd_una, 0, 0);
    if (owed & 1u << TCP_ENDED)
        tell(ctx, c, id, TCP_ENDED, c->rcv_nxt, c->snd_una, c->tag, c->error);
    return 0;
}

CHAM_INLINE u64 earliest(u64 a, u64 b) { return !a || (b && b < a) ? b : a; }

CHAM_HANDLER(timer)
{
    u32 id = ctx->id;
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (!c || !a)
        return CHAM_DONE;
    c->armed = 0;
    if (c->owed)
        tell_again(ctx, c, id);
    if (c->state == TCP_CLOSED)
        return done(ctx, c, id, CHAM_DONE);
    if (c->dead_at && ctx->now >= c->dead_at) {
        if (c->state == TCP_FIN_WAIT_2 && c->flags & HELD)
            c->dead_at = 0;
        else if (step(c, a, INPUT_EXPIRED)) {
            conclude(ctx, c, a, id, 0);
            return done(ctx, c, id, CHAM_DONE);
        }
    }
    if (c->rto_at && ctx->now >= c->rto_at) {
        u32 persists = c->flags & PERSISTS;
        if (tell_slow_path(ctx, c, id, TCP_TIMEOUT, persists ? TCP_PERSIST : TCP_RETRANSMISSION)) {
            c->rto_at = ctx->now + RETRY_NS;
        } else {
            a->timeouts += !persists && !(c->flags & TOLD);
            c->rto_at = ctx->now + UNANSWERED_NS;
            c->flags |= TOLD;
        }
    }
    if (c->alive_at && ctx->now >= c->alive_at) {
        u64 again = c->heard + c->alive_ms * MS;
        c->alive_at = again > ctx->now ? again : tell_slow_path(ctx, c, id, TCP_TIMEOUT, TCP_KEEPALIVE) ? ctx->now + RETRY_NS : 0;
    }
    u32 acks = c->ack_at && ctx->now >= c->ack_at;
    if (acks)
        c->ack_at = 0;
    u64 next = earliest(earliest(c->rto_at, c->ack_at), earliest(c->alive_at, c->dead_at));
    if (next)
        arm(c, next);
    return done(ctx, c, id, acks ? GO_ACK : CHAM_DONE);
}

/* ---- entries --------------------------------------------------------------------------------------------------------------------- */

/* What the slow path asks that concerns no connection. */
RARE static u64 set_listener(struct chamelio_ctx *ctx UNUSED, const struct tcp_entry *e)
{
    u32 port = cham_ntohs(e->local_port);
    if (e->kind == TCP_UNLISTEN)
        return cham_delete(&listeners, &port) ? CHAM_ERROR(NO_LISTENER) : CHAM_DONE;
    struct listener *old = cham_lookup(&listeners, &port);
    struct listener l = {e->value, e->mark, 0, 0, 0};
    if (old) {
        old->context = l.context;
        old->backlog = l.backlog;
        return CHAM_DONE;
    }
    return cham_update(&listeners, &port, &l, 0) ? CHAM_ERROR(TABLE_FULL) : CHAM_DONE;
}

/* Give the number up, with a reset if anybody is to hear it. */
RARE static u64 abandon(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    u32 silent = c->state == TCP_CLOSED || c->state == TCP_SYN_SENT || c->state == TCP_TIME_WAIT;
    c->flags &= ~HELD;
    a->context = 0;
    if (c->state == TCP_CLOSED) {
        give_number(ctx, c, a, id);
        return CHAM_DONE;
    }
    u64 verdict = silent ? CHAM_DONE : put_reset(ctx, c);
    reset(ctx, c, a, id, 0);
    return verdict;
}

/* What the slow path asks of a connection. */
RARE static u64 ordered(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, const struct tcp_entry *e)
{
    struct tcp_config *g = config_of(ctx);
    u32 kind = e->kind, value = e->value;
    if (!g)
        return CHAM_ERROR(NOT_CONFIGURED);
    if (kind == TCP_RELEASE) /* it may have ended meanwhile, and its number be free or another's */
        return c->flags & HELD && c->context == value ? abandon(ctx, c, a, id) : CHAM_ERROR(STALE);
    if (c->state == TCP_CLOSED)
        return CHAM_ERROR(NOT_OPEN);
    if (kind == TCP_FAIL) {
        u64 verdict = e->mark ? put_reset(ctx, c) : CHAM_DONE;
        reset(ctx, c, a, id, value);
        return verdict;
    }
    if (kind == TCP_ALIVE) {
        c->alive_ms = value;
        c->alive_at = value ? ctx->now + value * MS : 0;
        if (value)
            arm(c, c->alive_at);
        return CHAM_DONE;
    }
    if (kind != TCP_PROBE && kind != TCP_RETRANSMIT)
        return CHAM_ERROR(ENTRY_KIND);
    if (kind == TCP_PROBE && (!synchronized(c->state) || c->state == TCP_TIME_WAIT))
        return CHAM_ERROR(BAD_STATE);
    c->rto_at = 0;
    c->flags &= ~TOLD;
    c->backoff = min_u32(value, BACKOFF_MAX);
    if (kind == TCP_PROBE) { /* a number that was acknowledged already must be answered */
        if (c->flags & PERSISTS || c->snd_una != c->snd_max)
            set_rto(ctx, c, g);
        if (cham_resize(ctx, 0) || put_segment(ctx, c, id, c->snd_una - 1, 0, 0, 0))
            return CHAM_ERROR(NO_ROOM);
        return CHAM_TX;
    }
    if (c->snd_una == c->snd_max || c->state == TCP_TIME_WAIT)
        return CHAM_DONE;
    if (c->state > TCP_SYN_RCVD) {
        if (!(c->flags & LOST))
            reduce(ctx, c, a);
        set_win(c, a, mss_of(c, a));
        c->flags = (c->flags & ~(RECOVERY | TIMED)) | LOST | HOLE_NOW;
        c->recover = c->snd_max;
        c->lost_to = c->snd_max;
        c->high_rxt = c->snd_una;
        c->dupacks = 0;
        c->dupthresh = DUPTHRESH;
#pragma unroll
        for (u32 i = 0; i < RANGES; i++) /* the peer may have given up what it had (RFC 2018, 8) */
            c->sacked[i].start = c->sacked[i].end = 0;
        c->sacked_bytes = 0;
        c->fack = c->snd_una;
        assess(c);
    } else {
        c->snd_nxt = c->iss;
        c->flags &= ~TIMED;
    }
    return GO_ON;
}

/* A larger send buffer. */
RARE static u64 grow_send(struct chamelio_ctx *ctx, struct conn *c, u32 id, u32 size)
{
    u32 keep = c->snd_end - c->snd_una, error = 0;
    if (!c->tx_size || keep > KEEP_MAX || cham_bytes_open(&tx_bytes, id, size, (u64)c->snd_una << 32 | keep))
        error = ENOBUFS;
    else
        c->tx_size = (u32)cham_bytes_size(&tx_bytes, id);
    tell(ctx, c, id, TCP_GROWN, 0, c->snd_una, 0, error);
    return CHAM_DONE;
}

/* Nothing will be written any more: a FIN. */
RARE static u64 shut(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    if (c->state == TCP_SYN_RCVD) { /* when the peer has answered */
        c->flags |= FIN_QUEUED;
        return CHAM_DONE;
    }
    if (!step(c, a, INPUT_SHUT))
        return CHAM_DONE;
    if (c->state == TCP_CLOSED) {
        conclude(ctx, c, a, id, 0);
        return CHAM_DONE;
    }
    c->flags |= FIN_QUEUED;
    return GO_ON;
}

/* An application reads no more and writes no more. */
RARE static u64 close(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    struct tcp_config *g = config_of(ctx);
    look_at_taken(c, a);
    if (!g || c->state == TCP_CLOSED || c->rcv_nxt - !!(c->flags & FIN_SEEN) - c->taken) /* unread bytes are refused (RFC 2525, 2.17) */
        return abandon(ctx, c, a, id);
    c->flags &= ~HELD;
    a->context = 0;
    cham_bytes_close(&rx_bytes, id);
    c->rx_size = 0;
    if (c->state == TCP_FIN_WAIT_2 || c->state == TCP_TIME_WAIT)
        cham_bytes_close(&tx_bytes, id);
    if (c->state != TCP_FIN_WAIT_2)
        return shut(ctx, c, a, id);
    wait_for_old_segments(ctx, c, g);
    return CHAM_DONE;
}

/* What an application asks of its connection. */
CHAM_INLINE u64 asked(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, const struct tcp_entry *e)
{
    u32 kind = e->kind;
    if (c->context != ctx->id || !(c->flags & HELD))
        return CHAM_ERROR(NOT_ALLOWED);
    if (kind == TCP_ABORT)
        return abandon(ctx, c, a, id);
    if (kind == TCP_READ) {
        struct tcp_config *g = config_of(ctx);
        look_at_taken(c, a);
        if (g && c->flags & ROOMIER)
            grow_receive(ctx, c, id, roomier(c, g), KEEP_MAX);
        return can_receive(c->state) && open_window(c, a) ? GO_ACK : CHAM_DONE;
    }
    if (kind == TCP_SEND && !e->flags) {
        struct tcp_config *g = config_of(ctx);
        if (g && sends_foreseen(ctx, c, a, g, id, e->end))
            return CHAM_TX;
    }
    if (kind == TCP_GROW)
        return grow_send(ctx, c, id, e->value);
    if (kind == TCP_SEND || ((kind == TCP_SHUT || kind == TCP_CLOSE) && can_write(c->state))) {
        if (!can_write(c->state))
            return CHAM_ERROR(NOT_OPEN);
        if (e->end - c->snd_end > c->tx_size - (c->snd_end - c->snd_una))
            return CHAM_ERROR(BAD_END);
        c->snd_end = e->end;
    }
    if (kind == TCP_SHUT)
        return shut(ctx, c, a, id);
    if (kind == TCP_CLOSE)
        return close(ctx, c, a, id);
    if (kind != TCP_SEND)
        return CHAM_ERROR(ENTRY_KIND);
    if (e->flags & TCP_NOTIFY) {
        c->mark = e->mark;
        c->flags |= NOTIFY;
        if (at_least(c->snd_una, c->mark)) {
            c->flags &= ~NOTIFY;
            tell(ctx, c, id, TCP_WRITABLE, 0, c->snd_una, 0, 0);
        }
    }
    keep_open(c, a);
    if (a->pace)
        make_due(ctx, c, id);
    return c->flags & DUE ? CHAM_DONE : GO_ON;
}

CHAM_HANDLER(ring)
{
    struct tcp_entry *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(SHORT);
    u32 kind = e->kind, id = e->conn;
    if (kind == TCP_CONNECT)
        return ctx->id ? open_actively(ctx, e) : CHAM_ERROR(NOT_ALLOWED);
    if (kind >= TCP_LISTEN && ctx->id)
        return CHAM_ERROR(NOT_ALLOWED);
    if (kind == TCP_LISTEN || kind == TCP_UNLISTEN)
        return set_listener(ctx, e);
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (!c || !a || c->generation != e->generation)
        return CHAM_ERROR(STALE);
    u64 verdict = kind >= TCP_LISTEN ? ordered(ctx, c, a, id, e) : asked(ctx, c, a, id, e);
    struct tcp_config *g = config_of(ctx);
    if (verdict == GO_ON)
        verdict = g ? output(ctx, c, a, g, id, 1) : CHAM_ERROR(NOT_CONFIGURED);
    return done(ctx, c, id, verdict);
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
