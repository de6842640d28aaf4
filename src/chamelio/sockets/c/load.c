/* A UDP load generator: load SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate PER-SECOND] [--seconds S] [--interval S]
 *
 * Closed loop: N requests are outstanding, an answer starts the next. Open loop: so many a second, whatever comes back, and
 * latency counts from when a request should have been sent. Prints one JSON object per interval and one with "final": true.
 * A request without an answer after LOST_NS is lost; an answer that comes later, or twice, is counted as such.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chamelio_app.h"

#define WINDOW 4096 /* requests that can be outstanding */
#define LOST_NS 1000000000ull
#define BUCKETS 2048 /* of the latency histogram: 32 per power of two */
#define SPINS 2000

struct request {
    uint64_t id, due;
    int waiting;
};

struct counts {
    uint64_t sent, answered, lost, late, wrong;
    uint64_t histogram[BUCKETS];
};

static struct cham_app app;
static struct cham_app_datagram d;
static struct request requests[WINDOW];
static struct counts total, recent;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned bucket(uint64_t ns)
{
    if (ns < 32)
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns), b = (top - 4) * 32 + (unsigned)(ns >> (top - 5) & 31);
    return b < BUCKETS ? b : BUCKETS - 1;
}

/* The middle of a bucket, in microseconds. */
static double bucket_us(unsigned b)
{
    if (b < 32)
        return b / 1e3;
    unsigned top = b / 32 + 4;
    return ((double)((32ull + b % 32) << (top - 5)) + (double)(1ull << (top - 5)) / 2) / 1e3;
}

static double percentile(const struct counts *c, double p)
{
    uint64_t want = (uint64_t)((double)c->answered * p), seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++)
        if ((seen += c->histogram[b]) > want)
            return bucket_us(b);
    return 0;
}

static void print(const struct counts *c, double seconds, int final)
{
    printf("{\"final\":%s,\"seconds\":%.3f,\"sent\":%llu,\"answered\":%llu,\"lost\":%llu,\"late\":%llu,\"wrong\":%llu,"
           "\"per_second\":%.0f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f}\n",
           final ? "true" : "false", seconds, (unsigned long long)c->sent, (unsigned long long)c->answered,
           (unsigned long long)c->lost, (unsigned long long)c->late, (unsigned long long)c->wrong,
           (double)c->answered / seconds, percentile(c, 0.5), percentile(c, 0.99), percentile(c, 0.999));
    fflush(stdout);
}

#define COUNT(what) (total.what++, recent.what++)

static void take_answers(unsigned bytes)
{
    while (cham_app_receive(&app, &d)) {
        uint64_t id = ~0ull;
        if (d.len == bytes)
            memcpy(&id, d.payload, sizeof id);
        struct request *r = requests + id % WINDOW;
        if (d.len != bytes || d.payload[bytes - 1] != (uint8_t)id || r->id != id) {
            COUNT(wrong);
        } else if (!r->waiting) {
            COUNT(late);
        } else {
            uint64_t now = now_ns(), took = now > r->due ? now - r->due : 0;
            r->waiting = 0;
            COUNT(answered);
            total.histogram[bucket(took)]++;
            recent.histogram[bucket(took)]++;
        }
        cham_app_done(&app, &d);
    }
}

static int usage(const char *name)
{
    fprintf(stderr, "usage: %s SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate N] [--seconds S] [--interval S]\n", name);
    return 2;
}

int main(int argc, char **argv)
{
    unsigned bytes = 64, outstanding = 16;
    double rate = 0, seconds = 3, interval = 0;
    if (argc < 4 || argc % 2)
        return usage(argv[0]);
    for (int i = 4; i < argc; i += 2) {
        if (!strcmp(argv[i], "--bytes"))
            bytes = (unsigned)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--outstanding"))
            outstanding = (unsigned)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--rate"))
            rate = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--seconds"))
            seconds = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--interval"))
            interval = atof(argv[i + 1]);
        else
            return usage(argv[0]);
    }
    if (bytes < 9 || bytes > UDP_PAYLOAD_MAX || !outstanding || outstanding > WINDOW || !(seconds > 0))
        return usage(argv[0]);
    int s = cham_app_open(&app, argv[1]) ? -1 : cham_app_bind(&app, 0, argv[2], (unsigned)atoi(argv[3]));
    if (s < 0) {
        fprintf(stderr, "load: %s\n", app.error);
        return 1;
    }
    static uint8_t payload[UDP_PAYLOAD_MAX];
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), shown = start, next = 0, oldest = 0;
    uint64_t limit = rate > 0 ? WINDOW : outstanding;
    for (unsigned idle = 0;; idle++) {
        take_answers(bytes);
        uint64_t now = now_ns();
        for (; oldest < next; oldest++) {
            struct request *r = requests + oldest % WINDOW;
            if (r->waiting && now - r->due < LOST_NS)
                break;
            if (r->waiting) {
                r->waiting = 0;
                COUNT(lost);
            }
        }
        if (now >= end && (oldest == next || now >= end + LOST_NS))
            break;
        while (now < end && next - oldest < limit) {
            uint64_t due = rate > 0 ? start + (uint64_t)((double)next * 1e9 / rate) : now;
            if (due > now)
                break;
            memcpy(payload, &next, sizeof next);
            payload[bytes - 1] = (uint8_t)next;
            if (!cham_app_send(&app, s, 0, 0, payload, bytes))
                break;
            requests[next % WINDOW] = (struct request){next, due, 1};
            next++;
            COUNT(sent);
            idle = 0;
        }
        if (interval > 0 && now - shown >= (uint64_t)(interval * 1e9)) {
            print(&recent, (double)(now - shown) / 1e9, 0);
            memset(&recent, 0, sizeof recent);
            shown = now;
            if (!cham_app_alive(&app))
                break;
        }
        if (idle > SPINS && rate <= 0) {
            cham_app_wait(&app, 20);
            idle = 0;
        }
        __builtin_ia32_pause();
    }
    double elapsed = (double)(now_ns() - start) / 1e9;
    print(&total, elapsed < seconds ? elapsed : seconds, 1);
    cham_app_close(&app);
    return 0;
}
