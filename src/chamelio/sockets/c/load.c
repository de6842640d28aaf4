/* A UDP load generator: load SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate PER-SECOND] [--seconds S] [--interval S]
 *
 * Closed loop: N requests are outstanding, an answer starts the next. Open loop: so many a second, whatever comes back, and
 * latency counts from when a request should have been sent. Prints one JSON object per interval and one with "final": true.
 */
#include <stdlib.h>

#include "chamelio_app.h"
#include "measure.h"

#define SPINS 2000

static struct cham_app app;
static struct cham_app_datagram d;
static struct measure m;

static void take_answers(unsigned bytes)
{
    while (cham_app_receive(&app, &d)) {
        uint64_t id = ~0ull;
        if (d.len == bytes)
            memcpy(&id, d.payload, sizeof id);
        measure_answer(&m, id, d.len == bytes && d.payload[bytes - 1] == (uint8_t)id, now_ns());
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
        fprintf(stderr, "load: %s\n", app.context.error);
        return 1;
    }
    static uint8_t payload[UDP_PAYLOAD_MAX];
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), shown = start;
    uint64_t limit = rate > 0 ? WINDOW : outstanding;
    for (unsigned idle = 0;; idle++) {
        take_answers(bytes);
        uint64_t now = now_ns(), under_way = measure_expire(&m, now);
        if (now >= end && (!under_way || now >= end + LOST_NS))
            break;
        while (now < end && m.next - m.oldest < limit) {
            uint64_t due = rate > 0 ? start + (uint64_t)((double)m.next * 1e9 / rate) : now;
            if (due > now)
                break;
            memcpy(payload, &m.next, sizeof m.next);
            payload[bytes - 1] = (uint8_t)m.next;
            if (!cham_app_send(&app, s, 0, 0, payload, bytes))
                break;
            measure_sent(&m, due);
            idle = 0;
        }
        if (interval > 0 && now - shown >= (uint64_t)(interval * 1e9)) {
            measure_print(&m.recent, (double)(now - shown) / 1e9, 0, "");
            memset(&m.recent, 0, sizeof m.recent);
            shown = now;
            if (!cham_app_alive(&app))
                break;
        }
        if (idle > SPINS && rate <= 0) {
            cham_app_wait(&app, 20);
            idle = 0;
            if (!cham_app_alive(&app))
                break;
        }
        measure_rest(&m, rate, start, end, &app.context);
        __builtin_ia32_pause();
    }
    double elapsed = (double)(now_ns() - start) / 1e9;
    measure_print(&m.total, elapsed < seconds ? elapsed : seconds, 1, "");
    cham_app_close(&app);
    return 0;
}
