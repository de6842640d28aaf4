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
        c->grown = 0;
        c->ssthresh = thresh;
        a->ssthresh = thresh;
    }
}

/* Bytes of data in a segment. */
CHAM_INLINE u32 mss_of(struct conn *c, const struct tcp_about *a)
{
    u32 limit = a->mss_limit, options = c->options & TCP_OPT_TIMESTAMPS ? TS_BYTES : 0;
    c->now_mss = c->mss;
    if (limit && limit < c->mss + options)
        c->now_mss = limit < MSS_MIN + TS_BYTES ? MSS_MIN : limit - options;
    FORGET;
    return c->now_mss;
}

/* A loss: the window that remains of what is under way and within it (RFC 5681, 3.2; RFC 9438, 4.6). What was before can come back. */
CHAM_INLINE void reduce(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a)
{
    u64 beta = a->beta, flight = min_u32(c->snd_max - c->snd_una, c->win), left = flight * (beta ? beta : 512) >> 10;
    c->undo_win = c->win;
    c->undo_ssthresh = c->ssthresh;
    c->flags |= UNDO;
    c->rxt_ts = tsval_of(ctx, c);
    c->ssthresh = max_u32((u32)left, 2 * c->mss);
    a->ssthresh = c->ssthresh;
    c->grown = 0;
    if (c->options & TCP_OPT_ECN) /* RFC 3168, 6.1.2 */
        c->flags |= SAY_CWR;
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

/* The hole at `from` or after it, up to `most` at the latest: from c->hole to c->hole_end; empty if there is none. */
RARE static u32 find_hole(struct conn *c, u32 from, u32 most)
{
    u32 start = from;
    for (u32 i = 0; i < RANGES; i++) { /* no two of them touch: what begins later begins after a hole */
        u32 s = c->sacked[i].start, e = c->sacked[i].end;
        if (s == e)
            continue;
        if (after(s, from))
            most = before(s, most) ? s : most;
        else if (after(e, from))
            start = e;
    }
    c->hole = start;
    c->hole_end = later(start, most);
    return 0;
}

/* Up to where what the peer has not is believed to be lost: its highest block (Mathis and Mahdavi, 1996); what was sent before something
 * that was sent again and has arrived (RFC 8985, without its clock); after a timeout all that was sent. */
CHAM_INLINE u32 lost_edge(const struct conn *c) { return c->flags & (RECOVERY | LOST) ? later(c->fack, c->lost_to) : c->snd_una; }

/* How much of what is under way is not in the network any more (RFC 6675, 4, turned round): what the peer has, and what is lost and was not
 * sent again; without SACK a segment for each duplicate acknowledgement. */
RARE static u32 assess(struct conn *c)
{
    u32 from = later(c->high_rxt, c->snd_una), lost = lost_edge(c), gone = 0;
    if (!(c->options & TCP_OPT_SACK) && !(c->flags & LOST)) {
        c->gone = c->dupacks * c->mss + (c->flags & RECOVERY && !after(c->high_rxt, c->snd_una) ? c->mss : 0);
        return 0;
    }
    if (before(from, lost))
        gone = lost - from;
    else
        lost = from;
    for (u32 i = 0; i < RANGES; i++) { /* those that are not within what is counted already */
        u32 s = c->sacked[i].start, e = c->sacked[i].end;
        if (s != e && (before(s, from) || !before(s, lost)))
            gone += e - s;
    }
    c->gone = gone;
    return 0;
}

/* Bytes that are believed to be in the network. */
CHAM_INLINE u32 pipe_of(const struct conn *c)
{
    u32 flight = c->snd_nxt - c->snd_una;
    return flight > c->gone ? flight - c->gone : 0;
}

/* ---- one segment ---------------------------------------------------------------------------------------------------------------- */

CHAM_INLINE u32 fin_of(const struct conn *c) { return !!(c->flags & FIN_QUEUED); }
/* There is something that was never sent. */
CHAM_INLINE u32 has_more(const struct conn *c) { return before(c->snd_nxt, c->snd_end + fin_of(c)); }
CHAM_INLINE u32 wants(const struct conn *c) { return has_more(c) || c->flags & (RECOVERY | LOST | HOLE_NOW); }

/* The next hole again. 1: it is built; 0: there is none, or no room for it. */
RARE static u32 resend(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    struct tcp_config *g = config_of(ctx);
    u32 mss = mss_of(c, a), most = later(lost_edge(c), c->snd_una + mss);
    if (!g || (!(c->flags & HOLE_NOW) && pipe_of(c) >= c->win))
        return 0;
    find_hole(c, later(c->high_rxt, c->snd_una), most);
    if (c->hole == c->hole_end && c->flags & HOLE_NOW)
        find_hole(c, c->snd_una, c->snd_una + mss);
    FORGET;
    u32 from = c->hole, stop = c->hole_end, ends = c->flags & FIN_QUEUED && after(c->snd_max, c->snd_end), fin = 0;
    stop = before(c->snd_max, stop) ? c->snd_max : stop; /* what was never sent is no hole */
    if (!before(from, stop))
        return 0;
    if (after(stop, c->snd_end))
        stop = c->snd_end;
    u32 len = min_u32(stop - from, mss);
    if (from + len == c->snd_end && ends) /* the last number is the FIN's */
        fin = F_FIN | F_PSH;
    c->flags &= ~(HOLE_NOW | TIMED);
    if (from == c->snd_una)
        c->rxt_mark = c->snd_max;
    c->high_rxt = from + len + !!fin;
    c->gone -= min_u32(c->gone, len);
    a->retransmitted++;
    c->now_len = len;
    c->now_flags = fin;
    c->hole = from;
    FORGET;
    if (put_segment(ctx, c, id, c->hole, c->now_len, c->now_flags & 255, 0))
        return 0;
    if (!c->rto_at || from == c->snd_una) /* its acknowledgement takes a round trip from now on */
        set_rto(ctx, c, g);
    return 1;
}

/* Something new is on its way, up to `end`. */
CHAM_INLINE void has_sent(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 end)
{
    c->snd_nxt = end;
    c->snd_max = end;
    a->sent = end;
    c->sent_at = ctx->now;
    if (!(c->flags & (TIMED | RECOVERY | LOST))) {
        c->flags |= TIMED;
        c->timed_at = ctx->now;
        c->timed_end = end;
    }
    if (!c->rto_at || c->flags & PERSISTS) {
        c->flags &= ~PERSISTS;
        set_rto(ctx, c, g);
    }
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
        set_rto(ctx, c, g);
        return !put_syn_of(ctx, c);
    }
    if (c->flags & (RECOVERY | LOST | HOLE_NOW) && resend(ctx, c, a, id))
        return 1;
    FORGET;
    if (!has_more(c))
        return 0;
    u32 seq = c->snd_nxt, flight = seq - c->snd_una;
    if (!flight && ctx->now - c->sent_at > c->rto) { /* idle for long: what the window was says nothing (RFC 5681, 4.1) */
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
            set_rto(ctx, c, g);
        }
        return 0;
    }
    if (pipe && pipe + len > c->win)
        return 0;
    if (room >= 0 && len > (u32)room)
        len = (u32)room;
    if (len < mss && len < data && flight && 2 * len < c->max_window) /* no silly windows (RFC 9293, 3.8.6.2.1) */
        return 0;
    u32 end = seq + len, fin = fin_of(c) && end == c->snd_end, flags = end == c->snd_end ? F_PSH : 0, tos = 0;
    if (!len && !fin)
        return 0;
    if (fin)
        flags |= F_FIN;
    if (len && c->options & TCP_OPT_ECN) {
        tos = ECT0;
        if (c->flags & SAY_CWR) {
            flags |= F_CWR;
            c->flags &= ~SAY_CWR;
        }
    }
    c->now_len = len;
    c->now_flags = flags | tos << 8;
    FORGET;
    len = c->now_len;
    seq = c->snd_nxt;
    if (put_segment(ctx, c, id, seq, len, c->now_flags & 255, c->now_flags >> 8 & 3))
        return 0;
    has_sent(ctx, c, a, g, seq + len + (c->now_flags & F_FIN));
    return 1;
}

/* ---- as many as a run may send ---------------------------------------------------------------------------------------------------- */

/* The verdict; `most` segments at most. What is left waits for the tx hook: now, or when the pace allows. */
CHAM_INLINE u64 output(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id, u32 most)
{
    u32 pace = a->pace, built = 0, from = c->snd_nxt;
    sync(c, a);
    for (u32 n = 0; n < most; n++) {
        FORGET;
        if (n && cham_emit(ctx))
            break;
        built = next_segment(ctx, c, a, g, id);
        if (!built || pace || !wants(c))
            break;
    }
    FORGET;
    if (built && (pace || wants(c)) && !(c->flags & DUE)) {
        u64 bytes = c->snd_nxt - from;
        c->flags |= DUE;
        cham_pace(&due, id, pace ? (bytes < 4096 ? bytes + 52 : 1500) * pace >> 10 : 0);
    }
    if (!built)
        return c->flags & ACK_NOW ? GO_ACK : CHAM_DONE;
    return CHAM_TX;
}

#endif
