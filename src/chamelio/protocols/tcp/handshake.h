/* Connections begin here: SYNs for listeners, SYN cookies, answers to our own SYNs. */
#ifndef TCP_HANDSHAKE_H
#define TCP_HANDSHAKE_H

#include "predict.h"

#define COOKIE_SHIFT 36 /* a cookie's clock ticks every 69 s; it lives two ticks at most */
#define COOKIE_NS (1ull << COOKIE_SHIFT)
#define PORT_TRIES 6   /* ports that are looked up, */
#define CORE_TRIES 12 /* and how many are passed over for each because their flows live on another core */
#define REUSE_NS (100 * MS) /* since when one in TIME_WAIT may make room for one that we open: its timestamps are older by many ticks */

/* ---- what both sides agree on ------------------------------------------------------------------------------------------------------- */

/* Take the options of the peer's SYN, as far as we want them. */
CHAM_INLINE void agree(struct chamelio_ctx *ctx UNUSED, struct conn *c, struct tcp_about *a, const struct tcp_config *g,
                       const struct segment *s, u32 wanted)
{
    u32 options = 0, mss = s->mss ? s->mss - 1 : MSS_DEFAULT;
    if (wanted & TCP_OPT_TIMESTAMPS && s->has_ts) {
        options |= TCP_OPT_TIMESTAMPS;
        c->ts_recent = s->tsval;
    }
    if (wanted & TCP_OPT_SACK && s->sack_permitted)
        options |= TCP_OPT_SACK;
    if (wanted & TCP_OPT_WSCALE && s->wscale) {
        options |= TCP_OPT_WSCALE;
        c->snd_wscale = (u8)min_u32(s->wscale - 1, 14); /* RFC 7323, 2.3 */
        c->rcv_wscale = WSCALE;
    }
    if (wanted & TCP_OPT_ECN)
        options |= TCP_OPT_ECN;
    mss = max_u32(min_u32(mss, g->mss), MSS_MIN);
    c->options = options;
    a->options = options;
    a->mss = mss;
    c->mss = mss - (options & TCP_OPT_TIMESTAMPS ? TS_BYTES : 0);
    set_win(c, a, g->initial_window * c->mss);
    a->ssthresh = c->ssthresh;
}

/* Where our numbers begin. */
CHAM_INLINE void start_sending(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 iss)
{
    c->iss = iss;
    c->snd_una = iss;
    c->snd_nxt = iss;
    c->snd_max = iss;
    c->snd_end = iss + 1;
    c->recover = iss;
    c->high_rxt = iss;
    c->ecn_point = iss;
    c->fack = iss;
    c->grown = iss;
    c->timed_at = ctx->now;
    c->timed_end = iss + 1;
    c->flags |= TIMED;
    a->iss = iss;
    a->acked = iss;
    a->sent = iss;
    a->delivered = iss;
}

/* Where the peer's do. */
CHAM_INLINE void start_receiving(struct conn *c, struct tcp_about *a, u32 irs)
{
    c->irs = irs;
    c->rcv_nxt = irs + 1;
    c->last_ack = irs + 1;
    c->taken = irs + 1;
    c->tune_seq = irs + 1;
    c->rcv_edge = irs + 1 + TCP_BUFFER - 1;
    c->rcv_said = c->rcv_edge;
    a->irs = irs;
    a->taken = irs + 1;
    a->edge = c->rcv_edge;
}

/* A send buffer, and the news for the application. 0, or not: then nothing has changed. */
RARE static u32 announce(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, u32 kind)
{
    if (cham_bytes_open(&tx_bytes, id, TCP_BUFFER_MIN, 0))
        return NO_BUFFER;
    struct tcp_event e = {kind, id, c->generation, c->irs + 1, c->iss + 1, c->tag, 0, ctx->core};
    if (cham_push(&events, c->context, &e)) {
        cham_bytes_close(&tx_bytes, id);
        return RING_FULL;
    }
    c->tx_size = (u32)cham_bytes_size(&tx_bytes, id);
    c->flags |= HELD;
    a->context = c->context;
    c->heard = ctx->now;
    c->tune_at = ctx->now;
    return 0;
}

