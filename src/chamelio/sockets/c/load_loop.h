/* The load generators' options and loop, for any protocol: what it takes to ask and to be answered is the protocol's.
 *
 *     PROGRAM SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate PER-SECOND] [--seconds S] [--interval S]
 *
 * Closed loop: N requests are outstanding, an answer starts the next. Open loop: so many a second, whatever comes back, and
 * latency counts from when a request should have been sent. Prints one JSON object per interval and one with "final": true.
 */
#ifndef CHAMELIO_LOAD_LOOP_H
#define CHAMELIO_LOAD_LOOP_H

#include <stdlib.h>

#include "measure.h"

#define SPINS 2000 /* rounds without work before a closed loop sleeps */

struct load {
    unsigned bytes, outstanding; /* of a request; under way at most in the closed loop */
    double rate, seconds, interval;
    struct measure m;
};

/* What a protocol brings. `payload` has the request's id in its first 8 bytes and the id's lowest byte in its last. */
struct load_protocol {
    unsigned bytes_max, outstanding_max;
    struct cham_context *context;
    int (*connect)(const struct load *l, const char *path, const char *address, unsigned port); /* not 0: context->error says why */
    int (*take)(struct load *l); /* give all answers that are there to load_answer; 0: no more will come */
    int (*send)(const struct load *l, const uint8_t *payload); /* 0: there is no room yet */
    int (*alive)(void);                                        /* 0: there is nobody left to ask; a system call */
};

static inline void load_answer(struct load *l, const uint8_t *payload, uint32_t bytes)
{
    uint64_t id = ~0ull;
    if (bytes == l->bytes)
        memcpy(&id, payload, sizeof id);
    measure_answer(&l->m, id, bytes == l->bytes && payload[bytes - 1] == (uint8_t)id, now_ns());
}

static inline int load_usage(const char *name)
{
    fprintf(stderr, "usage: %s SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate N] [--seconds S] [--interval S]\n", name);
    return 2;
}

static inline int load_options(struct load *l, const struct load_protocol *p, int argc, char **argv)
{
    *l = (struct load){.bytes = 64, .outstanding = 16, .seconds = 3};
    if (argc < 4 || argc % 2)
        return load_usage(argv[0]);
    for (int i = 4; i < argc; i += 2) {
        if (!strcmp(argv[i], "--bytes"))
            l->bytes = (unsigned)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--outstanding"))
            l->outstanding = (unsigned)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--rate"))
            l->rate = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds"))
            l->seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--interval"))
            l->interval = atof(argv[i + 1]);
        else
            return load_usage(argv[0]);
    }
    if (l->bytes < 9 || l->bytes > p->bytes_max || !l->outstanding || l->outstanding > p->outstanding_max || !(l->seconds > 0))
        return load_usage(argv[0]);
    return 0;
}

/* Ask for what is due at `now`. Returns how many were sent. */
static inline unsigned load_send(struct load *l, const struct load_protocol *p, uint8_t *payload, uint64_t start, uint64_t now)
{
    unsigned sent = 0;
    for (; l->m.next - l->m.oldest < WINDOW && (l->rate > 0 || measure_open(&l->m) < l->outstanding); sent++) {
        uint64_t due = l->rate > 0 ? start + (uint64_t)((double)l->m.next * 1e9 / l->rate) : now;
        memcpy(payload, &l->m.next, sizeof l->m.next);
        payload[l->bytes - 1] = (uint8_t)l->m.next;
        if (due > now || !p->send(l, payload))
            break;
        measure_sent(&l->m, due);
    }
    return sent;
}

/* Until the time is over and what is under way is answered or lost, or nobody is left. Returns the seconds that it took. */
static inline double load_run(struct load *l, const struct load_protocol *p, uint8_t *payload)
{
    uint64_t start = now_ns(), end = start + (uint64_t)(l->seconds * 1e9), shown = start;
    for (unsigned idle = 0;; idle++) {
        if (!p->take(l))
            break;
        uint64_t now = now_ns(), under_way = measure_expire(&l->m, now);
        if (now >= end && (!under_way || now >= end + LOST_NS))
            break;
        if (now < end && load_send(l, p, payload, start, now))
            idle = 0;
        if (l->interval > 0 && now - shown >= (uint64_t)(l->interval * 1e9)) {
            measure_print(&l->m.recent, (double)(now - shown) / 1e9, 0, "");
            memset(&l->m.recent, 0, sizeof l->m.recent);
            shown = now;
            if (!p->alive())
                break;
        }
        if (idle > SPINS && l->rate <= 0) {
            cham_context_wait_ns(p->context, 20000000);
            idle = 0;
            if (!p->alive())
                break;
        }
        measure_rest(&l->m, l->rate, start, end, p->context);
        __builtin_ia32_pause();
    }
    return (double)(now_ns() - start) / 1e9;
}

/* All of it, but for the last line, which load_print writes. Not 0: the exit code of a program that could not begin. */
static inline int load_all(struct load *l, const struct load_protocol *p, int argc, char **argv, uint8_t *payload)
{
    int failed = load_options(l, p, argc, argv);
    if (failed)
        return failed;
    if (p->connect(l, argv[1], argv[2], (unsigned)atoi(argv[3]))) {
        fprintf(stderr, "%s: %s\n", argv[0], p->context->error);
        return 1;
    }
    double elapsed = load_run(l, p, payload);
    if (elapsed < l->seconds)
        l->seconds = elapsed;
    return 0;
}

#endif
