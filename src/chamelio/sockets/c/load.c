/* A UDP load generator (load_loop.h): one socket, connected to ADDRESS and PORT. */
#include "chamelio_app.h"
#include "load_loop.h"

static struct cham_app app;
static struct load load;
static int sock;

static int connect_to(const struct load *l, const char *path, const char *address, unsigned port)
{
    (void)l;
    sock = cham_app_open(&app, path) ? -1 : cham_app_bind(&app, 0, address, port);
    return sock < 0;
}

static int take(struct load *l)
{
    static struct cham_app_datagram d;
    while (cham_app_receive(&app, &d)) {
        load_answer(l, d.payload, d.len);
        cham_app_done(&app, &d);
    }
    return 1;
}

static int ask(const struct load *l, const uint8_t *payload) { return cham_app_send(&app, sock, 0, 0, payload, l->bytes); }

static int alive(void) { return cham_app_alive(&app); }

int main(int argc, char **argv)
{
    static uint8_t payload[UDP_PAYLOAD_MAX];
    const struct load_protocol udp = {UDP_PAYLOAD_MAX, WINDOW, &app.context, connect_to, take, ask, alive};
    int failed = load_all(&load, &udp, argc, argv, payload);
    if (failed)
        return failed;
    measure_print(&load.m.total, load.seconds, 1, "");
    cham_app_close(&app);
    return 0;
}
