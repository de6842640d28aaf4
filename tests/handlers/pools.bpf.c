/* A protocol with a pool of buffers: what an order in the ring says is done to it, and the result told. */
#include "chamelio.h"

struct order {
    u32 what, id;
    u64 size, keep;
};

struct result {
    u32 what, id;
    u64 value, now;
};

CHAM_RING_IN(orders, 128, struct order);
CHAM_RING_OUT(results, 128, struct result);
CHAM_BYTES_POOL(pool, 64, 64, 1024, 8192);
CHAM_BYTES(fixed, 4, 256);

CHAM_HANDLER(ring)
{
    struct order *o = ctx->entry;
    if ((void *)(o + 1) > ctx->entry_end)
        return CHAM_ERROR(1);
    struct result r = {.what = o->what, .id = o->id, .now = ctx->now};
    switch (o->what) {
    case 'o':
        r.value = cham_bytes_open(&pool, o->id, o->size, o->keep);
        break;
    case 'c':
        r.value = cham_bytes_close(&pool, o->id);
        break;
    case 's':
        r.value = cham_bytes_size(&pool, o->id);
        break;
    case 'f': /* a map whose buffers are fixed */
        r.value = cham_bytes_open(&fixed, o->id, o->size, 0);
        break;
    case 'F':
        r.value = cham_bytes_close(&fixed, o->id);
        break;
    case 'S':
        r.value = cham_bytes_size(&fixed, o->id);
        break;
    case 'w': /* `keep` bytes of zeros and then some from a packet, at position `size` */
        if (cham_resize(ctx, 64))
            return CHAM_ERROR(2);
        r.value = cham_pkt_to_bytes(ctx, &pool, o->id, o->size, CHAM_SPAN(0, o->keep));
        break;
    default:
        return CHAM_ERROR(3);
    }
    return cham_push(&results, 0, &r) ? CHAM_ERROR(4) : CHAM_DONE;
}
