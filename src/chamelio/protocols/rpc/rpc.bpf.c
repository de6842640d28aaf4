/* Requests and responses on the fast path: segments, acknowledgements, timers, credits. Sessions are opened by the slow path. */
#include "session.h"

/* ---- received: acknowledgements ------------------------------------------------------------------------------------------ */

/* The peer says what it has of our message. */
CHAM_INLINE u64 take_ack(struct chamelio_ctx *ctx, struct session *s, struct slot *sl, u32 session, u32 slot, u32 number, u32 flags,
                         u64 have)
{
    u32 id = session * RPC_SLOTS + slot, expected = s->server ? RESPONDED : WAITING;
    if (s->server && sl->state == EXECUTING && flags & PROBE && (s32)(number - sl->number) >= 0)
        return send_ack(ctx, s, slot, number, PROBE | WORKING, number == sl->number ? sl->have : 0);
    if (sl->state != expected || sl->number != number)
        return CHAM_ERROR(STALE);
    u64 all = all_segments(sl->tx_len), sent = sl->sent, acked = sl->acked, fresh = have & all & sent & ~acked;
    if (flags & WORKING)
        sl->tries = 0;
    acked |= fresh;
    if (flags & PROBE) { /* it speaks of now: what it has not is on no way any more */
        sent = acked;
        s->pass = 1;
    } else if (fresh) { /* three later ones have come (RFC 5681): what is missing before them is lost, which is believed once */
        u64 lost = sent & ~acked & ~sl->resent & smear(fresh) >> 3;
        sl->resent |= lost;
        sent &= ~lost;
    }
    set_sent(s, sl, sent, acked);
    if (fresh && !s->server) {
        if (fresh & 1 && !sl->backoff)
            take_rtt(s, ctx->now - sl->sent_at);
        sl->tries = 0;
        sl->backoff = 0;
        set_timer(ctx, s, sl, id);
    }
    if (all & ~sent)
        s->pending |= 1u << slot;
    if (s->pending)
        make_due(ctx, s, session, 0);
    return CHAM_DONE;
}

/* ---- received: segments ----------------------------------------------------------------------------------------------------- */

/* Copy a segment to the slot's buffer. */
CHAM_INLINE void take_segment(struct chamelio_ctx *ctx, struct slot *sl, u32 id, u32 segment, u32 offset, u32 len)
{
    cham_pkt_to_bytes(ctx, &rx_bytes, id, RPC_BASE(id) + segment * RPC_SEGMENT, CHAM_SPAN(offset, len));
    sl->have |= 1ull << (segment & 63);
}

/* At the server. A request is executed when its last segment has come and the application has been told; that happens once for a number,
 * because nothing but a higher number, and that not before the answer was given, begins anew.
 */
CHAM_INLINE u64 take_request(struct chamelio_ctx *ctx, struct session *s, struct slot *sl, u32 session, u32 slot, u32 number, u32 flags,
                             u32 segment, u32 length, u32 offset, u32 len)
{
    u32 id = session * RPC_SLOTS + slot;
    if ((s32)(number - sl->number) < 0)
        return CHAM_ERROR(STALE);
    if (number != sl->number) {
        if (sl->state == EXECUTING)
            return send_ack(ctx, s, slot, number, (flags & PROBE) | WORKING, 0);
        set_sent(s, sl, 0, 0); /* the answer before has arrived, or nobody wants it any more */
        s->pending &= ~(1u << slot);
        if (s->pending)
            make_due(ctx, s, session, 0);
        sl->number = number;
        sl->state = RECEIVING;
        sl->rx_len = length;
        sl->have = 0;
    }
    u64 all = all_segments(length);
    if (length != sl->rx_len)
        return CHAM_ERROR(BAD_SEGMENT);
    if (sl->state == RESPONDED) {
        if (flags & PROBE) { /* our answer got lost */
            set_sent(s, sl, sl->acked, sl->acked);
            s->pass = 1;
            s->pending |= 1u << slot;
            make_due(ctx, s, session, 0);
        }
        return CHAM_DONE;
    }
    if (sl->state == RECEIVING && !(sl->have >> (segment & 63) & 1)) {
        u64 before = sl->have;
        take_segment(ctx, sl, id, segment, offset, len);
        if (sl->have == all) {
            if (tell(ctx, s, RPC_REQUEST, session, slot, number, length, 0)) {
                sl->have = before; /* it will come again */
                return CHAM_ERROR(RING_FULL);
            }
            sl->state = EXECUTING;
        }
    }
    if (flags & (ASK | PROBE))
        return send_ack(ctx, s, slot, number, (flags & PROBE) | (sl->state == EXECUTING ? WORKING : 0), sl->have);
    return CHAM_DONE;
}

