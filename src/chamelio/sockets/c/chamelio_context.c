/* The agent's socket once, then rings in shared memory. */
#define _GNU_SOURCE
#include "chamelio_context.h"

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
#define POPULATE_MAX (64u << 20) /* larger regions take their page faults when they are used */
#define FDS_MAX (2 + CHAM_APP_CORES) /* region, doorbell, and what wakes each core */

int cham_context_fail(struct cham_context *c, const char *what)
{
    snprintf(c->error, sizeof c->error, "%s%s%s", what, errno ? ": " : "", errno ? strerror(errno) : "");
    return -1;
}

/* ---- the agent's socket: frames of JSON with a length in front ------------------------------------------------ */

/* `fd`: a descriptor that goes along, or -1. */
static int send_frame(struct cham_context *c, const char *json, int fd)
{
    uint32_t len = (uint32_t)strlen(json);
    uint8_t frame[512] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    if (len > sizeof frame - 4)
        return -1;
    memcpy(frame + 4, json, len);
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec part = {frame, len + 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
    }
    return sendmsg(c->fd, &message, MSG_NOSIGNAL) == (ssize_t)len + 4 ? 0 : -1;
}

/* Receive `want` bytes, and descriptors if some come along. */
static int receive_all(struct cham_context *c, uint8_t *to, uint32_t want, int fds[FDS_MAX], int *n_fds)
{
    for (uint32_t have = 0; have < want;) {
        union {
            struct cmsghdr header;
            char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control;
        struct iovec part = {to + have, want - have};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
        ssize_t got = recvmsg(c->fd, &message, MSG_CMSG_CLOEXEC);
        if (got <= 0)
            return -1;
        for (struct cmsghdr *m = CMSG_FIRSTHDR(&message); m; m = CMSG_NXTHDR(&message, m))
            if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_RIGHTS) {
                *n_fds = (int)((m->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                *n_fds = *n_fds < FDS_MAX ? *n_fds : FDS_MAX;
                memcpy(fds, CMSG_DATA(m), (size_t)*n_fds * sizeof(int));
            }
        have += (uint32_t)got;
    }
    return 0;
}

/* A reply as text (to be freed), or NULL. */
static char *receive_frame(struct cham_context *c, int fds[FDS_MAX], int *n_fds)
{
    uint8_t header[4];
    if (receive_all(c, header, 4, fds, n_fds))
        return 0;
    uint32_t len = (uint32_t)header[0] << 24 | (uint32_t)header[1] << 16 | (uint32_t)header[2] << 8 | header[3];
    char *text = len <= REPLY_MAX ? malloc(len + 1) : 0;
    if (!text || receive_all(c, (uint8_t *)text, len, fds, n_fds)) {
        free(text);
        return 0;
    }
    text[len] = 0;
    return text;
}

int64_t cham_context_number(const char *text, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(text, quoted);
    return at ? strtoll(at + strlen(quoted), 0, 10) : -1;
}

int64_t cham_context_place(const struct cham_context *c, const char *map, const char *what)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", map, what);
    int64_t value = c->about ? cham_context_number(c->about, key) : -1;
    return value >= 0 && (uint64_t)value < c->region_bytes ? value : -1;
}

static int map_ring(struct cham_context *c, const char *name, uint32_t core, struct cham_app_ring *ring)
{
    int64_t at = cham_context_place(c, name, "at"), step = cham_context_place(c, name, "core_step");
    int64_t stride = cham_context_place(c, name, "stride"), slots = cham_context_place(c, name, "entries");
    at = at < 0 || step < 0 ? -1 : at + step * core;
    if (at < 0 || stride <= 0 || slots <= 0 || (uint64_t)(at + 128 + stride * slots) > c->region_bytes)
        return -1;
    uint8_t *shared = c->region + at;
    *ring = (struct cham_app_ring){(void *)shared, (void *)(shared + 64), (void *)(shared + 68), shared + 128,
                                   (uint32_t)stride, (uint32_t)slots, 0};
    return 0;
}

static int connect_to(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strcpy(to.sun_path, path);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int cham_context_open(struct cham_context *c, const char *path, const char *out, const char *in)
{
    memset(c, 0, sizeof *c);
    c->bell = -1;
    signal(SIGPIPE, SIG_IGN); /* the engine may go while we wake it */
    if (strlen(path) >= sizeof c->path)
        return cham_context_fail(c, "the socket's path is too long");
    strcpy(c->path, path);
    c->fd = connect_to(c->path);
    if (c->fd < 0)
        return cham_context_fail(c, "no agent listens there");
    int fds[FDS_MAX], n_fds = 0;
    c->about = send_frame(c, "{\"verb\":\"hello\"}", -1) ? 0 : receive_frame(c, fds, &n_fds);
    errno = 0;
    if (!c->about || n_fds < 3)
        return cham_context_fail(c, "the agent gives no context: all may be in use");
    struct stat about;
    c->bell = fds[1];
    if (fstat(fds[0], &about) == 0) {
        c->region_bytes = (uint64_t)about.st_size;
        int flags = MAP_SHARED | (c->region_bytes <= POPULATE_MAX ? MAP_POPULATE : 0);
        void *mapped = mmap(0, c->region_bytes, PROT_READ | PROT_WRITE, flags, fds[0], 0);
        c->region = mapped == MAP_FAILED ? 0 : mapped;
    }
    close(fds[0]);
    if (!c->region)
        return cham_context_fail(c, "the region cannot be mapped");
    c->number = (uint32_t)cham_context_number(c->about, "context");
    int64_t cores = cham_context_number(c->about, "cores");
    for (int i = 2; i < n_fds; i++)
        c->core[i - 2].wake = fds[i];
    c->cores = (uint32_t)(n_fds - 2);
    for (uint32_t k = 0; k < c->cores; k++) {
        if (cores != c->cores || map_ring(c, out, k, &c->core[k].out) || map_ring(c, in, k, &c->core[k].in))
            return cham_context_fail(c, "the agent serves another protocol");
        c->core[k].out.pos = *c->core[k].out.cons;
        c->core[k].in.pos = *c->core[k].in.prod;
    }
    return 0;
}

int cham_context_resume(struct cham_context *c)
{
    char hello[64];
    int fd = connect_to(c->path), fds[FDS_MAX], n_fds = 0;
    if (fd < 0)
        return cham_context_fail(c, "no agent listens there");
    close(c->fd);
    c->fd = fd;
    snprintf(hello, sizeof hello, "{\"verb\":\"hello\",\"context\":%u}", c->number);
    char *text = send_frame(c, hello, c->bell) ? 0 : receive_frame(c, fds, &n_fds);
    for (int i = 0; i < n_fds; i++)
        close(fds[i]);
    free(text);
    errno = 0;
    return n_fds ? 0 : cham_context_fail(c, "the context is no longer ours");
}

char *cham_context_call(struct cham_context *c, const char *json)
{
    int fds[FDS_MAX], n_fds = 0;
    char *text = send_frame(c, json, -1) ? 0 : receive_frame(c, fds, &n_fds);
    if (!text) {
        errno = 0;
        cham_context_fail(c, "the agent has gone");
    } else if (strstr(text, "\"error\"")) {
        snprintf(c->error, sizeof c->error, "the agent refuses: %.200s", text);
        free(text);
        text = 0;
    }
    return text;
}

/* ---- rings ------------------------------------------------------------------------------------------------------ */

void cham_context_wait_ns(struct cham_context *c, uint64_t ns)
{
    struct timespec limit = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    int ready = 0;
    for (uint32_t k = 0; k < c->cores; k++)
        cham_store(c->core[k].out.wait, 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (uint32_t k = 0; k < c->cores; k++)
        ready |= cham_load(c->core[k].out.prod) != c->core[k].out.pos;
    struct pollfd watched = {c->bell, POLLIN, 0};
    if (!ready && ppoll(&watched, 1, &limit, 0) > 0) {
        uint8_t rung[256];
        while (read(c->bell, rung, sizeof rung) > 0)
            ;
    }
    for (uint32_t k = 0; k < c->cores; k++)
        cham_store(c->core[k].out.wait, 0);
}

void cham_context_wait(struct cham_context *c, int milliseconds) { cham_context_wait_ns(c, (uint64_t)milliseconds * 1000000u); }

int cham_context_alive(struct cham_context *c)
{
    struct pollfd watched[2] = {{c->fd, POLLIN, 0}, {c->bell, 0, 0}};
    char byte;
    if (poll(watched, 2, 0) == 0)
        return 1;
    if (watched[1].revents) /* the engine held the other end */
        return 0;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void cham_context_close(struct cham_context *c)
{
    if (c->region)
        munmap(c->region, c->region_bytes);
    if (c->bell >= 0)
        close(c->bell);
    for (uint32_t k = 0; k < c->cores; k++)
        close(c->core[k].wake);
    close(c->fd);
    free(c->about);
    c->region = 0;
    c->about = 0;
}
