/* TAP as a port. The file descriptor is non-blocking and was opened with IFF_TAP | IFF_NO_PI. */
#include "port_tap.h"
#include "port.h"
#include "port_sys.h"
#include "untrusted.h"

#define TAP_FRAME_MAX (CHAM_ETH_LEN + CHAM_IP_MAX)
_Static_assert(CHAM_IP_OFFSET + CHAM_IP_MAX < CHAM_FRAME_BYTES, "one byte more than the longest frame can be read");

CHAM_INLINE int tap_usable(struct cham_port *port, const struct cham_tap *tap)
{
    int up = untrusted_u32(&tap->link) && !tap->failed;
    port->status = up ? CHAM_PORT_UP : CHAM_PORT_DOWN;
    return up;
}

/* 1: try again later. Anything else than a full or empty queue, or an interface that is down for now, ends the port. */
static int tap_error(struct cham_port *port, struct cham_tap *tap)
{
    int error = *__errno_location();
    if (error == SYS_EAGAIN || error == SYS_EINTR || error == SYS_ENOBUFS || error == SYS_ENOMEM)
        return 1;
    tap->errors++;
    if (error != SYS_EIO) /* EIO: the interface is down, which the control thread sees too */
        tap->failed = (u32)error;
    port->status = CHAM_PORT_DOWN;
    return 0;
}

static u32 tap_rx(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now)
{
    struct cham_tap *tap = port->state;
    u32 n = 0;
    (void)now;
    if (unlikely(!tap_usable(port, tap)))
        return 0;
    for (u32 tries = 0; tries < max; tries++) {
        struct cham_frame *f = frame_get(port->pool);
        if (unlikely(!f))
            break; /* the interface's queue keeps it */
        long len = read(tap->fd, frame_eth(f), TAP_FRAME_MAX + 1); /* a longer frame shows as this length */
        if (likely(len >= CHAM_ETH_LEN && len <= TAP_FRAME_MAX)) {
            f->len = (u16)(len - CHAM_ETH_LEN);
            port->counters.rx_bytes += (u64)len;
            frames[n++] = f;
            continue;
        }
        frame_put(port->pool, f);
        if (len < 0) {
            tap_error(port, tap);
            break;
        }
        port->counters.rx_refused++;
    }
    port->counters.rx_packets += n;
    return n;
}

static void tap_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    struct cham_tap *tap = port->state;
    int up = tap_usable(port, tap);
    (void)now;
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        u32 len = frame_wire_len(f);
        if (unlikely(!up)) {
            port->counters.tx_down++;
        } else if (unlikely(write(tap->fd, frame_eth(f), len) != (long)len)) {
            up = tap_error(port, tap);
            if (up)
                port->counters.tx_full++;
            else
                port->counters.tx_down++;
        } else {
            port->counters.tx_packets++;
            port->counters.tx_bytes += len;
        }
        frame_put(port->pool, f);
    }
}

static void tap_flush(struct cham_port *port, u64 now)
{
    (void)port;
    (void)now;
}

const struct cham_port_ops cham_tap_ops = {tap_rx, tap_tx, tap_flush, 0};
