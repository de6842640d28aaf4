"""An example for every helper, kind of map and context field: C that a tenant could write. Tests compile and verify each."""

from __future__ import annotations

INCLUDE = '#include "chamelio.h"\n\n'

HELPERS: dict[str, str] = {
    "cham_lookup": """
struct total { u64 packets; };
CHAM_ARRAY(totals, 1, struct total, CHAM_SHARED);

CHAM_HANDLER(rx)
{
    u32 zero = 0;
    struct total *t = cham_lookup(&totals, &zero);
    if (!t) /* the verifier insists, for arrays too */
        return CHAM_DONE;
    t->packets++;
    return CHAM_DONE;
}
""",
    "cham_update": """
struct peer { u64 seen; };
CHAM_HASH(peers, 256, u32, struct peer, 0);

CHAM_HANDLER(rx)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 from = ip->src; /* keys and values are copied from the stack, never from shared memory */
    struct peer now = {ctx->now};
    return cham_update(&peers, &from, &now, 0) ? CHAM_ERROR(2) : CHAM_DONE;
}
""",
    "cham_delete": """
struct order { u32 peer; };
struct peer { u64 seen; };
CHAM_HASH(peers, 256, u32, struct peer, 0);
CHAM_RING_IN(orders, 64, struct order);

CHAM_HANDLER(ring) /* the slow path changes keys through entries */
{
    struct order *o = ctx->entry;
    if ((void *)(o + 1) > ctx->entry_end || ctx->id != 0)
        return CHAM_ERROR(1);
    u32 peer = o->peer;
    return cham_delete(&peers, &peer) ? CHAM_ERROR(2) : CHAM_DONE;
}
""",
    "cham_push": """
struct word { u32 from, length; };
CHAM_RING_OUT(words, 256, struct word);

CHAM_HANDLER(rx)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    struct word w = {ip->src, cham_ntohs(ip->total_length)};
    return cham_push(&words, 1, &w) ? CHAM_ERROR(2) : CHAM_DONE; /* context 1: an application; 0: the slow path */
}
""",
    "cham_resize": """
CHAM_HANDLER(rx) /* send the header back, without what was behind it */
{
    if (cham_resize(ctx, 20))
        return CHAM_ERROR(1);
    struct cham_ipv4 *ip = ctx->data; /* addresses from before the call mean nothing any more */
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(2);
    u32 from = ip->src;
    ip->src = ip->dst;
    ip->dst = from;
    u16 old = ip->total_length;
    ip->total_length = cham_htons(20);
    ip->checksum = cham_csum_replace(ip->checksum, old, ip->total_length);
    return CHAM_TX;
}
""",
    "cham_pkt_to_bytes": """
struct word { u32 pos, length; };
CHAM_BYTES(buffers, 16, 4096);
CHAM_RING_OUT(words, 256, struct word);

CHAM_HANDLER(rx) /* payload to buffer 0, where the application reads it */
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 length = cham_ntohs(ip->total_length) - 20; /* the provider has checked it */
    struct word w = {0, length};
    if (cham_pkt_to_bytes(ctx, &buffers, 0, w.pos, CHAM_SPAN(20, length)))
        return CHAM_ERROR(2); /* longer than the buffer */
    return cham_push(&words, 1, &w) ? CHAM_ERROR(3) : CHAM_DONE;
}
""",
    "cham_bytes_to_pkt": """
struct order { u32 to, pos, length, from; };
CHAM_BYTES(buffers, 16, 4096);
CHAM_RING_IN(orders, 64, struct order);

CHAM_HANDLER(ring) /* what the application wrote to buffer 0 becomes a packet's payload */
{
    struct order *o = ctx->entry;
    if ((void *)(o + 1) > ctx->entry_end || o->length > 1400)
        return CHAM_ERROR(1);
    if (cham_bytes_to_pkt(ctx, &buffers, 0, o->pos, CHAM_SPAN(20, o->length)))
        return CHAM_ERROR(2);
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(3);
    ip->version_ihl = 0x45;
    ip->total_length = cham_htons(20 + o->length);
    ip->ttl = 64;
    ip->protocol = 253;
    ip->src = o->from;
    ip->dst = o->to;
    ip->checksum = ~cham_csum(ctx, CHAM_SPAN(0, 20), 0);
    return CHAM_TX;
}
""",
    "cham_bytes_open": """
CHAM_BYTES_POOL(buffers, 1024, 4096, 262144, 16777216); /* 4 KiB to 256 KiB for an id, 16 MiB in all */
CHAM_RING_IN(orders, 64, u64);

CHAM_HANDLER(ring)
{
    if (cham_bytes_open(&buffers, 7, 4096, 0))
        return CHAM_ERROR(1); /* the pool has none left */
    /* later: a larger one, which keeps the 100 bytes from position 5000 on, each at its position */
    return cham_bytes_open(&buffers, 7, 8192, CHAM_SPAN(5000, 100)) ? CHAM_ERROR(2) : CHAM_DONE;
}
""",
    "cham_bytes_close": """
CHAM_BYTES_POOL(buffers, 1024, 4096, 262144, 16777216);
CHAM_RING_IN(orders, 64, u64);

CHAM_HANDLER(ring) { return cham_bytes_close(&buffers, 7) ? CHAM_ERROR(1) : CHAM_DONE; }
""",
    "cham_bytes_size": """
CHAM_BYTES_POOL(buffers, 1024, 4096, 262144, 16777216);

CHAM_HANDLER(rx)
{
    if (cham_bytes_size(&buffers, 7) < 1500)
        return CHAM_PUNT; /* the slow path decides whether it gets more */
    return cham_pkt_to_bytes(ctx, &buffers, 7, 0, CHAM_SPAN(0, 20)) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "cham_csum": """
CHAM_HANDLER(rx) /* a sum over a header that carries its own checksum is 0xffff */
{
    return cham_csum(ctx, CHAM_SPAN(0, 20), 0) == 0xffff ? CHAM_DONE : CHAM_ERROR(1);
}
""",
    "cham_schedule": """
CHAM_TX_IDS(flows, 1024);
CHAM_TIMERS(deadlines, 1024);

CHAM_HANDLER(rx)
{
    cham_schedule(&flows, 7, ctx->now);                 /* the tx hook runs for 7 in this core's next turn */
    cham_schedule(&deadlines, 7, ctx->now + 200000000); /* and the timer hook in 200 ms, if nobody cancels */
    return CHAM_DONE;
}

CHAM_HANDLER(tx) { return ctx->id == 7 ? CHAM_DONE : CHAM_ERROR(1); }
CHAM_HANDLER(timer) { return ctx->id == 7 ? CHAM_DONE : CHAM_ERROR(2); }
""",
    "cham_cancel": """
CHAM_TIMERS(deadlines, 1024);

CHAM_HANDLER(rx)
{
    return cham_cancel(&deadlines, 7) ? CHAM_ERROR(1) : CHAM_DONE; /* an error: it had passed, or was not set */
}

CHAM_HANDLER(timer) { return CHAM_DONE; }
""",
    "cham_pace": """
CHAM_TX_IDS(flows, 1024);

CHAM_HANDLER(tx) /* one run each 100 us for every id; lateness does not add up */
{
    return cham_pace(&flows, ctx->id, 100000) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "cham_random": """
CHAM_HANDLER(rx) { return cham_random(ctx) & 1 ? CHAM_DONE : CHAM_PUNT; }
""",
    "cham_hash": """
CHAM_HANDLER(rx) /* a cookie: only who was sent it can show it */
{
    struct cham_ipv4 *ip = ctx->data;
    u64 *cookie = (void *)(ip + 1);
    if ((void *)(cookie + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    return *cookie == cham_hash(ctx, ip->src, 253) ? CHAM_DONE : CHAM_ERROR(2);
}
""",
    "cham_emit": """
CHAM_HANDLER(rx) /* one packet comes, two leave */
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    struct cham_ipv4 head = *ip;
    u32 from = ip->src;
    ip->src = ip->dst;
    ip->dst = from;
    if (cham_emit(ctx) || cham_resize(ctx, 20)) /* the packet is gone; what follows is a new one */
        return CHAM_ERROR(2);
    ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(3);
    *ip = head;
    ip->src = head.dst;
    ip->dst = head.src;
    ip->total_length = cham_htons(20);
    ip->checksum = cham_csum_replace(head.checksum, head.total_length, ip->total_length);
    return CHAM_TX;
}
""",
    "cham_csum_later": """
CHAM_HANDLER(rx) /* a datagram goes back; bytes 26 and 27 hold UDP's checksum */
{
    struct cham_ipv4 *ip = ctx->data;
    u16 *udp = (void *)(ip + 1);
    if ((void *)(udp + 4) > ctx->data_end)
        return CHAM_ERROR(1);
    u32 from = ip->src;
    ip->src = ip->dst;
    ip->dst = from;
    udp[3] = cham_fold((u64)ip->src + ip->dst + cham_htons(17) + udp[2]); /* the pseudo header */
    return cham_csum_later(ctx, 20, 26) ? CHAM_ERROR(2) : CHAM_TX;
}
""",
}

MAPS: dict[str, str] = {
    "array": """
struct flow { u64 bytes CHAM_FAST; u32 limit CHAM_SLOW; u32 pad; };
CHAM_ARRAY(flows, 1024, struct flow, CHAM_SHARED); /* the slow path sees a NumPy array of 1024 rows */

CHAM_HANDLER(rx)
{
    struct cham_ipv4 *ip = ctx->data;
    u32 id = ctx->hash & 1023;
    struct flow *f = cham_lookup(&flows, &id);
    if (!f || f->bytes > f->limit || (void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    f->bytes += cham_ntohs(ip->total_length);
    return CHAM_DONE;
}
""",
    "hash": """
struct key { u32 address; u16 port, local_port; }; /* no padding: every byte of a key counts */
struct id { u32 socket; };
CHAM_HASH(table, 1024, struct key, struct id, 0);

CHAM_HANDLER(rx)
{
    struct cham_ipv4 *ip = ctx->data;
    u16 *ports = (void *)(ip + 1);
    if ((void *)(ports + 2) > ctx->data_end)
        return CHAM_ERROR(1);
    struct key k = {ip->src, ports[0], ports[1]};
    return cham_lookup(&table, &k) ? CHAM_DONE : CHAM_PUNT;
}
""",
    "ring_out": """
struct word { u32 what, id; };
CHAM_RING_OUT(words, 256, struct word); /* 256 entries for each context */

CHAM_HANDLER(rx)
{
    struct word w = {1, ctx->hash};
    return cham_push(&words, 0, &w) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "ring_in": """
struct order { u32 what, id; };
CHAM_RING_IN(orders, 256, struct order); /* each entry runs the ring hook once */

CHAM_HANDLER(ring)
{
    struct order *o = ctx->entry;
    if ((void *)(o + 1) > ctx->entry_end)
        return CHAM_ERROR(1);
    return o->what == 1 ? CHAM_DONE : CHAM_ERROR(2);
}
""",
    "bytes": """
CHAM_BYTES(buffers, 64, 65536); /* 64 buffers; a position counts on, and is taken modulo the size */

CHAM_HANDLER(rx)
{
    return cham_pkt_to_bytes(ctx, &buffers, ctx->hash & 63, 0, CHAM_SPAN(0, 20)) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "tx": """
CHAM_TX_IDS(flows, 1024);

CHAM_HANDLER(tx) /* runs when an id is due to send, without a packet: cham_resize makes one */
{
    return cham_resize(ctx, 20) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "timer": """
struct word { u32 id; };
CHAM_TIMERS(deadlines, 1024);
CHAM_RING_OUT(words, 1024, struct word);

CHAM_HANDLER(timer) /* tell the slow path that an id's time has passed */
{
    struct word w = {ctx->id};
    return cham_push(&words, 0, &w) ? CHAM_ERROR(1) : CHAM_DONE;
}
""",
    "data": """
static const u8 allowed[4] = {17, 6, 253, 254};
static u64 counts[4]; /* of this core, private to handlers, kept until the instance ends */

CHAM_HANDLER(rx)
{
    struct cham_ipv4 *ip = ctx->data;
    if ((void *)(ip + 1) > ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < 4; i++)
        if (allowed[i] == ip->protocol) {
            counts[i]++;
            return counts[i] > 1000 ? CHAM_PUNT : CHAM_DONE;
        }
    return CHAM_ERROR(2);
}
""",
}

FIELDS: dict[str, str] = {
    "data": """
CHAM_HANDLER(rx)
{
    u8 *p = ctx->data;
    if (p + 1 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    return p[0] == 0x45 ? CHAM_DONE : CHAM_ERROR(2);
}
""",
    "data_end": """
CHAM_HANDLER(rx) { return ctx->data_end - ctx->data > 1000 ? CHAM_PUNT : CHAM_DONE; }
""",
    "entry": """
CHAM_RING_IN(orders, 64, u64);

CHAM_HANDLER(ring) { return *(u64 *)ctx->entry == 1 ? CHAM_DONE : CHAM_ERROR(1); }
""",
    "entry_end": """
CHAM_RING_IN(orders, 64, u64);

CHAM_HANDLER(ring) { return ctx->entry + 8 > ctx->entry_end ? CHAM_ERROR(1) : CHAM_DONE; }
""",
    "now": """
CHAM_TIMERS(deadlines, 16);

CHAM_HANDLER(rx) { return cham_schedule(&deadlines, 0, ctx->now + 1000000) ? CHAM_ERROR(1) : CHAM_DONE; }
CHAM_HANDLER(timer) { return CHAM_DONE; }
""",
    "id": """
CHAM_RING_IN(orders, 64, u64);

CHAM_HANDLER(ring) { return ctx->id == 0 ? CHAM_DONE : CHAM_ERROR(1); } /* only the slow path may */
""",
    "hash": """
CHAM_ARRAY(counts, 256, u64, 0);

CHAM_HANDLER(rx)
{
    u32 slot = ctx->hash & 255;
    u64 *n = cham_lookup(&counts, &slot);
    return n && (*n)++ > 100 ? CHAM_PUNT : CHAM_DONE;
}
""",
    "core": """
CHAM_ARRAY(per_core, 8, u64, CHAM_SHARED); /* arrays exist once: an id belongs to one core */

CHAM_HANDLER(rx)
{
    u32 mine = ctx->core;
    u64 *n = cham_lookup(&per_core, &mine);
    if (n)
        (*n)++;
    return CHAM_DONE;
}
""",
    "csum_ok": """
CHAM_HANDLER(rx)
{
    if (!ctx->csum_ok && cham_csum(ctx, CHAM_SPAN(20, 8), 0) == 0)
        return CHAM_ERROR(1);
    return CHAM_DONE;
}
""",
}
