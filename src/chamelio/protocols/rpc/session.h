/* Sessions and slots as handlers see them, and how a packet is built from them. */
#ifndef RPC_SESSION_H
#define RPC_SESSION_H

#include "chamelio.h"
#define FAST CHAM_FAST
#define SLOW CHAM_SLOW
#include "rpc.h"

#define UNUSED __attribute__((unused)) /* native helpers take the context, BPF's do not */
#define IP_RPC 254
#define IP_BYTES 20
#define HEADER_AT IP_BYTES
#define PAYLOAD_AT (IP_BYTES + sizeof(struct header))
#define CHECKSUM_AT (IP_BYTES + 22)
#ifndef RPC_TTL
#define RPC_TTL 64
#endif

/* Times in ns. A request that nobody answers fails after some 3 s. */
#define RTO_INITIAL 5000000u
#define RTO_MIN 500000u
#define RTO_MAX 500000000u
#define RTO_SPREAD_MAX 5000000u  /* beyond twice the round trip */
#define WORK_NS 10000000u        /* how much later a server that has the whole request is asked for the answer, */
#define PROBE_GAP_NS 200000u     /* and how long after another request of the session, or a crowd of them would ask at once */
#define RTT_MAX 1000000000u
#define TRIES 14
#define BACKOFF_MAX 12
#define GAP_MAX 10000000u
#define RING_FULL_NS 1000000u /* until a failure is told again to an application whose ring is full */

/* How many segments all senders together may have under way to a core: with as many ACKs of what it sends itself, what its backlog
 * holds. */
#ifndef RPC_CREDITS
#define RPC_CREDITS 96u
#endif
#define CREDIT_MIN 2u
#define CREDIT_MAX 64u

enum reason {
    SHORT = 1, CHECKSUM, BAD_SEGMENT, BAD_SLOT, STALE, WRONG_WAY, UNKNOWN_KIND, NO_SESSION, NOT_ALLOWED, NOT_IDLE, RING_FULL, NO_ROOM
};

/* Kinds of packets; from HELLO on they are the slow path's. */
enum kind { REQUEST, RESPONSE, ACK, HELLO = 16 };

#define ASK 1     /* answer with an ACK */
#define PROBE 2   /* the sender's timer has expired: what is not acknowledged now is lost; an ACK says it back */
#define WORKING 4 /* ACK of a request: it is whole, or waits for the slot; somebody works */
#define FAILURE 8 /* RESPONSE: no answer, but what went wrong */

struct header {
    u16 source, destination;
    u32 token; /* chosen by the receiver: the number of its session, and random bits */
    u8 kind, slot, flags, segment;
    u32 number;
    u32 length; /* bytes of the message */
    u16 credit; /* segments that the receiver may have under way to us in this session */
    u16 checksum; /* RFC 1071, over the pseudo header and all from `source` on */
};

enum state { IDLE, WAITING, RECEIVING, EXECUTING, RESPONDED };

/* What only handlers can write: nobody but the slow path's OPEN decides whose session it is and whom it speaks with. */
struct session {
    u32 open, server;
    u32 context, generation;
    u32 local, address;
    u16 local_port, port;
    u32 token, peer_token;
    u32 slots;
    u32 pending;   /* bit per slot: it has segments to send */
    u32 next;      /* the slot that the tx hook looks at first */
    u32 armed;     /* 1: the session is due at some time */
    u32 under_way; /* segments sent and not acknowledged */
    u32 credit;    /* how many of these the peer allows */
    u32 pass;      /* 1: one more than that, so that a lost ACK stops nothing for ever */
    u32 srtt, rttvar;
    u64 probe_at; /* not before then */
};

struct slot {
    u32 generation; /* of the session that has used it */
    u32 state;
    u32 number;
    u32 tx_len, rx_len;
    u32 tries;   /* timers that have expired since the peer was last heard about this slot */
    u32 backoff; /* of the timer, a power of two */
    u32 failure; /* what we send is no answer, but what went wrong */
    u64 sent, acked, resent; /* a bit per segment of what we send; `resent`: again, before the timer expired */
    u64 have;                /* of what we receive */
    u64 sent_at;
};

struct core_state {
    u32 sessions; /* open ones */
    u32 pad;
};

CHAM_ARRAY(cores, 1, struct core_state, 0);
CHAM_ARRAY(sessions, RPC_SESSIONS, struct session, 0);
CHAM_ARRAY(slots, RPC_SESSIONS * RPC_SLOTS, struct slot, 0);
CHAM_ARRAY(about, RPC_SESSIONS, struct rpc_session, CHAM_SHARED);
CHAM_BYTES(rx_bytes, RPC_SESSIONS * RPC_SLOTS, RPC_BUFFER);
CHAM_BYTES(tx_bytes, RPC_SESSIONS * RPC_SLOTS, RPC_BUFFER);
CHAM_RING_OUT(events, RPC_EVENTS, struct rpc_event);
CHAM_RING_IN(entries, RPC_ENTRIES, struct rpc_entry);
CHAM_TX_IDS(paced, RPC_SESSIONS);
CHAM_TIMERS(timers, RPC_SESSIONS * RPC_SLOTS);

