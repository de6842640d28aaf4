/* What acknowledgements say: round trips, what has arrived and what is lost, how fast to send. */
#ifndef TCP_ACK_H
#define TCP_ACK_H

#include "output.h"

/* ---- round trips (RFC 6298, 2) --------------------------------------------------------------------------------------------------- */

CHAM_INLINE void take_rtt(struct conn *c, struct tcp_about *a, const struct tcp_config *g, u64 ns)
{
    u32 rtt = ns < RTT_MAX ? (u32)ns | 1 : RTT_MAX, off;
    if (!c->srtt) {
        c->srtt = rtt;
        c->rttvar = rtt / 2;
    } else {
        off = rtt > c->srtt ? rtt - c->srtt : c->srtt - rtt;
        c->rttvar = c->rttvar - c->rttvar / 4 + off / 4;
        c->srtt = c->srtt - c->srtt / 8 + rtt / 8;
    }
    a->srtt = c->srtt / 1000;
    a->rttvar = c->rttvar / 1000;
    u64 least = g->rto_min * US, late = (g->ack_delay + 10000) * US, half = c->srtt / 2, spread = 4 * (u64)c->rttvar;
    late = late < half ? half : late; /* what is sent again is lost again: that shows after more than a round trip */
    u64 rto = (u64)c->srtt + (spread < late ? late : spread); /* an ACK may be delayed however steady the path is */
    c->rto = rto < least ? least : rto;
}

/* Round trips take longer: there is a queue, and slow start ends before it is full (RFC 9406, 4.2, without CSS). Compared are the least of two
 * rounds; `grown` is where this one ends. */
RARE static u32 look_at_delay(struct conn *c, struct tcp_about *a, u32 rtt)
{
    if (at_least(c->snd_una, c->grown)) {
        c->grown = c->snd_nxt;
        c->round_before = c->round_now;
        c->round_now = RTT_MAX;
        c->samples = 0;
    }
    c->round_now = min_u32(c->round_now, rtt);
    c->samples += c->samples < RTT_SAMPLES;
    u32 before = c->round_before, spread = min_u32(max_u32(before / 8, RTT_SPREAD_MIN), RTT_SPREAD_MAX);
    if (c->samples >= RTT_SAMPLES && before < RTT_MAX && c->round_now >= before + spread) {
        c->ssthresh = c->win;
        a->ssthresh = c->win;
        c->grown = 0;
    }
    return 0;
}

/* What the acknowledgement of something new says of round trips: by the segment that is timed, or by its timestamp, if that is a tick old at
 * least. */
CHAM_INLINE void measure(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 stamped, u32 tsecr)
{
    u32 ticks = stamped ? tsval_of(ctx, c) - tsecr : 0;
    if (c->flags & TIMED) {
        if (!before(c->snd_una, c->timed_end)) {
            c->flags &= ~TIMED;
            take_rtt(c, a, g, ctx->now - c->timed_at);
        }
    } else if ((s32)ticks > 0) {
        take_rtt(c, a, g, (u64)ticks << TS_SHIFT);
    }
    if (c->ssthresh == SLOW_START && c->win >= RTT_SEGMENTS * c->mss && stamped && ticks < RTT_MAX >> TS_SHIFT)
        look_at_delay(c, a, ticks << TS_SHIFT);
}

/* ---- acknowledgements --------------------------------------------------------------------------------------------------------------- */

/* The blocks of a segment (RFC 2018, 2883). */
RARE static u32 take_sacks(struct chamelio_ctx *ctx, struct conn *c, const struct segment *s)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    u8 *block = ip + (s->sacks_at & 127);
    u32 before_bytes = c->sacked_bytes;
    for (u32 i = 0; i < 4; i++, block += 8) {
        if (i >= s->sacks || block + 8 > end)
            break;
        u32 from = cham_ntohl(*(u32 *)block), to = cham_ntohl(*(u32 *)(block + 4));
        if (!after(to, from) || after(to, c->snd_max) || before(from, c->snd_una) || before(from, s->ack))
            continue; /* not a range of what is under way; what is acknowledged besides came twice */
        add_range(c->sacked, from, to);
    }
    count_sacked(c);
    return c->sacked_bytes != before_bytes;
}

