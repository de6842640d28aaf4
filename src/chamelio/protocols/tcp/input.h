/* Segments of a connection that is synchronized: data, the window that we offer, the peer's FIN (RFC 9293, 3.10.7.4). */
#ifndef TCP_INPUT_H
#define TCP_INPUT_H

#include "ack.h"

#define ECONNRESET 104
#define ECONNREFUSED 111
#define ENOBUFS 105

/* ---- the window that we offer ----------------------------------------------------------------------------------------------------- */

/* How far the application says that it has read, if that can be. */
CHAM_INLINE void look_at_taken(struct conn *c, const struct tcp_about *a)
{
    u32 taken = a->taken;
    if (taken - c->taken <= c->rcv_nxt - c->taken)
        c->taken = taken;
}

/* Offer what there is room for; little more than before is not worth saying (RFC 9293, 3.8.6.2.2). 1: it is more. */
CHAM_INLINE u32 open_window(struct conn *c, struct tcp_about *a)
{
    look_at_taken(c, a);
    u32 slack = c->rcv_wscale ? 1u << WSCALE : 0; /* what rounding up may add must fit, too */
    u32 size = max_u32(c->rx_size, TCP_BUFFER), edge = c->taken + size - slack, least = min_u32(size / 2, c->rcv_mss);
    if ((s32)(edge - c->rcv_edge) < (s32)least)
        return 0;
    c->rcv_edge = edge;
    c->rcv_said = later(c->rcv_said, edge);
    a->edge = edge;
    return 1;
}

/* The same, where it matters: as long as there is little in a small buffer the peer has room enough. */
CHAM_INLINE void keep_open(struct conn *c, struct tcp_about *a)
{
    if (c->rx_size >= TCP_BUFFER || c->rcv_edge - c->rcv_nxt < TCP_BUFFER / 2)
        open_window(c, a);
}

/* A larger receive buffer, with what is in it, if that is at most `most` bytes. 0, or not. */
RARE static u32 grow_receive(struct chamelio_ctx *ctx UNUSED, struct conn *c, u32 id, u32 size, u32 most)
{
    u32 high = c->rcv_nxt;
    for (u32 i = 0; i < RANGES; i++)
        if (!is_empty(c->ooo + i))
            high = later(high, c->ooo[i].end);
    u32 keep = high - c->taken;
    if (keep > most || keep > c->rx_size)
        return 1;
    c->flags &= ~ROOMIER;
    if (cham_bytes_open(&rx_bytes, id, size, (u64)c->taken << 32 | keep))
        return 1;
    c->rx_size = (u32)cham_bytes_size(&rx_bytes, id);
    return 0;
}

/* The size after the next. */
CHAM_INLINE u32 roomier(const struct conn *c, const struct tcp_config *g) { return min_u32(min_u32(4 * c->rx_size, g->buffer_max), TCP_BUFFER_MAX); }

/* Room for bytes up to `stop`: a connection begins without a buffer, then has the smallest, then one that holds all that was promised. */
CHAM_INLINE u32 make_room(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g, u32 id, u32 stop)
{
    u32 need = stop - c->taken, size = 0;
    if (need > c->rx_size)
        size = need > TCP_BUFFER_MIN ? TCP_BUFFER : TCP_BUFFER_MIN;
    else if (c->flags & ROOMIER)
        size = roomier(c, g);
    if (size)
        grow_receive(ctx, c, id, size, TCP_BUFFER_MIN);
    return need > c->rx_size;
}

/* Is the peer held up by the buffer? When half of one comes in two round trips or less, it is. The buffer grows when little is in it. */
CHAM_INLINE void tune(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g)
{
    if (c->rcv_nxt - c->tune_seq < c->rx_size / 2 || c->rx_size < TCP_BUFFER)
        return;
    u64 took = ctx->now - c->tune_at;
    c->tune_seq = c->rcv_nxt;
    c->tune_at = ctx->now;
    if (took <= 2 * (u64)c->srtt && c->rx_size < roomier(c, g))
        c->flags |= ROOMIER;
}

/* ---- data -------------------------------------------------------------------------------------------------------------------------- */

