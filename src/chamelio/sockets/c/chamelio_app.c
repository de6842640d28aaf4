/* The C library: the agent's socket once, then rings in shared memory. */
#include "chamelio_app.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MAX (1u << 20)
#define FDS_MAX (2 + CHAM_APP_CORES) /* region, doorbell, and what wakes each core */

static int fail(struct cham_app *app, const char *what)
{
    snprintf(app->error, sizeof app->error, "%s%s%s", what, errno ? ": " : "", errno ? strerror(errno) : "");
    return -1;
}

/* ---- the agent's socket: frames of JSON with a length in front ------------------------------------------------ */

static int send_frame(struct cham_app *app, const char *json)
{
    uint32_t len = (uint32_t)strlen(json);
    uint8_t frame[512] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    if (len > sizeof frame - 4)
        return -1;
    memcpy(frame + 4, json, len);
    return send(app->fd, frame, len + 4, MSG_NOSIGNAL) == (ssize_t)len + 4 ? 0 : -1;
}

/* Receive `want` bytes, and descriptors if some come along. */
static int receive_all(struct cham_app *app, uint8_t *to, uint32_t want, int fds[FDS_MAX], int *n_fds)
{
    for (uint32_t have = 0; have < want;) {
        union {
            struct cmsghdr header;
            char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control;
        struct iovec part = {to + have, want - have};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
        ssize_t got = recvmsg(app->fd, &message, MSG_CMSG_CLOEXEC);
        if (got <= 0)
            return -1;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
                *n_fds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                *n_fds = *n_fds < FDS_MAX ? *n_fds : FDS_MAX;
                memcpy(fds, CMSG_DATA(c), (size_t)*n_fds * sizeof(int));
            }
        have += (uint32_t)got;
    }
    return 0;
}

/* A reply as text (to be freed), or NULL. */
static char *receive_frame(struct cham_app *app, int fds[FDS_MAX], int *n_fds)
{
    uint8_t header[4];
    if (receive_all(app, header, 4, fds, n_fds))
        return 0;
    uint32_t len = (uint32_t)header[0] << 24 | (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 | header[3];
    char *text = len <= REPLY_MAX ? malloc(len + 1) : 0;
    if (!text || receive_all(app, (uint8_t *)text, len, fds, n_fds)) {
        free(text);
        return 0;
    }
    text[len] = 0;
    return text;
}

/* The number behind a key that occurs once, or -1. */
static int64_t number(const char *text, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(text, quoted);
    return at ? strtoll(at + strlen(quoted), 0, 10) : -1;
}

/* The number of a map's place, checked to lie in the region. */
static int64_t place(const struct cham_app *app, const char *text, const char *map, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", map, what);
    int64_t value = number(text, key);
    return value >= 0 && (uint64_t)value < app->region_bytes ? value : -1;
}

static int map_ring(struct cham_app *app, const char *text, const char *name, uint32_t core, struct cham_app_ring *ring)
{
    int64_t at = place(app, text, name, "at"), stride = place(app, text, name, "stride"), slots = place(app, text, name, "entries");
    int64_t step = place(app, text, name, "core_step");
    at = at < 0 || step < 0 ? -1 : at + step * core;
    if (at < 0 || stride <= 0 || slots <= 0 || (uint64_t)(at + 128 + stride * slots) > app->region_bytes)
        return -1;
    uint8_t *shared = app->region + at;
    *ring = (struct cham_app_ring){(void *)shared, (void *)(shared + 64), (void *)(shared + 68), shared + 128,
                                   (uint32_t)stride, (uint32_t)slots, 0};
    return 0;
}

int cham_app_open(struct cham_app *app, const char *path)
{
    memset(app, 0, sizeof *app);
    app->bell = -1;
    signal(SIGPIPE, SIG_IGN); /* the engine may go while we wake it */
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path)
        return fail(app, "the socket's path is too long");
    strcpy(to.sun_path, path);
    app->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (app->fd < 0 || connect(app->fd, (struct sockaddr *)&to, sizeof to))
        return fail(app, "no agent listens there");
    int fds[FDS_MAX], n_fds = 0;
    char *text = send_frame(app, "{\"verb\":\"hello\"}") ? 0 : receive_frame(app, fds, &n_fds);
    errno = 0;
    if (!text || n_fds < 3) {
        free(text);
        return fail(app, "the agent gives no context: all may be in use");
    }
    struct stat about;
    app->bell = fds[1];
    if (fstat(fds[0], &about) == 0) {
        app->region_bytes = (uint64_t)about.st_size;
        void *mapped = mmap(0, app->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fds[0], 0);
        app->region = mapped == MAP_FAILED ? 0 : mapped;
    }
    close(fds[0]);
    if (!app->region) {
        free(text);
        return fail(app, "the region cannot be mapped");
    }
    app->context = (uint32_t)number(text, "context");
    int64_t rx = place(app, text, "rx_bytes", "at"), tx = place(app, text, "tx_bytes", "at");
    int64_t sockets = place(app, text, "sockets", "at"), stride = place(app, text, "sockets", "stride");
    int64_t cores = number(text, "cores");
    for (int i = 2; i < n_fds; i++)
        app->core[i - 2].wake = fds[i];
    int bad = cores != n_fds - 2 || rx < 0 || tx < 0 || sockets < 0 || stride < (int64_t)sizeof(struct udp_socket) || cores < 1 || cores > CHAM_APP_CORES;
    for (uint32_t k = 0; !bad && k < (uint32_t)cores; k++)
        bad = map_ring(app, text, "received", k, &app->core[k].received) || map_ring(app, text, "requests", k, &app->core[k].requests) ||
              app->core[k].requests.slots != UDP_REQUESTS;
    free(text);
    if (bad)
        return fail(app, "the agent describes another protocol than this program was built for");
    app->rx = app->region + rx;
    app->tx = app->region + tx;
    app->sockets = app->region + sockets;
    app->socket_stride = (uint32_t)stride;
    app->cores = (uint32_t)cores;
    for (uint32_t k = 0; k < app->cores; k++) {
        app->core[k].received.pos = *app->core[k].received.cons;
        app->core[k].requests.pos = app->core[k].reaped = *app->core[k].requests.prod;
    }
    return 0;
}