/* ---- a listener's side ----------------------------------------------------------------------------------------------------------------- */

CHAM_INLINE u32 mss_index(u32 mss) { return mss >= 1460 ? 3 : mss >= 1220 ? 2 : mss >= 536 ? 1 : 0; }
CHAM_INLINE u32 mss_of_index(u32 i) { return i == 3 ? 1460 : i == 2 ? 1220 : i == 1 ? 536 : MSS_MIN; }

/* 24 bits that only we can compute, the clock's tick and the MSS. */
CHAM_INLINE u32 cookie_of(struct chamelio_ctx *ctx, u64 key, u32 irs, u32 tick, u32 mss)
{
    u64 h = cham_hash(ctx, key, (u64)irs << 32 | (u64)(tick & 31) << 8 | mss | 0x80);
    return (u32)h >> 8 | (tick & 31) << 27 | (mss & 7) << 24;
}

/* No room for one more: a SYN is answered, and nothing is remembered (RFC 4987, 3.6). Options ride in the timestamp. */
CHAM_INLINE u64 answer_by_cookie(struct chamelio_ctx *ctx, const struct tcp_config *g, struct listener *l, u64 key, const struct segment *s)
{
    u32 ports = (u32)(key >> 32), mss = s->mss ? s->mss - 1 : MSS_DEFAULT, options = 0, stamp;
    u32 cookie = cookie_of(ctx, key, s->seq, (u32)(ctx->now >> COOKIE_SHIFT), mss_index(mss));
    u32 now = clock_of(ctx) + (u32)cham_hash(ctx, (u32)key, 0x74696d65);
    stamp = now & ~31u;
    if (s->has_ts && g->options & TCP_OPT_TIMESTAMPS) {
        options = TCP_OPT_TIMESTAMPS;
        if (s->sack_permitted && g->options & TCP_OPT_SACK)
            options |= TCP_OPT_SACK;
        if (s->wscale && g->options & TCP_OPT_WSCALE)
            options |= TCP_OPT_WSCALE;
        stamp |= (options & TCP_OPT_SACK ? 16 : 0) | (options & TCP_OPT_WSCALE ? min_u32(s->wscale - 1, 14) : 15);
    }
    if (after(stamp, now)) /* the clock of timestamps does not go back */
        stamp -= 32;
    l->cookies_until = ctx->now + 2 * COOKIE_NS;
    if (put_syn(ctx, ends_between(g->local, (u32)key, ports >> 16 | ports << 16), cookie, s->seq + 1, F_SYN | F_ACK, 65535, g->mss,
                options, stamp, s->tsval))
        return CHAM_ERROR(NO_ROOM);
    return CHAM_TX;
}

/* It is half open until the peer acknowledges our answer. */
CHAM_INLINE void wait_for_opener(struct conn *c, struct listener *l, u64 key)
{
    c->flags |= PASSIVE;
    c->context = l->context;
    l->half_open++;
    c->listener = 1 + cham_ntohs((u32)(key >> 48));
    c->tag = c->listener - 1;
}

