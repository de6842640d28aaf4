/* TCP for C applications, on a context (chamelio_context.h). One thread, one context; connections are known by their number.
 *
 *     static struct tcp_app app;
 *     tcp_app_open(&app, "/run/.../tenants/red/tcp.sock");        -1 and a message in app.context.error otherwise
 *
 * A server:
 *     tcp_app_listen(&app, 7, 128);
 *     while (tcp_app_next(&app, &e))
 *         if (e.kind == TCP_DATA)
 *             while ((n = tcp_app_read(&app, e.conn, buffer, sizeof buffer))) ...
 *
 * A client:
 *     tcp_app_connect(&app, address, port, tag);                  the answer is TCP_CONNECTED or TCP_ENDED, with this tag
 *     tcp_app_write(&app, e.conn, request, len);                  how much of it was taken; TCP_WRITABLE when there is room again
 *
 *     tcp_app_wait(&app, milliseconds);                           sleeps unless something is there
 *
 * What is asked of the engine goes out together: at the latest when tcp_app_next finds no more events, or by tcp_app_flush.
 * TCP_ENDED ends a connection; what has come before may still be read, and the number is given back by tcp_app_close or
 * tcp_app_abort. Whoever asks for something on a connection that he does not have gets nothing, and does no harm.
 *
 * Addresses and ports are in packet byte order, but for listening.
 */
#ifndef TCP_APP_H
#define TCP_APP_H

#include "../tcp.h"
#include "chamelio_context.h"

#define TCP_APP_PORTS 64
#define TCP_APP_SEND_MAX 262144 /* bytes that a send buffer grows to by itself */
#define TCP_APP_TOGETHER 16     /* entries that wait for each other at most */
#define TCP_APP_STRIDE(type) ((sizeof(type) + 7) / 8 * 8) /* of entries and rows */

struct tcp_app_core;

/* A connection as we know it: what every message needs. Positions are sequence numbers. */
struct tcp_app_conn {
    uint32_t generation;
    uint8_t state;   /* enum tcp_app_state */
    uint8_t waiting; /* enum tcp_app_waiting: what the ring had no room for */
    uint8_t notify;  /* flags of the next TCP_SEND */
    uint8_t reserved;
    uint32_t taken, ready;     /* read up to here; can be read up to here */
    uint32_t written, limit;   /* written up to here; can be written up to here, by what we know */
    uint64_t place;            /* of the receive buffer, when we looked last; */
    const uint8_t *rx;         /* there it is */
    uint8_t *tx;               /* the send buffer */
    uint32_t tx_mask;          /* and its size - 1 */
    uint32_t checked;          /* up to here we have looked whether the window should open */
    struct tcp_app_core *core; /* whose ring takes its entries */
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct tcp_app_conn) == 64, "a connection is a cache line");

/* And what is seldom needed. */
struct tcp_app_more {
    void *user;            /* the application's own; NULL at first */
    uint32_t mark;         /* of the next TCP_SEND */
    uint32_t want;         /* bytes of the send buffer that was asked for */
    uint32_t next_waiting; /* connection */
};

enum tcp_app_state {
    TCP_APP_OPEN = 1,
    TCP_APP_FIN = 2,      /* the peer writes no more */
    TCP_APP_SHUT = 4,     /* we write no more */
    TCP_APP_ENDED = 8,    /* nothing comes and goes; the number is still ours */
    TCP_APP_GROWING = 16, /* the send buffer must not be written */
    TCP_APP_FULL = 32,    /* and will not grow */
    TCP_APP_NOTIFIED = 64 /* a TCP_WRITABLE will come */
};

enum tcp_app_waiting { TCP_WAIT_SEND = 1, TCP_WAIT_READ = 2, TCP_WAIT_GROW = 4, TCP_WAIT_SHUT = 8, TCP_WAIT_CLOSE = 16, TCP_WAIT_ABORT = 32 };

/* Our rings from and to a core, and its buffers. */
struct tcp_app_core {
    const uint8_t *events;
    volatile uint32_t *events_cons;
    uint32_t event, seen; /* the next event; those before `seen` are there */
    uint8_t *entries;
    uint32_t entry, freed; /* the next entry; those before `freed` are done with */
    uint32_t unpublished;  /* entries that the core was not told of */
    uint32_t number;
    uint8_t *rx, *tx;
    const uint64_t *rx_places, *tx_places;
};