/* Bytes that were waiting for those before them. */
RARE static u32 take_waiting(struct conn *c)
{
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->ooo[i].start, e = c->ooo[i].end;
        if (s != e && !after(s, c->rcv_nxt)) {
            c->rcv_nxt = later(c->rcv_nxt, e);
            c->ooo[i].start = c->ooo[i].end = 0;
            c->waiting--;
            c->flags |= ACK_NOW;
        }
    }
    return 0;
}

RARE static u32 count_waiting(struct conn *c)
{
    u32 n = 0;
    for (u32 i = 0; i < RANGES; i++)
        n += !is_empty(c->ooo + i);
    c->waiting = n;
    return 0;
}

/* Room for one more range that touches none. */
RARE static u32 range_fits(const struct conn *c, u32 start, u32 end)
{
    if (c->waiting < RANGES)
        return 1;
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->ooo[i].start, e = c->ooo[i].end;
        if (s != e && !after(s, end) && !before(e, start))
            return 1;
    }
    return 0;
}

/* A segment that is not the next one: keep what is new. */
RARE static u32 take_ahead(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g, u32 id, const struct segment *s)
{
    u32 start = s->seq, stop = s->seq + s->len;
    c->flags |= ACK_NOW;
    if (!range_fits(c, start, stop))
        return TOO_MANY_RANGES;
    for (u32 i = 0; i < RANGES; i++) {
        u32 from = c->ooo[i].start, to = c->ooo[i].end;
        if (from != to && !before(start, from) && !after(stop, to) && c->options & TCP_OPT_SACK) { /* all of it is there already */
            c->dsack.start = start;
            c->dsack.end = stop;
        }
    }
    if (make_room(ctx, c, g, id, stop))
        return NO_BUFFER;
    if (cham_pkt_to_bytes(ctx, &rx_bytes, id, start, CHAM_SPAN(s->payload, s->len)))
        return NO_BUFFER;
    add_range(c->ooo, start, stop);
    count_waiting(c);
    return 0;
}

/* Bytes have come in order: when they are acknowledged, and news for the application. */
CHAM_INLINE void has_come(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g, u32 id, u32 seq, u32 len)
{
    c->segments += len;
    if (len > c->rcv_mss)
        c->rcv_mss = len;
    tune(ctx, c, g);
    if (c->segments >= 2 * c->rcv_mss || c->waiting) { /* RFC 5681, 4.2 */
        c->flags |= ACK_NOW;
    } else if (!c->ack_at) {
        c->ack_at = ctx->now + g->ack_delay * US;
        arm(c, c->ack_at);
    }
    tell(ctx, c, id, TCP_DATA, seq, c->rcv_nxt, 0, 0);
}

/* The bytes of a segment, all of them within the window. 0, or why they were not taken. */
CHAM_INLINE u32 take_data(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id,
                          const struct segment *s)
{
    u32 stop = s->seq + s->len;
    if (s->seq != c->rcv_nxt)
        return take_ahead(ctx, c, g, id, s);
    look_at_taken(c, a);
    if (make_room(ctx, c, g, id, stop)) {
        c->flags |= ACK_NOW;
        return NO_BUFFER;
    }
    if (cham_pkt_to_bytes(ctx, &rx_bytes, id, s->seq, CHAM_SPAN(s->payload, s->len)))
        return NO_BUFFER;
    c->rcv_nxt = stop;
    if (c->waiting)
        take_waiting(c);
    has_come(ctx, c, g, id, s->seq, s->len);
    return 0;
}

/* Whether an acknowledgement goes out by itself: data that are about to be sent acknowledge, too, but carry no blocks. */
CHAM_INLINE u32 acknowledges(const struct conn *c, const struct tcp_about *a)
{
    return c->flags & ACK_NOW && (!(c->flags & DUE) || a->pace || !after(c->snd_edge, c->snd_nxt) || count_blocks(c));
}

/* ---- ends ---------------------------------------------------------------------------------------------------------------------------- */

CHAM_INLINE void wait_for_old_segments(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g)
{
    c->rto_at = 0;
    c->dead_at = ctx->now + g->time_wait * MS;
    arm(c, c->dead_at);
}

