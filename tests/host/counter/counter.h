/* Sends datagrams back, and counts them: in a shared value, whose type differs between versions, and by port in a private hash. */
#include "chamelio.h"

struct port {
    u16 number;
    u16 zero;
};

struct count {
    u64 packets;
};

struct entry { /* the slow path, and a migration: remember a number */
    u32 number, value;
};

#if VERSION == 1
struct total {
    u32 packets; /* of all ports */
    u32 limit CHAM_SLOW;
    u64 of_port; /* of the one that came last */
};
#define TOTALS 2
#else
struct total {
    u64 limit CHAM_SLOW;
    u64 of_port;
    u64 packets;
    u32 numbers; /* that are remembered */
    u32 last;
};
#define TOTALS 4
#endif

CHAM_ARRAY(totals, TOTALS, struct total, CHAM_SHARED);
CHAM_HASH(ports, 64, struct port, struct count, 0);
CHAM_RING_IN(requests, 64, struct entry);
#if VERSION == 2
CHAM_HASH(numbers, 256, u32, u32, 0);
#endif

CHAM_HANDLER(rx)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 first = 0;
    if (p + 32 > end)
        return CHAM_ERROR(1);
    struct total *total = cham_lookup(&totals, &first);
    struct port port = {*(u16 *)(p + 20), 0};
    struct count *count = cham_lookup(&ports, &port);
    if (!count) {
        struct count none = {0};
        cham_update(&ports, &port, &none, 0);
        count = cham_lookup(&ports, &port);
    }
    if (!total || !count)
        return CHAM_ERROR(2);
    total->packets++;
    count->packets++;
    total->of_port = count->packets;
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

CHAM_HANDLER(ring)
{
    struct entry *e = ctx->entry;
    if ((void *)(e + 1) > ctx->entry_end)
        return CHAM_ERROR(3);
#if VERSION == 2
    u32 first = 0;
    struct total *total = cham_lookup(&totals, &first);
    if (!total || cham_update(&numbers, &e->number, &e->value, 0))
        return CHAM_ERROR(4);
    total->numbers++;
    total->last = e->value;
#endif
    return CHAM_DONE;
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
