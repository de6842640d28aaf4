/* The fault injector as a port around another one. */
#include "port_fault.h"
#include "port.h"

/* splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014) */
static u64 fault_random(u64 *state)
{
    u64 z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* `random` scaled to 0..range-1 */
CHAM_INLINE u64 fault_scale(u64 random, u64 range) { return (u64)(((unsigned __int128)random * range) >> 64); }

static void line_push(struct cham_pool *pool, struct fault_line *line, struct cham_frame *f, u64 due)
{
    if (due < line->last_due)
        due = line->last_due;
    line->last_due = due;
    f->due = due;
    f->next = CHAM_NONE;
    if (line->head == CHAM_NONE)
        line->head = f->index;
    else
        pool->frames[line->tail].next = f->index;
    line->tail = f->index;
}

CHAM_INLINE u64 line_due(const struct cham_pool *pool, const struct fault_line *line)
{
    return line->head == CHAM_NONE ? ~0ull : pool->frames[line->head].due;
}

/* Put a frame in line, if there is room; it is ours to lose. */
static void fault_wait(struct cham_port *port, struct fault_direction *d, struct cham_frame *f, u64 due, u64 hold)
{
    const struct cham_fault *fault = port->state;
    if (unlikely(d->waiting >= fault->limit)) {
        d->counters.overflowed++;
        frame_put(port->pool, f);
        return;
    }
    d->waiting++;
    line_push(port->pool, hold ? &d->late : &d->line, f, due + hold);
}

/* Decide what happens to one frame. Takes ownership. */
static void fault_meet(struct cham_port *port, struct fault_direction *d, struct cham_frame *f, u64 now)
{
    const struct cham_fault *fault = port->state;
    struct fault_counters *counters = &d->counters;
    u64 draw1 = fault_random(&d->random), draw2 = fault_random(&d->random);
    u64 delay_draw = fault_random(&d->random), bit_draw = fault_random(&d->random);
    int lost = (u32)draw1 < fault->loss, twice = (u32)(draw1 >> 32) < fault->dup;
    int late = (u32)draw2 < fault->reorder, wrong = (u32)(draw2 >> 32) < fault->biterr;
    u64 delay = fault->delay_min + fault_scale(delay_draw, fault->delay_max - fault->delay_min + 1);

    counters->packets++;
    if (lost | twice | late | wrong)
        port->counters.faults++;
    if (lost) {
        counters->lost++;
        frame_put(port->pool, f);
        return;
    }
    struct cham_frame *copy = twice ? frame_get(port->pool) : 0;
    if (copy) {
        __builtin_memcpy(frame_eth(copy), frame_eth(f), frame_wire_len(f));
        copy->len = f->len;
        copy->flags = f->flags;
        counters->duplicated++;
    } else if (twice) {
        counters->overflowed++;
    }
    if (wrong) { /* one bit of the frame; nobody vouches for its checksum any more */
        u64 bit = fault_scale(bit_draw, frame_wire_len(f) * 8ull);
        frame_eth(f)[bit / 8] ^= (u8)(1u << (bit % 8));
        f->flags &= (u8)~CHAM_FRAME_CSUM_OK;
        counters->corrupted++;
    }
    counters->delayed += delay != 0;
    counters->reordered += (u64)late;
    fault_wait(port, d, f, now + delay, late ? fault->hold_ns : 0);
    if (copy)
        fault_wait(port, d, copy, now + delay, 0);
}

/* The next frame that is due, or NULL. */
static struct cham_frame *fault_next(struct cham_port *port, struct fault_direction *d, u64 now)
{
    struct cham_pool *pool = port->pool;
    u64 due = line_due(pool, &d->line), late = line_due(pool, &d->late);
    struct fault_line *line = late < due ? &d->late : &d->line;
    if (line->head == CHAM_NONE || (late < due ? late : due) > now)
        return 0;
    struct cham_frame *f = pool->frames + line->head;
    line->head = f->next;
    f->next = CHAM_NONE;
    d->waiting--;
    return f;
}

static void fault_release_tx(struct cham_port *port, u64 now)
{
    struct cham_fault *fault = port->state;
    struct cham_frame *burst[CHAM_BURST], *f;
    u32 n = 0;
    for (u32 total = 0; total < fault->limit && (f = fault_next(port, &fault->tx, now)); total++) {
        port->counters.tx_packets++;
        port->counters.tx_bytes += frame_wire_len(f);
        burst[n++] = f;
        if (n == CHAM_BURST) {
            port->inner->ops->tx(port->inner, burst, n, now);
            n = 0;
        }
    }
    if (n)
        port->inner->ops->tx(port->inner, burst, n, now);
}

static u32 fault_rx(struct cham_port *port, struct cham_frame **frames, u32 max, u64 now)
{
    struct cham_fault *fault = port->state;
    struct cham_port *inner = port->inner;
    u32 n = inner->ops->rx(inner, frames, max, now);
    port->status = inner->status;
    if (fault->rx.enabled) {
        struct cham_frame *f;
        for (u32 i = 0; i < n; i++)
            fault_meet(port, &fault->rx, frames[i], now);
        for (n = 0; n < max && (f = fault_next(port, &fault->rx, now)); n++)
            frames[n] = f;
    }
    port->counters.rx_packets += n;
    for (u32 i = 0; i < n; i++)
        port->counters.rx_bytes += frame_wire_len(frames[i]);
    return n;
}

static void fault_tx(struct cham_port *port, struct cham_frame **frames, u32 n, u64 now)
{
    struct cham_fault *fault = port->state;
    if (!fault->tx.enabled) {
        port->counters.tx_packets += n;
        for (u32 i = 0; i < n; i++)
            port->counters.tx_bytes += frame_wire_len(frames[i]);
        port->inner->ops->tx(port->inner, frames, n, now);
        return;
    }
    for (u32 i = 0; i < n; i++)
        fault_meet(port, &fault->tx, frames[i], now);
    fault_release_tx(port, now);
}

static void fault_flush(struct cham_port *port, u64 now)
{
    const struct cham_fault *fault = port->state;
    if (fault->tx.enabled)
        fault_release_tx(port, now);
    port->inner->ops->flush(port->inner, now);
    port->status = port->inner->status;
}

u64 cham_fault_due(const struct cham_port *port)
{
    const struct cham_fault *fault = port->state;
    const struct fault_line *lines[] = {&fault->rx.line, &fault->rx.late, &fault->tx.line, &fault->tx.late};
    u64 due = ~0ull;
    for (u32 i = 0; i < 4; i++) {
        u64 d = line_due(port->pool, lines[i]);
        due = d < due ? d : due;
    }
    return due;
}

void cham_fault_drain(struct cham_port *port)
{
    struct cham_fault *fault = port->state;
    struct fault_direction *directions[] = {&fault->rx, &fault->tx};
    for (u32 i = 0; i < 2; i++)
        for (struct cham_frame *f; (f = fault_next(port, directions[i], ~0ull));) {
            directions[i]->counters.lost++;
            frame_put(port->pool, f);
        }
}

static void fault_ask(struct cham_port *port, u32 ring)
{
    if (port->inner->ops->ask)
        port->inner->ops->ask(port->inner, ring);
}

const struct cham_port_ops cham_fault_ops = {fault_rx, fault_tx, fault_flush, fault_ask};
