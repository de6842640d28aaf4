/* Pairs of what only the kernel's programs can do wrong. */
#include "kernel.h"

struct event {
    u64 when;
    u32 length, source;
};

MAP_OF_BYTES(ring, RINGBUF, 4096);

PROGRAM_OF(xdp, V117_before)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_PASS;
    u32 *p = DATA;
    if ((void *)(p + 1) > DATA_END)
        return XDP_DROP;
    e->source = *p;
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
} /* V117: not given back */

PROGRAM_OF(xdp, V117_after)
{
    struct event *e = bpf_ringbuf_reserve(&ring, sizeof *e, 0);
    if (!e)
        return XDP_PASS;
    u32 *p = DATA;
    if ((void *)(p + 1) > DATA_END) {
        bpf_ringbuf_discard(e, 0);
        return XDP_DROP;
    }
    e->source = *p;
    bpf_ringbuf_submit(e, 0);
    return XDP_PASS;
}
