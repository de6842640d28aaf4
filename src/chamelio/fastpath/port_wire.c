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
    u32 n = 0;
    for (; ready && n < max; ready--) {
        const struct wire_slot *slot = &w->in->slots[w->in_cons % WIRE_SLOTS];
        u32 len = untrusted_u32(&slot->len);
        if (unlikely(len < CHAM_ETH_LEN || len > CHAM_ETH_LEN + CHAM_IP_MAX)) {
            port->counters.rx_refused++;
            w->in_cons++;
            continue;
        }
        struct cham_frame *f = frame_get(port->pool);
        if (unlikely(!f))
            break; /* the wire keeps it: backpressure, not loss */
        untrusted_copy(frame_eth(f), slot->bytes, len);
        f->len = (u16)(len - CHAM_ETH_LEN);
        f->flags = (u8)(untrusted_u32(&slot->flags) & CHAM_FRAME_CSUM_OK);
        port->counters.rx_bytes += len;
        frames[n++] = f;
        w->in_cons++;
    }
    publish_u32(&w->in->cons, w->in_cons);
    port->counters.rx_packets += n;
    return n;
}

static void wire_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    struct cham_wire *w = port->state;
    (void)now;
    u32 used = untrusted_distance(w->out_prod, untrusted_u32(&w->out->cons), WIRE_SLOTS);
    if (unlikely(used == UNTRUSTED_LIE)) {
        w->damaged = 1;
        port->status = CHAM_PORT_DOWN;
    }
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        if (unlikely(w->damaged)) {
            port->counters.tx_down++;
        } else if (unlikely(used == WIRE_SLOTS)) {
            port->counters.tx_full++;
        } else {
            struct wire_slot *slot = &w->out->slots[w->out_prod % WIRE_SLOTS];
            u32 len = frame_wire_len(f);
            slot->len = len;
            slot->flags = f->flags & CHAM_FRAME_CSUM_OK;
            __builtin_memcpy(slot->bytes, frame_eth(f), len);
            port->counters.tx_packets++;
            port->counters.tx_bytes += len;
            w->out_prod++;
            used++;
        }
        frame_put(port->pool, f);
    }
    publish_u32(&w->out->prod, w->out_prod);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is there before whether it sleeps */
    if (unlikely(untrusted_u32(&w->out->wait)) && w->bell >= 0 && write(w->bell, "", 1) < 0)
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
