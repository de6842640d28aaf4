/* Sends every datagram back to where it came from; VERSION makes versions of it. */
#include <chamelio.h>

#ifndef VERSION
#define VERSION 1
#endif

struct flow {
    u64 packets;
    u64 limit CHAM_SLOW;
};

CHAM_ARRAY(flows, 4, struct flow, CHAM_SHARED);

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 key = 0;
    if (p + 28 > end)
        return CHAM_ERROR(VERSION);
    struct flow *flow = cham_lookup(&flows, &key);
    if (flow)
        flow->packets++;
    for (int i = 0; i < 4; i++) {
        u8 t = p[12 + i];
        p[12 + i] = p[16 + i];
        p[16 + i] = t;
    }
    for (int i = 0; i < 2; i++) {
        u8 t = p[20 + i];
        p[20 + i] = p[22 + i];
        p[22 + i] = t;
    }
    return CHAM_TX;
}