/* A SYN for a port that somebody serves. `iss`: where our numbers must begin, 0: it does not matter. */
RARE static u64 take_syn(struct chamelio_ctx *ctx, struct listener *l, u64 key, const struct segment *s, u32 iss)
{
    struct tcp_config *g = config_of(ctx);
    u32 id, why;
    if (!g)
        return CHAM_ERROR(NOT_CONFIGURED);
    if (l->half_open >= l->backlog)
        return answer_by_cookie(ctx, g, l, key, s);
    id = take_number(ctx, g);
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (!c || !a)
        return CHAM_ERROR(TABLE_FULL);
    why = begin(ctx, c, a, id, key);
    if (why)
        return CHAM_ERROR(why);
    step(c, a, INPUT_SYN);
    wait_for_opener(c, l, key);
    u32 ecn = (s->flags & (F_ECE | F_CWR)) == (F_ECE | F_CWR) ? TCP_OPT_ECN : 0;
    agree(ctx, c, a, g, s, g->options & (TCP_OPT_TIMESTAMPS | TCP_OPT_SACK | TCP_OPT_WSCALE | ecn));
    start_receiving(c, a, s->seq);
    start_sending(ctx, c, a, iss ? iss : initial_sequence(ctx, key));
    c->wl1 = s->seq;
    c->snd_nxt = c->snd_max = a->sent = c->iss + 1;
    set_rto(ctx, c, g);
    set_timer(ctx, c, id);
    return put_syn_of(ctx, c) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
}

/* An acknowledgement that may bring a cookie back: then it is as if the SYN had been
 * remembered, in a connection whose number is `*made` afterwards. */
RARE static u32 take_cookie(struct chamelio_ctx *ctx, struct listener *l, u64 key, struct segment *s, u32 *made)
{
    struct tcp_config *g = config_of(ctx);
    u32 cookie = s->ack - 1, irs = s->seq - 1, tick = (u32)(ctx->now >> COOKIE_SHIFT), mss = cookie >> 24 & 7, id, why;
    if (!g)
        return NOT_CONFIGURED;
    if (ctx->now > l->cookies_until)
        return BAD_COOKIE;
    if ((tick & 31) != cookie >> 27 && ((tick - 1) & 31) != cookie >> 27)
        return BAD_COOKIE;
    if (cookie != cookie_of(ctx, key, irs, cookie >> 27, mss))
        return BAD_COOKIE;
    id = take_number(ctx, g);
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (!c || !a)
        return TABLE_FULL;
    why = begin(ctx, c, a, id, key);
    if (why)
        return why;
    step(c, a, INPUT_SYN);
    wait_for_opener(c, l, key);
    s->mss = 1 + mss_of_index(mss); /* as if it were the SYN */
    if (s->has_ts) {
        s->sack_permitted = s->tsecr >> 4 & 1;
        s->wscale = (s->tsecr & 15) < 15 ? 1 + (s->tsecr & 15) : 0;
    }
    agree(ctx, c, a, g, s, g->options & (TCP_OPT_TIMESTAMPS | TCP_OPT_SACK | TCP_OPT_WSCALE));
    start_receiving(c, a, irs);
    start_sending(ctx, c, a, cookie);
    c->flags &= ~TIMED;
    c->snd_nxt = c->snd_max = a->sent = cookie + 1;
    c->wl1 = irs;
    set_rto(ctx, c, g);
    *made = id;
    return 0;
}

/* Our answer to a SYN is acknowledged: the connection is open. 0, or why not. */
RARE static u32 accept(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    u32 kind = TCP_CONNECTED, why;
    if (c->flags & PASSIVE) {
        u32 port = c->listener - 1;
        struct listener *l = cham_lookup(&listeners, &port);
        if (!c->listener || !l)
            return NO_LISTENER;
        c->context = l->context;
        kind = TCP_ACCEPTED;
    }
    if (c->flags & (PASSIVE | HELD)) {
        why = announce(ctx, c, a, id, kind);
        if (why)
            return why;
    }
    leave_listener(ctx, c);
    step(c, a, INPUT_SYN_ACKED);
    if (c->flags & FIN_QUEUED) { /* closed before it was open */
        step(c, a, INPUT_SHUT);
        make_due(ctx, c, id);
    }
    return 0;
}

/* ---- an opener's side -------------------------------------------------------------------------------------------------------------------- */

