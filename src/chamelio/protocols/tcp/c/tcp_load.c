/* A TCP load generator: requests on connections that stay (load_loop.h), or connections that come and go.
 *
 *     tcp_load SOCKET-PATH ADDRESS PORT [--connections N] [--ports N] [options of load_loop.h]
 *     tcp_load SOCKET-PATH ADDRESS PORT --connect-rate [--ports N] [--close fin|reset|wait] [--bytes N] [--outstanding N] [--seconds S]
 *
 * The first opens N connections (default: as many as requests are outstanding) to N ports from PORT on, says so in a line of JSON, and
 * asks on one after the other. The second opens connections to these ports, sends N bytes (0: none) on each, waits for them to come
 * back, and closes it: by a FIN, a reset, or not before the server has (`wait`). A connection counts when we have given it up.
 */
#include <arpa/inet.h>

#include "load_loop.h"
#include "tcp_app.h"

#define CONNECTIONS_MAX 131072
#define BYTES_MAX 65536
#define OPENING 64 /* connections that are being opened at a time, once the first is: by then ARP has been answered */
#define OPEN_NS 30000000000ull
#define CLOSE_NS 1000000000ull

static struct tcp_app app;
static struct load load;
static uint32_t address;
static uint16_t port; /* the first; host order */
static uint8_t message[BYTES_MAX];

/* ---- requests on connections that stay -------------------------------------------------------------------------------------------- */

static uint32_t connections, ports = 1; /* connections 0: as many as requests are outstanding; they go to `ports` ports in turn */
static uint32_t turns[CONNECTIONS_MAX], first, behind; /* connections that may be asked, in a ring; one may occur several times */
static uint32_t ended, refused, error; /* error: why the last one was refused, an errno value */

static void add_turn(uint32_t conn) { turns[behind++ % CONNECTIONS_MAX] = conn; }

static int open_connections(void)
{
    uint32_t asked = 0, open = 0;
    uint64_t start = now_ns(), deadline = start + OPEN_NS;
    struct tcp_event e;
    while (open < connections && now_ns() < deadline) {
        while (asked < connections && asked - open < (open ? OPENING : 1) &&
               tcp_app_connect(&app, address, htons((uint16_t)(port + asked % ports)), asked))
            asked++;
        while (tcp_app_next(&app, &e)) {
            if (e.kind == TCP_ENDED)
                return cham_context_fail(&app.context, "a connection is refused");
            if (e.kind == TCP_CONNECTED) {
                add_turn(e.conn);
                open++;
            }
        }
    }
    if (open < connections)
        return cham_context_fail(&app.context, "not all connections were opened in time");
    printf("{\"final\":false,\"connections\":%u,\"opening_seconds\":%.3f}\n", open, (double)(now_ns() - start) / 1e9);
    fflush(stdout);
    return 0;
}

static int connect_to(const struct load *l, const char *path, const char *to, unsigned number)
{
    uint32_t outstanding = l->rate > 0 ? 256 : l->outstanding;
    if (tcp_app_open(&app, path))
        return -1;
    if (inet_pton(AF_INET, to, &address) != 1)
        return cham_context_fail(&app.context, "that is no IPv4 address");
    port = (uint16_t)number;
    connections = connections ? connections : outstanding;
    if (open_connections())
        return -1;
    for (uint32_t i = 0; behind < outstanding; i++)
        add_turn(turns[i % connections]);
    return 0;
}

static int take(struct load *l)
{
    struct tcp_event e;
    while (tcp_app_next(&app, &e)) {
        if (e.kind == TCP_ENDED || e.kind == TCP_FIN) {
            ended++;
            continue;
        }
        while (tcp_app_readable(&app, e.conn) >= l->bytes && tcp_app_read(&app, e.conn, message, l->bytes) == l->bytes) {
            load_answer(l, message, l->bytes);
            add_turn(e.conn);
        }
    }
    return !ended;
}

static int ask(const struct load *l, const uint8_t *payload)
{
    uint32_t conn = turns[first % CONNECTIONS_MAX];
    if (first == behind)
        return 0;
    if (tcp_app_room(&app, conn, l->bytes) < l->bytes)
        return 0;
    tcp_app_write(&app, conn, payload, l->bytes);
    if (l->rate > 0) /* nothing else may follow soon */
        tcp_app_flush(&app);
    first++;
    return 1;
}

static int alive(void) { return tcp_app_alive(&app); }

/* Close what is open, and wait until the engine has heard of it: what is left when we go is reset. */
static void close_all(void)
{
    struct tcp_event e;
    uint64_t deadline = now_ns() + CLOSE_NS;
    for (uint32_t conn = 0; conn < TCP_CONNECTIONS; conn++)
        tcp_app_close(&app, conn);
    do {
        while (tcp_app_next(&app, &e))
            ;
    } while (!tcp_app_idle(&app) && now_ns() < deadline);
}

/* ---- connections that come and go ------------------------------------------------------------------------------------------------- */

enum way { CLOSE_FIN, CLOSE_RESET, CLOSE_WAIT };

