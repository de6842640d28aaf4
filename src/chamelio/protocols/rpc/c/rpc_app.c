/* Calls and replies: a message into a slot's buffer, an entry into the ring of the core that has the session. */
#include "rpc_app.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPEN_MS 5000
#define RESUME_MS 4000
#define STRIDE(type) ((sizeof(type) + 7) / 8 * 8) /* of a ring's entries */

int rpc_app_open(struct rpc_app *app, const char *path)
{
    memset(app, 0, sizeof *app);
    struct cham_context *c = &app->context;
    if (cham_context_open(c, path, "events", "entries"))
        return -1;
    int64_t rx = cham_context_place(c, "rx_bytes", "at"), tx = cham_context_place(c, "tx_bytes", "at");
    if (rx < 0 || tx < 0 || cham_context_place(c, "tx_bytes", "stride") != RPC_BUFFER ||
        cham_context_place(c, "tx_bytes", "entries") != RPC_SESSIONS * RPC_SLOTS || c->core[0].out.stride != STRIDE(struct rpc_event) ||
        c->core[0].in.stride != STRIDE(struct rpc_entry))
        return cham_context_fail(c, "the agent describes another protocol than this program was built for");
    app->rx = c->region + rx;
    app->tx = c->region + tx;
    return 0;
}

int rpc_app_serve(struct rpc_app *app, unsigned port)
{
    char request[64];
    snprintf(request, sizeof request, "{\"verb\":\"serve\",\"port\":%u}", port);
    char *text = cham_context_call(&app->context, request);
    int64_t served = text ? cham_context_number(text, "port") : -1;
    free(text);
    if (served >= 0 && app->n_served < RPC_APP_PORTS)
        app->served[app->n_served++] = (uint32_t)served;
    return (int)served;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int rpc_app_alive(struct rpc_app *app)
{
    if (cham_context_alive(&app->context)) {
        app->gone_ms = 0;
        return 1;
    }
    if (!app->gone_ms)
        app->gone_ms = now_ms();
    if (cham_context_resume(&app->context))
        return now_ms() - app->gone_ms < RESUME_MS;
    uint32_t n = app->n_served;
    app->gone_ms = app->n_served = 0;
    for (uint32_t i = 0; i < n; i++) /* the new agent does not know what its predecessor was told */
        if (rpc_app_serve(app, app->served[i]) < 0)
            return 0;
    return 1;
}

int rpc_app_connect(struct rpc_app *app, const char *address, unsigned port)
{
    char request[160];
    snprintf(request, sizeof request, "{\"verb\":\"connect\",\"address\":\"%.64s\",\"port\":%u}", address, port);
    char *text = cham_context_call(&app->context, request);
    int64_t session = text ? cham_context_number(text, "session") : -1;
    free(text);
    if (session < 0 || session >= RPC_SESSIONS)
        return -1;
    app->sessions[session].open = 0;
    for (int ms = 0; ms < OPEN_MS; ms++) {
        struct rpc_event e;
        while (rpc_app_next(app, &e))
            if (e.kind == RPC_CLOSED && e.session == session) {
                errno = (int)e.error;
                return cham_context_fail(&app->context, "the server refuses");
            }
        if (app->sessions[session].open)
            return (int)session;
        cham_context_wait(&app->context, 1);
    }
    errno = ETIMEDOUT;
    return cham_context_fail(&app->context, "no session");
}

int rpc_app_next(struct rpc_app *app, struct rpc_event *e)
{
    while (cham_context_take(&app->context, e, sizeof *e)) {
        if (e->session >= RPC_SESSIONS || e->slot >= RPC_SLOTS || e->len > RPC_MESSAGE_MAX || e->core >= app->context.cores)
            continue;
        if (e->kind == RPC_OPENED) {
            memset(app->sessions + e->session, 0, sizeof *app->sessions);
            app->sessions[e->session].open = 1;
            app->sessions[e->session].generation = e->generation;
            app->sessions[e->session].core = e->core;
            app->sessions[e->session].slots = e->len < RPC_SLOTS ? e->len : RPC_SLOTS;
            continue;
        }
        if (e->kind == RPC_CLOSED)
            app->sessions[e->session].open = 0;
        else if (!app->sessions[e->session].open || app->sessions[e->session].generation != e->generation)
            continue;
        else if (e->kind != RPC_REQUEST && e->number != app->sessions[e->session].numbers[e->slot])
            continue;
        return 1;
    }
    return 0;
}

void rpc_app_read(const struct rpc_app *app, const struct rpc_event *e, void *to)
{
    uint32_t id = e->session * RPC_SLOTS + e->slot, at = RPC_BASE(id) % RPC_BUFFER;
    uint32_t head = e->len < RPC_BUFFER - at ? e->len : RPC_BUFFER - at;
    const uint8_t *buffer = app->rx + (uint64_t)id * RPC_BUFFER;
    memcpy(to, buffer + at, head);
    memcpy((uint8_t *)to + head, buffer, e->len - head);
}

static int put(struct rpc_app *app, uint32_t kind, uint32_t session, uint32_t slot, uint32_t number, const void *message, uint32_t len,
               uint32_t error)
{
    uint32_t id = session * RPC_SLOTS + slot, at = RPC_BASE(id) % RPC_BUFFER, core = app->sessions[session].core;
    if (len > RPC_MESSAGE_MAX || !cham_context_room(&app->context, core))
        return 0;
    uint32_t head = len < RPC_BUFFER - at ? len : RPC_BUFFER - at;
    uint8_t *buffer = app->tx + (uint64_t)id * RPC_BUFFER;
    memcpy(buffer + at, message, head);
    memcpy(buffer, (const uint8_t *)message + head, len - head);
    struct rpc_entry e = {.kind = kind, .session = session, .slot = slot, .number = number, .len = len,
                          .generation = app->sessions[session].generation, .error = error};
    return cham_context_put(&app->context, core, &e, sizeof e);
}

int rpc_app_call(struct rpc_app *app, int session, uint32_t slot, const void *message, uint32_t len)
{
    if (session < 0 || session >= RPC_SESSIONS || slot >= app->sessions[session].slots || !app->sessions[session].open)
        return 0;
    if (!put(app, RPC_CALL, (uint32_t)session, slot, app->sessions[session].numbers[slot] + 1, message, len, 0))
        return 0;
    app->sessions[session].numbers[slot]++;
    return 1;
}

static int reply(struct rpc_app *app, const struct rpc_event *e, const void *message, uint32_t len, uint32_t error)
{
    if (!app->sessions[e->session].open || app->sessions[e->session].generation != e->generation)
        return 1; /* nobody waits for it any more */
    return put(app, RPC_REPLY, e->session, e->slot, e->number, message, len, error);
}

int rpc_app_reply(struct rpc_app *app, const struct rpc_event *e, const void *message, uint32_t len)
{
    return reply(app, e, message, len, 0);
}

int rpc_app_reply_error(struct rpc_app *app, const struct rpc_event *e, const char *text)
{
    size_t len = strlen(text);
    return reply(app, e, text, len < RPC_SEGMENT ? (uint32_t)len : RPC_SEGMENT, 1);
}

void rpc_app_close(struct rpc_app *app) { cham_context_close(&app->context); }
