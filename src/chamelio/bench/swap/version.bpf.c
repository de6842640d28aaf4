/* UDP echo that writes its version into every answer, so that one sees which code served a request. */
#include "chamelio.h"

#define AT 36 /* IPv4 and UDP headers, and the request's number */

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + AT + 1 > end || p[0] != 0x45)
        return CHAM_ERROR(1);
    struct cham_ipv4 *ip = (void *)p;
    u16 *ports = (void *)(ip + 1);
    u32 address = ip->src;
    u16 port = ports[0];
    ip->src = ip->dst;
    ip->dst = address;
    ports[0] = ports[1];
    ports[1] = port;
    p[AT] = VERSION;
    return CHAM_TX;
}