/* ---- bitmaps of segments ----------------------------------------------------------------------------------------------- */

CHAM_INLINE u32 count_bits(u64 x)
{
    x -= x >> 1 & 0x5555555555555555ull;
    x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
    return (u32)(x * 0x0101010101010101ull >> 56);
}

CHAM_INLINE u32 lowest_bit(u64 x) { return count_bits((x & -x) - 1); }

/* All bits below the highest one, and that. */
CHAM_INLINE u64 smear(u64 x)
{
    x |= x >> 1;
    x |= x >> 2;
    x |= x >> 4;
    x |= x >> 8;
    x |= x >> 16;
    return x | x >> 32;
}

CHAM_INLINE u32 segments_of(u32 len) { return len ? (len + RPC_SEGMENT - 1) / RPC_SEGMENT : 1; }
CHAM_INLINE u64 all_segments(u32 len) { return (1ull << (segments_of(len) & 63)) - 1; }

/* ---- sessions and slots --------------------------------------------------------------------------------------------------- */

/* The slot of an open session, as nobody before has left it; NULL if there is none of that number. */
CHAM_INLINE struct slot *slot_of(struct chamelio_ctx *ctx UNUSED, const struct session *s, u32 session, u32 slot)
{
    if (slot >= RPC_SLOTS || slot >= s->slots)
        return 0;
    u32 id = session * RPC_SLOTS + slot;
    struct slot *sl = cham_lookup(&slots, &id);
    if (sl && sl->generation != s->generation) {
        sl->generation = s->generation;
        sl->state = IDLE;
        sl->number = 0;
        sl->sent = 0;
        sl->acked = 0;
    }
    return sl;
}

CHAM_INLINE u32 under_way(const struct slot *sl) { return count_bits(sl->sent & ~sl->acked); }

/* Set what was sent and acknowledged of a slot's message; the session's count follows. */
CHAM_INLINE void set_sent(struct session *s, struct slot *sl, u64 sent, u64 acked)
{
    s->under_way -= under_way(sl);
    sl->sent = sent;
    sl->acked = acked;
    s->under_way += under_way(sl);
}

/* Whether a segment should be acknowledged at once: the sender has nearly all under way that it may. */
CHAM_INLINE u32 scarce(const struct session *s) { return 4 * s->under_way >= 3 * s->credit; }

CHAM_INLINE u32 gap_of(struct chamelio_ctx *ctx UNUSED, u32 session)
{
    struct rpc_session *a = cham_lookup(&about, &session);
    u32 gap = a ? a->gap : 0;
    return gap < GAP_MAX ? gap : GAP_MAX;
}

/* Let the tx hook run for a session, when its pace allows. */
CHAM_INLINE void make_due(struct chamelio_ctx *ctx UNUSED, struct session *s, u32 session, u32 gap)
{
    if (s->armed)
        return;
    s->armed = 1;
    cham_pace(&paced, session, gap);
}

/* RFC 6298, but a few late answers of a host that was busy do not make it long: a probe too many costs little. */
CHAM_INLINE u32 rto_of(const struct session *s)
{
    u32 spread = 4 * s->rttvar, most = s->srtt + RTO_SPREAD_MAX;
    u32 rto = s->srtt ? s->srtt + (spread < most ? spread : most) : RTO_INITIAL;
    return rto < RTO_MIN ? RTO_MIN : rto < RTO_MAX ? rto : RTO_MAX;
}

CHAM_INLINE void set_timer(struct chamelio_ctx *ctx UNUSED, const struct session *s, const struct slot *sl, u32 id)
{
    u32 working = sl->acked == all_segments(sl->tx_len) && !sl->have;
    u64 after = (u64)(rto_of(s) + (working ? WORK_NS : 0)) << (sl->backoff & 15);
    cham_schedule(&timers, id, ctx->now + (after < RTO_MAX ? after : RTO_MAX));
}

/* A round trip was measured (RFC 6298, in ns). */
CHAM_INLINE void take_rtt(struct session *s, u64 ns)
{
    u32 rtt = ns < RTT_MAX ? (u32)ns : RTT_MAX, off;
    if (!s->srtt) {
        s->srtt = rtt | 1;
        s->rttvar = rtt / 2;
        return;
    }
    off = rtt > s->srtt ? rtt - s->srtt : s->srtt - rtt;
    s->rttvar = s->rttvar - s->rttvar / 4 + off / 4;
    s->srtt = s->srtt - s->srtt / 8 + rtt / 8;
}

