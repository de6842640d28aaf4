/* rpc for C applications, on a context (chamelio_context.h).
 *
 *     struct rpc_app app;                                       large: keep it static
 *     rpc_app_open(&app, "/run/.../tenants/red/rpc.sock");      -1 and a message in app.context.error otherwise
 *
 * A server:
 *     rpc_app_serve(&app, 7);
 *     while (rpc_app_next(&app, &e)) { rpc_app_read(&app, &e, buffer); ... rpc_app_reply(&app, &e, answer, len); }
 *
 * A client, with as many requests under way as its sessions have slots:
 *     int session = rpc_app_connect(&app, "10.0.0.1", 7);
 *     rpc_app_call(&app, session, slot, request, len);          for each slot one at a time
 *     while (rpc_app_next(&app, &e)) if (e.kind == RPC_RESPONSE) { rpc_app_read(&app, &e, buffer); ... }
 *
 *     cham_context_wait(&app.context, milliseconds);            sleeps unless something is there
 */
#ifndef RPC_APP_H
#define RPC_APP_H

#include "../rpc.h"
#include "chamelio_context.h"

#define RPC_APP_PORTS 16

struct rpc_app {
    struct cham_context context;
    uint8_t *rx, *tx;
    uint32_t served[RPC_APP_PORTS], n_served;
    uint64_t gone_ms; /* since when the agent has been gone; 0: it is there */
    struct {
        uint32_t open, generation, core, slots;
        uint32_t numbers[RPC_SLOTS]; /* client: of the last request in each slot; 0: none yet */
    } sessions[RPC_SESSIONS];
};

int rpc_app_open(struct rpc_app *app, const char *path);
/* Serve a port (0: any); the port, or -1. */
int rpc_app_serve(struct rpc_app *app, unsigned port);
/* A session, when it is open; -1 if it is refused. Events of others that come meanwhile are lost: connect first, then call. */
int rpc_app_connect(struct rpc_app *app, const char *address, unsigned port);
/* The next request, answer, failure or end of a session: 1, or 0 when there is none. */
int rpc_app_next(struct rpc_app *app, struct rpc_event *e);
/* Copy the message of a REQUEST, RESPONSE or FAILED; `to` has room for e->len bytes. */
void rpc_app_read(const struct rpc_app *app, const struct rpc_event *e, void *to);
/* Send a request in a slot that has none under way, or the answer to a REQUEST: 1, or 0 when that cannot be. */
int rpc_app_call(struct rpc_app *app, int session, uint32_t slot, const void *message, uint32_t len);
int rpc_app_reply(struct rpc_app *app, const struct rpc_event *e, const void *message, uint32_t len);
/* Instead of an answer: what went wrong. */
int rpc_app_reply_error(struct rpc_app *app, const struct rpc_event *e, const char *text);
/* Whether sessions go on; to be asked now and then. When the agent has gone, they do for some seconds, in which we come back to another
 * one as soon as it has taken its place. */
int rpc_app_alive(struct rpc_app *app);
void rpc_app_close(struct rpc_app *app);

#endif