/* As the engine steers flows (docs/architecture.md, Cores): the core of a key, of `n`. */
CHAM_INLINE u32 core_of(u64 key, u32 n)
{
    u64 a = key << 32 | key >> 32, factor = 0x9e3779b97f4a7c15ull;
    u64 al = (u32)a, ah = a >> 32, fl = (u32)factor, fh = factor >> 32;
    u64 mid = ah * fl + (al * fl >> 32), low = (u32)mid + al * fh;
    u64 high = ah * fh + (mid >> 32) + (low >> 32);
    return n > 1 ? (u32)((a * factor ^ high) >> 32) % n : 0;
}

/* A local port nobody uses towards a peer (RFC 6056, algorithm 3): the key of both ends, or 0. `*iss` becomes where numbers must begin. */
RARE static u64 choose_port(struct chamelio_ctx *ctx, u32 address, u32 port, u32 wanted, u32 *iss)
{
    struct tcp_config *g = config_of(ctx);
    u32 zero = 0;
    struct core_state *k = cham_lookup(&cores, &zero);
    if (!g || !k)
        return 0;
    u32 low = g->port_low, range = g->port_high - low + 1, from = (u32)cham_hash(ctx, address, 0x706f7274ull << 32 | port);
    if (wanted) {
        low = cham_ntohs(wanted);
        range = 1;
    }
    if (!range || range > 65536)
        return 0;
    for (u32 n = 0; n < PORT_TRIES; n++, from += range / PORT_TRIES) { /* what is in use often is a whole neighbourhood */
        u64 key = 0;
        for (u32 i = 0; i < CORE_TRIES; i++) {
            u32 local = low + (from + k->port_turn++) % range;
            key = address | (u64)(port & 0xffff) << 32 | (u64)cham_htons(local) << 48;
            if (core_of(key, g->cores) == ctx->core)
                break;
        }
        if (core_of(key, g->cores) != ctx->core)
            continue;
        struct flow *f = cham_lookup(&flows, &key);
        if (!f)
            return key;
        u32 id = f->id;
        struct conn *c = cham_lookup(&conns, &id);
        struct tcp_about *a = cham_lookup(&about, &id);
        if (c && a && c->state == TCP_TIME_WAIT && c->options & TCP_OPT_TIMESTAMPS &&
            c->dead_at < ctx->now + g->time_wait * MS - REUSE_NS) { /* RFC 6191 */
            *iss = c->snd_max + 65536;
            step(c, a, INPUT_EXPIRED);
            conclude(ctx, c, a, id, 0);
            return key;
        }
    }
    return 0;
}

/* An application opens a connection. */
RARE static u64 open_actively(struct chamelio_ctx *ctx, const struct tcp_entry *e)
{
    struct tcp_config *g = config_of(ctx);
    u32 iss = 0, id = TCP_CONNECTIONS, why = NO_PORT, tag = e->tag;
    u64 key = choose_port(ctx, e->address, e->port, e->local_port, &iss);
    if (!g)
        return CHAM_ERROR(NOT_CONFIGURED);
    if (key && e->address && e->port) {
        why = TABLE_FULL;
        id = take_number(ctx, g);
    }
    struct conn *c = cham_lookup(&conns, &id);
    struct tcp_about *a = cham_lookup(&about, &id);
    if (c && a)
        why = begin(ctx, c, a, id, key);
    if (!c || !a || why) {
        struct tcp_event failed = {TCP_ENDED, TCP_CONNECTIONS, 0, 0, 0, tag, why == NO_PORT ? 99 /* EADDRNOTAVAIL */ : ENOBUFS, ctx->core};
        cham_push(&events, ctx->id, &failed);
        return CHAM_ERROR(why);
    }
    step(c, a, INPUT_CONNECT);
    c->context = ctx->id;
    c->flags |= HELD;
    c->tag = tag;
    a->context = ctx->id;
    c->options = g->options;
    start_receiving(c, a, 0);
    c->rcv_nxt = 0;
    c->rcv_edge = 65535;
    c->rcv_said = c->rcv_edge;
    start_sending(ctx, c, a, iss ? iss : initial_sequence(ctx, key));
    c->snd_nxt = c->snd_max = a->sent = c->iss + 1;
    set_rto(ctx, c, g);
    set_timer(ctx, c, id);
    return put_syn_of(ctx, c) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
}