/* The peer's FIN, when all before it is here. */
CHAM_INLINE void take_fin(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id)
{
    if (c->flags & FIN_SEEN || !step(c, a, INPUT_FIN))
        return;
    c->rcv_nxt++;
    c->flags = (c->flags & ~FIN_AHEAD) | FIN_SEEN | ACK_NOW;
    tell(ctx, c, id, TCP_FIN, c->rcv_nxt - 1, c->rcv_nxt - 1, 0, 0);
    if (c->state == TCP_TIME_WAIT)
        wait_for_old_segments(ctx, c, g);
}

/* Our FIN is acknowledged. 1: that was all, and the connection is gone. */
CHAM_INLINE u32 fin_acked(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id)
{
    if (!(c->flags & FIN_QUEUED) || c->snd_una != c->snd_end + 1 || !step(c, a, INPUT_FIN_ACKED))
        return 0;
    if (c->state == TCP_CLOSED) {
        conclude(ctx, c, a, id, 0);
        return 1;
    }
    if (!(c->flags & HELD)) /* nobody writes, and nothing is sent again */
        cham_bytes_close(&tx_bytes, id);
    if (c->state == TCP_TIME_WAIT || !(c->flags & HELD)) /* whom nobody reads is not waited for for ever */
        wait_for_old_segments(ctx, c, g);
    return 0;
}

/* It is over at once. */
CHAM_INLINE void reset(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, u32 error)
{
    step(c, a, INPUT_RESET);
    conclude(ctx, c, a, id, error);
}

/* What has come is no reason to do anything but to say where we are; not too often (RFC 5961, 7). */
CHAM_INLINE u64 challenge(struct chamelio_ctx *ctx, struct conn *c, u32 reason)
{
    if (ctx->now - c->challenged_at < CHALLENGE_NS && c->challenged_at)
        return CHAM_ERROR(reason);
    c->challenged_at = ctx->now;
    return GO_ACK;
}

/* ---- in order (RFC 9293, 3.10.7.4) ---------------------------------------------------------------------------------------------------- */

/* A segment without anything new. */
RARE static u64 not_acceptable(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g, const struct segment *s)
{
    if (s->flags & F_RST)
        return CHAM_ERROR(OUT_OF_WINDOW);
    if (c->state == TCP_SYN_RCVD && s->flags & F_SYN && s->seq == c->irs)
        return put_syn_of(ctx, c) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
    if (c->state == TCP_TIME_WAIT && s->flags & F_FIN)
        wait_for_old_segments(ctx, c, g);
    if (s->len && before(s->seq, c->rcv_nxt)) {
        c->dsack.start = s->seq;
        c->dsack.end = before(s->seq + s->len, c->rcv_nxt) ? s->seq + s->len : c->rcv_nxt;
    }
    return GO_ACK;
}

/* Cut off what we have already, and what is beyond the window. */
CHAM_INLINE void trim(struct conn *c, struct segment *s)
{
    u32 off = c->rcv_nxt - s->seq;
    if ((s32)off > 0) {
        if (s->flags & F_SYN) {
            s->flags &= ~F_SYN;
            s->seq++;
            off--;
        }
        off = min_u32(off, s->len);
        if (off) {
            c->dsack.start = s->seq;
            c->dsack.end = s->seq + off;
        }
        s->seq += off;
        s->payload += off;
        s->len -= off;
    }
    u32 room = c->rcv_said - s->seq;
    if (s->len > room) {
        s->len = room;
        s->flags &= ~F_FIN;
        c->flags |= ACK_NOW;
    }
}

/* Congestion marks that segments bring: echoed until CWR comes (RFC 3168, 6.1.3), or one for one, and a change at once (RFC 8257, 3.2). */
CHAM_INLINE void take_ce(struct conn *c, const struct tcp_config *g, u32 tos, u32 flags)
{
    u32 marked = (tos & 3) == CE;
    if (g->dctcp) {
        if (marked != !!(c->flags & SEEN_CE)) {
            c->flags ^= SEEN_CE;
            c->flags |= ACK_NOW;
        }
        c->flags = marked ? c->flags | ECHO_CE : c->flags & ~ECHO_CE;
        return;
    }
    if (flags & F_CWR)
        c->flags &= ~ECHO_CE;
    if (marked)
        c->flags |= ECHO_CE;
}

RARE static u32 accept(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id); /* handshake.h */

