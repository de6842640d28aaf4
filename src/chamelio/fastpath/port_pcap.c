/* The pcapng tap as a port around another one. */
#include "port_pcap.h"
#include "port.h"
#include "untrusted.h"

/* Copy into the ring at byte position `at`, round its end if need be. */
static void pcap_copy(struct cham_pcap *pcap, u32 at, const void *from, u32 len)
{
    u32 offset = at & (pcap->size - 1), first = cham_min(len, pcap->size - offset);
    __builtin_memcpy(pcap->ring + offset, from, first);
    __builtin_memcpy(pcap->ring, (const u8 *)from + first, len - first);
}

static void pcap_record(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now, u32 direction)
{
    struct cham_pcap *pcap = port->state;
    u32 at = pcap->prod, used = at - untrusted_u32(&pcap->cons);
    for (u32 i = 0; i < n; i++) {
        struct pcap_record record = {.original = frame_wire_len(frames[i]), .now = now, .direction = direction};
        record.captured = cham_min(record.original, pcap->snaplen);
        u32 whole = (u32)sizeof(record) + ((record.captured + 7) & ~7u);
        if (unlikely(pcap->size - used < whole)) {
            pcap->lost++;
            continue;
        }
        pcap_copy(pcap, at, &record, sizeof(record));
        pcap_copy(pcap, at + (u32)sizeof(record), frame_eth(frames[i]), record.captured);
        at += whole;
        used += whole;
        pcap->recorded++;
    }
    publish_u32(&pcap->prod, at);
}

static u32 pcap_rx(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now)
{
    struct cham_port *inner = port->inner;
    u32 n = inner->ops->rx(inner, frames, max, now);
    port->status = inner->status;
    if (n)
        pcap_record(port, frames, n, now, PCAP_INBOUND);
    port->counters.rx_packets += n;
    for (u32 i = 0; i < n; i++)
        port->counters.rx_bytes += frame_wire_len(frames[i]);
    return n;
}

static void pcap_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    pcap_record(port, frames, n, now, PCAP_OUTBOUND);
    port->counters.tx_packets += n;
    for (u32 i = 0; i < n; i++)
        port->counters.tx_bytes += frame_wire_len(frames[i]);
    port->inner->ops->tx(port->inner, frames, n, now);
}

static void pcap_flush(struct cham_port *port, u64 now)
{
    port->inner->ops->flush(port->inner, now);
    port->status = port->inner->status;
}

static void pcap_ask(struct cham_port *port, u32 ring)
{
    if (port->inner->ops->ask)
        port->inner->ops->ask(port->inner, ring);
}

const struct cham_port_ops cham_pcap_ops = {pcap_rx, pcap_tx, pcap_flush, pcap_ask};
