/* Control: what the control thread asks of the round, one command at a time, at a round's boundary.
 *
 * The control thread prepares objects (an instance's memory, a port, a loaded unit) and hands them over; only the round
 * links them into the core. Commands are the provider's own, so they are trusted; conflicts are answered by a status.
 */
#include "control.h"
#include "demux.h"
#include "handover.h"
#include "pool.h"
#include "port_fault.h"

/* ---- bindings ---------------------------------------------------------------------------------------------- */

/* Protocol 0 stands for the address itself. */
static u32 bind_address(struct cham_core *core, const u64 *arg)
{
    u32 network = (u32)arg[0], address = (u32)arg[1], protocol = (u32)arg[4], low = (u32)arg[5] >> 16, high = arg[5] & 0xffff;
    struct cham_binding new = {.at = binding_at(network, address), .first = protocol << 16 | low, .further = high - low,
                               .tenant = (u32)arg[2], .instance = (u32)arg[3], .steer = (u32)arg[6], .used = 1};
    if (!protocol)
        new.first = CHAM_NO_PROTOCOL, new.further = 0;
    u32 free = CHAM_NONE;
    for (u32 i = 0; i < CHAM_MAX_BINDINGS; i++) {
        struct cham_binding *b = core->bindings + i;
        if (!b->used)
            free = free == CHAM_NONE ? i : free;
        else if (b->at == new.at && b->first <= new.first + new.further && new.first <= b->first + b->further)
            return CHAM_STATUS_TAKEN;
    }
    if (free == CHAM_NONE)
        return CHAM_STATUS_FULL;
    u32 *head = core->bindings_head + binding_bucket(network, address);
    new.next = *head;
    core->bindings[free] = new;
    *head = free;
    return CHAM_STATUS_OK;
}

static void unbind(struct cham_core *core, u32 tenant, u32 instance)
{
    for (u32 i = 0; i < CHAM_MAX_BINDINGS; i++) {
        struct cham_binding *b = core->bindings + i;
        if (!b->used || b->tenant != tenant || (instance != CHAM_NONE && (b->instance != instance || b->first == CHAM_NO_PROTOCOL)))
            continue;
        u32 *link = core->bindings_head + binding_bucket((u32)(b->at >> 32), (u32)b->at);
        while (*link != i)
            link = &core->bindings[*link].next;
        *link = b->next;
        b->used = 0;
    }
}

/* ---- tenants ------------------------------------------------------------------------------------------------ */

static u32 add_tenant(struct cham_core *core, u32 index, u32 weight, u32 quota)
{
    struct cham_tenant *t = core->tenants + index;
    if (t->used)
        return CHAM_STATUS_TAKEN;
    *t = (struct cham_tenant){.used = 1, .weight = weight, .instances = CHAM_NONE, .frame_quota = quota};
    __builtin_memset(core->counters->tenants + index, 0, sizeof core->counters->tenants[0]);
    core->active[core->n_active++] = index;
    return CHAM_STATUS_OK;
}

static u32 remove_tenant(struct cham_core *core, u32 index)
{
    struct cham_tenant *t = core->tenants + index;
    if (!t->used)
        return CHAM_STATUS_UNKNOWN;
    if (t->instances != CHAM_NONE)
        return CHAM_STATUS_BUSY;
    unbind(core, index, CHAM_NONE);
    /* what still waits for a next hop is nobody's from now on */
    for (u32 i = 0; i < CHAM_MAX_NEIGHBOURS; i++)
        if (core->neighbours[i].state != CHAM_NB_FREE)
            for (u32 k = core->neighbours[i].parked; k != CHAM_NONE; k = core->pool.frames[k].next)
                if (core->pool.frames[k].tenant == index)
                    core->pool.frames[k].tenant = CHAM_NONE;
    t->used = 0;
    for (u32 i = 0; i < core->n_active; i++)
        if (core->active[i] == index)
            core->active[i--] = core->active[--core->n_active];
    core->first = 0;
    return CHAM_STATUS_OK;
}