RARE static u32 start_recovery(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    reduce(ctx, c, a);
    set_win(c, a, c->ssthresh);
    c->recover = c->snd_max;
    c->high_rxt = c->snd_una;
    c->lost_to = c->snd_una;
    c->flags |= RECOVERY | HOLE_NOW;
    a->losses++;
    tell_slow_path(ctx, c, id, TCP_LOSS, 0);
    return 0;
}

/* What was believed to be lost had only been late (RFC 3522): as before, and more patience. */
CHAM_INLINE void undo(struct conn *c, struct tcp_about *a)
{
    if (c->flags & RECOVERY)
        c->dupthresh = min_u32(2 * c->dupthresh, DUPTHRESH_MAX);
    c->flags &= ~(RECOVERY | LOST | HOLE_NOW | UNDO);
    c->gone = 0;
    c->ssthresh = c->undo_ssthresh;
    a->ssthresh = c->ssthresh;
    set_win(c, a, max_u32(c->win, c->undo_win));
    c->dupacks = 0;
}

/* Something new is acknowledged while losses are being repaired. */
RARE static u32 repair(struct conn *c, struct tcp_about *a, const struct segment *s, u32 acked)
{
    if (c->flags & UNDO) {
        c->flags &= ~UNDO;
        if (s->has_ts && c->options & TCP_OPT_TIMESTAMPS && before(s->tsecr, c->rxt_ts) && s->tsecr) {
            undo(c, a);
            return 0;
        }
    }
    if (at_least(c->snd_una, c->recover)) {
        if (c->flags & RECOVERY)
            set_win(c, a, c->ssthresh);
        c->flags &= ~(RECOVERY | LOST | HOLE_NOW);
        c->dupacks = 0;
        return 0;
    }
    if (c->flags & RECOVERY) { /* the next hole begins here (RFC 6582, 3.2) */
        if (c->options & TCP_OPT_SACK && before(c->lost_to, c->rxt_mark))
            c->lost_to = c->rxt_mark;
        u32 segments = acked / max_u32(c->mss, 1);
        if (before(c->high_rxt, c->snd_una) || !(c->options & TCP_OPT_SACK)) {
            c->high_rxt = c->snd_una;
            c->flags |= HOLE_NOW;
        } else if (c->high_rxt == c->snd_una) {
            c->flags |= HOLE_NOW;
        }
        c->dupacks = c->dupacks >= segments && segments ? c->dupacks - segments + 1 : c->dupacks;
    }
    return 0;
}

/* Duplicate acknowledgements show a loss. Where segments overtake each other more patience is had, as far as there are segments (RFC 4653). */
RARE static u32 shows_loss(const struct conn *c)
{
    u32 most = (c->snd_max - c->snd_una) / max_u32(c->mss, 1), least = max_u32(min_u32(c->dupthresh, most ? most - 1 : 0), DUPTHRESH);
    return c->dupacks >= least || c->sacked_bytes > (least - 1) * c->mss;
}

/* A second thought on a hole that was sent again: three segments that were sent later have arrived, and it has not. */
RARE static u32 lost_again(struct conn *c)
{
    if (after(c->high_rxt, c->snd_una) && after(c->fack, c->rxt_mark) && c->fack - c->rxt_mark >= DUPTHRESH * c->mss) {
        c->high_rxt = c->snd_una;
        c->rxt_mark = c->snd_max;
        c->flags |= HOLE_NOW;
    }
    return 0;
}

/* Congestion marks that the peer has seen: once for each window (RFC 3168, 6.1.2; RFC 8257, 3.3). */
RARE static u32 take_marks(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, u32 acked)
{
    a->marked += acked;
    if (!after(c->snd_una, c->ecn_point) || c->flags & (RECOVERY | LOST))
        return 0;
    u32 alpha = a->alpha, win;
    if (alpha)
        win = c->win - (u32)((u64)c->win * min_u32(alpha, 1024) >> 10);
    else
        win = (u32)((u64)c->win * (a->beta ? a->beta : 512) >> 10);
    win = max_u32(win, 2 * c->mss);
    c->ssthresh = win;
    a->ssthresh = win;
    set_win(c, a, win);
    c->grown = 0;
    c->ecn_point = c->snd_max;
    c->flags |= SAY_CWR;
    a->marks++;
    tell_slow_path(ctx, c, id, TCP_MARKED, 0);
    return 0;
}

