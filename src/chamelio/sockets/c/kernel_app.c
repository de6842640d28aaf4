/* The C library's functions over the kernel's UDP: the same applications without us. One socket; the path is not used. */
#define _GNU_SOURCE
#include "chamelio_app.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(struct cham_app *app, const char *what)
{
    snprintf(app->context.error, sizeof app->context.error, "%s: %s", what, strerror(errno));
    return -1;
}

int cham_app_open(struct cham_app *app, const char *path)
{
    (void)path;
    memset(app, 0, sizeof *app);
    app->context.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return app->context.fd < 0 ? fail(app, "there is no socket to be had") : 0;
}

int cham_app_bind(struct cham_app *app, unsigned port, const char *peer, unsigned peer_port)
{
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = htons((uint16_t)peer_port)};
    if (bind(app->context.fd, (struct sockaddr *)&local, sizeof local))
        return fail(app, "the port cannot be bound");
    if (!peer)
        return 0;
    if (inet_pton(AF_INET, peer, &remote.sin_addr) != 1) {
        snprintf(app->context.error, sizeof app->context.error, "%.64s is not an IPv4 address", peer);
        return -1;
    }
    return connect(app->context.fd, (struct sockaddr *)&remote, sizeof remote) ? fail(app, "the peer cannot be reached") : 0;
}

int cham_app_receive(struct cham_app *app, struct cham_app_datagram *d)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    ssize_t got = recvfrom(app->context.fd, d->wrapped, sizeof d->wrapped, 0, (struct sockaddr *)&from, &size);
    if (got < 0)
        return 0;
    d->len = (uint32_t)got;
    d->address = from.sin_addr.s_addr;
    d->port = from.sin_port;
    d->payload = d->wrapped;
    return 1;
}

void cham_app_done(struct cham_app *app, const struct cham_app_datagram *d)
{
    (void)app, (void)d;
}

int cham_app_send(struct cham_app *app, int socket, uint32_t address, uint16_t port, const void *payload, uint32_t len)
{
    (void)socket;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = address};
    return sendto(app->context.fd, payload, len, 0, address ? (struct sockaddr *)&to : 0, address ? sizeof to : 0) == (ssize_t)len;
}

void cham_context_wait_ns(struct cham_context *c, uint64_t ns)
{
    struct pollfd watched = {c->fd, POLLIN, 0};
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    ppoll(&watched, 1, &time, 0);
}

void cham_app_wait(struct cham_app *app, int milliseconds)
{
    cham_context_wait_ns(&app->context, (uint64_t)milliseconds * 1000000u);
}

int cham_app_alive(struct cham_app *app)
{
    (void)app;
    return 1;
}

void cham_app_close(struct cham_app *app)
{
    close(app->context.fd);
}