struct tcp_app {
    struct cham_context context;
    uint8_t *rows; /* map `about` */
    struct tcp_app_core *turn; /* whose events we take now */
    struct tcp_app_core core[CHAM_APP_CORES];
    uint32_t next_core; /* of the next connection that we open */
    uint32_t waiting, last_waiting; /* connections with something for a ring that was full; TCP_CONNECTIONS: none */
    struct {
        uint32_t port, backlog;
    } listening[TCP_APP_PORTS];
    uint32_t n_listening;
    uint64_t gone_ms; /* since when the agent has been gone; 0: it is there */
    struct tcp_app_conn conns[TCP_CONNECTIONS];
    struct tcp_app_more more[TCP_CONNECTIONS];
};

/* What can be read without copying; `place` is where it lies, as it was told. */
struct tcp_app_bytes {
    const uint8_t *at;
    uint32_t len;
    uint64_t place;
};

int tcp_app_open(struct tcp_app *app, const char *path);
/* Serve a port (host order; 0: any); the port, or -1. */
int tcp_app_listen(struct tcp_app *app, unsigned port, unsigned backlog);
/* 1, or 0: there is no room yet. */
int tcp_app_connect(struct tcp_app *app, uint32_t address, uint16_t port, uint32_t tag);
/* The next event that concerns the application (TCP_CONNECTED to TCP_ENDED but for TCP_GROWN): 1, or 0 when there is none. */
static inline int tcp_app_next(struct tcp_app *app, struct tcp_event *e);
/* Bytes that are there to be read. */
static inline uint32_t tcp_app_readable(const struct tcp_app *app, uint32_t conn);
/* Copy up to `room` bytes out; how many. */
static inline uint32_t tcp_app_read(struct tcp_app *app, uint32_t conn, void *to, uint32_t room);
/* The bytes that lie in one piece from the next one to be read, where they are. They may be there no longer at any time: whoever has
 * used them, not to his harm, asks tcp_app_consume. `b->len` 0: there are none. */
void tcp_app_peek(struct tcp_app *app, uint32_t conn, struct tcp_app_bytes *b);
/* The first `n` of what was peeked at are read: 1, or 0: they had moved, what was seen may have been something else. */
int tcp_app_consume(struct tcp_app *app, uint32_t conn, const struct tcp_app_bytes *b, uint32_t n);
/* How much of `len` bytes tcp_app_write would take. If not all, more room is asked for, and TCP_WRITABLE comes. */
static inline uint32_t tcp_app_room(struct tcp_app *app, uint32_t conn, uint32_t len);
/* Send up to `len` bytes; how many were taken. */
static inline uint32_t tcp_app_write(struct tcp_app *app, uint32_t conn, const void *from, uint32_t len);
/* Nothing more will be written. */
void tcp_app_shut(struct tcp_app *app, uint32_t conn);
/* Give the connection up: what was written is delivered. */
void tcp_app_close(struct tcp_app *app, uint32_t conn);
/* The same with a reset. */
void tcp_app_abort(struct tcp_app *app, uint32_t conn);
void tcp_app_flush(struct tcp_app *app);
/* Whether the engine has taken all that it was asked for. */
int tcp_app_idle(const struct tcp_app *app);
void tcp_app_wait(struct tcp_app *app, int milliseconds);
/* Whether connections can go on; to be asked now and then. When the agent has gone, they do for some seconds, in which we come back to
 * another one as soon as it has taken its place. */
int tcp_app_alive(struct tcp_app *app);
void tcp_app_end(struct tcp_app *app);

/* ---- what the above is made of ---------------------------------------------------------------------------------------------------- */

#define TCP_APP_RARE(x) __builtin_expect(!!(x), 0)

void tcp_app_begin(struct tcp_app *app);
void tcp_app_publish(struct tcp_app *app, struct tcp_app_core *k);
int tcp_app_look(struct tcp_app *app);
int tcp_app_event(struct tcp_app *app, struct tcp_event *e);
void tcp_app_later(struct tcp_app *app, uint32_t conn, uint32_t what);
void tcp_app_window(struct tcp_app *app, uint32_t conn);
uint32_t tcp_app_more_room(struct tcp_app *app, uint32_t conn, uint32_t len, int writing);
int tcp_app_moved(struct tcp_app *app, uint32_t conn);

static inline struct tcp_about *tcp_app_row(const struct tcp_app *app, uint32_t conn)
{
    return (struct tcp_about *)(app->rows + (uint64_t)conn * TCP_APP_STRIDE(struct tcp_about));
}

/* Where a buffer lies, as struct cham_place: the offset in the lower half, the size in the upper one. */
static inline uint64_t tcp_app_place(const uint64_t *places, uint32_t conn) { return __atomic_load_n(places + conn, __ATOMIC_ACQUIRE); }

