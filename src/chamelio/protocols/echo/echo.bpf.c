/* UDP packets go back where they came from: the smallest handler that answers. */
#include "chamelio.h"

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 28 > end || p[0] != 0x45)
        return CHAM_ERROR(1);
    struct cham_ipv4 *ip = (void *)p;
    u16 *ports = (void *)(ip + 1);
    u32 address = ip->src;
    u16 port = ports[0];
    ip->src = ip->dst;
    ip->dst = address;
    ports[0] = ports[1];
    ports[1] = port;
    return CHAM_TX; /* sums do not change when their terms change places */
}
