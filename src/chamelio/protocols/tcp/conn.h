/* A connection as handlers have it: its state, the maps, its life from a free number to a free number, its timer, what it tells. */
#ifndef TCP_CONN_H
#define TCP_CONN_H

#include "chamelio.h"
#define FAST CHAM_FAST
#define SLOW CHAM_SLOW
#include "states.h"
#include "tcp.h"

#define UNUSED __attribute__((unused)) /* native helpers take the context, BPF's do not */
#define RARE __attribute__((noinline))
/* What was found out about memory is looked up again from here on: the verifier need not follow what it implies. */
#define FORGET __asm__ volatile("" ::: "memory")

#define MS 1000000ull
#define US 1000ull
#define TS_SHIFT 20 /* the clock of timestamps ticks every 1.05 ms */
#define PAWS_NS (24ull * 24 * 3600 * 1000 * MS) /* after that long without a segment timestamps have wrapped (RFC 7323, 5.5) */
#define UNANSWERED_NS (200 * MS)          /* until the slow path is told again of a timeout that it has not answered */
#define RETRY_NS (1 * MS)                 /* until a full ring is tried again */
#define CHALLENGE_NS (5 * MS)             /* between two challenge ACKs of a connection (RFC 5961, 7) */
#define RTT_MAX 4000000000u
#define SLOW_START 0x7fffffffu /* ssthresh before anything has happened */
#define RTT_SPREAD_MIN 4000000u  /* ns; how much longer round trips are when there is a queue (RFC 9406, 4.3), */
#define RTT_SPREAD_MAX 16000000u
#define RTT_SEGMENTS 16u /* from how many segments of window on that matters, */
#define RTT_SAMPLES 8u   /* and how many round trips show it */
#define RANGES 8
#define BACKOFF_MAX 16u
#define WSCALE 7
#define MSS_MIN 64u
#define MSS_DEFAULT 536u /* RFC 9293, 3.7.1 */
#define KEEP_MAX 1920u   /* bytes that a buffer can take along when it grows: a packet's */
#define DUPTHRESH 3u
#define DUPTHRESH_MAX 64u

enum reason {
    SHORT = 1, BAD_OFFSET, CHECKSUM, BAD_FLAGS, NO_CONNECTION, NO_LISTENER, TABLE_FULL, BAD_COOKIE, OUT_OF_WINDOW, BAD_ACK,
    STRAY_RESET, STRAY_SYN, NO_ACK_FLAG, NO_BUFFER, TOO_MANY_RANGES, ENTRY_KIND, NOT_ALLOWED, STALE, BAD_END, NOT_OPEN, NO_PORT,
    NO_ROOM, NOT_CONFIGURED, BAD_STATE, RING_FULL
};

#define NAME(state) TCP_##state,
enum state { TCP_STATES(NAME) TCP_N_STATES };
#undef NAME
#define NAME(input) INPUT_##input,
enum input { TCP_INPUTS(NAME) N_INPUTS };
#undef NAME

/* Instead of a verdict: */
#define GO_ON 0xffffffffull  /* send what may be sent */
#define GO_ACK 0xfffffffeull /* acknowledge */

#define INPUTS_STRIDE 16
/* The state that follows, and 1 more, so that 0 says: this cannot happen there. */
static const u8 transitions[16 * INPUTS_STRIDE] = {
#define ROW(from, input, to) [TCP_##from * INPUTS_STRIDE + INPUT_##input] = TCP_##to + 1,
    TCP_TRANSITIONS(ROW)
#undef ROW
};

struct range {
    u32 start, end; /* equal: empty */
};