/* What we grant to each peer: a fair share of what a core can take. */
CHAM_INLINE u32 credit_to_grant(struct chamelio_ctx *ctx UNUSED)
{
    u32 zero = 0;
    struct core_state *c = cham_lookup(&cores, &zero);
    u32 share = c && c->sessions ? RPC_CREDITS / c->sessions : CREDIT_MAX;
    return share < CREDIT_MIN ? CREDIT_MIN : share < CREDIT_MAX ? share : CREDIT_MAX;
}

/* ---- packets --------------------------------------------------------------------------------------------------------------- */

/* Sum of the pseudo header (as RFC 768), in packet byte order. */
CHAM_INLINE u64 pseudo_sum(u32 from, u32 to, u32 length) { return (u64)from + to + cham_htons(IP_RPC) + cham_htons(length); }

/* Write both headers in front of `payload` bytes that the packet has already. 0, or not. */
CHAM_INLINE u32 write_headers(struct chamelio_ctx *ctx, const struct session *s, u32 payload, u32 kind, u32 slot, u32 flags,
                              u32 segment, u32 number, u32 length)
{
    u32 total = PAYLOAD_AT + payload, credit = credit_to_grant(ctx);
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + PAYLOAD_AT > end)
        return 1;
    struct cham_ipv4 *i = (void *)ip;
    i->version_ihl = 0x45;
    i->tos = 0;
    i->total_length = cham_htons(total);
    i->id = 0;
    i->fragment = cham_htons(0x4000); /* don't fragment */
    i->ttl = RPC_TTL;
    i->protocol = IP_RPC;
    i->src = s->local;
    i->dst = s->address;
    i->checksum = ~cham_fold((u64)cham_htons(0x4500) + cham_htons(total) + cham_htons(0x4000) + cham_htons(RPC_TTL << 8 | IP_RPC) +
                             s->local + s->address);
    struct header *h = (void *)(ip + HEADER_AT);
    h->source = s->local_port;
    h->destination = s->port;
    h->token = s->peer_token;
    h->kind = (u8)kind;
    h->slot = (u8)slot;
    h->flags = (u8)flags;
    h->segment = (u8)segment;
    h->number = cham_htonl(number);
    h->length = cham_htonl(length);
    h->credit = cham_htons(credit);
    h->checksum = cham_fold(pseudo_sum(s->local, s->address, total - IP_BYTES));
    cham_csum_later(ctx, HEADER_AT, CHECKSUM_AT);
    return 0;
}

/* One segment of what a slot sends, in a packet that is empty so far. 0, or not. */
CHAM_INLINE u32 write_segment(struct chamelio_ctx *ctx, const struct session *s, const struct slot *sl, u32 id, u32 slot, u32 segment,
                              u32 flags)
{
    u32 at = segment * RPC_SEGMENT, length = sl->tx_len, len = length - at;
    if (len > RPC_SEGMENT)
        len = RPC_SEGMENT;
    if (cham_bytes_to_pkt(ctx, &tx_bytes, id, RPC_BASE(id) + at, CHAM_SPAN(PAYLOAD_AT, len)))
        return 1;
    flags |= sl->failure ? FAILURE : 0;
    return write_headers(ctx, s, len, s->server ? RESPONSE : REQUEST, slot, flags, segment, sl->number, length);
}

/* What we have of a message of a slot, in the place of the packet that there is. */
CHAM_INLINE u64 send_ack(struct chamelio_ctx *ctx, const struct session *s, u32 slot, u32 number, u32 flags, u64 have)
{
    if (cham_resize(ctx, PAYLOAD_AT + sizeof have) || write_headers(ctx, s, sizeof have, ACK, slot, flags, 0, number, 0))
        return CHAM_ERROR(NO_ROOM);
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + PAYLOAD_AT + sizeof have > end)
        return CHAM_ERROR(NO_ROOM);
    u32 *words = (void *)(ip + PAYLOAD_AT);
    words[0] = cham_htonl((u32)(have >> 32));
    words[1] = cham_htonl((u32)have);
    return CHAM_TX;
}

/* Tell the application of a session. 0, or not. */
CHAM_INLINE s64 tell(struct chamelio_ctx *ctx, const struct session *s, u32 kind, u32 session, u32 slot, u32 number, u32 len, u32 error)
{
    struct rpc_event e = {kind, session, slot, number, len, s->generation, ctx->core, error};
    return cham_push(&events, s->context, &e);
}

#endif