/* Slow start and congestion avoidance (RFC 5681, 3.1; 3465), when it is the window that holds us up. */
CHAM_INLINE void grow_win(struct conn *c, struct tcp_about *a, u32 acked, u32 flight)
{
    if (2 * flight < c->win || c->flags & RECOVERY)
        return;
    if (c->win < c->ssthresh) {
        u32 most = c->flags & LOST ? c->mss : 2 * c->mss;
        set_win(c, a, min_u32(min_u32(c->win + min_u32(acked, most), c->ssthresh), 1u << 30));
        return;
    }
    c->grown += acked;
    if (c->grown >= c->win) {
        u32 by = a->grow;
        c->grown -= c->win;
        set_win(c, a, min_u32(c->win + (by ? min_u32(by, c->win) : c->mss), 1u << 30));
    }
}

/* The acknowledgement and window of an acceptable segment. */
CHAM_INLINE void take_ack(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id,
                          const struct segment *s)
{
    u32 una = c->snd_una, ack = s->ack, acked = ack - una, flight = c->snd_nxt - una, news = 0;
    sync(c, a);
    FORGET;
    if (s->sacks && c->options & TCP_OPT_SACK)
        news = take_sacks(ctx, c, s);
    u32 edge = ack + (s->window << (c->snd_wscale & 15)), same = edge == c->snd_edge;
    if (after(ack, una)) {
        c->snd_una = ack;
        a->acked = ack;
        if (before(c->snd_nxt, ack))
            c->snd_nxt = ack;
        if (c->sacked_bytes)
            count_sacked(c);
        measure(ctx, c, a, g, s->has_ts && c->options & TCP_OPT_TIMESTAMPS, s->tsecr);
        c->backoff = 0;
        c->flags &= ~(TOLD | PERSISTS);
        c->rto_at = 0;
        u32 repairs = c->flags & RECOVERY;
        if (c->flags & (RECOVERY | LOST))
            repair(c, a, s, acked);
        else
            c->dupacks = 0;
        if (s->flags & F_ECE && c->options & TCP_OPT_ECN)
            take_marks(ctx, c, a, id, acked);
        else if (!repairs)
            grow_win(c, a, acked, flight);
        if (ack != c->snd_max)
            set_rto(ctx, c, g);
        if (c->flags & NOTIFY && at_least(ack, c->mark)) {
            c->flags &= ~NOTIFY;
            tell(ctx, c, id, TCP_WRITABLE, 0, ack, 0, 0);
        }
    } else if (ack == una && c->snd_max != una && (c->options & TCP_OPT_SACK ? news : same && !s->len && !(s->flags & F_FIN))) {
        c->dupacks++;
        if (s->flags & F_ECE && c->options & TCP_OPT_ECN)
            take_marks(ctx, c, a, id, 0);
    }
    FORGET;
    a->delivered = c->snd_una + c->sacked_bytes;
    if (c->flags & (RECOVERY | LOST)) {
        if (news)
            lost_again(c);
    } else if (c->dupacks && (c->options & TCP_OPT_SACK || at_least(una, c->recover)) && shows_loss(c)) {
        start_recovery(ctx, c, a, id);
    }
    if (after(s->seq, c->wl1) || (s->seq == c->wl1 && !before(ack, c->wl2))) { /* the latest word on the window */
        c->wl1 = s->seq;
        c->wl2 = ack;
        c->snd_edge = edge;
        c->max_window = max_u32(c->max_window, edge - ack);
        if (c->flags & PERSISTS && after(edge, c->snd_nxt)) {
            c->flags &= ~(PERSISTS | TOLD);
            c->rto_at = 0;
            c->backoff = 0;
        }
    }
    if (c->gone || c->sacked_bytes || c->dupacks || c->flags & (RECOVERY | LOST))
        assess(c);
    FORGET;
    if (has_more(c) && !after(c->snd_edge, c->snd_nxt) && c->snd_una == c->snd_max && !c->rto_at && !(c->flags & TOLD)) {
        c->flags |= PERSISTS; /* its window is closed, and the news that it opens may get lost */
        set_rto(ctx, c, g);
    }
    if (c->flags & (RECOVERY | LOST | HOLE_NOW) || (has_more(c) && after(c->snd_edge, c->snd_nxt)))
        make_due(ctx, c, id);
}

#endif