/* Flags of a connection. */
#define HELD 1u          /* an application has the number */
#define FIN_QUEUED 2u    /* a FIN follows the last byte */
#define RECOVERY 4u      /* fast recovery (RFC 5681, 6675), until `recover` is acknowledged */
#define LOST 8u          /* after a timeout, until `recover` is acknowledged */
#define HOLE_NOW 16u     /* the first hole is sent again whatever the window says */
#define ACK_NOW 32u      /* an acknowledgement is owed at once */
#define DUE 64u          /* the tx hook will run for it */
#define TOLD 128u        /* the slow path has been told of a timeout and has not answered yet */
#define TIMED 256u       /* a round trip is being measured */
#define NOTIFY 512u      /* the application wants to know when `mark` is acknowledged */
#define ECHO_CE 1024u    /* segments carry ECE */
#define SAY_CWR 2048u    /* the next segment with data carries CWR */
#define SEEN_CE 4096u    /* DCTCP: the last segment was marked */
#define PERSISTS 8192u   /* `rto_at` is for a window that is closed */
#define PASSIVE 16384u   /* the peer has opened it */
#define FIN_SEEN 32768u  /* the peer's FIN has been received in order */
#define UNDO 65536u      /* what was reduced for a loss can be taken back */
#define BOUND 131072u    /* it is in `flows` */
#define FIN_AHEAD 262144u /* the peer's FIN has come, and bytes before it are missing */
#define REARM 524288u    /* the timer is to be set to `armed` */
#define ROOMIER 1048576u /* the receive buffer holds the peer up: it is to grow */

struct conn {
    u32 state, flags;
    u32 snd_una, snd_nxt, snd_max, snd_end; /* snd_end: where the application's bytes end */
    u32 snd_edge, win;                      /* the right edge of the peer's window; congestion window */
    u32 rcv_nxt, rcv_edge, ts_recent, last_ack; /* last_ack: the latest acknowledgement that was sent */
    u32 mss, options, context, generation;

    u64 rto_at, ack_at, armed, heard; /* 0: not set */
    u64 timed_at, dead_at;
    u32 timed_end, srtt;

    u32 rttvar, backoff, rx_size, tx_size; /* srtt, rttvar in ns; backoff a power of two */
    u64 key;
    u32 local, owed;       /* owed: events that found the ring full, a bit for each kind */
    u32 wl1, wl2, mark, segments; /* segments: received since the last acknowledgement */
    u32 ssthresh, grown, epoch;
    u8 snd_wscale, rcv_wscale, samples, pad; /* samples: of round trips in this round */
    u32 round_now, error; /* round_now, round_before: ns, the least round trip in this round and in the one before */

    u32 recover, high_rxt, dupacks, dupthresh;
    u32 rxt_mark, rxt_ts, undo_win, undo_ssthresh;
    u32 ecn_point, iss, irs, ts_offset;
    u32 alive_ms, tune_seq;
    u64 tune_at;
    u64 challenged_at;

    struct range sacked[RANGES]; /* what the peer has beyond snd_una; empty ones in between */
    struct range ooo[RANGES];    /* what we have beyond rcv_nxt, the latest first */
    struct range dsack;          /* what came twice and was not reported yet (RFC 2883) */
    u32 listener, next_free;     /* listener: the port that counts it as half open, and 1 more */
    u64 alive_at, sent_at;
    u32 taken;                   /* how far the application has read, as far as that can be true */
    u32 sacked_bytes, fack;      /* of `sacked`: how many bytes, and the highest end */
    u32 fin_at;                  /* where the peer's FIN is, if FIN_AHEAD */
    u32 rcv_mss, max_window, tag;
    u32 waiting;                 /* how many of `ooo` are not empty */
    u32 gone;                    /* bytes between snd_una and snd_nxt that are believed to be in the network no more */
    u32 hole, hole_end;          /* what find_hole has found */
    u32 blocks;                  /* of the acknowledgement that is being built */
    u32 now_mss, now_len, now_flags; /* of the segment that is being built */
    u64 rto;                     /* RFC 6298, not backed off, ns */
    u32 rcv_said;                /* rcv_edge as the peer was told, rounded up: up to here is accepted */
    u32 lost_to;                 /* while losses are repaired: all below that the peer has not and that was not sent again is lost */
    u32 round_before;
    u32 sum;                     /* of both addresses, folded, for checksums */
};
_Static_assert(sizeof(struct conn) == 512, "struct conn is whole cache lines");

struct flow {
    u32 id, pad;
};

struct listener {
    u32 context, backlog, half_open, pad;
    u64 cookies_until; /* acknowledgements may bring SYN cookies back until then */
};

struct core_state {
    u32 fresh;     /* numbers of connections never used begin here, counted from the core's first; */
    u32 free_head; /* others are a list: 0 is its end, n is number n - 1 */
    u32 port_turn, pad;
};