/* At the client. */
CHAM_INLINE u64 take_response(struct chamelio_ctx *ctx, struct session *s, struct slot *sl, u32 session, u32 slot, u32 number, u32 flags,
                              u32 segment, u32 length, u32 offset, u32 len)
{
    u32 id = session * RPC_SLOTS + slot;
    u64 all = all_segments(length);
    if (number != sl->number)
        return CHAM_ERROR(STALE);
    if (sl->state != WAITING)
        return flags & ASK ? send_ack(ctx, s, slot, number, 0, all) : CHAM_DONE;
    if (!sl->have)
        sl->rx_len = length;
    if (length != sl->rx_len)
        return CHAM_ERROR(BAD_SEGMENT);
    u32 first_word = !(sl->acked & 1) && !sl->backoff;
    set_sent(s, sl, all_segments(sl->tx_len), all_segments(sl->tx_len)); /* who answers has the whole request */
    s->pending &= ~(1u << slot);
    if (s->pending)
        make_due(ctx, s, session, 0);
    if (!(sl->have >> (segment & 63) & 1)) {
        u64 before = sl->have;
        take_segment(ctx, sl, id, segment, offset, len);
        if (sl->have == all) {
            u32 failed = flags & FAILURE;
            if (tell(ctx, s, failed ? RPC_FAILED : RPC_RESPONSE, session, slot, number, length, failed ? RPC_REMOTE_ERROR : 0)) {
                sl->have = before;
                return CHAM_ERROR(RING_FULL);
            }
            sl->state = IDLE;
            cham_cancel(&timers, id);
            if (first_word)
                take_rtt(s, ctx->now - sl->sent_at);
        } else {
            sl->tries = 0;
            sl->backoff = 0;
            set_timer(ctx, s, sl, id);
        }
    }
    return flags & ASK ? send_ack(ctx, s, slot, number, 0, sl->have) : CHAM_DONE;
}

CHAM_HANDLER(rx)
{
    u8 *ip = ctx->data, *end = ctx->data_end;
    if (ip + IP_BYTES > end)
        return CHAM_ERROR(SHORT);
    if (ip[9] != IP_RPC) /* ICMP about us */
        return CHAM_PUNT;
    u32 offset = (ip[0] & 15) * 4, source = *(u32 *)(ip + 12);
    struct header *h = (void *)(ip + offset);
    if ((u8 *)(h + 1) > end)
        return CHAM_ERROR(SHORT);
    u32 size = (u32)(end - (u8 *)h);
    if (!ctx->csum_ok && cham_csum(ctx, CHAM_SPAN(offset, size), pseudo_sum(source, *(u32 *)(ip + 16), size)) != 0xffff)
        return CHAM_ERROR(CHECKSUM);
    u32 kind = h->kind, slot = h->slot, flags = h->flags, segment = h->segment;
    u32 token = h->token, session = token & (RPC_SESSIONS - 1);
    u32 number = cham_ntohl(h->number), length = cham_ntohl(h->length), credit = cham_ntohs(h->credit);
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (kind >= HELLO || !s || !a || !s->open || s->token != token || s->address != source || s->port != h->source ||
        s->local_port != h->destination)
        return CHAM_PUNT;
    struct slot *sl = slot_of(ctx, s, session, slot);
    if (!sl)
        return CHAM_ERROR(BAD_SLOT);
    s->credit = credit < CREDIT_MAX ? credit : CREDIT_MAX;
    a->heard = ctx->now;
    u32 len = size - sizeof *h;
    offset += sizeof *h;
    if (kind == ACK) {
        u32 *words = (void *)(ip + offset);
        if ((u8 *)(words + 2) > end)
            return CHAM_ERROR(SHORT);
        u64 have = (u64)cham_ntohl(words[0]) << 32 | cham_ntohl(words[1]);
        return take_ack(ctx, s, sl, session, slot, number, flags, have);
    }
    u32 at = segment * RPC_SEGMENT;
    if (length > RPC_MESSAGE_MAX || segment >= segments_of(length) || len != (length - at < RPC_SEGMENT ? length - at : RPC_SEGMENT))
        return CHAM_ERROR(BAD_SEGMENT);
    if (kind == REQUEST && s->server)
        return take_request(ctx, s, sl, session, slot, number, flags, segment, length, offset, len);
    if (kind == RESPONSE && !s->server)
        return take_response(ctx, s, sl, session, slot, number, flags, segment, length, offset, len);
    return CHAM_ERROR(WRONG_WAY);
}

