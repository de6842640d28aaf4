/* A wrapper that mistreats packets: loss, duplication, reordering, delay and bit errors, reproducibly.
 *
 * Every packet draws the same amount of randomness, whatever is switched on, and each direction has its own generator:
 * a packet's fate depends on the seed, the settings and its place in its direction's sequence, on nothing else.
 *
 * A packet that survives is put in line with a due time and comes out at the first call whose `now` has reached it. The
 * line keeps the order, also when the delay varies; a packet chosen for reordering goes to a second line, `hold_ns`
 * later, so that those behind it overtake it. Both lines are bounded; what does not fit is lost and counted.
 */
#ifndef CHAM_PORT_FAULT_H
#define CHAM_PORT_FAULT_H

#include "base.h"

struct fault_line { /* frames of the pool, linked by `next`, in order of `due` */
    u32 head, tail; /* CHAM_NONE: empty */
    u64 last_due;
};

struct fault_counters {
    u64 packets, lost, duplicated, reordered, delayed, corrupted;
    u64 overflowed; /* lost because the lines are full or the pool is empty */
};

struct fault_direction {
    u32 enabled; /* 0: this direction passes untouched */
    u32 waiting; /* frames in both lines */
    u64 random;  /* state of the generator */
    struct fault_line line, late;
    struct fault_counters counters;
};

struct cham_fault {
    u32 loss, dup, reorder, biterr; /* probabilities per packet, as fractions of 2^32 */
    u64 delay_min, delay_max;       /* ns, uniform */
    u64 hold_ns;                    /* how much later a reordered packet comes */
    u32 limit;                      /* frames that may wait in each direction */
    u32 pad;
    struct fault_direction rx, tx;
};

struct cham_port;

/* When the next waiting frame is due; all ones: none waits. A virtual clock may sleep until then. */
u64 cham_fault_due(const struct cham_port *port);

/* Before the port goes: every waiting frame back to the pool, counted lost. */
void cham_fault_drain(struct cham_port *port);

#endif