CHAM_ARRAY(config, TCP_CORES, struct tcp_config, CHAM_SHARED);
CHAM_ARRAY(about, TCP_CONNECTIONS, struct tcp_about, CHAM_SHARED);
CHAM_ARRAY(conns, TCP_CONNECTIONS, struct conn, 0);
CHAM_ARRAY(cores, 1, struct core_state, 0);
CHAM_HASH(flows, TCP_CONNECTIONS, u64, struct flow, 0);
CHAM_ARRAY(listening, TCP_LISTENERS, struct tcp_listening, CHAM_SHARED);
CHAM_HASH(listeners, TCP_LISTENERS, u32, struct listener, 0);
CHAM_BYTES_POOL(rx_bytes, TCP_CONNECTIONS, TCP_BUFFER_MIN, TCP_BUFFER_MAX, TCP_BUFFERS);
CHAM_BYTES_POOL(tx_bytes, TCP_CONNECTIONS, TCP_BUFFER_MIN, TCP_BUFFER_MAX, TCP_BUFFERS);
CHAM_RING_OUT(events, TCP_EVENTS, struct tcp_event);
CHAM_RING_IN(entries, TCP_ENTRIES, struct tcp_entry);
CHAM_TX_IDS(due, TCP_CONNECTIONS);
CHAM_TIMERS(timers, TCP_CONNECTIONS);

/* ---- sequence numbers (RFC 9293, 3.4) -------------------------------------------------------------------------------------- */

CHAM_INLINE u32 before(u32 a, u32 b) { return (s32)(a - b) < 0; }
CHAM_INLINE u32 after(u32 a, u32 b) { return (s32)(a - b) > 0; }
CHAM_INLINE u32 at_least(u32 a, u32 b) { return (s32)(a - b) >= 0; }
CHAM_INLINE u32 later(u32 a, u32 b) { return after(a, b) ? a : b; }
CHAM_INLINE u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
CHAM_INLINE u32 max_u32(u32 a, u32 b) { return a > b ? a : b; }

CHAM_INLINE u32 is_empty(const struct range *r) { return r->start == r->end; }

/* Put a range in front of a list, joined with all that it touches; what falls off at the end is forgotten. */
RARE static u32 add_range(struct range *list, u32 start, u32 end)
{
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = list[i].start, e = list[i].end;
        if (s != e && !after(s, end) && !before(e, start)) {
            start = before(s, start) ? s : start;
            end = later(e, end);
            list[i].start = list[i].end = 0;
        }
    }
    for (u32 i = 0; i < RANGES; i++) {
        u32 s = list[i].start, e = list[i].end;
        list[i].start = start;
        list[i].end = end;
        if (s == e)
            break;
        start = s;
        end = e;
    }
    return 0;
}

/* ---- configuration ------------------------------------------------------------------------------------------------------------ */

CHAM_INLINE struct tcp_config *config_of(struct chamelio_ctx *ctx)
{
    u32 core = ctx->core;
    return cham_lookup(&config, &core);
}

CHAM_INLINE u32 clock_of(struct chamelio_ctx *ctx) { return (u32)(ctx->now >> TS_SHIFT); }

/* ---- states ------------------------------------------------------------------------------------------------------------------- */

/* Follow the table; 0 if there is no such transition. */
CHAM_INLINE u32 step(struct conn *c, struct tcp_about *a, u32 input)
{
    u32 next = transitions[(c->state & 15) * INPUTS_STRIDE + (input & 15)];
    if (!next)
        return 0;
    c->state = next - 1;
    a->state = next - 1;
    return 1;
}

CHAM_INLINE u32 synchronized(u32 state) { return state >= TCP_ESTABLISHED; }
/* The application may still write. */
CHAM_INLINE u32 can_write(u32 state) { return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT; }
/* The peer may still send data. */
CHAM_INLINE u32 can_receive(u32 state) { return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT_1 || state == TCP_FIN_WAIT_2; }

/* ---- the timer: one for everything, set to the earliest deadline or before ------------------------------------------------------ */

CHAM_INLINE void arm(struct conn *c, u64 when)
{
    if (c->armed && c->armed <= when)
        return;
    c->armed = when;
    c->flags |= REARM;
}

