/* UDP sockets of C applications, over a context's rings. */
#include "chamelio_app.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cham_app_open(struct cham_app *app, const char *path)
{
    memset(app, 0, sizeof *app);
    struct cham_context *c = &app->context;
    if (cham_context_open(c, path, "received", "requests"))
        return -1;
    int64_t rx = cham_context_place(c, "rx_bytes", "at"), tx = cham_context_place(c, "tx_bytes", "at");
    int64_t sockets = cham_context_place(c, "sockets", "at"), stride = cham_context_place(c, "sockets", "stride");
    if (rx < 0 || tx < 0 || sockets < 0 || stride < (int64_t)sizeof(struct udp_socket) || c->core[0].in.slots != UDP_REQUESTS)
        return cham_context_fail(c, "the agent describes another protocol than this program was built for");
    app->rx = c->region + rx;
    app->tx = c->region + tx;
    app->sockets = c->region + sockets;
    app->socket_stride = (uint32_t)stride;
    for (uint32_t k = 0; k < c->cores; k++)
        app->core[k].reaped = c->core[k].in.pos;
    return 0;
}

int cham_app_bind(struct cham_app *app, unsigned port, const char *peer, unsigned peer_port)
{
    char request[256], remote[128] = "";
    if (peer)
        snprintf(remote, sizeof remote, ",\"remote\":[\"%.64s\",%u]", peer, peer_port);
    snprintf(request, sizeof request, "{\"verb\":\"bind\",\"port\":%u%s}", port, remote);
    char *text = cham_context_call(&app->context, request);
    if (!text)
        return -1;
    int64_t id = cham_context_number(text, "socket"), core = cham_context_number(text, "core");
    free(text);
    errno = 0;
    if (id < 0 || id >= UDP_SOCKETS || core < 0 || core >= app->context.cores)
        return cham_context_fail(&app->context, "the agent gives a socket that cannot be");
    app->home[id] = (uint32_t)core;
    return (int)id;
}

int cham_app_receive(struct cham_app *app, struct cham_app_datagram *d)
{
    struct udp_received e;
    while (cham_context_take(&app->context, &e, sizeof e)) {
        if (e.socket >= UDP_SOCKETS || e.len > sizeof d->wrapped || e.error) /* a datagram that was refused is one that is lost */
            continue;
        d->socket = e.socket;
        d->pos = e.pos;
        d->len = e.len;
        d->address = e.address;
        d->port = e.port;
        uint32_t at = e.pos % UDP_BUFFER, head = UDP_BUFFER - at;
        uint8_t *buffer = app->rx + (uint64_t)e.socket * UDP_BUFFER;
        d->payload = buffer + at;
        if (e.len > head) {
            memcpy(d->wrapped, buffer + at, head);
            memcpy(d->wrapped + head, buffer, e.len - head);
            d->payload = d->wrapped;
        }
        return 1;
    }
    return 0;
}

void cham_app_done(struct cham_app *app, const struct cham_app_datagram *d)
{
    struct udp_socket *s = (void *)(app->sockets + (uint64_t)d->socket * app->socket_stride);
    cham_store(&s->taken, d->pos + d->len);
}

int cham_app_send(struct cham_app *app, int socket, uint32_t address, uint16_t port, const void *payload, uint32_t len)
{
    uint32_t core = app->home[socket];
    struct cham_app_ring *r = &app->context.core[core].in;
    uint32_t *ends = app->core[core].ends, *owners = app->core[core].owners, *reaped = &app->core[core].reaped, cons = cham_load(r->cons);
    for (; *reaped != cons; ++*reaped)
        app->tx_free[owners[*reaped % UDP_REQUESTS]] = ends[*reaped % UDP_REQUESTS];
    uint32_t *pos = app->tx_pos + socket;
    if (r->pos - cons >= r->slots || *pos - app->tx_free[socket] + len > UDP_BUFFER || len > UDP_PAYLOAD_MAX)
        return 0;
    uint8_t *buffer = app->tx + (uint64_t)socket * UDP_BUFFER;
    uint32_t at = *pos % UDP_BUFFER, head = len < UDP_BUFFER - at ? len : UDP_BUFFER - at;
    memcpy(buffer + at, payload, head);
    memcpy(buffer, (const uint8_t *)payload + head, len - head);
    struct udp_request e = {.kind = UDP_SEND, .socket = (uint32_t)socket, .address = address, .port = port, .pos = *pos, .len = len};
    *pos += len;
    ends[r->pos % UDP_REQUESTS] = *pos;
    owners[r->pos % UDP_REQUESTS] = (uint32_t)socket;
    return cham_context_put(&app->context, core, &e, sizeof e);
}

void cham_app_wait(struct cham_app *app, int milliseconds) { cham_context_wait(&app->context, milliseconds); }

int cham_app_alive(struct cham_app *app) { return cham_context_alive(&app->context); }

void cham_app_close(struct cham_app *app) { cham_context_close(&app->context); }
