/* The common way, in both directions (header prediction, Jacobson 1990): on a connection where nothing is being repaired, closed, echoed or
 * probed, the next segment comes, or one segment's worth is to be sent. What happens is what input.h and output.h would do; whatever is not
 * as foreseen goes there. */
#ifndef TCP_PREDICT_H
#define TCP_PREDICT_H

#include "input.h"

#define UNQUIET (RECOVERY | LOST | HOLE_NOW | TOLD | PERSISTS)
/* With these flags a segment is not what was foreseen, unless it is just HELD. */
#define UNQUIET_IN (HELD | UNQUIET | ACK_NOW | NOTIFY | ECHO_CE | SEEN_CE | FIN_SEEN | FIN_AHEAD | ROOMIER)
#define UNQUIET_OUT (UNQUIET | FIN_QUEUED | DUE | SAY_CWR)

/* A segment as it must be: 32 bytes of header, of which 12 are a timestamp, and no flag but ACK and PSH. */
struct foreseen {
    u32 seq, ack, tsval, tsecr, window, len, payload;
};

CHAM_INLINE u32 is_foreseen(struct conn *c, const struct tcp_about *a, const struct foreseen *s)
{
    u32 stop = s->seq + s->len;
    if (c->state != TCP_ESTABLISHED || (c->flags & UNQUIET_IN) != HELD || !(c->options & TCP_OPT_TIMESTAMPS))
        return 0;
    if (s->seq != c->rcv_nxt || before(s->tsval, c->ts_recent) || (c->sacked_bytes | c->dupacks | c->gone | c->waiting))
        return 0;
    if (s->ack - c->snd_una > c->snd_max - c->snd_una || (s->ack == c->snd_una && !s->len))
        return 0;
    look_at_taken(c, a);
    return stop - c->taken <= c->rx_size && !after(stop, c->rcv_said) && after(s->ack + (s->window << (c->snd_wscale & 15)), c->snd_nxt);
}

/* It has come: the verdict. */
CHAM_INLINE u64 takes_foreseen(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id,
                               const struct foreseen *s)
{
    u32 ack = s->ack, acked = ack - c->snd_una, edge = ack + (s->window << (c->snd_wscale & 15));
    if (s->len && cham_pkt_to_bytes(ctx, &rx_bytes, id, s->seq, CHAM_SPAN(s->payload, s->len)))
        return CHAM_ERROR(NO_BUFFER);
    if (!after(s->seq, c->last_ack))
        c->ts_recent = s->tsval;
    c->heard = ctx->now;
    sync(c, a);
    if (acked) {
        u32 flight = c->snd_nxt - c->snd_una;
        c->snd_una = ack;
        a->acked = ack;
        a->delivered = ack;
        measure(ctx, c, a, g, 1, s->tsecr);
        c->backoff = 0;
        c->rto_at = 0;
        grow_win(c, a, acked, flight);
        if (ack != c->snd_max)
            set_rto(ctx, c, g);
    }
    c->wl1 = s->seq;
    c->wl2 = ack;
    c->snd_edge = edge;
    c->max_window = max_u32(c->max_window, edge - ack);
    if (has_more(c))
        make_due(ctx, c, id);
    if (s->len) {
        c->rcv_nxt = s->seq + s->len;
        has_come(ctx, c, g, id, s->seq, s->len);
        keep_open(c, a);
    }
    return acknowledges(c, a) ? GO_ACK : CHAM_DONE;
}

/* An application has written up to `end`, all before is sent, and one segment takes it. 1: that is on its way. */
CHAM_INLINE u32 sends_foreseen(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, const struct tcp_config *g, u32 id, u32 end)
{
    u32 seq = c->snd_nxt, len = end - seq, flight = seq - c->snd_una;
    if (c->state != TCP_ESTABLISHED || c->flags & UNQUIET_OUT || a->pace | a->mss_limit | c->gone || a->epoch != c->epoch)
        return 0;
    if (seq != c->snd_end || len - 1 >= c->mss || flight + len > c->tx_size || flight + len > c->win || after(end, c->snd_edge))
        return 0;
    if (!flight && ctx->now - c->sent_at > c->rto)
        return 0;
    keep_open(c, a);
    if (put_segment(ctx, c, id, seq, len, F_PSH, c->options & TCP_OPT_ECN ? ECT0 : 0))
        return 0;
    c->snd_end = end;
    has_sent(ctx, c, a, g, end);
    return 1;
}

#endif