/* A segment in SYN_SENT (RFC 9293, 3.10.7.3). */
RARE static u64 answered(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, const struct segment *s)
{
    struct tcp_config *g = config_of(ctx);
    u32 acks = s->flags & F_ACK, why;
    if (!g)
        return CHAM_ERROR(NOT_CONFIGURED);
    if (acks && s->ack != c->iss + 1)
        return s->flags & F_RST ? CHAM_ERROR(STRAY_RESET) : refuse(ctx, s);
    if (s->flags & F_RST) {
        if (!acks)
            return CHAM_ERROR(STRAY_RESET);
        reset(ctx, c, a, id, ECONNREFUSED);
        return CHAM_DONE;
    }
    if (!(s->flags & F_SYN))
        return CHAM_ERROR(BAD_FLAGS);
    u32 ecn = s->flags & (F_ECE | F_CWR), asked = c->options;
    ecn = acks ? ecn == F_ECE : ecn == (F_ECE | F_CWR);
    agree(ctx, c, a, g, s, asked & (TCP_OPT_TIMESTAMPS | TCP_OPT_SACK | TCP_OPT_WSCALE | (ecn ? TCP_OPT_ECN : 0)));
    start_receiving(c, a, s->seq);
    c->wl1 = s->seq;
    c->wl2 = s->ack;
    c->snd_edge = c->iss + 1 + s->window;
    c->max_window = s->window;
    if (!acks) { /* both open at the same time */
        step(c, a, INPUT_SYN);
        return put_syn_of(ctx, c) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
    }
    if (c->flags & TIMED && ctx->now > c->timed_at)
        take_rtt(c, a, g, ctx->now - c->timed_at);
    c->flags &= ~(TIMED | TOLD);
    c->snd_una = c->iss + 1;
    a->acked = c->snd_una;
    a->delivered = c->snd_una;
    c->backoff = 0;
    c->rto_at = 0;
    why = announce(ctx, c, a, id, TCP_CONNECTED);
    if (why) {
        u64 verdict = put_reset(ctx, c);
        reset(ctx, c, a, id, ENOBUFS);
        return verdict;
    }
    step(c, a, INPUT_SYN_ACKED);
    return GO_ACK;
}

/* ---- a segment that belongs to no connection ----------------------------------------------------------------------------------------------- */

/* A SYN in the place of a connection that was in TIME_WAIT. */
RARE static u64 begins_anew(struct chamelio_ctx *ctx, const struct segment *s, u32 iss)
{
    u64 key = s->key;
    u32 port = cham_ntohs((u32)(key >> 48));
    struct listener *l = cham_lookup(&listeners, &port);
    return l && !(s->flags & F_FIN) ? take_syn(ctx, l, key, s, iss) : refuse(ctx, s);
}

/* The verdict; or GO_ON, and `*made` is the connection that it has made and belongs to. */
RARE static u64 belongs_to_none(struct chamelio_ctx *ctx, struct segment *s, u32 *made)
{
    u64 key = s->key;
    u32 port = cham_ntohs((u32)(key >> 48)), why;
    struct listener *l = cham_lookup(&listeners, &port);
    if (l && !(s->flags & F_RST)) {
        if ((s->flags & (F_SYN | F_FIN)) == (F_SYN | F_FIN))
            return CHAM_ERROR(BAD_FLAGS);
        if ((s->flags & (F_SYN | F_ACK)) == F_SYN)
            return take_syn(ctx, l, key, s, 0);
        if ((s->flags & (F_SYN | F_ACK)) == F_ACK && ctx->now <= l->cookies_until) {
            why = take_cookie(ctx, l, key, s, made);
            if (!why)
                return GO_ON;
            if (why != BAD_COOKIE)
                return CHAM_ERROR(why);
        }
    }
    return refuse(ctx, s);
}

#endif
