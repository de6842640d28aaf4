/* An rpc load generator (load_loop.h). There are as many sessions as the outstanding requests need slots; the open loop has 8. */
#include "load_loop.h"
#include "rpc_app.h"

#define SLOTS_MAX 2048

static struct rpc_app app;
static struct load load;
static uint32_t free_slots[SLOTS_MAX], n_free; /* session * RPC_SLOTS + slot */
static uint32_t failed, closed;

static int connect_to(const struct load *l, const char *path, const char *address, unsigned port)
{
    uint32_t wanted = l->rate > 0 ? 8 * RPC_SLOTS : l->outstanding;
    if (rpc_app_open(&app, path))
        return -1;
    while (n_free < wanted) {
        int session = rpc_app_connect(&app, address, port);
        if (session < 0)
            return -1;
        for (uint32_t slot = 0; slot < app.sessions[session].slots && n_free < wanted; slot++)
            free_slots[n_free++] = (uint32_t)session * RPC_SLOTS + slot;
    }
    return 0;
}

static int take(struct load *l)
{
    static uint8_t message[RPC_MESSAGE_MAX];
    struct rpc_event e;
    while (rpc_app_next(&app, &e)) {
        if (e.kind == RPC_CLOSED) {
            closed++;
            continue;
        }
        if (e.kind == RPC_RESPONSE) {
            rpc_app_read(&app, &e, message);
            load_answer(l, message, e.len);
        } else {
            failed++;
        }
        if (n_free < SLOTS_MAX)
            free_slots[n_free++] = e.session * RPC_SLOTS + e.slot;
    }
    return !closed;
}

static int ask(const struct load *l, const uint8_t *payload)
{
    if (!n_free)
        return 0;
    uint32_t id = free_slots[n_free - 1];
    if (!rpc_app_call(&app, (int)(id / RPC_SLOTS), id % RPC_SLOTS, payload, l->bytes))
        return 0;
    n_free--;
    return 1;
}

static int alive(void) { return rpc_app_alive(&app); }

int main(int argc, char **argv)
{
    static uint8_t payload[RPC_MESSAGE_MAX];
    const struct load_protocol rpc = {RPC_MESSAGE_MAX, SLOTS_MAX, &app.context, connect_to, take, ask, alive};
    int status = load_all(&load, &rpc, argc, argv, payload);
    if (status)
        return status;
    char more[64];
    snprintf(more, sizeof more, ",\"failed\":%u,\"closed\":%u", failed, closed);
    measure_print(&load.m.total, load.seconds, 1, more);
    rpc_app_close(&app);
    return 0;
}
