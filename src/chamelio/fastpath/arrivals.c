/* Packets in the order in which they came, whosever they are and whatever they cost: what accounting is compared with. */
#include "core.h"

/* How long ago the packet at a place of a backlog came, counted in packets: the less, the longer. */
static s32 came(const struct cham_core *core, const struct cham_instance *inst, u32 place)
{
    u32 frame = inst->backlog[(inst->backlog_head + place) % CHAM_BACKLOG];
    return (s32)(core->pool.frames[frame].next - core->arrivals);
}

/* Whose packet came first (NULL: none waits), and when the first one of anybody else came. */
static struct cham_instance *earliest(const struct cham_core *core, s32 *other)
{
    struct cham_instance *first = 0;
    *other = 0;
    for (u32 i = 0; i < CHAM_MAX_INSTANCES; i++) {
        struct cham_instance *inst = core->instances[i];
        if (!inst || !inst->backlog_len || inst->state != CHAM_INSTANCE_ACTIVE)
            continue;
        s32 at = came(core, inst, 0);
        if (!first || at < came(core, first, 0)) {
            *other = first ? came(core, first, 0) : 0;
            first = inst;
        } else if (at < *other) {
            *other = at;
        }
    }
    return first;
}

/* Serve packets of one instance that came in a row. */
static u32 serve_row(struct cham_core *core, struct cham_instance *inst, s32 other)
{
    struct cham_frame *frames[CHAM_CHUNK];
    u32 n = 0;
    while (n < CHAM_CHUNK && inst->backlog_len && (!n || came(core, inst, 0) < other)) {
        frames[n++] = core->pool.frames + inst->backlog[inst->backlog_head];
        inst->backlog_head = (inst->backlog_head + 1) % CHAM_BACKLOG;
        inst->backlog_len--;
    }
    core->tenants[inst->tenant].frames -= n;
    core->counters->tenants[inst->tenant].turns++;
    cham_enter_rx(core, inst, frames, n);
    core->counters->tenants[inst->tenant].cycles += core_stamp(core);
    return n;
}

u32 cham_serve_arrivals(struct cham_core *core)
{
    u32 work = 0, most = core->pool.total - core->pool.n_free; /* tenants that send to each other come to no end */
    struct cham_instance *inst;
    s32 other;
    while (work < most && (inst = earliest(core, &other)))
        work += serve_row(core, inst, other);
    return work;
}