/* At the end of a run: set the timer to what `arm` has asked for. */
CHAM_INLINE void set_timer(struct chamelio_ctx *ctx UNUSED, struct conn *c, u32 id)
{
    if (!(c->flags & REARM))
        return;
    c->flags &= ~REARM;
    cham_schedule(&timers, id, c->armed);
}

CHAM_INLINE u64 backed_off(const struct conn *c, const struct tcp_config *g)
{
    u64 most = g->rto_max * US, rto = c->rto << (c->backoff & 31);
    return rto < most ? rto : most;
}

CHAM_INLINE void set_rto(struct chamelio_ctx *ctx, struct conn *c, const struct tcp_config *g)
{
    if (c->flags & TOLD)
        return;
    c->rto_at = ctx->now + backed_off(c, g);
    arm(c, c->rto_at);
}

CHAM_INLINE void make_due(struct chamelio_ctx *ctx UNUSED, struct conn *c, u32 id)
{
    if (c->flags & DUE)
        return;
    c->flags |= DUE;
    cham_pace(&due, id, 0);
}

/* ---- telling applications ------------------------------------------------------------------------------------------------------ */

/* What finds the ring full is owed: the timer tries again. Nothing is told of a connection that nobody has. */
CHAM_INLINE void tell(struct chamelio_ctx *ctx, struct conn *c, u32 id, u32 kind, u32 pos, u32 end, u32 tag, u32 error)
{
    struct tcp_event e = {kind, id, c->generation, pos, end, tag, error, ctx->core};
    if (!(c->flags & HELD))
        return;
    if (cham_push(&events, c->context, &e)) {
        c->owed |= 1u << (kind & 31);
        arm(c, ctx->now + RETRY_NS);
    }
}

/* The slow path is told, or not. */
CHAM_INLINE s64 tell_slow_path(struct chamelio_ctx *ctx, const struct conn *c, u32 id, u32 kind, u32 what)
{
    u32 silent = (u32)((ctx->now - c->heard) / MS);
    struct tcp_event e = {kind, id, c->generation, c->snd_una, c->snd_max, silent, what, ctx->core};
    return cham_push(&events, 0, &e);
}

/* ---- from a free number to a free number ------------------------------------------------------------------------------------------ */

/* A number of this core that nobody has, or TCP_CONNECTIONS. */
CHAM_INLINE u32 take_number(struct chamelio_ctx *ctx UNUSED, const struct tcp_config *g)
{
    u32 zero = 0, id;
    struct core_state *k = cham_lookup(&cores, &zero);
    if (!k)
        return TCP_CONNECTIONS;
    if (k->free_head) {
        id = k->free_head - 1;
        struct conn *c = cham_lookup(&conns, &id);
        if (!c)
            return TCP_CONNECTIONS;
        k->free_head = c->next_free;
        return id;
    }
    if (k->fresh >= g->count)
        return TCP_CONNECTIONS;
    id = g->first + k->fresh++;
    return id < TCP_CONNECTIONS ? id : TCP_CONNECTIONS;
}

/* Put a number back that has neither buffers nor a timer. */
CHAM_INLINE void return_number(struct chamelio_ctx *ctx UNUSED, struct conn *c, struct tcp_about *a, u32 id)
{
    u32 zero = 0;
    struct core_state *k = cham_lookup(&cores, &zero);
    if (!k)
        return;
    c->generation++;
    c->key = 0;
    c->flags = 0;
    a->context = 0;
    a->generation = c->generation;
    c->next_free = k->free_head;
    k->free_head = id + 1;
}

CHAM_INLINE void give_number(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id)
{
    cham_cancel(&timers, id);
    cham_cancel(&due, id);
    cham_bytes_close(&rx_bytes, id);
    cham_bytes_close(&tx_bytes, id);
    return_number(ctx, c, a, id);
}

