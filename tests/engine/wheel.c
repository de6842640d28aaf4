/* A timing wheel against what it promises, driven as by a core that sleeps until `wheel_due` says so.
 *
 *     wheel SEED STEPS    ids are set near and far and cancelled at random; ends with 0 when none was early, late or lost
 */
#include <stdio.h>
#include <stdlib.h>

#include "map.h"

#define IDS 200
#define TICK (1ull << WHEEL_TICK_SHIFT)
#define NEVER (~0ull)

const u32 cham_cfg_virtual = 1, cham_cfg_hardening = 0, cham_cfg_policy = 0;

static struct wheel wheel;
static struct wheel_node nodes[IDS];
static u64 set[IDS]; /* when an id is to come due; NEVER: it is not set */
static u64 state, now = 5000000000ull;

static u64 draw(void) /* splitmix64 */
{
    u64 z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void die(const char *what, u32 id)
{
    fprintf(stderr, "id %u %s: due at %llu, it is %llu, the wheel stands at tick %llu\n", id, what, set[id], now, wheel.tick);
    exit(1);
}

/* As the helpers do it. */
static void schedule(u32 id, u64 when)
{
    if (nodes[id].slot != NODE_IDLE)
        wheel_unlink(&wheel, nodes, id);
    if (!wheel.armed)
        wheel.tick = now >> WHEEL_TICK_SHIFT;
    if (when <= now)
        wheel_queue(&wheel, nodes, id, when);
    else
        wheel_link(&wheel, nodes, id, when);
    set[id] = when;
}

static void cancel(u32 id)
{
    if ((nodes[id].slot != NODE_IDLE) != (set[id] != NEVER))
        die("is not where it should be", id);
    if (set[id] != NEVER)
        wheel_unlink(&wheel, nodes, id);
    set[id] = NEVER;
}

/* A round: a few ids at a time, until nothing is left for now. */
static void serve(void)
{
    u32 budget, moved = 0, id;
    do {
        budget = 8;
        while ((id = wheel_next(&wheel, nodes, now, &budget, &moved)) != CHAM_NONE) {
            if (set[id] == NEVER)
                die("was not set", id);
            if (set[id] > now)
                die("is early", id);
            if (set[id] + TICK < now)
                die("is late", id);
            set[id] = NEVER;
        }
    } while (!budget);
    for (id = 0; id < IDS; id++)
        if (set[id] != NEVER && set[id] + TICK <= now)
            die("does not come", id);
}

static u64 distance(void)
{
    static const u64 most[] = {TICK, 100 * TICK, 1000 * TICK, 1100 * TICK, 1ull << 24, 1ull << 28, 1ull << 33, 1ull << 35};
    return draw() % most[draw() % 8];
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], 0, 10);
    u64 steps = strtoull(argv[2], 0, 10), slept = 0;
    for (u32 k = 0; k <= NODE_QUEUED; k++)
        wheel.head[k] = CHAM_NONE;
    for (u32 id = 0; id < IDS; id++) {
        nodes[id].slot = NODE_IDLE;
        set[id] = NEVER;
    }
    for (u64 i = 0; i < steps; i++) {
        u32 quiet = wheel.armed && draw() % 16; /* nobody sets anything: it sleeps on */
        u32 many = quiet ? 0 : draw() % 256 ? 1 : (u32)(draw() % IDS);
        for (; many; many--)
            if (draw() % 4)
                schedule((u32)(draw() % IDS), now + distance());
            else
                cancel((u32)(draw() % IDS));
        u64 due = wheel_due(&wheel), other = quiet ? NEVER : now + distance();
        if (due <= other) {
            if (due > now)
                slept++;
            now = due > now ? due : now;
        } else {
            now = other;
        }
        serve();
    }
    printf("%llu\n", slept);
    return 0;
}
