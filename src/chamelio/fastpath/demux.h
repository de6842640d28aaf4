/* Demultiplexing: (network, address, IP protocol, port range) to an instance. */
#ifndef CHAM_DEMUX_H
#define CHAM_DEMUX_H

#include "core.h"

/* Multiplicative: the addresses of a subnet, which differ in their last byte, have buckets of their own. */
CHAM_INLINE u32 binding_bucket(u32 network, u32 address) { return (address + network * 0x85ebca6bu) * 0x9e3779b1u >> 24; }

CHAM_INLINE u64 binding_at(u32 network, u32 address) { return (u64)network << 32 | address; }

/* The binding at an address whose range holds `what`, or NULL. */
CHAM_INLINE const struct cham_binding *demux(const struct cham_core *core, u32 network, u32 address, u32 what)
{
    for (u32 i = core->bindings_head[binding_bucket(network, address)]; i != CHAM_NONE;) {
        const struct cham_binding *b = core->bindings + i;
        if (likely(b->at == binding_at(network, address) && what - b->first <= b->further))
            return b;
        i = b->next;
    }
    return 0;
}

/* The binding of an address itself, or NULL: nobody here has it. */
CHAM_INLINE const struct cham_binding *demux_address(const struct cham_core *core, u32 network, u32 address)
{
    return demux(core, network, address, CHAM_NO_PROTOCOL);
}

/* The binding of an IP protocol at an address whose port range holds `port` (host order), or NULL. Protocol 0, which packets
 * may carry too (RFC 8200, hop-by-hop options), is bound by nobody. */
CHAM_INLINE const struct cham_binding *demux_protocol(const struct cham_core *core, u32 network, u32 address,
                                                      u32 protocol, u32 port)
{
    return demux(core, network, address, protocol << 16 | port);
}

/* The core that owns a flow. `port` is the local one in host order, `ports` both as in the packet. What it depends on is known
 * to everybody, so that a tenant can choose ports whose flows live where it wants them. */
CHAM_INLINE u32 demux_core(const struct cham_core *core, const struct cham_binding *b, u32 remote, u32 ports, u32 port)
{
    if (b->steer == CHAM_STEER_PORT)
        return port % core->n_cores;
    return (u32)(cham_mix((u64)remote << 32 | ports, 0x9e3779b97f4a7c15ull) >> 32) % core->n_cores;
}

#endif