/* ---- sent --------------------------------------------------------------------------------------------------------------------- */

/* The next segment of the next slot that has some, if credits allow: built, not sent. 0, or there is none. */
CHAM_INLINE u32 build_next(struct chamelio_ctx *ctx, struct session *s, struct rpc_session *a, u32 session)
{
    u32 pending = s->pending, later = pending & -1u << (s->next & 31);
    if (!pending)
        return 1;
    if (s->under_way >= s->credit) {
        if (!s->pass)
            return 1; /* an ACK makes it due again */
        s->pass = 0;
    }
    u32 slot = lowest_bit(later ? later : pending), id = session * RPC_SLOTS + slot;
    struct slot *sl = slot_of(ctx, s, session, slot);
    u64 left = sl ? all_segments(sl->tx_len) & ~sl->sent : 0;
    u64 bit = left & -left;
    if (left == bit) /* the last one, or there was none */
        s->pending = pending & ~(1u << slot);
    if (!sl || !left)
        return 1;
    if (bit == 1)
        sl->sent_at = ctx->now;
    set_sent(s, sl, sl->sent | bit, sl->acked);
    a->packets++;
    a->retransmitted += (sl->resent & bit) != 0;
    s->next = slot + 1;
    u32 ask = scarce(s) || (left == bit && sl->tx_len > RPC_SEGMENT);
    return write_segment(ctx, s, sl, id, slot, lowest_bit(left), ask ? ASK : 0);
}

/* A session's pace allows packets: as many as a run may send, and the gap after them grows with their number. */
CHAM_HANDLER(tx)
{
    u32 session = ctx->id, sent = 0;
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (!s || !a)
        return CHAM_DONE;
    s->armed = 0;
    if (!s->open)
        return CHAM_DONE;
    u32 gap = gap_of(ctx, session), built = 0;
    for (sent = 0; sent <= CHAM_EMITS; sent++) {
        built = !build_next(ctx, s, a, session);
        if (!built || gap || sent == CHAM_EMITS)
            break;
        cham_emit(ctx);
    }
    if (s->pending && (s->under_way < s->credit || s->pass))
        make_due(ctx, s, session, gap);
    return built ? CHAM_TX : CHAM_DONE;
}

/* A request waits for too long. */
CHAM_HANDLER(timer)
{
    u32 id = ctx->id, session = id / RPC_SLOTS, slot = id % RPC_SLOTS;
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (!s || !a || !s->open)
        return CHAM_DONE;
    struct slot *sl = slot_of(ctx, s, session, slot);
    if (!sl || sl->state != WAITING)
        return CHAM_DONE;
    if (sl->tries >= TRIES) {
        if (tell(ctx, s, RPC_FAILED, session, slot, sl->number, 0, 110 /* ETIMEDOUT */)) {
            cham_schedule(&timers, id, ctx->now + RING_FULL_NS);
            return CHAM_DONE;
        }
            set_sent(s, sl, 0, 0);
        s->pending &= ~(1u << slot);
        sl->state = IDLE;
        return CHAM_DONE;
    }
    u64 missing = all_segments(sl->tx_len) & ~sl->acked;
    if (missing && sl->sent == sl->acked) { /* nothing is lost: it has its turn when credits allow, and those who hold them have timers */
        set_timer(ctx, s, sl, id);
        if (s->under_way < s->credit)
            make_due(ctx, s, session, 0);
        return CHAM_DONE;
    }
    if (!missing) {
        if (ctx->now < s->probe_at) {
            cham_schedule(&timers, id, s->probe_at + (u32)cham_random(ctx) % WORK_NS);
            return CHAM_DONE;
        }
        s->probe_at = ctx->now + PROBE_GAP_NS;
    }
    sl->tries++;
    if (sl->backoff < BACKOFF_MAX)
        sl->backoff++;
    set_timer(ctx, s, sl, id);
    a->packets++;
    a->retransmitted++;
    if (!missing)
        return send_ack(ctx, s, slot, sl->number, ASK | PROBE, sl->have);
    u32 segment = lowest_bit(missing);
    sl->resent = 0;
    set_sent(s, sl, sl->sent | 1ull << (segment & 63), sl->acked);
    return write_segment(ctx, s, sl, id, slot, segment, ASK | PROBE) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
}

/* ---- entries of applications and the slow path -------------------------------------------------------------------------------- */

CHAM_INLINE void count_session(struct chamelio_ctx *ctx UNUSED, u32 change)
{
    u32 zero = 0;
    struct core_state *c = cham_lookup(&cores, &zero);
    if (c)
        c->sessions += change;
}

