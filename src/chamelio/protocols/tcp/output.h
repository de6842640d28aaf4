/* What is sent, and when: holes first, then new bytes, as far as congestion window, the peer's window and the pace allow. */
#ifndef TCP_OUTPUT_H
#define TCP_OUTPUT_H

#include "segment.h"

/* ---- congestion ------------------------------------------------------------------------------------------------------------- */

CHAM_INLINE void set_win(struct conn *c, struct tcp_about *a, u32 win)
{
    c->win = win;
    a->win = win;
}

/* What the slow path has decided since we looked last. */
CHAM_INLINE void sync(struct conn *c, struct tcp_about *a)
{
    u32 epoch = a->epoch;
    if (epoch == c->epoch)
        return;
    u32 cwnd = a->cwnd, thresh = a->thresh;
    c->epoch = epoch;
    if (cwnd)
        set_win(c, a, max_u32(min_u32(cwnd, 1u << 30), c->mss));
    if (thresh) {
        c->ssthresh = thresh;
        a->ssthresh = thresh;
    }
}

/* Bytes of data in a segment. */
CHAM_INLINE u32 mss_of(const struct conn *c, const struct tcp_about *a)
{
    u32 limit = a->mss_limit, options = c->options & TCP_OPT_TIMESTAMPS ? TS_BYTES : 0;
    if (!limit)
        return c->mss;
    limit = limit < MSS_MIN + TS_BYTES ? MSS_MIN : limit - options;
    return min_u32(limit, c->mss);
}

/* A loss: the window that remains of what is under way (RFC 5681, 3.2; RFC 9438, 4.6). What was before can come back. */
CHAM_INLINE void reduce(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a)
{
    u64 beta = a->beta, flight = c->snd_max - c->snd_una, left = flight * (beta ? beta : 512) >> 10;
    c->undo_win = c->win;
    c->undo_ssthresh = c->ssthresh;
    c->flags |= UNDO;
    c->rxt_ts = tsval_of(ctx, c);
    c->ssthresh = max_u32((u32)left, 2 * c->mss);
    a->ssthresh = c->ssthresh;
    c->grown = 0;
}

/* ---- holes -------------------------------------------------------------------------------------------------------------------- */

/* Of `sacked`, how many bytes and the highest end, without what is acknowledged. */
RARE static u32 count_sacked(struct conn *c)
{
    u32 bytes = 0, fack = c->snd_una;
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->sacked[i].start, e = c->sacked[i].end;
        if (s == e)
            continue;
        if (!after(e, c->snd_una)) {
            c->sacked[i].start = c->sacked[i].end = 0;
            continue;
        }
        if (before(s, c->snd_una))
            s = c->sacked[i].start = c->snd_una;
        bytes += e - s;
        fack = later(fack, e);
    }
    c->sacked_bytes = bytes;
    c->fack = fack;
    return 0;
}

/* The first byte from `from` on that the peer has not said that it has. */
RARE static u32 skip_sacked(const struct conn *c, u32 from)
{
    for (u32 turn = 0; turn < RANGES; turn++) {
        u32 moved = 0;
        for (u32 i = 0; i < RANGES; i++) {
            u32 s = c->sacked[i].start, e = c->sacked[i].end;
            if (s != e && !after(s, from) && after(e, from)) {
                from = e;
                moved = 1;
            }
        }
        if (!moved)
            break;
    }
    return from;
}

/* Where the hole that begins at `from` ends, at `most` at the latest. */
RARE static u32 hole_end(const struct conn *c, u32 from, u32 most)
{
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->sacked[i].start, e = c->sacked[i].end;
        if (s != e && after(s, from) && before(s, most))
            most = s;
    }
    return most;
}

/* Bytes within [from, to) that the peer has. */
RARE static u32 sacked_within(const struct conn *c, u32 from, u32 to)
{
    u32 bytes = 0;
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = c->sacked[i].start, e = c->sacked[i].end;
        if (s == e)
            continue;
        if (before(s, from))
            s = from;
        if (after(e, to))
            e = to;
        if (after(e, s))
            bytes += e - s;
    }
    return bytes;
}

/* Bytes that are believed to be in the network (RFC 6675, 4: pipe). In recovery what lies below the highest block and was not sent again is
 * lost (Mathis and Mahdavi, 1996); without SACK each duplicate acknowledgement says that a segment has left. */
CHAM_INLINE u32 pipe_of(const struct conn *c)
{
    u32 flight = c->snd_nxt - c->snd_una, gone = 0;
    if (!(c->flags & (RECOVERY | LOST)) && !c->sacked_bytes)
        gone = c->options & TCP_OPT_SACK ? 0 : c->dupacks * c->mss;
    else if (c->options & TCP_OPT_SACK) {
        gone = sacked_within(c, c->snd_una, c->snd_nxt);
        u32 from = later(c->high_rxt, c->snd_una);
        if (c->flags & RECOVERY && before(from, c->fack))
            gone += c->fack - from - sacked_within(c, from, c->fack);
    } else if (c->flags & RECOVERY) {
        gone = c->dupacks * c->mss + (after(c->high_rxt, c->snd_una) ? 0 : c->mss);
    }
    return flight > gone ? flight - gone : 0;
}

/* ---- one segment ---------------------------------------------------------------------------------------------------------------- */

CHAM_INLINE u32 fin_of(const struct conn *c) { return !!(c->flags & FIN_QUEUED); }
/* There is something that was never sent, or must be sent again after a timeout. */
CHAM_INLINE u32 has_more(const struct conn *c) { return before(c->snd_nxt, c->snd_end + fin_of(c)); }
CHAM_INLINE u32 wants(const struct conn *c) { return has_more(c) || c->flags & (RECOVERY | HOLE_NOW); }

