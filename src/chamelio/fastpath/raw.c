/* Raw packets between provider and slow path: punted ones out, its own ones in; and the wake-ups of sleepers. */
#include <unistd.h>

#include "core.h"

void cham_ring_damaged(struct cham_core *core, struct cham_instance *inst, struct cham_ring *ring)
{
    (void)core;
    ring->damaged = 1;
    inst->counters->events[CHAM_EVENT_RING_DAMAGED]++;
    if (inst->state == CHAM_INSTANCE_ACTIVE) {
        inst->state = CHAM_INSTANCE_QUARANTINED;
        inst->counters->events[CHAM_EVENT_QUARANTINED]++;
    }
}

static struct ring_shared *raw_ring(struct cham_instance *inst, u32 which)
{
    return (struct ring_shared *)(instance_base(inst) + inst->raw_rings + which * CHAM_RAW_RING_BYTES);
}

void cham_punt(struct cham_core *core, struct cham_instance *inst, struct cham_frame *f, u32 hook)
{
    struct ring_shared *ring = raw_ring(inst, 0);
    struct cham_ring *ours = &inst->punt;
    charge(core, COST_RAW_PACKET);
    if (ours->damaged)
        return cham_drop(core, inst, inst->tenant, f, CHAM_DROP_PUNT_DAMAGED);
    u32 used = untrusted_distance(ours->pos, untrusted_u32(&ring->cons), CHAM_RAW_SLOTS);
    if (used == UNTRUSTED_LIE) {
        cham_ring_damaged(core, inst, ours);
        return cham_drop(core, inst, inst->tenant, f, CHAM_DROP_PUNT_DAMAGED);
    }
    if (used == CHAM_RAW_SLOTS || !(inst->attached & 1))
        return cham_drop(core, inst, inst->tenant, f, CHAM_DROP_PUNT_FULL);
    struct cham_raw *slot = (struct cham_raw *)ring->entries + ours->pos % CHAM_RAW_SLOTS;
    slot->len = f->len;
    slot->flags = hook;
    slot->now = core->now;
    slot->hash = f->hash;
    __builtin_memcpy(slot->bytes, frame_ip(f), f->len);
    publish_u32(&ring->prod, ++ours->pos);
    inst->woken |= 1;
    inst->counters->punted++;
    frame_put(&core->pool, f);
}

/* One packet that the slow path wants to send: 1 when it is on its way. */
static u32 inject(struct cham_core *core, struct cham_instance *inst, const struct cham_raw *slot)
{
    struct {
        u32 len, flags;
        u64 now;
        u32 hash, reserved[3];
    } head;
    untrusted_copy(&head, slot, sizeof head);
    if (!head.len || head.len > CHAM_IP_MAX || head.flags || head.now || head.hash || head.reserved[0] ||
        head.reserved[1] || head.reserved[2]) {
        inst->counters->drops[CHAM_DROP_XMIT_REFUSED]++;
        return 0;
    }
    struct cham_frame *f = frame_get(&core->pool);
    if (!f) {
        inst->counters->drops[CHAM_DROP_NO_FRAMES]++;
        return 0;
    }
    untrusted_copy(frame_ip(f), slot->bytes, head.len);
    f->len = (u16)head.len;
    inst->counters->injected++;
    cham_output(core, inst, &f, 1);
    return 1;
}

u32 cham_raw_poll(struct cham_core *core, struct cham_instance *inst)
{
    struct ring_shared *ring = raw_ring(inst, 1);
    struct cham_ring *ours = &inst->xmit;
    if (ours->damaged)
        return 0;
    u32 ready = untrusted_distance(untrusted_u32(&ring->prod), ours->pos, CHAM_RAW_SLOTS);
    if (!ready)
        return 0;
    if (ready == UNTRUSTED_LIE) {
        cham_ring_damaged(core, inst, ours);
        return 0;
    }
    ready = cham_min(ready, CHAM_LIMIT_RAW);
    charge(core, (u64)ready * COST_RAW_PACKET);
    for (u32 i = 0; i < ready; i++, ours->pos++)
        inject(core, inst, (const struct cham_raw *)ring->entries + ours->pos % CHAM_RAW_SLOTS);
    publish_u32(&ring->cons, ours->pos);
    return ready;
}

/* Does context `c` sleep on any of its outbound rings? */
static u32 sleeps(struct cham_instance *inst, u32 c)
{
    for (u64 left = inst->outbound; left; left &= left - 1)
        if (untrusted_u32(&ring_at(instance_base(inst), inst->maps + __builtin_ctzll(left), c)->wait))
            return 1;
    return c == 0 && untrusted_u32(&raw_ring(inst, 0)->wait);
}

/* Ring the doorbells of sleepers that this turn has pushed to: at most once per context and turn. */
void cham_wake(struct cham_core *core, struct cham_instance *inst)
{
    static const u64 one = 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our pushes before their `wait`; they fence the other way round */
    for (u32 woken = inst->woken; woken; woken &= woken - 1) {
        u32 c = (u32)__builtin_ctz(woken);
        if (!(inst->attached >> c & 1) || !sleeps(inst, c))
            continue;
        charge(core, COST_WAKEUP);
        inst->counters->events[CHAM_EVENT_WAKEUPS]++;
        if (inst->bells[c] >= 0 && write(inst->bells[c], &one, sizeof one) < 0)
            continue; /* the pipe is full: it has been rung often enough */
    }
    inst->woken = 0;
}
