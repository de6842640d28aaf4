/* An rpc load generator: rpc_load SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate PER-SECOND] [--seconds S]
 *                                 [--interval S]
 *
 * Closed loop: N requests are outstanding, an answer starts the next. Open loop: so many a second, whatever comes back, as long as
 * slots are free, and latency counts from when a request should have been sent. There are as many sessions as the outstanding
 * requests need slots. Prints one JSON object per interval and one with "final": true.
 */
#include <stdlib.h>

#include "measure.h"
#include "rpc_app.h"

#define SPINS 2000
#define SLOTS_MAX 2048

static struct rpc_app app;
static struct measure m;
static uint8_t message[RPC_MESSAGE_MAX];
static uint32_t free_slots[SLOTS_MAX], n_free; /* session * RPC_SLOTS + slot */
static uint32_t failed, closed;

static void take_answers(unsigned bytes)
{
    struct rpc_event e;
    while (rpc_app_next(&app, &e)) {
        if (e.kind == RPC_CLOSED) {
            closed++;
            continue;
        }
        if (e.kind == RPC_RESPONSE) {
            uint64_t id = ~0ull;
            rpc_app_read(&app, &e, message);
            if (e.len == bytes)
                memcpy(&id, message, sizeof id);
            measure_answer(&m, id, e.len == bytes && message[bytes - 1] == (uint8_t)id, now_ns());
        } else {
            failed++;
        }
        if (n_free < SLOTS_MAX)
            free_slots[n_free++] = e.session * RPC_SLOTS + e.slot;
    }
}

static int usage(const char *name)
{
    fprintf(stderr, "usage: %s SOCKET-PATH ADDRESS PORT [--bytes N] [--outstanding N | --rate N] [--seconds S] [--interval S]\n", name);
    return 2;
}

static int connect_all(const char *path, const char *address, unsigned port, unsigned outstanding)
{
    if (rpc_app_open(&app, path))
        return -1;
    while (n_free < outstanding) {
        int session = rpc_app_connect(&app, address, port);
        if (session < 0)
            return -1;
        for (uint32_t slot = 0; slot < app.sessions[session].slots && n_free < outstanding; slot++)
            free_slots[n_free++] = (uint32_t)session * RPC_SLOTS + slot;
    }
    return 0;
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
    if (bytes < 9 || bytes > RPC_MESSAGE_MAX || !outstanding || outstanding > SLOTS_MAX || !(seconds > 0))
        return usage(argv[0]);
    if (connect_all(argv[1], argv[2], (unsigned)atoi(argv[3]), rate > 0 ? 8 * RPC_SLOTS : outstanding)) {
        fprintf(stderr, "rpc_load: %s\n", app.context.error);
        return 1;
    }
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), shown = start;
    for (unsigned idle = 0; !closed; idle++) {
        take_answers(bytes);
        uint64_t now = now_ns(), under_way = measure_expire(&m, now);
        if (now >= end && (!under_way || now >= end + LOST_NS))
            break;
        while (now < end && n_free && m.next - m.oldest < WINDOW) {
            uint64_t due = rate > 0 ? start + (uint64_t)((double)m.next * 1e9 / rate) : now;
            if (due > now)
                break;
            memcpy(message, &m.next, sizeof m.next);
            message[bytes - 1] = (uint8_t)m.next;
            uint32_t id = free_slots[n_free - 1];
            if (!rpc_app_call(&app, (int)(id / RPC_SLOTS), id % RPC_SLOTS, message, bytes))
                break;
            n_free--;
            measure_sent(&m, due);
            idle = 0;
        }
        if (interval > 0 && now - shown >= (uint64_t)(interval * 1e9)) {
            measure_print(&m.recent, (double)(now - shown) / 1e9, 0, "");
            memset(&m.recent, 0, sizeof m.recent);
            shown = now;
            if (!rpc_app_alive(&app))
                break;
        }
        if (idle > SPINS && rate <= 0) {
            cham_context_wait(&app.context, 20);
            idle = 0;
            if (!rpc_app_alive(&app))
                break;
        }
        measure_rest(&m, rate, start, end, &app.context);
        __builtin_ia32_pause();
    }
    double elapsed = (double)(now_ns() - start) / 1e9;
    char more[64];
    snprintf(more, sizeof more, ",\"failed\":%u,\"closed\":%u", failed, closed);
    measure_print(&m.total, elapsed < seconds ? elapsed : seconds, 1, more);
    rpc_app_close(&app);
    return 0;
}