/* ---- instances ---------------------------------------------------------------------------------------------- */

/* Prepare the private memory of an instance's maps; the memory is zero. Called by the control thread. */
void cham_instance_init(struct cham_instance *inst, u32 ring_start)
{
    u8 *base = instance_base(inst);
    for (u32 i = 0; i < inst->n_maps; i++) {
        const struct cham_map *m = inst->maps + i;
        if (m->kind == CHAM_MAP_HASH) {
            u32 *free = (u32 *)(base + m->free);
            free[0] = m->max_entries;
            for (u32 k = 0; k < m->max_entries; k++)
                free[1 + k] = m->max_entries - 1 - k; /* the top is entry 0 */
        } else if (m->kind == CHAM_MAP_RING_OUT) {
            inst->outbound |= 1ull << i;
        } else if (m->kind == CHAM_MAP_BYTES && pool_is(m)) {
            pool_init(base, m);
        } else if (m->kind == CHAM_MAP_TX || m->kind == CHAM_MAP_TIMER) {
            struct wheel *w = (struct wheel *)(base + m->index);
            struct wheel_node *nodes = (struct wheel_node *)(base + m->keys);
            for (u32 k = 0; k <= NODE_QUEUED; k++)
                w->head[k] = CHAM_NONE;
            for (u32 k = 0; k < m->max_entries; k++)
                nodes[k].slot = NODE_IDLE;
        }
    }
    for (u32 c = 0; c < CHAM_MAX_CONTEXTS; c++)
        inst->bells[c] = -1;
    inst->punt.pos = inst->punt.peer = inst->xmit.pos = inst->xmit.peer = ring_start;
    inst->next = CHAM_NONE;
    inst->state = CHAM_INSTANCE_ACTIVE;
}

/* A unit in its place, or none. Every core sets the same chunks. */
static u32 set_unit(struct cham_core *core, u32 index, struct cham_unit *unit)
{
    core->counters->swaps += core->units[index] && unit;
    core->units[index] = unit;
    for (u32 h = 0; unit && h < CHAM_HOOKS; h++) {
        u64 runs = CHAM_CHUNK_CYCLES / (unit->cold[h] + COST_PACKET_BOUND);
        unit->chunk[h] = runs < 1 ? 1 : cham_min((u32)runs, CHAM_CHUNK);
    }
    return CHAM_STATUS_OK;
}

static u32 add_instance(struct cham_core *core, struct cham_instance *inst)
{
    struct cham_tenant *t = core->tenants + inst->tenant;
    if (!t->used || core->instances[inst->index])
        return CHAM_STATUS_TAKEN;
    inst->counters = core->counters->instances + inst->index;
    __builtin_memset(inst->counters, 0, sizeof *inst->counters);
    core->instances[inst->index] = inst;
    inst->next = t->instances;
    t->instances = inst->index;
    return CHAM_STATUS_OK;
}

static u32 remove_instance(struct cham_core *core, u32 index)
{
    struct cham_instance *inst = core->instances[index];
    if (!inst)
        return CHAM_STATUS_UNKNOWN;
    unbind(core, inst->tenant, index);
    u32 *link = &core->tenants[inst->tenant].instances;
    while (*link != index)
        link = &core->instances[*link]->next;
    *link = inst->next;
    core->tenants[inst->tenant].frames -= inst->backlog_len;
    for (; inst->backlog_len; inst->backlog_len--, inst->backlog_head++)
        cham_drop(core, inst, inst->tenant, core->pool.frames + inst->backlog[inst->backlog_head % CHAM_BACKLOG],
                  CHAM_DROP_INSTANCE_GONE);
    core->instances[index] = 0;
    return CHAM_STATUS_OK;
}

static u32 pause_instance(struct cham_core *core, u32 index, u32 pause)
{
    struct cham_instance *inst = core->instances[index];
    u32 from = pause ? CHAM_INSTANCE_ACTIVE : CHAM_INSTANCE_PAUSED;
    if (!inst)
        return CHAM_STATUS_UNKNOWN;
    if (inst->state != from)
        return CHAM_STATUS_BUSY;
    inst->state = pause ? CHAM_INSTANCE_PAUSED : CHAM_INSTANCE_ACTIVE;
    return CHAM_STATUS_OK;
}

