/* UDP sockets for C applications, on a context (chamelio_context.h).
 *
 *     struct cham_app app;
 *     cham_app_open(&app, "/run/.../tenants/red/udp.sock");      -1 and a message in app.context.error otherwise
 *     int s = cham_app_bind(&app, 7, NULL, 0);
 *     while (cham_app_receive(&app, &d)) { ... d.payload, d.len ...; cham_app_done(&app, &d); }
 *     cham_app_send(&app, s, address, port, payload, len);       0: no room yet
 *     cham_app_wait(&app, milliseconds);                         sleeps on the doorbell unless something is there
 *
 * Addresses and ports are in network byte order.
 */
#ifndef CHAMELIO_APP_H
#define CHAMELIO_APP_H

#include <stdint.h>

#include "../../protocols/udp/udp.h"
#include "chamelio_context.h"

struct cham_app {
    struct cham_context context;
    struct {
        uint32_t ends[UDP_REQUESTS], owners[UDP_REQUESTS], reaped; /* per request in the ring: end of its payload, its socket */
    } core[CHAM_APP_CORES];
    uint32_t home[UDP_SOCKETS]; /* the core that has a socket's flows */
    uint8_t *rx, *tx, *sockets;
    uint32_t socket_stride;
    uint32_t tx_pos[UDP_SOCKETS];  /* end of what was written to each send buffer */
    uint32_t tx_free[UDP_SOCKETS]; /* everything before this was sent */
};

struct cham_app_datagram {
    uint32_t socket, len, address;
    uint16_t port;
    uint32_t pos;
    uint8_t *payload; /* in the ring buffer, or a copy in `wrapped` */
    uint8_t wrapped[2048];
};

int cham_app_open(struct cham_app *app, const char *path);
/* A socket for a port (0: an ephemeral one), connected if `peer` is not NULL; its number, or -1. */
int cham_app_bind(struct cham_app *app, unsigned port, const char *peer, unsigned peer_port);
/* The next datagram: 1, or 0 when there is none. It stays valid until cham_app_done. */
int cham_app_receive(struct cham_app *app, struct cham_app_datagram *d);
void cham_app_done(struct cham_app *app, const struct cham_app_datagram *d);
int cham_app_send(struct cham_app *app, int socket, uint32_t address, uint16_t port, const void *payload, uint32_t len);
void cham_app_wait(struct cham_app *app, int milliseconds);
/* Whether the tenant's agent holds our connection and the engine the doorbell; without them the context is no longer ours. */
int cham_app_alive(struct cham_app *app);
void cham_app_close(struct cham_app *app);

#endif
