/* The fast path: requests are answered where they arrive, replies go to the application that asked. */
#include "chamelio.h"
#include "ping.h"

#define PROTOCOL 253
#define IP_BYTES 20

enum { REQUEST, REPLY };
enum reason { SHORT = 1, OPTIONS, UNKNOWN_KIND, NOBODY_LISTENS, TOO_SHORT_ENTRY };

struct header {
    u32 kind;
    u32 context; /* the application that asked */
    u32 sequence;
    u32 pad;
    u64 sent; /* when, by the clock of who asked */
};

CHAM_ARRAY(totals, 1, struct ping_totals, CHAM_SHARED);
CHAM_RING_OUT(replies, 256, struct ping_reply);
CHAM_RING_IN(requests, 256, struct ping_request);

CHAM_HANDLER(rx)
{
    u8 *packet = ctx->data, *end = ctx->data_end;
    if (packet + IP_BYTES + sizeof(struct header) > end)
        return CHAM_ERROR(SHORT);
    if (packet[0] != 0x45)
        return CHAM_ERROR(OPTIONS);
    struct cham_ipv4 *ip = (void *)packet;
    struct header *h = (void *)(packet + IP_BYTES);
    u32 zero = 0;
    struct ping_totals *t = cham_lookup(&totals, &zero);
    if (!t)
        return CHAM_DONE;
    if (h->kind == REQUEST) {
        if (t->muted) {
            t->ignored++;
            return CHAM_DONE;
        }
        u32 from = ip->src;
        ip->src = ip->dst; /* the checksum's terms change places: it stays right */
        ip->dst = from;
        h->kind = REPLY;
        t->answered++;
        return CHAM_TX;
    }
    if (h->kind != REPLY)
        return CHAM_ERROR(UNKNOWN_KIND);
    struct ping_reply reply = {ip->src, h->sequence, ctx->now - h->sent};
    return cham_push(&replies, h->context, &reply) ? CHAM_ERROR(NOBODY_LISTENS) : CHAM_DONE;
}

CHAM_HANDLER(ring)
{
    struct ping_request *request = ctx->entry;
    if ((void *)(request + 1) > ctx->entry_end)
        return CHAM_ERROR(TOO_SHORT_ENTRY);
    u32 from = request->from, to = request->to, sequence = request->sequence;
    u32 length = IP_BYTES + sizeof(struct header);
    if (cham_resize(ctx, length))
        return CHAM_ERROR(SHORT);
    u8 *packet = ctx->data, *end = ctx->data_end;
    if (packet + IP_BYTES + sizeof(struct header) > end)
        return CHAM_ERROR(SHORT);
    struct cham_ipv4 *ip = (void *)packet;
    ip->version_ihl = 0x45;
    ip->total_length = cham_htons(length);
    ip->ttl = 64;
    ip->protocol = PROTOCOL;
    ip->src = from; /* another address than the tenant's own is refused by the provider */
    ip->dst = to;
    ip->checksum = ~cham_csum(ctx, CHAM_SPAN(0, IP_BYTES), 0);
    struct header *h = (void *)(packet + IP_BYTES);
    h->kind = REQUEST;
    h->context = ctx->id;
    h->sequence = sequence;
    h->sent = ctx->now;
    return CHAM_TX;
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