/* Whatever is for a paused instance is for a prepared one from now on, and what waits comes first. */
static u32 replace_instance(struct cham_core *core, u32 from, u32 to)
{
    struct cham_instance *a = core->instances[from], *b = core->instances[to];
    if (!a || !b || a->tenant != b->tenant)
        return CHAM_STATUS_UNKNOWN;
    if (a->state != CHAM_INSTANCE_PAUSED || b->state != CHAM_INSTANCE_PREPARED || b->backlog_len)
        return CHAM_STATUS_BUSY;
    for (u32 i = 0; i < CHAM_MAX_BINDINGS; i++)
        if (core->bindings[i].used && core->bindings[i].first != CHAM_NO_PROTOCOL && core->bindings[i].instance == from)
            core->bindings[i].instance = to;
    __builtin_memcpy(b->backlog, a->backlog, sizeof b->backlog);
    b->backlog_head = a->backlog_head;
    b->backlog_len = a->backlog_len;
    a->backlog_len = 0;
    b->state = CHAM_INSTANCE_ACTIVE;
    return CHAM_STATUS_OK;
}

/* ---- contexts ------------------------------------------------------------------------------------------------ */

static void reset_ring(struct cham_ring *ours, struct ring_shared *ring, u32 start)
{
    *ours = (struct cham_ring){.pos = start, .peer = start};
    ring->wait = 0;
    publish_u32(&ring->prod, start);
    publish_u32(&ring->cons, start);
}

/* Give a context to a new owner: its rings begin empty, whatever the last one left in them. */
static u32 attach(struct cham_core *core, u32 index, u32 context, u32 start)
{
    struct cham_instance *inst = core->instances[index];
    if (!inst || context >= CHAM_MAX_CONTEXTS)
        return CHAM_STATUS_UNKNOWN;
    u8 *base = instance_base(inst);
    u32 damaged = 0;
    for (u32 i = 0; i < inst->n_maps; i++) {
        const struct cham_map *m = inst->maps + i;
        if (m->kind != CHAM_MAP_RING_OUT && m->kind != CHAM_MAP_RING_IN)
            continue;
        if (context >= m->contexts)
            return CHAM_STATUS_UNKNOWN;
        reset_ring(ring_ours(base, m, context), ring_at(base, m, context), start);
        for (u32 c = 0; c < m->contexts; c++)
            damaged += ring_ours(base, m, c)->damaged;
    }
    if (context == 0) {
        reset_ring(&inst->punt, (struct ring_shared *)(base + inst->raw_rings), start);
        reset_ring(&inst->xmit, (struct ring_shared *)(base + inst->raw_rings + CHAM_RAW_RING_BYTES), start);
    }
    if (inst->state == CHAM_INSTANCE_QUARANTINED && !damaged && !inst->punt.damaged && !inst->xmit.damaged)
        inst->state = CHAM_INSTANCE_ACTIVE;
    inst->attached |= 1u << context;
    return CHAM_STATUS_OK;
}

static u32 detach(struct cham_core *core, u32 index, u32 context)
{
    struct cham_instance *inst = core->instances[index];
    if (!inst || context >= CHAM_MAX_CONTEXTS)
        return CHAM_STATUS_UNKNOWN;
    inst->attached &= ~(1u << context);
    return CHAM_STATUS_OK;
}

/* ---- ports and routes ------------------------------------------------------------------------------------------ */

static void list_polled(struct cham_core *core)
{
    core->n_polled = 0;
    for (u32 i = 0; i < CHAM_MAX_PORTS; i++)
        if (core->ports[i] && core->ports[i]->core == core->index)
            core->polled[core->n_polled++] = core->ports[i];
}