/* A new connection in its number, CLOSED and without buffers: 0, or what is wrong. */
RARE static u32 begin(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, u64 key)
{
    struct tcp_config *g = config_of(ctx);
    struct flow f = {id, 0};
    if (!g)
        return NOT_CONFIGURED;
    if (cham_update(&flows, &key, &f, 0)) {
        return_number(ctx, c, a, id);
        return TABLE_FULL;
    }
    c->state = TCP_CLOSED;
    c->flags = BOUND;
    c->key = key;
    c->local = g->local;
    c->sum = cham_fold((u64)g->local + (u32)key);
    c->snd_edge = 0;
    c->rto_at = 0;
    c->ack_at = 0;
    c->armed = 0;
    c->heard = ctx->now;
    c->dead_at = 0;
    c->srtt = 0;
    c->rto = g->rto_initial * US;
    c->rttvar = 0;
    c->backoff = 0;
    c->rx_size = 0;
    c->tx_size = 0;
    c->owed = 0;
    c->segments = 0;
    c->ssthresh = SLOW_START;
    c->grown = 0;
    c->snd_wscale = 0;
    c->rcv_wscale = 0;
    c->error = 0;
    c->dupacks = 0;
    c->dupthresh = DUPTHRESH;
    c->alive_ms = 0;
    c->challenged_at = 0;
    c->tune_at = 0;
    c->ts_recent = 0;
    c->options = 0;
    c->mss = MSS_DEFAULT;
    c->listener = 0;
    c->alive_at = 0;
    c->sent_at = ctx->now;
    c->sacked_bytes = 0;
    c->rcv_mss = MSS_DEFAULT;
    c->max_window = 0;
    c->tag = 0;
    c->waiting = 0;
    c->gone = 0;
    c->round_now = RTT_MAX;
    c->round_before = RTT_MAX;
    c->samples = 0;
    c->dsack.start = c->dsack.end = 0;
    c->ts_offset = (u32)cham_hash(ctx, (u32)key, 0x74696d65);
#pragma unroll
    for (u32 i = 0; i < RANGES; i++) {
        c->sacked[i].start = c->sacked[i].end = 0;
        c->ooo[i].start = c->ooo[i].end = 0;
    }
    c->generation++;
    a->generation = c->generation;
    a->address = (u32)key;
    a->port = (u16)(key >> 32);
    a->local_port = (u16)(key >> 48);
    a->taken = 0;
    a->epoch = 0;
    a->cwnd = 0;
    a->thresh = 0;
    a->grow = 0;
    a->beta = (u16)g->beta;
    a->alpha = 0;
    a->pace = 0;
    a->mss_limit = 0;
    a->delivered = 0;
    a->marked = 0;
    a->srtt = 0;
    a->rttvar = 0;
    a->losses = 0;
    a->timeouts = 0;
    a->marks = 0;
    a->retransmitted = 0;
    c->epoch = 0;
    return 0;
}

/* Initial sequence number (RFC 6528): a clock of 4.1 us and a keyed hash of both ends. */
CHAM_INLINE u32 initial_sequence(struct chamelio_ctx *ctx, u64 key) { return (u32)(ctx->now >> 12) + (u32)cham_hash(ctx, key, 0x69736e); }

/* It is in nobody's way any more. */
CHAM_INLINE void unbind(struct chamelio_ctx *ctx UNUSED, struct conn *c)
{
    u64 key = c->key;
    if (c->flags & BOUND)
        cham_delete(&flows, &key);
    c->flags &= ~BOUND;
}

CHAM_INLINE void leave_listener(struct chamelio_ctx *ctx UNUSED, struct conn *c)
{
    u32 port = c->listener;
    if (!port)
        return;
    c->listener = 0;
    port--;
    struct listener *l = cham_lookup(&listeners, &port);
    if (l && l->half_open)
        l->half_open--;
}

/* The connection is CLOSED: it is nowhere to be found, and its number is free once its application has given it up. */
RARE static u32 conclude(struct chamelio_ctx *ctx, struct conn *c, struct tcp_about *a, u32 id, u32 error)
{
    unbind(ctx, c);
    leave_listener(ctx, c);
    c->rto_at = 0;
    c->ack_at = 0;
    c->dead_at = 0;
    c->alive_at = 0;
    c->state = TCP_CLOSED;
    a->state = TCP_CLOSED;
    if (c->flags & HELD) {
        c->error = error;
        tell(ctx, c, id, TCP_ENDED, c->rcv_nxt, c->snd_una, c->tag, error);
    } else {
        give_number(ctx, c, a, id);
    }
    return 0;
}

#endif
