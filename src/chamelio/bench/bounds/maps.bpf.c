/* One map of each kind, for measuring the helpers that work on them. */
#include "chamelio.h"

struct value {
    u64 words[8];
};
struct key {
    u64 words[2];
};

CHAM_ARRAY(array, 4096, struct value, 0);
CHAM_HASH(hash, 1024, struct key, struct value, 0);
CHAM_RING_OUT(ring_out, 256, struct value);
CHAM_BYTES(bytes, 16, 65536);
CHAM_BYTES_POOL(pool, 1024, 64, 2097152, 6291456);
CHAM_TX_IDS(tx, 4096);
CHAM_TIMERS(timer, 4096);

CHAM_HANDLER(rx)
{
    return CHAM_DONE;
}

char _license[] __attribute__((section("license"), used)) = "Apache-2.0";
