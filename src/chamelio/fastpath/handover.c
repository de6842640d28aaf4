/* Packets between cores: given to the core that owns a flow or polls a port, and taken from the others. */
#include <unistd.h>

#include "demux.h"
#include "handover.h"

static void hand_over(struct cham_core *core, u32 to, struct cham_frame *f, struct handover_slot slot)
{
    struct cham_handover *h = core->to[to];
    struct cham_instance *inst = slot.instance == CHAM_NONE ? 0 : core->instances[slot.instance];
    charge(core, COST_HANDOVER);
    if (unlikely(!handover_room(h, slot.tenant)))
        handover_reclaim(core, h);
    if (unlikely(!handover_room(h, slot.tenant)))
        return cham_drop(core, inst, slot.tenant, f, CHAM_DROP_HANDOVER_FULL);
    ++*handover_held(h, slot.tenant);
    slot.frame = f;
    h->slots[h->prod % HANDOVER_SLOTS] = slot;
    publish_u32(&h->prod, h->prod + 1);
    core->counters->handed_over++;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (unlikely(untrusted_u32(&h->wait)) && write(core->bells[to], "", 1) < 0)
        return; /* its bell is full: it has been rung often enough */
}

void cham_hand_delivery(struct cham_core *core, u32 to, u32 network, const struct cham_binding *b, struct cham_frame *f)
{
    hand_over(core, to, f,
              (struct handover_slot){.kind = HANDOVER_DELIVER, .network = network, .tenant = b->tenant, .instance = b->instance});
}

void cham_hand_send(struct cham_core *core, const struct cham_port *port, struct cham_instance *inst, u32 next_hop,
                    struct cham_frame *f)
{
    hand_over(core, port->core, f,
              (struct handover_slot){.kind = HANDOVER_SEND, .network = port->network, .tenant = inst ? inst->tenant : CHAM_NONE,
                                     .instance = inst ? inst->index : CHAM_NONE, .port = port->index, .next_hop = next_hop});
}

static void take(struct cham_core *core, const struct handover_slot *slot, struct cham_frame *f)
{
    struct cham_instance *inst = slot->instance == CHAM_NONE ? 0 : core->instances[slot->instance];
    if (slot->kind == HANDOVER_DELIVER)
        return cham_deliver(core, slot->network, f, CHAM_HANDED_OVER);
    struct cham_port *port = core->ports[slot->port];
    if (slot->tenant != CHAM_NONE)
        core->tenants[slot->tenant].burst_packets++;
    if (unlikely(!port || port->core != core->index || port->network != slot->network)) /* it has gone, or another has its number */
        return cham_drop(core, inst, slot->tenant, f, CHAM_DROP_PORT_DOWN);
    cham_neighbour_send(core, port, inst, slot->next_hop, f);
}

u32 cham_poll_handovers(struct cham_core *core)
{
    u32 total = 0;
    for (u32 k = 0; k < core->n_cores; k++) {
        struct cham_handover *h = core->from[k];
        if (!h)
            continue;
        handover_reclaim(core, core->to[k]);
        u32 n = cham_min(untrusted_u32(&h->prod) - h->cons, CHAM_BURST), done = 0;
        for (; done < n; done++) {
            struct cham_frame *f = frame_get(&core->pool);
            if (unlikely(!f))
                break; /* the ring keeps it */
            const struct handover_slot *slot = h->slots + (h->cons + done) % HANDOVER_SLOTS;
            const struct cham_frame *theirs = slot->frame;
            f->len = theirs->len;
            f->flags = theirs->flags;
            f->csum_start = theirs->csum_start;
            f->csum_at = theirs->csum_at;
            __builtin_memcpy(frame_ip(f), theirs->bytes + CHAM_IP_OFFSET, theirs->len);
            take(core, slot, f);
        }
        publish_u32(&h->cons, h->cons + done);
        charge(core, (u64)done * COST_HANDOVER);
        total += done;
    }
    return total;
}
