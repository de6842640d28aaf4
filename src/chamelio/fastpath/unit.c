/* A unit: the provider's batch loops around one protocol's handlers.
 *
 * Compiled to bitcode once; the joint compiler links it with a protocol's lifted handlers and map descriptors, folds
 * and inlines. Missing handlers are constants here, so their loops vanish. Everything rare is called, not inlined.
 */
#include "helpers.h"

/* The protocol's handlers. Which ones exist is a constant of the unit. */
extern u64 cham_handler_rx(struct cham_turn *turn);
extern u64 cham_handler_ring(struct cham_turn *turn);
extern u64 cham_handler_tx(struct cham_turn *turn);
extern u64 cham_handler_timer(struct cham_turn *turn);
extern const u32 cham_has_rx, cham_has_ring, cham_has_tx, cham_has_timer;

/* The maps that hooks are fed from. */
extern const struct cham_map cham_feed_ring, cham_feed_tx, cham_feed_timer;

CHAM_INLINE void begin(struct cham_turn *t, struct cham_outcome *o, struct cham_core *core, struct cham_instance *inst)
{
    o->n_out = 0;
    o->done = o->errors = 0;
    t->outcome = o;
    t->core = core;
    t->inst = inst;
    t->ctx.now = core->now;
    t->ctx.core = core->index;
    t->ctx.id = 0;
    t->ctx.hash = 0;
    t->ctx.csum_ok = 0;
    t->ctx.entry = 0;
    t->ctx.entry_end = 0;
}

/* A hook that starts without a packet: an empty one that helpers may extend. */
CHAM_INLINE void begin_empty(struct cham_turn *t)
{
    t->frame = 0;
    t->emits = CHAM_EMITS;
    t->ctx.data = 0;
    t->ctx.data_end = 0;
}

/* Act on a verdict. The packet, if there is one, belongs to someone else afterwards. */
CHAM_INLINE void settle(struct cham_turn *t, struct cham_outcome *o, u64 verdict, u32 hook)
{
    struct cham_instance_counters *c = t->inst->counters;
    struct cham_frame *f = t->frame;
    if (likely(verdict == CHAM_DONE)) {
        if (f) { /* it may have been emitted */
            if (hook == CHAM_RX && t->emits == CHAM_EMITS) /* the one that was received, not one that was built after it */
                o->done++;
            else
                c->consumed++;
            frame_put(&t->core->pool, f);
        }
        return;
    }
    if (likely(verdict == CHAM_TX && f)) {
        o->out[o->n_out++] = f;
        return;
    }
    if (verdict == CHAM_PUNT && f) {
        cham_punt(t->core, t->inst, f, hook);
        return;
    }
    o->errors++;
    u32 reason = CHAM_DROP_BAD_VERDICT;
    if ((verdict & 0xff) == 3 && verdict >> 16 == 0) {
        c->reasons[verdict >> 8 & 0xff]++;
        reason = CHAM_DROP_HANDLER_ERROR;
    }
    if (f)
        cham_drop(t->core, t->inst, t->inst->tenant, f, reason);
}

CHAM_INLINE void finish(struct cham_core *core, struct cham_instance *inst, struct cham_outcome *o, u32 hook, u32 n)
{
    struct cham_instance_counters *c = inst->counters;
    c->done += o->done;
    c->hooks[hook].runs += n;
    c->hooks[hook].errors += o->errors;
    charge(core, (u64)n * COST_DISPATCH);
    if (o->n_out)
        cham_output(core, inst, o->out, o->n_out);
}

static u32 unit_rx(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    struct cham_turn t;
    struct cham_outcome o;
    u64 bytes = 0;
    begin(&t, &o, core, inst);
    for (u32 i = 0; i < n; i++) {
        struct cham_frame *f = frames[i];
        t.frame = f;
        t.emits = CHAM_EMITS;
        t.ctx.data = frame_ip(f);
        t.ctx.data_end = frame_ip(f) + f->len;
        t.ctx.hash = f->hash;
        t.ctx.csum_ok = f->flags & CHAM_FRAME_CSUM_OK;
        bytes += f->len;
        settle(&t, &o, cham_handler_rx(&t), CHAM_RX);
    }
    inst->counters->rx_packets += n;
    inst->counters->rx_bytes += bytes;
    finish(core, inst, &o, CHAM_RX, n);
    return n;
}

