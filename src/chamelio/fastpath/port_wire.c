/* The shared-memory wire as a port. */
#include "port.h"
#include "port_sys.h"
#include "port_wire.h"
#include "untrusted.h"

static u32 wire_rx(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now)
{
    struct cham_wire *w = port->state;
    (void)now;
    if (unlikely(w->damaged))
        return 0;
    u32 ready = untrusted_distance(untrusted_u32(&w->in->prod), w->in_cons, WIRE_SLOTS);
    if (unlikely(ready == UNTRUSTED_LIE)) {
        w->damaged = 1;
        port->status = CHAM_PORT_DOWN;
        port->counters.rx_refused++;
        return 0;
    }
    struct wire_ring *in = w->in;
    struct cham_pool *pool = port->pool;
    u32 cons = w->in_cons, n = 0;
    u64 bytes = 0;
    for (; ready && n < max; ready--, cons++) {
        const struct wire_slot *slot = &in->slots[cons % WIRE_SLOTS];
        u32 len = untrusted_u32(&slot->len);
        if (unlikely(len < CHAM_ETH_LEN || len > CHAM_ETH_LEN + CHAM_IP_MAX)) {
            port->counters.rx_refused++;
            continue;
        }
        struct cham_frame *f = frame_get(pool);
        if (unlikely(!f))
            break; /* the wire keeps it: backpressure, not loss */
        f->len = (u16)(len - CHAM_ETH_LEN);
        f->flags = (u8)(untrusted_u32(&slot->flags) & CHAM_FRAME_CSUM_OK);
        untrusted_copy_packet(frame_eth(f), slot->bytes, len);
        bytes += len;
        frames[n++] = f;
    }
    w->in_cons = cons;
    publish_u32(&in->cons, cons);
    port->counters.rx_packets += n;
    port->counters.rx_bytes += bytes;
    return n;
}

static void wire_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    struct cham_wire *w = port->state;
    struct wire_ring *out = w->out;
    struct cham_pool *pool = port->pool;
    (void)now;
    u32 prod = w->out_prod, used = untrusted_distance(prod, untrusted_u32(&out->cons), WIRE_SLOTS), i = 0;
    if (unlikely(used == UNTRUSTED_LIE)) {
        w->damaged = 1;
        port->status = CHAM_PORT_DOWN;
    }
    u32 fit = likely(!w->damaged) ? cham_min(n, WIRE_SLOTS - used) : 0;
    u64 bytes = 0;
    for (; i < fit; i++, prod++) {
        struct cham_frame *f = frames[i];
        struct wire_slot *slot = &out->slots[prod % WIRE_SLOTS];
        u32 len = frame_wire_len(f);
        slot->len = len;
        slot->flags = f->flags & CHAM_FRAME_CSUM_OK;
        cham_copy_packet(slot->bytes, frame_eth(f), len);
        bytes += len;
        frame_put(pool, f);
    }
    w->out_prod = prod;
    port->counters.tx_packets += fit;
    port->counters.tx_bytes += bytes;
    *(w->damaged ? &port->counters.tx_down : &port->counters.tx_full) += n - fit;
    for (; i < n; i++)
        frame_put(pool, frames[i]);
    publish_u32(&out->prod, prod);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is there before whether it sleeps */
    if (unlikely(untrusted_u32(&out->wait)) && w->bell >= 0 && write(w->bell, "", 1) < 0)
        return; /* it is full: it has been rung often enough */
}

static void wire_ask(struct cham_port *port, u32 ring)
{
    struct cham_wire *w = port->state;
    publish_u32(&w->in->wait, ring);
}

static void wire_flush(struct cham_port *port, u64 now)
{
    (void)port;
    (void)now;
}

const struct cham_port_ops cham_wire_ops = {wire_rx, wire_tx, wire_flush, wire_ask};
