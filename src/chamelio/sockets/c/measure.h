/* What load generators count: requests under way, their answers, latencies; printed as one JSON object a line.
 *
 * A request without an answer after LOST_NS is lost; an answer that comes later, or twice, is late; one with other bytes than
 * were sent is wrong.
 */
#ifndef CHAMELIO_MEASURE_H
#define CHAMELIO_MEASURE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "chamelio_context.h"

#define WINDOW 4096 /* requests that can be under way */
#define LOST_NS 1000000000ull
#define EARLY_NS 80000 /* sleeping ends so much before a request is due */
#define BUCKETS 2048 /* of the latency histogram: 32 per power of two */

struct counts {
    uint64_t sent, answered, lost, late, wrong;
    uint64_t histogram[BUCKETS];
};

struct measure {
    struct {
        uint64_t id, due; /* due: when it was or should have been sent */
        int waiting;
    } requests[WINDOW];
    uint64_t next, oldest; /* ids: of the next request, and of the first that may still be answered */
    struct counts total, recent;
};

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline unsigned latency_bucket(uint64_t ns)
{
    if (ns < 32)
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns), b = (top - 4) * 32 + (unsigned)(ns >> (top - 5) & 31);
    return b < BUCKETS ? b : BUCKETS - 1;
}

/* The middle of a bucket, in microseconds. */
static inline double bucket_us(unsigned b)
{
    if (b < 32)
        return b / 1e3;
    unsigned top = b / 32 + 4;
    return ((double)((32ull + b % 32) << (top - 5)) + (double)(1ull << (top - 5)) / 2) / 1e3;
}

static inline double percentile(const struct counts *c, double p)
{
    uint64_t want = (uint64_t)((double)c->answered * p), seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++)
        if ((seen += c->histogram[b]) > want)
            return bucket_us(b);
    return 0;
}

#define COUNT(m, what) ((m)->total.what++, (m)->recent.what++)

static inline void measure_sent(struct measure *m, uint64_t due)
{
    m->requests[m->next % WINDOW].id = m->next;
    m->requests[m->next % WINDOW].due = due;
    m->requests[m->next % WINDOW].waiting = 1;
    m->next++;
    COUNT(m, sent);
}

/* An answer to request `id` has come; `intact`: with the bytes that were sent. */
static inline void measure_answer(struct measure *m, uint64_t id, int intact, uint64_t now)
{
    uint64_t due = m->requests[id % WINDOW].due;
    if (!intact || m->requests[id % WINDOW].id != id) {
        COUNT(m, wrong);
    } else if (!m->requests[id % WINDOW].waiting) {
        COUNT(m, late);
    } else {
        unsigned b = latency_bucket(now > due ? now - due : 0);
        m->requests[id % WINDOW].waiting = 0;
        COUNT(m, answered);
        m->total.histogram[b]++;
        m->recent.histogram[b]++;
    }
}

/* Requests that are under way. */
static inline uint64_t measure_open(const struct measure *m) { return m->total.sent - m->total.answered - m->total.lost; }

/* Forget requests that are answered, and those that have waited too long. Returns how many are still under way. */
static inline uint64_t measure_expire(struct measure *m, uint64_t now)
{
    for (; m->oldest < m->next; m->oldest++) {
        if (m->requests[m->oldest % WINDOW].waiting) {
            if (now - m->requests[m->oldest % WINDOW].due < LOST_NS)
                break;
            m->requests[m->oldest % WINDOW].waiting = 0;
            COUNT(m, lost);
        }
    }
    return m->next - m->oldest;
}

/* Open loop: sleep until shortly before the next request is due; what comes meanwhile wakes us. */
static inline void measure_rest(const struct measure *m, double rate, uint64_t start, uint64_t end, struct cham_context *c)
{
    uint64_t now = now_ns(), due = start + (uint64_t)((double)m->next * 1e9 / (rate > 0 ? rate : 1));
    if (rate > 0 && now < end && due > now + 2 * EARLY_NS)
        cham_context_wait_ns(c, due - now - EARLY_NS);
}

/* `more`: further members of the JSON object, beginning with a comma, or "". */
static inline void measure_print(const struct counts *c, double seconds, int final, const char *more)
{
    printf("{\"final\":%s,\"seconds\":%.3f,\"sent\":%llu,\"answered\":%llu,\"lost\":%llu,\"late\":%llu,\"wrong\":%llu,"
           "\"per_second\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f%s}\n",
           final ? "true" : "false", seconds, (unsigned long long)c->sent, (unsigned long long)c->answered,
           (unsigned long long)c->lost, (unsigned long long)c->late, (unsigned long long)c->wrong,
           (double)c->answered / seconds, percentile(c, 0.5), percentile(c, 0.99), percentile(c, 0.999), more);
    fflush(stdout);
}

#endif