CHAM_INLINE u32 resend(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id, u32 mss)
{
    u32 sack = c->options & TCP_OPT_SACK, from = skip_sacked(c, later(c->high_rxt, c->snd_una)), now = c->flags & HOLE_NOW;
    u32 most = sack && c->sacked_bytes ? c->fack : c->snd_una + mss;
    if (now && !before(from, most))
        from = c->snd_una, most = c->snd_una + mss;
    if (!before(from, most) || (!now && pipe_of(c) >= c->win))
        return 0;
    u32 last = c->snd_end + (fin_of(c) && after(c->snd_max, c->snd_end));
    if (after(most, last))
        most = last;
    u32 len = hole_end(c, from, most) - from, fin = 0;
    if (!before(from, most))
        return 0;
    if (len > mss)
        len = mss;
    if (after(from + len, c->snd_end)) { /* the last number is the FIN's */
        fin = 1;
        len--;
    }
    c->flags &= ~(HOLE_NOW | TIMED);
    if (from == c->snd_una)
        c->rxt_mark = c->snd_max;
    c->high_rxt = from + len + fin;
    a->retransmitted++;
    if (put_segment(ctx, c, id, from, len, fin ? F_FIN | F_PSH : 0, 0))
        return 0;
    if (!c->rto_at)
        set_rto(ctx, c, g, id);
    return 1;
}

/* Build the next segment: 1, or 0 when none may be sent. */
CHAM_INLINE u32 next_segment(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id)
{
    u32 mss = mss_of(c, a);
    if (c->state <= TCP_SYN_RCVD) {
        if (c->state == TCP_CLOSED || c->snd_nxt != c->iss)
            return 0;
        c->snd_nxt = c->iss + 1;
        c->snd_max = later(c->snd_max, c->snd_nxt);
        set_rto(ctx, c, g, id);
        return !put_syn_of(ctx, c);
    }
    if (c->flags & (RECOVERY | HOLE_NOW) && resend(ctx, c, a, g, id, mss))
        return 1;
    if (!has_more(c))
        return 0;
    u32 fresh = c->snd_nxt == c->snd_max, seq = c->snd_nxt, flight = seq - c->snd_una;
    if (!fresh && c->sacked_bytes) {
        seq = skip_sacked(c, seq);
        c->snd_nxt = seq;
        if (!has_more(c))
            return 0;
        fresh = !before(seq, c->snd_max);
    }
    if (!flight && ctx->now - c->sent_at > rto_of(c, g)) { /* idle for long: what the window was says nothing (RFC 5681, 4.1) */
        u32 restart = g->initial_window * mss;
        if (c->win > restart)
            set_win(c, a, restart);
    }
    u32 pipe = flight ? pipe_of(c) : 0;
    s32 room = (s32)(c->snd_edge - seq);
    u32 data = before(seq, c->snd_end) ? c->snd_end - seq : 0, len = min_u32(data, mss);
    if (room <= 0 && (data || flight)) {
        if (!flight && !c->rto_at) {
            c->flags |= PERSISTS;
            set_rto(ctx, c, g, id);
        }
        return 0;
    }
    if (pipe && pipe + len > c->win)
        return 0;
    if (room >= 0 && len > (u32)room)
        len = (u32)room;
    if (len < mss && len < data && flight && 2 * len < c->max_window) /* no silly windows (RFC 9293, 3.8.6.2.1) */
        return 0;
    u32 end = seq + len;
    if (!fresh) {
        end = hole_end(c, seq, end);
        len = end - seq;
    }
    u32 fin = fin_of(c) && end == c->snd_end, flags = end == c->snd_end ? F_PSH : 0, tos = 0;
    if (!len && !fin)
        return 0;
    if (fin)
        flags |= F_FIN;
    if (fresh && len && c->options & TCP_OPT_ECN) {
        tos = ECT0;
        if (c->flags & SAY_CWR) {
            flags |= F_CWR;
            c->flags &= ~SAY_CWR;
        }
    }
    if (put_segment(ctx, c, id, seq, len, flags, tos))
        return 0;
    c->snd_nxt = end + fin;
    c->sent_at = ctx->now;
    if (fresh || after(c->snd_nxt, c->snd_max)) {
        c->snd_max = c->snd_nxt;
        if (!(c->flags & (TIMED | LOST))) {
            c->flags |= TIMED;
            c->timed_at = ctx->now;
            c->timed_end = c->snd_nxt;
        }
    } else {
        a->retransmitted++;
        c->flags &= ~TIMED;
    }
    if (!c->rto_at || c->flags & PERSISTS) {
        c->flags &= ~PERSISTS;
        set_rto(ctx, c, g, id);
    }
    return 1;
}

/* ---- as many as a run may send ---------------------------------------------------------------------------------------------------- */

/* The verdict. What is left waits for the tx hook: now, or when the pace allows. */
CHAM_INLINE u64 output(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id)
{
    u32 pace = a->pace, built = 0, from = c->snd_nxt;
    sync(c, a);
    for (u32 n = 0; n <= CHAM_EMITS; n++) {
        if (built && cham_emit(ctx))
            break;
        built = next_segment(ctx, c, a, g, id);
        if (!built || pace || !wants(c))
            break;
    }
    if (c->flags & ACK_NOW && !built)
        return send_ack(ctx, c, id);
    if (built && (pace || wants(c)) && !(c->flags & DUE)) {
        u64 bytes = c->snd_nxt - from;
        c->flags |= DUE;
        cham_pace(&due, id, pace ? (bytes < 4096 ? bytes + 52 : 1500) * pace >> 10 : 0);
    }
    return built ? CHAM_TX : CHAM_DONE;
}

#endif
