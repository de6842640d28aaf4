/* AF_XDP as a port: received bytes are copied out of the UMEM, sent ones into it. */
#include "port_xdp.h"
#include "port.h"
#include "port_sys.h"
#include "untrusted.h"

#define MASK (XDP_RING - 1)

static void xdp_damage(struct cham_port *port, struct cham_xdp *x)
{
    x->damaged = 1;
    port->status = CHAM_PORT_DOWN;
    port->counters.rx_refused++;
}

CHAM_INLINE int xdp_usable(struct cham_port *port, const struct cham_xdp *x)
{
    int up = untrusted_u32(&x->link) && !x->damaged && !x->failed;
    port->status = up ? CHAM_PORT_UP : CHAM_PORT_DOWN;
    return up;
}

/* A system call on the socket failed: is it the interface's state, or only that the kernel is busy? */
static void xdp_error(struct cham_port *port, struct cham_xdp *x, u64 now)
{
    int error = *__errno_location();
    if (error == SYS_EAGAIN || error == SYS_EBUSY || error == SYS_ENOBUFS || error == SYS_EINTR || error == SYS_ENOMEM)
        return;
    x->kick_errors++;
    x->failed = 1;
    x->retry_at = now + XDP_RETRY_NS;
    port->status = CHAM_PORT_DOWN;
}

static u32 xdp_rx(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now)
{
    struct cham_xdp *x = port->state;
    (void)now;
    if (unlikely(!xdp_usable(port, x)))
        return 0;
    u32 ready = untrusted_distance(untrusted_u32(x->rx.prod), x->rx.ours, XDP_RING);
    if (unlikely(ready == UNTRUSTED_LIE)) {
        xdp_damage(port, x);
        return 0;
    }
    u32 n = 0, taken = 0;
    for (; taken < ready && n < max; taken++) {
        struct xdp_desc desc;
        untrusted_copy(&desc, (const struct xdp_desc *)x->rx.entries + (x->rx.ours & MASK), sizeof(desc));
        u64 chunk = desc.addr / XDP_CHUNK, offset = desc.addr % XDP_CHUNK;
        if (unlikely(chunk >= XDP_RING || offset + desc.len > XDP_CHUNK)) {
            xdp_damage(port, x);
            break;
        }
        if (unlikely(desc.len < CHAM_ETH_LEN || desc.len > CHAM_ETH_LEN + CHAM_IP_MAX)) {
            port->counters.rx_refused++;
        } else {
            struct cham_frame *f = frame_get(port->pool);
            if (unlikely(!f))
                break; /* the ring keeps it: backpressure, not loss */
            __builtin_memcpy(frame_eth(f), x->umem + desc.addr, desc.len);
            f->len = (u16)(desc.len - CHAM_ETH_LEN);
            port->counters.rx_bytes += desc.len;
            frames[n++] = f;
        }
        ((u64 *)x->fill.entries)[x->fill.ours++ & MASK] = chunk * XDP_CHUNK;
        x->rx.ours++;
    }
    if (taken) {
        publish_u32(x->rx.cons, x->rx.ours);
        publish_u32(x->fill.prod, x->fill.ours);
    }
    port->counters.rx_packets += n;
    return n;
}

/* Chunks that the kernel has sent come back to the stack. */
static void xdp_reclaim(struct cham_port *port, struct cham_xdp *x)
{
    u32 ready = untrusted_distance(untrusted_u32(x->completion.prod), x->completion.ours, XDP_RING);
    if (unlikely(ready == UNTRUSTED_LIE)) {
        xdp_damage(port, x);
        return;
    }
    for (u32 i = 0; i < ready; i++) {
        u64 addr;
        untrusted_copy(&addr, (const u64 *)x->completion.entries + (x->completion.ours & MASK), sizeof(addr));
        u64 chunk = addr / XDP_CHUNK;
        if (unlikely(chunk < XDP_RING || chunk >= 2 * XDP_RING || !x->busy[chunk - XDP_RING])) {
            xdp_damage(port, x);
            break;
        }
        x->busy[chunk - XDP_RING] = 0;
        x->free[x->n_free++] = (u32)chunk;
        x->completion.ours++;
    }
    publish_u32(x->completion.cons, x->completion.ours);
}

static void xdp_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    struct cham_xdp *x = port->state;
    int up = xdp_usable(port, x);
    (void)now;
    if (likely(up) && x->n_free < n)
        xdp_reclaim(port, x);
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        if (unlikely(!up || x->damaged)) {
            port->counters.tx_down++;
        } else if (unlikely(!x->n_free)) {
            port->counters.tx_full++;
        } else {
            u32 chunk = x->free[--x->n_free], len = frame_wire_len(f);
            struct xdp_desc *desc = (struct xdp_desc *)x->tx.entries + (x->tx.ours++ & MASK);
            x->busy[chunk - XDP_RING] = 1;
            __builtin_memcpy(x->umem + (u64)chunk * XDP_CHUNK, frame_eth(f), len);
            *desc = (struct xdp_desc){.addr = (u64)chunk * XDP_CHUNK, .len = len};
            x->unsent++;
            port->counters.tx_packets++;
            port->counters.tx_bytes += len;
        }
        frame_put(port->pool, f);
    }
    publish_u32(x->tx.prod, x->tx.ours);
}

static void xdp_kick(struct cham_port *port, struct cham_xdp *x, u64 now)
{
    x->failed = 0;
    for (u32 i = 0; i < XDP_KICKS && !x->failed; i++) {
        x->kicks++;
        if (sendto(x->fd, 0, 0, SYS_MSG_DONTWAIT, 0, 0) < 0)
            xdp_error(port, x, now);
        if (untrusted_u32(x->tx.cons) == x->tx.ours) {
            x->unsent = 0;
            break;
        }
    }
}

static void xdp_flush(struct cham_port *port, u64 now)
{
    struct cham_xdp *x = port->state;
    if (unlikely(x->damaged || !untrusted_u32(&x->link)))
        return;
    if (unlikely(x->failed)) {
        if (now >= x->retry_at)
            xdp_kick(port, x, now);
        return;
    }
    if (x->unsent) {
        if (untrusted_u32(x->tx.flags) & XDP_NEED_WAKEUP)
            xdp_kick(port, x, now);
        else
            x->unsent = 0; /* a driver that polls the ring by itself */
    }
    if (x->n_free < XDP_RING)
        xdp_reclaim(port, x);
    if (unlikely(untrusted_u32(x->fill.flags) & XDP_NEED_WAKEUP) && recvfrom(x->fd, 0, 0, SYS_MSG_DONTWAIT, 0, 0) < 0)
        xdp_error(port, x, now);
}

u32 cham_xdp_check(const struct cham_port *port)
{
    const struct cham_xdp *x = port->state;
    u32 busy = 0;
    for (u32 i = 0; i < XDP_RING; i++)
        busy += x->busy[i];
    return x->n_free + busy == XDP_RING && x->tx.ours - x->completion.ours == busy && x->fill.ours - x->rx.ours == XDP_RING;
}

const struct cham_port_ops cham_xdp_ops = {xdp_rx, xdp_tx, xdp_flush, 0};