static u32 unit_ring(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    const struct cham_map *m = &cham_feed_ring;
    u8 *base = instance_base(inst);
    struct cham_turn t;
    struct cham_outcome o;
    u32 served = 0;
    begin(&t, &o, core, inst);
    u32 context = inst->next_context;
    for (u32 left = m->contexts; left && served < max; left--) {
        u32 c = context;
        context = context + 1 < m->contexts ? context + 1 : 0;
        if (!(inst->attached >> c & 1))
            continue;
        charge(core, COST_RING_POLL);
        struct cham_ring *ours = ring_ours(base, m, c);
        if (unlikely(ours->damaged))
            continue;
        struct ring_shared *ring = ring_at(base, m, c);
        u32 ready = untrusted_distance(untrusted_u32(&ring->prod), ours->pos, m->max_entries);
        if (!ready)
            continue;
        if (unlikely(ready == UNTRUSTED_LIE)) {
            cham_ring_damaged(core, inst, ours);
            continue;
        }
        ready = cham_min(ready, max - served);
        for (u32 i = 0; i < ready; i++) {
            u8 *entry = inst->entry;
            untrusted_copy(entry, ring->entries + (u64)(ours->pos & (m->max_entries - 1)) * m->stride, m->value_size);
            ours->pos++;
            begin_empty(&t);
            t.ctx.id = c;
            t.ctx.entry = entry;
            t.ctx.entry_end = entry + m->value_size;
            settle(&t, &o, cham_handler_ring(&t), CHAM_RING);
        }
        served += ready;
        publish_u32(&ring->cons, ours->pos);
    }
    inst->next_context = context;
    if (served)
        finish(core, inst, &o, CHAM_RING, served);
    return served;
}

/* Ids that have come due: one at a time, so that a handler may cancel what another id of the batch has set. */
CHAM_INLINE u32 unit_due(struct cham_core *core, struct cham_instance *inst, const struct cham_map *m, u32 max, u32 hook)
{
    u8 *base = instance_base(inst);
    struct wheel *w = (struct wheel *)(base + m->index);
    if (wheel_rests(w, core->now))
        return 0;
    struct wheel_node *nodes = (struct wheel_node *)(base + m->keys);
    struct cham_turn t;
    struct cham_outcome o;
    u32 n = 0, moved = 0, budget = max, id;
    begin(&t, &o, core, inst);
    while ((id = wheel_next(w, nodes, core->now, &budget, &moved)) != CHAM_NONE) {
        begin_empty(&t);
        t.ctx.id = id;
        settle(&t, &o, hook == CHAM_TXDUE ? cham_handler_tx(&t) : cham_handler_timer(&t), hook);
        n++;
    }
    charge(core, (u64)moved * COST_WHEEL_MOVE);
    if (n)
        finish(core, inst, &o, hook, n);
    return n + moved; /* whoever sets ids far ahead pays for their way here, too */
}

static u32 unit_tx(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    return unit_due(core, inst, &cham_feed_tx, max, CHAM_TXDUE);
}

static u32 unit_timer(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    return unit_due(core, inst, &cham_feed_timer, max, CHAM_TIMER);
}

/* A packet for a protocol without an rx handler. */
static u32 unit_no_rx(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    for (u32 i = 0; i < n; i++)
        cham_drop(core, inst, inst->tenant, frames[i], CHAM_DROP_NO_HANDLER);
    return n;
}

/* Fill the unit's table: the only symbol that the engine looks up. The costs are the contract's. */
void cham_unit_init(struct cham_unit *unit)
{
    unit->rx = cham_has_rx ? unit_rx : unit_no_rx;
    unit->ring = cham_has_ring ? unit_ring : 0;
    unit->tx = cham_has_tx ? unit_tx : 0;
    unit->timer = cham_has_timer ? unit_timer : 0;
}