static u32 add_port(struct cham_core *core, u32 index, struct cham_port *port)
{
    if (core->ports[index])
        return CHAM_STATUS_TAKEN;
    core->ports[index] = port;
    list_polled(core);
    return CHAM_STATUS_OK;
}

static u32 remove_port(struct cham_core *core, u32 index)
{
    struct cham_port *port = core->ports[index];
    if (!port)
        return CHAM_STATUS_UNKNOWN;
    core->ports[index] = 0;
    list_polled(core);
    if (port->core != core->index)
        return CHAM_STATUS_OK;
    for (u32 i = 0; i < port->n_tx; i++)
        cham_drop(core, 0, CHAM_NONE, port->txq[i], CHAM_DROP_PORT_DOWN);
    port->n_tx = 0;
    for (struct cham_port *p = port; p; p = p->inner)
        if (p->ops == &cham_fault_ops)
            cham_fault_drain(p);
    cham_neighbours_forget_port(core, index);
    return CHAM_STATUS_OK;
}

/* The table is kept in order, the longest prefix first, so that the first route that matches is the one. */
static u32 change_route(struct cham_core *core, const u64 *arg, u32 add)
{
    struct cham_route route = {(u32)arg[0], (u32)arg[1], (u32)arg[2], (u32)arg[3], (u32)arg[4]}, *r = core->routes;
    u32 at = 0;
    while (at < core->n_routes && cham_be32(r[at].mask) > cham_be32(route.mask))
        at++;
    u32 same = at;
    while (same < core->n_routes && (r[same].network != route.network || r[same].prefix != route.prefix || r[same].mask != route.mask))
        same++;
    if (!add) {
        if (same == core->n_routes)
            return CHAM_STATUS_UNKNOWN;
        core->n_routes--;
        for (u32 i = same; i < core->n_routes; i++)
            r[i] = r[i + 1];
        return CHAM_STATUS_OK;
    }
    if (same < core->n_routes)
        return CHAM_STATUS_TAKEN;
    if (core->n_routes == CHAM_MAX_ROUTES)
        return CHAM_STATUS_FULL;
    for (u32 i = core->n_routes++; i > at; i--)
        r[i] = r[i - 1];
    r[at] = route;
    return CHAM_STATUS_OK;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

/* Between rounds a frame is free, or it waits in one of these places; otherwise it is lost. */
static u32 waiting_frames(const struct cham_core *core)
{
    u32 n = 0;
    for (u32 i = 0; i < CHAM_MAX_INSTANCES; i++)
        n += core->instances[i] ? core->instances[i]->backlog_len : 0;
    for (u32 i = 0; i < CHAM_MAX_NEIGHBOURS; i++)
        n += core->neighbours[i].state != CHAM_NB_FREE ? core->neighbours[i].n_parked : 0;
    for (u32 k = 0; k < core->n_cores; k++)
        n += core->to[k] ? core->to[k]->prod - core->to[k]->reclaimed : 0;
    for (u32 i = 0; i < core->n_polled; i++)
        for (const struct cham_port *p = core->polled[i]; p; p = p->inner) {
            n += p->n_tx;
            if (p->ops == &cham_fault_ops) {
                const struct cham_fault *f = p->state;
                n += f->rx.waiting + f->tx.waiting;
            }
        }
    return n;
}

/* ---- dispatch --------------------------------------------------------------------------------------------------- */

static u32 execute(struct cham_core *core, u32 op, u64 *arg)
{
    switch (op) {
    case CHAM_OP_ADD_TENANT:
        return add_tenant(core, (u32)arg[0], (u32)arg[1], (u32)arg[2]);
    case CHAM_OP_REMOVE_TENANT:
        return remove_tenant(core, (u32)arg[0]);
    case CHAM_OP_SET_WEIGHT:
        core->tenants[arg[0]].weight = (u32)arg[1];
        return CHAM_STATUS_OK;
    case CHAM_OP_SET_FRAME_QUOTA:
        core->tenants[arg[0]].frame_quota = (u32)arg[1];
        return CHAM_STATUS_OK;
    case CHAM_OP_ADD_INSTANCE:
        return add_instance(core, (struct cham_instance *)arg[0]);
    case CHAM_OP_REMOVE_INSTANCE:
        return remove_instance(core, (u32)arg[0]);
    case CHAM_OP_SET_UNIT:
        return set_unit(core, (u32)arg[0], (struct cham_unit *)arg[1]);
    case CHAM_OP_MOVE_INSTANCE:
        core->counters->swaps++;
        core->instances[arg[0]]->unit = (u32)arg[1];
        return CHAM_STATUS_OK;
    case CHAM_OP_BIND:
        return bind_address(core, arg);
    case CHAM_OP_ADD_PORT:
        return add_port(core, (u32)arg[0], (struct cham_port *)arg[1]);
    case CHAM_OP_REMOVE_PORT:
        return remove_port(core, (u32)arg[0]);
    case CHAM_OP_ADD_ROUTE:
        return change_route(core, arg, 1);
    case CHAM_OP_REMOVE_ROUTE:
        return change_route(core, arg, 0);
    case CHAM_OP_ATTACH:
        return attach(core, (u32)arg[0], (u32)arg[1], (u32)arg[2]);
    case CHAM_OP_DETACH:
        return detach(core, (u32)arg[0], (u32)arg[1]);
    case CHAM_OP_PAUSE_INSTANCE:
        return pause_instance(core, (u32)arg[0], (u32)arg[1]);
    case CHAM_OP_REPLACE_INSTANCE:
        return replace_instance(core, (u32)arg[0], (u32)arg[1]);
    case CHAM_OP_COUNT_FRAMES:
        arg[0] = core->pool.n_free;
        arg[1] = waiting_frames(core);
        return CHAM_STATUS_OK;
    }
    return CHAM_STATUS_UNKNOWN;
}

void cham_command(struct cham_core *core)
{
    core->command.status = execute(core, core->command.op, core->command.arg);
    core->version++;
}

/* A fresh core: every list is empty, every frame free. `frames` and `free` hold `total` of them. */
void cham_core_init(struct cham_core *core, struct cham_frame *frames, u32 *free, u32 total)
{
    for (u32 i = 0; i < 256; i++)
        core->bindings_head[i] = CHAM_NONE;
    for (u32 i = 0; i < CHAM_MAX_NEIGHBOURS; i++)
        core->neighbours[i].parked = CHAM_NONE;
    for (u32 i = 0; i < total; i++) {
        frames[i].index = i;
        free[i] = total - 1 - i;
    }
    core->pool = (struct cham_pool){frames, free, total, total};
    core->cycles = core->cycles_base = core_cycles(core);
    core->now = core->ns_base;
    core->version = 1; /* no destination is known */
}

/* Virtual time: when the earliest id of an instance's wheels comes due (ns), or ~0. */
u64 cham_next_due(const struct cham_core *core, struct cham_instance *inst)
{
    u64 due = ~0ull;
    for (u32 i = 0; i < inst->n_maps; i++) {
        const struct cham_map *m = inst->maps + i;
        if (!wheel_runs(core, inst, m))
            continue;
        const struct wheel_node *nodes = (const struct wheel_node *)(instance_base(inst) + m->keys);
        u32 armed = ((const struct wheel *)(instance_base(inst) + m->index))->armed; /* those that are still to be found */
        for (u32 k = 0; k < m->max_entries && armed; k++) {
            armed -= nodes[k].slot != NODE_IDLE;
            u64 tick = nodes[k].when >> WHEEL_TICK_SHIFT, never = tick == ~0ull >> WHEEL_TICK_SHIFT; /* the end of time does not wrap */
            if (nodes[k].slot == NODE_QUEUED)
                due = 0;
            else if (nodes[k].slot != NODE_IDLE && !never && (tick + 1) << WHEEL_TICK_SHIFT < due)
                due = (tick + 1) << WHEEL_TICK_SHIFT;
        }
    }
    return due;
}