/* The next free entry of the ring to a core, or NULL. It goes with tcp_app_put. */
static inline struct tcp_entry *tcp_app_entry(struct tcp_app *app, struct tcp_app_core *k)
{
    if (TCP_APP_RARE(k->entry - k->freed >= TCP_ENTRIES)) {
        k->freed = cham_load(app->context.core[k->number].in.cons);
        if (k->entry - k->freed >= TCP_ENTRIES)
            return 0;
    }
    return (struct tcp_entry *)(k->entries + (uint64_t)(k->entry % TCP_ENTRIES) * TCP_APP_STRIDE(struct tcp_entry));
}

static inline void tcp_app_put(struct tcp_app *app, struct tcp_app_core *k)
{
    k->entry++;
    if (TCP_APP_RARE(++k->unpublished >= TCP_APP_TOGETHER))
        tcp_app_publish(app, k);
}

static inline int tcp_app_next(struct tcp_app *app, struct tcp_event *e)
{
    for (;;) {
        struct tcp_app_core *k = app->turn;
        if (k->event == k->seen) {
            if (!tcp_app_look(app))
                return 0;
            continue;
        }
        memcpy(e, k->events + (uint64_t)(k->event % TCP_EVENTS) * TCP_APP_STRIDE(struct tcp_event), sizeof *e);
        cham_store(k->events_cons, ++k->event);
        if (e->kind == TCP_DATA && e->conn < TCP_CONNECTIONS) {
            struct tcp_app_conn *c = app->conns + e->conn;
            if (TCP_APP_RARE(!(c->state & TCP_APP_OPEN) || c->generation != e->generation))
                continue;
            c->ready = e->end;
            return 1;
        }
        if (tcp_app_event(app, e))
            return 1;
    }
}

static inline uint32_t tcp_app_readable(const struct tcp_app *app, uint32_t conn) { return app->conns[conn].ready - app->conns[conn].taken; }

/* `n` more bytes are read. */
static inline void tcp_app_took(struct tcp_app *app, uint32_t conn, uint32_t n)
{
    struct tcp_app_conn *c = app->conns + conn;
    uint32_t taken = c->taken + n;
    c->taken = taken;
    cham_store(&tcp_app_row(app, conn)->taken, taken);
    if (TCP_APP_RARE(taken - c->checked >= TCP_BUFFER / 4))
        tcp_app_window(app, conn);
}

static inline uint32_t tcp_app_read(struct tcp_app *app, uint32_t conn, void *to, uint32_t room)
{
    struct tcp_app_conn *c = app->conns + conn;
    uint32_t taken = c->taken, n = c->ready - taken;
    n = n < room ? n : room;
    if (!n)
        return 0;
    const uint64_t *places = c->core->rx_places;
    uint64_t place = c->place;
    do { /* it may be moving */
        if (TCP_APP_RARE(tcp_app_place(places, conn) != place)) {
            if (!tcp_app_moved(app, conn))
                return 0;
            place = c->place;
        }
        uint32_t size = (uint32_t)(place >> 32), at = taken & (size - 1), head = size - at;
        n = n < size ? n : size;
        if (__builtin_expect(n <= head, 1)) {
            memcpy(to, c->rx + at, n);
        } else {
            memcpy(to, c->rx + at, head);
            memcpy((uint8_t *)to + head, c->rx, n - head);
        }
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (TCP_APP_RARE(tcp_app_place(places, conn) != place));
    tcp_app_took(app, conn, n);
    return n;
}

static inline uint32_t tcp_app_room(struct tcp_app *app, uint32_t conn, uint32_t len)
{
    struct tcp_app_conn *c = app->conns + conn;
    return TCP_APP_RARE(len > c->limit - c->written) ? tcp_app_more_room(app, conn, len, 0) : len;
}

static inline uint32_t tcp_app_write(struct tcp_app *app, uint32_t conn, const void *from, uint32_t len)
{
    struct tcp_app_conn *c = app->conns + conn;
    uint32_t written = c->written;
    if (TCP_APP_RARE(len > c->limit - written))
        len = tcp_app_more_room(app, conn, len, 1);
    if (!len)
        return 0;
    uint32_t at = written & c->tx_mask, head = c->tx_mask + 1 - at;
    if (__builtin_expect(len <= head, 1)) {
        memcpy(c->tx + at, from, len);
    } else {
        memcpy(c->tx + at, from, head);
        memcpy(c->tx, (const uint8_t *)from + head, len - head);
    }
    c->written = written + len;
    struct tcp_app_core *k = c->core;
    struct tcp_entry *entry = tcp_app_entry(app, k);
    if (TCP_APP_RARE(!entry || c->waiting | c->notify)) {
        tcp_app_later(app, conn, TCP_WAIT_SEND);
        return len;
    }
    entry->kind = TCP_SEND;
    entry->conn = conn;
    entry->generation = c->generation;
    entry->end = written + len;
    entry->flags = 0;
    tcp_app_put(app, k);
    return len;
}

#endif
