/* The engine's thread: rounds until told to stop, and how it sleeps when there is nothing to do.
 *
 * An idle core spins for a while, then naps between looks, longer and longer, and then sleeps until somebody rings. Whoever could
 * have something for it is asked by a flag of its own to ring: applications and slow paths in their inbound rings, the far end
 * of a wire, the other cores in their handover rings. Ports with a descriptor and the control thread's bell are watched too.
 *
 *     sleeper: raise the flags; fence; look once more; sleep; lower the flags
 *     ringer:  publish; fence; if the flag is up, write to the bell
 *
 * So nothing is missed by those who keep to it; who does not waits for NAP_MAX_NS or SLEEP_MAX_NS, which is its own affair.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "handover.h"
#include "port_fault.h"

#define NAP_AFTER_NS 50000
#define NAP_NS 50000       /* the first nap; each is twice as long as the one before */
#define NAP_MAX_NS 800000  /* so whatever comes is seen within a millisecond */
#define SLEEP_MAX_NS 100000000
#define SLEEP_MIN_NS 100000 /* what is due earlier is waited for by naps */
#define DRAIN_BYTES 4096

static void ask_instance(struct cham_instance *inst, u32 ring)
{
    u8 *base = instance_base(inst);
    for (u32 i = 0; i < inst->n_maps; i++) {
        const struct cham_map *m = inst->maps + i;
        for (u32 c = 0; m->kind == CHAM_MAP_RING_IN && c < m->contexts; c++)
            if (inst->attached >> c & 1)
                publish_u32(&ring_at(base, m, c)->wait, ring);
    }
    if (inst->attached & 1)
        publish_u32(&((struct ring_shared *)(base + inst->raw_rings + CHAM_RAW_RING_BYTES))->wait, ring);
}

/* Ask everybody who could have something for us to ring, or not to. */
static void ask(struct cham_core *core, u32 ring)
{
    for (u32 t = 0; t < core->n_active; t++)
        for (u32 i = core->tenants[core->active[t]].instances; i != CHAM_NONE; i = core->instances[i]->next)
            ask_instance(core->instances[i], ring);
    for (u32 i = 0; i < core->n_polled; i++)
        if (core->polled[i]->ops->ask)
            core->polled[i]->ops->ask(core->polled[i], ring);
    for (u32 k = 0; k < core->n_cores; k++)
        if (core->from[k])
            publish_u32(&core->from[k]->wait, ring);
}

static u64 earlier(u64 a, u64 b) { return a < b ? a : b; }

/* When something is due that nobody rings for (ns). */
static u64 next_due(const struct cham_core *core)
{
    u64 due = core->neighbours_due;
    for (u32 t = 0; t < core->n_active; t++)
        for (u32 i = core->tenants[core->active[t]].instances; i != CHAM_NONE; i = core->instances[i]->next) {
            struct cham_instance *inst = core->instances[i];
            for (u32 k = 0; k < inst->n_maps; k++)
                if (wheel_runs(core, inst, inst->maps + k))
                    due = earlier(due, wheel_due((const struct wheel *)(instance_base(inst) + inst->maps[k].index)));
        }
    for (u32 i = 0; i < core->n_polled; i++)
        for (const struct cham_port *p = core->polled[i]; p; p = p->inner)
            if (p->ops == &cham_fault_ops)
                due = earlier(due, cham_fault_due(p));
    return due;
}

/* Empty the bells that were rung; ports' descriptors are read by the ports. */
static void drain_bells(struct cham_core *core)
{
    struct epoll_event events[16];
    u8 rung[DRAIN_BYTES];
    int n = epoll_wait(core->watched, events, 16, 0);
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 & CHAM_WATCH_BELL && read((int)(u32)events[i].data.u64, rung, sizeof rung) < 0)
            continue; /* somebody has taken it already */
}

/* Until somebody rings or something is due. Returns whether there was something to do before that. Anybody can ring for nothing,
 * as often as he likes: so before it sleeps again, a core that was rung naps, unless the next round finds something to do. */
static u32 sleep_until_rung(struct cham_core *core, struct timespec *nap)
{
    ask(core, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    u32 work = cham_round(core);
    u64 due = next_due(core), now = core->now;
    if (!work && due > now + SLEEP_MIN_NS && !__atomic_load_n(&core->stop, __ATOMIC_ACQUIRE)) {
        u64 ns = earlier(due - now, SLEEP_MAX_NS);
        struct timespec limit = {0, (long)ns};
        struct pollfd watched = {core->watched, POLLIN, 0};
        if (ppoll(&watched, 1, &limit, 0) > 0) {
            drain_bells(core);
            nap->tv_nsec = NAP_MAX_NS / 2;
        }
    }
    ask(core, 0);
    return work;
}

static void idle(struct cham_core *core, struct timespec *nap)
{
    if (!core->poll_adaptive || core->now - core->idle_ns <= NAP_AFTER_NS) {
        __builtin_ia32_pause();
        return;
    }
    if (nap->tv_nsec < NAP_MAX_NS || !__atomic_load_n(&core->may_sleep, __ATOMIC_RELAXED)) {
        nanosleep(nap, 0);
        nap->tv_nsec = nap->tv_nsec < NAP_MAX_NS / 2 ? 2 * nap->tv_nsec : NAP_MAX_NS;
    } else if (sleep_until_rung(core, nap)) {
        nap->tv_nsec = NAP_NS;
        return; /* what it did is accounted for */
    }
    u64 slept = core_stamp(core);
    core->counters->cycles_idle += slept;
    core->counters->cycles_elapsed += slept;
}

void cham_run(struct cham_core *core)
{
    struct timespec nap = {0, NAP_NS};
    core_stamp(core);
    while (!__atomic_load_n(&core->stop, __ATOMIC_ACQUIRE)) {
        u64 provider = core->counters->cycles_provider;
        if (cham_round(core)) {
            nap.tv_nsec = NAP_NS;
            continue;
        }
        /* a round that found nothing was not work */
        core->counters->cycles_idle += core->counters->cycles_provider - provider;
        core->counters->cycles_provider = provider;
        idle(core, &nap);
    }
}

/* The time stamp counter, for the control thread's calibration against the system's clock. */
u64 cham_cycles(void) { return __builtin_readcyclecounter(); }