/* A segment for a connection beyond SYN_SENT: the verdict. */
CHAM_INLINE u64 arrives(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id,
                        struct segment *s)
{
    u32 length = s->len + !!(s->flags & F_SYN) + !!(s->flags & F_FIN), stop = s->seq + length, why = 0;
    if (s->has_ts && c->options & TCP_OPT_TIMESTAMPS) { /* RFC 7323, 5.3 */
        if (before(s->tsval, c->ts_recent) && !(s->flags & F_RST)) {
            if (ctx->now - c->heard < PAWS_NS)
                return GO_ACK;
            c->ts_recent = s->tsval; /* after so long it says nothing (RFC 7323, 5.5) */
        }
        if (at_least(s->tsval, c->ts_recent) && !after(s->seq, c->last_ack) && !(s->flags & F_RST))
            c->ts_recent = s->tsval;
    }
    c->heard = ctx->now;
    if (s->len) /* what has been read meanwhile makes room */
        keep_open(c, a);
    FORGET;
    if (c->state == TCP_SYN_RCVD && (s->flags & (F_SYN | F_ACK)) == (F_SYN | F_ACK) && s->seq == c->irs) {
        s->flags &= ~F_SYN; /* both have opened, and this is the answer to ours (RFC 9293, figure 7) */
        s->seq++;
        length--;
    }
    if (s->seq != c->rcv_nxt) {
        u32 ok = length ? before(s->seq, c->rcv_said) && after(stop, c->rcv_nxt)
                        : at_least(s->seq, c->rcv_nxt) && !after(s->seq, c->rcv_said);
        if (!ok)
            return not_acceptable(ctx, c, g, s);
    }
    if (s->flags & F_RST) {
        if (c->state == TCP_TIME_WAIT) /* RFC 1337 */
            return CHAM_ERROR(STRAY_RESET);
        if (s->seq != c->rcv_nxt)
            return challenge(ctx, c, STRAY_RESET);
        reset(ctx, c, a, id, c->state == TCP_SYN_RCVD ? ECONNREFUSED : ECONNRESET);
        return CHAM_DONE;
    }
    trim(c, s);
    if (s->flags & F_SYN) /* RFC 5961, 4.2 */
        return challenge(ctx, c, STRAY_SYN);
    if (!(s->flags & F_ACK))
        return CHAM_ERROR(NO_ACK_FLAG);
    if (after(s->ack, c->snd_max))
        return c->state == TCP_SYN_RCVD ? refuse(ctx, s) : challenge(ctx, c, BAD_ACK);
    if (before(s->ack, c->snd_una - c->max_window - 1)) /* RFC 5961, 5.2 */
        return challenge(ctx, c, BAD_ACK);
    if (c->state == TCP_SYN_RCVD) {
        if (!after(s->ack, c->snd_una))
            return refuse(ctx, s);
        why = accept(ctx, c, a, id);
        if (why == NO_LISTENER) {
            u64 verdict = put_reset(ctx, c);
            reset(ctx, c, a, id, ECONNRESET);
            return verdict;
        }
        if (why) /* as if it had been lost */
            return CHAM_ERROR(why);
    }
    if (s->len && !(c->flags & HELD) && can_receive(c->state)) { /* nobody will read it (RFC 9293, 3.6.1) */
        u64 verdict = put_reset(ctx, c);
        reset(ctx, c, a, id, ECONNRESET);
        return verdict;
    }
    take_ack(ctx, c, a, g, id, s);
    if (fin_acked(ctx, c, a, g, id))
        return CHAM_DONE;
    FORGET;
    if (c->options & TCP_OPT_ECN && s->len)
        take_ce(c, g, s->tos, s->flags);
    if (s->len) {
        if (can_receive(c->state))
            why = take_data(ctx, c, a, g, id, s);
        else
            c->flags |= ACK_NOW;
    }
    FORGET;
    if (s->flags & F_FIN) {
        c->fin_at = s->seq + s->len;
        c->flags |= FIN_AHEAD | ACK_NOW;
    }
    if (c->flags & FIN_AHEAD && c->fin_at == c->rcv_nxt)
        take_fin(ctx, c, a, g, id);
    FORGET;
    keep_open(c, a);
    FORGET;
    if (acknowledges(c, a))
        return GO_ACK;
    return why ? CHAM_ERROR(why) : CHAM_DONE;
}

#endif