static struct {
    uint32_t ports, bytes, outstanding;
    enum way way;
    double seconds;
    uint64_t asked, opened, closed; /* connections */
} comings = {.ports = 1, .bytes = 64, .outstanding = 64, .seconds = 3};

static void end_connection(uint32_t conn)
{
    if (comings.way == CLOSE_RESET)
        tcp_app_abort(&app, conn);
    else
        tcp_app_close(&app, conn);
    comings.closed++;
}

static void come_or_go(const struct tcp_event *e)
{
    switch (e->kind) {
    case TCP_CONNECTED:
        comings.opened++;
        if (comings.bytes && tcp_app_write(&app, e->conn, message, comings.bytes) < comings.bytes)
            refused++;
        else if (!comings.bytes && comings.way != CLOSE_WAIT)
            end_connection(e->conn);
        break;
    case TCP_DATA:
        if (tcp_app_readable(&app, e->conn) >= comings.bytes && comings.way != CLOSE_WAIT)
            end_connection(e->conn);
        break;
    case TCP_FIN:
        end_connection(e->conn);
        break;
    case TCP_ENDED:
        refused++;
        error = e->error;
        tcp_app_close(&app, e->conn);
    }
}

static int come_and_go(const char *path, const char *to, unsigned number)
{
    struct tcp_event e;
    if (tcp_app_open(&app, path) || inet_pton(AF_INET, to, &address) != 1) {
        fprintf(stderr, "tcp_load: %s\n", app.context.error);
        return 1;
    }
    uint64_t start = now_ns(), end = start + (uint64_t)(comings.seconds * 1e9), now = start;
    for (unsigned idle = 0; now < end + LOST_NS; now = now_ns(), idle++) {
        uint64_t under_way = comings.asked - comings.closed - refused;
        if (now >= end && !under_way)
            break;
        for (uint32_t most = comings.opened ? comings.outstanding : 1; now < end && under_way < most; under_way++, comings.asked++)
            if (!tcp_app_connect(&app, address, htons((uint16_t)(number + comings.asked % comings.ports)), 0))
                break;
        while (tcp_app_next(&app, &e)) {
            come_or_go(&e);
            idle = 0;
        }
        if (idle > SPINS) {
            cham_context_wait_ns(&app.context, 1000000);
            idle = 0;
        }
        __builtin_ia32_pause();
    }
    double seconds = (double)((now < end ? now : end) - start) / 1e9;
    printf("{\"final\":true,\"seconds\":%.3f,\"asked\":%llu,\"opened\":%llu,\"closed\":%llu,\"refused\":%u,\"error\":%u,\"per_second\":%.0f}\n", seconds,
           (unsigned long long)comings.asked, (unsigned long long)comings.opened, (unsigned long long)comings.closed, refused, error,
           (double)comings.closed / seconds);
    close_all();
    tcp_app_end(&app);
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------------------------------------------- */

static int option_of_comings(const char *name, const char *value)
{
    static const char *const ways[] = {"fin", "reset", "wait"};
    if (!strcmp(name, "--ports"))
        return (comings.ports = (uint32_t)atoi(value)) > 0;
    if (!strcmp(name, "--bytes"))
        return (comings.bytes = (uint32_t)atoi(value)) <= TCP_BUFFER_MIN;
    if (!strcmp(name, "--outstanding"))
        return (comings.outstanding = (uint32_t)atoi(value)) > 0;
    if (!strcmp(name, "--seconds"))
        return (comings.seconds = atof(value)) > 0;
    for (unsigned i = 0; !strcmp(name, "--close") && i < 3; i++)
        if (!strcmp(value, ways[i])) {
            comings.way = (enum way)i;
            return 1;
        }
    return 0;
}

int main(int argc, char **argv)
{
    static uint8_t payload[BYTES_MAX];
    const struct load_protocol tcp = {BYTES_MAX, WINDOW, &app.context, connect_to, take, ask, alive};
    if (argc > 4 && !strcmp(argv[4], "--connect-rate")) {
        for (int i = 5; i < argc; i += 2)
            if (i + 1 == argc || !option_of_comings(argv[i], argv[i + 1]))
                return load_usage(argv[0]);
        return come_and_go(argv[1], argv[2], (unsigned)atoi(argv[3]));
    }
    for (; argc > 5 && (!strcmp(argv[4], "--connections") || !strcmp(argv[4], "--ports")); argc -= 2) {
        uint32_t n = (uint32_t)atoi(argv[5]);
        *(argv[4][2] == 'c' ? &connections : &ports) = n;
        if (!n || n > CONNECTIONS_MAX)
            return load_usage(argv[0]);
        memmove(argv + 4, argv + 6, (size_t)(argc - 6 + 1) * sizeof *argv);
    }
    int status = load_all(&load, &tcp, argc, argv, payload);
    if (status)
        return status;
    char more[96];
    snprintf(more, sizeof more, ",\"connections\":%u,\"failed\":%u,\"closed\":%u", connections, refused, ended);
    measure_print(&load.m.total, load.seconds, 1, more);
    close_all();
    tcp_app_end(&app);
    return 0;
}