int cham_app_bind(struct cham_app *app, unsigned port, const char *peer, unsigned peer_port)
{
    char request[256], remote[128] = "";
    if (peer)
        snprintf(remote, sizeof remote, ",\"remote\":[\"%.64s\",%u]", peer, peer_port);
    snprintf(request, sizeof request, "{\"verb\":\"bind\",\"port\":%u%s}", port, remote);
    int fds[FDS_MAX], n_fds = 0;
    char *text = send_frame(app, request) ? 0 : receive_frame(app, fds, &n_fds);
    errno = 0;
    if (!text)
        return fail(app, "the agent has gone");
    int64_t id = strstr(text, "\"error\"") ? -1 : number(text, "socket"), core = number(text, "core");
    if (id >= 0 && id < UDP_SOCKETS && core >= 0 && core < app->cores) {
        app->home[id] = (uint32_t)core;
    } else {
        snprintf(app->error, sizeof app->error, "the port cannot be bound: %.200s", text);
        id = -1;
    }
    free(text);
    return (int)id;
}

/* ---- rings ------------------------------------------------------------------------------------------------------ */

static uint32_t load(const volatile uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void store(volatile uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static int receive_from(struct cham_app *app, struct cham_app_ring *r, struct cham_app_datagram *d)
{
    while (load(r->prod) != r->pos) {
        struct udp_received e;
        memcpy(&e, r->entries + (uint64_t)(r->pos % r->slots) * r->stride, sizeof e);
        store(r->cons, ++r->pos);
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

int cham_app_receive(struct cham_app *app, struct cham_app_datagram *d)
{
    for (uint32_t k = 0; k < app->cores; k++) {
        struct cham_app_ring *r = &app->core[app->next_core].received;
        app->next_core = app->next_core + 1 < app->cores ? app->next_core + 1 : 0;
        if (receive_from(app, r, d))
            return 1;
    }
    return 0;
}

void cham_app_done(struct cham_app *app, const struct cham_app_datagram *d)
{
    struct udp_socket *s = (void *)(app->sockets + (uint64_t)d->socket * app->socket_stride);
    store(&s->taken, d->pos + d->len);
}

int cham_app_send(struct cham_app *app, int socket, uint32_t address, uint16_t port, const void *payload, uint32_t len)
{
    uint32_t core = app->home[socket];
    struct cham_app_ring *r = &app->core[core].requests;
    uint32_t *ends = app->core[core].ends, *owners = app->core[core].owners, *reaped = &app->core[core].reaped, cons = load(r->cons);
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
    memcpy(r->entries + (uint64_t)(r->pos % r->slots) * r->stride, &e, sizeof e);
    *pos += len;
    ends[r->pos % UDP_REQUESTS] = *pos;
    owners[r->pos % UDP_REQUESTS] = (uint32_t)socket;
    store(r->prod, ++r->pos);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is there before whether the core sleeps */
    if (load(r->wait) && write(app->core[core].wake, "", 1) < 0)
        return 1; /* it has been rung often enough, or is gone */
    return 1;
}

void cham_app_wait(struct cham_app *app, int milliseconds)
{
    int ready = 0;
    for (uint32_t k = 0; k < app->cores; k++)
        store(app->core[k].received.wait, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (uint32_t k = 0; k < app->cores; k++)
        ready |= load(app->core[k].received.prod) != app->core[k].received.pos;
    struct pollfd watched = {app->bell, POLLIN, 0};
    if (!ready && poll(&watched, 1, milliseconds) > 0) {
        uint8_t rung[256];
        while (read(app->bell, rung, sizeof rung) > 0)
            ;
    }
    for (uint32_t k = 0; k < app->cores; k++)
        store(app->core[k].received.wait, 0);
}

int cham_app_alive(struct cham_app *app)
{
    struct pollfd watched[2] = {{app->fd, POLLIN, 0}, {app->bell, 0, 0}};
    char byte;
    if (poll(watched, 2, 0) == 0)
        return 1;
    if (watched[1].revents) /* the engine held the other end */
        return 0;
    return recv(app->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void cham_app_close(struct cham_app *app)
{
    if (app->region)
        munmap(app->region, app->region_bytes);
    if (app->bell >= 0)
        close(app->bell);
    for (uint32_t k = 0; k < app->cores; k++)
        close(app->core[k].wake);
    close(app->fd);
    app->region = 0;
}
