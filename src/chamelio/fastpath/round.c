/* The round: poll ports, serve tenants by deficit round robin in cycles, flush ports, run one control message. */
#include "core.h"

static u32 poll_ports(struct cham_core *core)
{
    struct cham_frame *frames[CHAM_BURST];
    u32 total = 0;
    for (u32 i = 0; i < core->n_polled; i++) {
        struct cham_port *port = core->polled[i];
        u32 n = port->ops->rx(port, frames, CHAM_BURST, core->now);
        if (n)
            cham_input(core, port, frames, n);
        total += n;
    }
    core->counters->rx_packets += total;
    return core->n_cores > 1 ? total + cham_poll_handovers(core) : total;
}

static void charge_tenant(struct cham_core *core, u32 index, u64 cycles)
{
    struct cham_tenant *t = core->tenants + index;
    t->deficit -= (s64)cycles;
    if (t->deficit < -2 * core->max_debt)
        t->deficit = -2 * core->max_debt; /* debt is bounded, and so is the way back */
    core->counters->tenants[index].cycles += cycles;
}

/* The cycles of input go to the tenants by the packets they received in this burst; nobody's packets are overhead, and what
 * exceeds the bound of so many packets is stolen by the machine. */
static void charge_input(struct cham_core *core, u32 packets, u64 cycles)
{
    u64 bound = (u64)packets * COST_PACKET_BOUND;
    if (unlikely(packets && cycles > bound)) {
        core->counters->cycles_stolen += cycles - bound;
        cycles = bound;
    }
    u64 each = packets ? cycles / packets : 0, rest = cycles;
    for (u32 i = 0; packets && i < core->n_active; i++) {
        struct cham_tenant *t = core->tenants + core->active[i];
        if (t->burst_packets) {
            charge_tenant(core, core->active[i], each * t->burst_packets);
            rest -= each * t->burst_packets;
            t->burst_packets = 0;
        }
    }
    core->counters->cycles_provider += rest;
}

/* `n` packets have waited so long (ns). */
CHAM_INLINE void count_delay(struct cham_delays *d, u64 ns, u32 n)
{
    u64 units = ns >> CHAM_DELAY_SHIFT;
    u32 power = 60 - (u32)__builtin_clzll(units | 8), bucket = (power << 3) + (u32)(units >> power);
    d->sum += ns * n;
    d->buckets[cham_min(bucket, CHAM_DELAY_BUCKETS - 1)] += n;
}

CHAM_RARE static void count_each(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    for (u32 i = 0; i < n; i++)
        count_delay(&inst->counters->delays, core->now - frames[i]->received, 1);
}

/* The packets that leave a backlog, the oldest first: mostly they came with one burst. */
CHAM_INLINE void count_delays(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    if (likely(frames[0]->received == frames[n - 1]->received))
        count_delay(&inst->counters->delays, core->now - frames[0]->received, n);
    else
        count_each(core, inst, frames, n);
}

static u32 serve_backlog(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    struct cham_frame *frames[CHAM_CHUNK];
    u32 n = cham_min(inst->backlog_len, max);
    if (!n)
        return 0;
    for (u32 i = 0; i < n; i++) {
        frames[i] = core->pool.frames + inst->backlog[(inst->backlog_head + i) % CHAM_BACKLOG];
        __builtin_prefetch(frames[i]);
        __builtin_prefetch(frame_ip(frames[i]));
    }
    inst->backlog_head = (inst->backlog_head + n) % CHAM_BACKLOG;
    inst->backlog_len -= n;
    core->tenants[inst->tenant].frames -= n;
    count_delays(core, inst, frames, n);
    return cham_enter_rx(core, inst, frames, n);
}

static u32 serve_ring(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    return inst->attached ? cham_enter_ring(core, inst, max) : 0;
}

/* One hook: chunk by chunk, until there is no more to do, the batch limit is reached, or the turn has used up the tenant's credit: then
 * `spent`, and each hook that follows serves one run, so that none waits for ever. */
CHAM_INLINE u32 serve_hook(struct cham_core *core, struct cham_instance *inst, u32 chunk, u64 credit, u32 *spent,
                           u32 (*hook)(struct cham_core *, struct cham_instance *, u32))
{
    u32 n = 0, most, served;
    chunk = unlikely(*spent) ? 1 : chunk;
    do {
        most = cham_min(chunk, CHAM_BATCH - n);
        n += served = hook(core, inst, most);
        if (served)
            *spent = core_cycles(core) - core->cycles >= credit;
    } while (served >= most && n < CHAM_BATCH && !*spent);
    return n;
}

/* All due hooks of an instance. served[hook] counts them. */
static void serve(struct cham_core *core, struct cham_instance *inst, u64 credit, u32 *spent, u32 served[CHAM_HOOKS])
{
    int active = likely(inst->state == CHAM_INSTANCE_ACTIVE); /* else it is prepared: only its ring is looked at */
    static const u32 alone[CHAM_HOOKS] = {CHAM_CHUNK, CHAM_CHUNK, CHAM_CHUNK, CHAM_CHUNK}; /* nobody waits for a turn to end */
    const u32 *chunk = core->n_active > 1 ? core->units[inst->unit]->chunk : alone;
    served[CHAM_TIMER] = active ? serve_hook(core, inst, chunk[CHAM_TIMER], credit, spent, cham_enter_timer) : 0;
    served[CHAM_RX] = active ? serve_hook(core, inst, chunk[CHAM_RX], credit, spent, serve_backlog) : 0;
    served[CHAM_RING] = serve_hook(core, inst, chunk[CHAM_RING], credit, spent, serve_ring);
    served[CHAM_TXDUE] = active ? serve_hook(core, inst, chunk[CHAM_TXDUE], credit, spent, cham_enter_tx) : 0;
}