CHAM_INLINE u64 open_session(struct chamelio_ctx *ctx, const struct rpc_entry *e)
{
    u32 session = e->session;
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (!s || !a)
        return CHAM_ERROR(NO_SESSION);
    if (!s->open)
        count_session(ctx, 1);
    s->open = 1;
    s->server = e->server;
    s->context = e->context;
    s->generation++;
    s->local = e->local;
    s->address = e->address;
    s->local_port = e->local_port;
    s->port = e->port;
    s->token = e->token;
    s->peer_token = e->peer_token;
    s->slots = e->slots;
    s->pending = 0;
    s->next = 0;
    s->under_way = 0;
    s->credit = CREDIT_MIN;
    s->pass = 0;
    s->probe_at = 0;
    s->srtt = 0;
    s->rttvar = 0;
    a->open = 1;
    a->generation = s->generation;
    a->context = e->context;
    a->server = e->server;
    a->address = e->address;
    a->local_port = e->local_port;
    a->port = e->port;
    a->token = e->token;
    a->peer_token = e->peer_token;
    a->slots = e->slots;
    a->heard = ctx->now;
    a->messages = 0;
    a->packets = 0;
    a->retransmitted = 0;
    return tell(ctx, s, RPC_OPENED, session, 0, 0, e->slots, 0) ? CHAM_ERROR(RING_FULL) : CHAM_DONE;
}

CHAM_INLINE u64 close_session(struct chamelio_ctx *ctx, const struct rpc_entry *e)
{
    u32 session = e->session;
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (!s || !a)
        return CHAM_ERROR(NO_SESSION);
    if (s->open)
        count_session(ctx, -1u);
    else
        s->context = e->context; /* one that could not be opened */
    s->open = 0;
    a->open = 0;
    return tell(ctx, s, RPC_CLOSED, session, 0, 0, 0, e->error) ? CHAM_ERROR(RING_FULL) : CHAM_DONE;
}

CHAM_HANDLER(ring)
{
    struct rpc_entry *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(SHORT);
    u32 kind = e->kind, session = e->session, slot = e->slot, number = e->number, len = e->len;
    if (kind >= RPC_OPEN) {
        if (ctx->id != 0)
            return CHAM_ERROR(NOT_ALLOWED);
        if (kind == RPC_OPEN)
            return open_session(ctx, e);
        return kind == RPC_CLOSE ? close_session(ctx, e) : CHAM_ERROR(UNKNOWN_KIND);
    }
    struct session *s = cham_lookup(&sessions, &session);
    struct rpc_session *a = cham_lookup(&about, &session);
    if (!s || !a || !s->open)
        return CHAM_ERROR(NO_SESSION);
    if (s->context != ctx->id)
        return CHAM_ERROR(NOT_ALLOWED);
    if (s->generation != e->generation)
        return CHAM_ERROR(STALE);
    struct slot *sl = slot_of(ctx, s, session, slot);
    if (!sl)
        return CHAM_ERROR(BAD_SLOT);
    if (len > RPC_MESSAGE_MAX)
        return CHAM_ERROR(BAD_SEGMENT);
    u32 id = session * RPC_SLOTS + slot, gap = gap_of(ctx, session);
    if (kind == RPC_CALL && !s->server) {
        if (sl->state != IDLE || (s32)(number - sl->number) <= 0)
            return CHAM_ERROR(NOT_IDLE);
        sl->number = number;
        sl->state = WAITING;
        sl->failure = 0;
        sl->have = 0;
        sl->tries = 0;
        sl->backoff = 0;
        sl->sent_at = ctx->now;
        sl->acked = 0;
        sl->sent = 0;
        sl->tx_len = len;
        set_timer(ctx, s, sl, id);
    } else if (kind == RPC_REPLY && s->server) {
        if (sl->state != EXECUTING || number != sl->number)
            return CHAM_ERROR(STALE);
        sl->state = RESPONDED;
        sl->failure = e->error != 0;
    } else {
        return CHAM_ERROR(WRONG_WAY);
    }
    u32 wait = gap || s->pending || s->under_way >= s->credit; /* its turn comes in the tx hook */
    sl->tx_len = len;
    sl->resent = 0;
    set_sent(s, sl, !wait, 0);
    a->messages++;
    if (wait || len > RPC_SEGMENT) {
        s->pending |= 1u << slot;
        if (gap || s->under_way < s->credit)
            make_due(ctx, s, session, gap);
    }
    if (wait)
        return CHAM_DONE;
    a->packets++;
    return write_segment(ctx, s, sl, id, slot, 0, scarce(s) ? ASK : 0) ? CHAM_ERROR(NO_ROOM) : CHAM_TX;
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