/* One tenant's turn, and what it is charged: what was measured, but no more than its contracts allow. The machine's
 * own delays beyond that are stolen time, nobody's debt. Returns how much was done. */
static u32 turn(struct cham_core *core, u32 index)
{
    u32 work = 0, spent = 0;
    u64 bound = COST_TURN_BOUND, share[CHAM_HOOKS];
    struct cham_instance *only = 0;
    charge(core, COST_TURN);
    for (u32 i = core->tenants[index].instances; i != CHAM_NONE; i = core->instances[i]->next) {
        struct cham_instance *inst = core->instances[i];
        const struct cham_unit *unit = core->units[inst->unit];
        u32 served[CHAM_HOOKS], n = 0;
        if (unlikely(inst->state != CHAM_INSTANCE_ACTIVE && inst->state != CHAM_INSTANCE_PREPARED))
            continue;
        serve(core, inst, (u64)core->tenants[index].deficit, &spent, served);
        u64 total = 0;
        for (u32 h = 0; h < CHAM_HOOKS; h++) {
            share[h] = served[h] * (unit->cold[h] + COST_PACKET_BOUND);
            total += share[h];
            n += served[h];
        }
        u32 raw = inst->attached & 1 ? cham_raw_poll(core, inst) : 0;
        if (inst->woken)
            cham_wake(core, inst), total += COST_WAKEUP_BOUND;
        bound += total + raw * COST_PACKET_BOUND;
        work += n + raw;
        if (n && total) {
            /* the split by hook follows the contracts: one stamp per turn, not one per hook */
            u64 so_far = core_cycles(core) - core->cycles;
            if (only)
                so_far = 0; /* further instances of a turn share its stamp; the first carries the cycles */
            for (u32 h = 0; h < CHAM_HOOKS; h++)
                if (share[h]) {
                    inst->counters->hooks[h].cycles += so_far * share[h] / total;
                    inst->counters->hooks[h].turns++;
                }
            only = inst;
        }
    }
    u64 elapsed = core_stamp(core);
    if (!work) {
        core->counters->cycles_provider += elapsed;
        return 0;
    }
    core->counters->tenants[index].turns++;
    if (unlikely(elapsed > bound && !cham_cfg_virtual)) {
        core->counters->tenants[index].stolen += elapsed - bound;
        core->counters->cycles_stolen += elapsed - bound;
        if (only)
            only->counters->events[CHAM_EVENT_BOUND_EXCEEDED]++;
        elapsed = bound;
    }
    charge_tenant(core, index, elapsed);
    return work;
}

/* Deficit round robin in cycles (Shreedhar and Varghese, 1996): everybody gets weight x quantum a round and pays for
 * what a turn took. Credit does not pile up while there is nothing to do. */
static u32 serve_tenants(struct cham_core *core)
{
    u32 work = 0;
    for (u32 k = 0; k < core->n_active; k++) {
        u32 index = core->active[(core->first + k) % core->n_active];
        struct cham_tenant *t = core->tenants + index;
        s64 grant = (s64)(core->quantum * t->weight);
        t->deficit = t->deficit + grant < grant ? t->deficit + grant : grant;
        if (cham_cfg_policy != CHAM_POLICY_CYCLES)
            t->deficit = 1ll << 62; /* enough for every batch limit */
        if (t->deficit <= 0)
            work++; /* in debt: skipped, but there may be something to do */
        else
            work += turn(core, index);
    }
    core->first = core->n_active ? (core->first + 1) % core->n_active : 0;
    return work;
}

static void flush_ports(struct cham_core *core)
{
    for (u32 i = 0; i < core->n_polled; i++) {
        struct cham_port *port = core->polled[i];
        if (port->n_tx)
            port->ops->tx(port, port->txq, port->n_tx, core->now);
        port->n_tx = 0;
        port->ops->flush(port, core->now);
    }
}

/* One round. Returns how much was done: 0 is idle. */
u32 cham_round(struct cham_core *core)
{
    struct cham_counters *c = core->counters;
    u64 start = core->cycles;
    c->rounds++;
    charge(core, COST_ROUND);
    u32 packets = poll_ports(core);
    charge_input(core, packets, core_stamp(core));
    u32 work = packets;
    if (cham_cfg_policy == CHAM_POLICY_ARRIVAL)
        work += cham_serve_arrivals(core);
    work += serve_tenants(core);
    if (unlikely(core->now >= core->neighbours_due))
        cham_neighbours_age(core);
    flush_ports(core);
    u32 requested = untrusted_u32(&core->requested);
    if (unlikely(requested != core->completed)) {
        cham_command(core);
        publish_u32(&core->completed, requested);
        work++;
    }
    c->cycles_provider += core_stamp(core);
    c->cycles_elapsed += core->cycles - start;
    if (work)
        core->idle_ns = core->now;
    else
        c->idle_rounds++;
    return work;
}

/* Virtual time: one round at a given moment. */
u32 cham_step(struct cham_core *core, u64 now)
{
    core->ns_base = now;
    core->cycles = core->vcycles;
    core->cycles_base = core->vcycles;
    core->now = now;
    return cham_round(core);
}
