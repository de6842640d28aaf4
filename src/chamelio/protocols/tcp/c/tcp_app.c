/* What happens seldom: connections come and go, buffers grow, rings are full. */
#include "tcp_app.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RESUME_MS 4000
#define KEEP 1920      /* unacknowledged bytes with which a send buffer can grow */
#define PATIENCE 10000 /* looks at a place before it counts as lost; a buffer moves in less */

/* ---- the agent -------------------------------------------------------------------------------------------------------------------- */

/* Where the table of a pool's places lies (the layout says it from the instance's base), or -1. */
static int64_t places(const struct cham_context *c, const char *pool)
{
    char key[64];
    snprintf(key, sizeof key, "\"name\":\"%s\"", pool);
    const char *map = strstr(c->about, key);
    if (!map)
        return -1;
    int64_t at = cham_context_number(map, "free") - cham_context_number(c->about, "private_bytes") + cham_context_number(c->about, "origin");
    return at > 0 && (uint64_t)at < c->region_bytes ? at : -1;
}

static int fits(const struct cham_context *c, const char *map, int64_t stride, int64_t entries)
{
    return cham_context_place(c, map, "at") >= 0 && (stride < 0 || cham_context_place(c, map, "stride") == stride) &&
           cham_context_place(c, map, "entries") == entries;
}

/* Everything of ours, when `context`, `rows` and each core's buffers are set. */
void tcp_app_begin(struct tcp_app *app)
{
    app->waiting = TCP_CONNECTIONS;
    app->turn = app->core;
    for (uint32_t i = 0; i < app->context.cores; i++) {
        const struct cham_app_ring *out = &app->context.core[i].out, *in = &app->context.core[i].in;
        struct tcp_app_core *k = app->core + i;
        k->number = i;
        k->events = out->entries;
        k->events_cons = out->cons;
        k->event = k->seen = out->pos;
        k->entries = in->entries;
        k->entry = in->pos;
        k->freed = cham_load(in->cons);
    }
}

int tcp_app_open(struct tcp_app *app, const char *path)
{
    memset(app, 0, sizeof *app);
    struct cham_context *c = &app->context;
    if (cham_context_open(c, path, "events", "entries"))
        return -1;
    int64_t rx = places(c, "rx_bytes"), tx = places(c, "tx_bytes"), step = cham_context_place(c, "rx_bytes", "core_step");
    if (rx < 0 || tx < 0 || !fits(c, "events", TCP_APP_STRIDE(struct tcp_event), TCP_EVENTS) ||
        !fits(c, "entries", TCP_APP_STRIDE(struct tcp_entry), TCP_ENTRIES) || !fits(c, "rx_bytes", -1, TCP_CONNECTIONS) ||
        !fits(c, "tx_bytes", -1, TCP_CONNECTIONS) || !fits(c, "about", TCP_APP_STRIDE(struct tcp_about), TCP_CONNECTIONS))
        return cham_context_fail(c, "the agent describes another protocol than this program was built for");
    app->rows = c->region + cham_context_place(c, "about", "at");
    for (uint32_t i = 0; i < c->cores; i++) {
        uint8_t *region = c->region + (int64_t)i * step;
        app->core[i].rx = region + cham_context_place(c, "rx_bytes", "at");
        app->core[i].tx = region + cham_context_place(c, "tx_bytes", "at");
        app->core[i].rx_places = (const uint64_t *)(region + rx);
        app->core[i].tx_places = (const uint64_t *)(region + tx);
    }
    tcp_app_begin(app);
    return 0;
}

int tcp_app_listen(struct tcp_app *app, unsigned port, unsigned backlog)
{
    char request[96];
    snprintf(request, sizeof request, "{\"verb\":\"listen\",\"port\":%u,\"backlog\":%u}", port, backlog);
    char *text = cham_context_call(&app->context, request);
    int64_t served = text ? cham_context_number(text, "port") : -1;
    free(text);
    if (served >= 0 && app->n_listening < TCP_APP_PORTS) {
        app->listening[app->n_listening].port = (uint32_t)served;
        app->listening[app->n_listening++].backlog = backlog;
    }
    return (int)served;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int tcp_app_alive(struct tcp_app *app)
{
    if (cham_context_alive(&app->context)) {
        app->gone_ms = 0;
        return 1;
    }
    if (!app->gone_ms)
        app->gone_ms = now_ms();
    if (cham_context_resume(&app->context))
        return now_ms() - app->gone_ms < RESUME_MS;
    uint32_t n = app->n_listening;
    app->gone_ms = app->n_listening = 0;
    for (uint32_t i = 0; i < n; i++) /* the new agent may not know what its predecessor was told */
        if (tcp_app_listen(app, app->listening[i].port, app->listening[i].backlog) < 0)
            return 0;
    return 1;
}

void tcp_app_wait(struct tcp_app *app, int milliseconds)
{
    if (!tcp_app_look(app))
        cham_context_wait(&app->context, milliseconds);
}

void tcp_app_end(struct tcp_app *app) { cham_context_close(&app->context); }

/* ---- entries ---------------------------------------------------------------------------------------------------------------------- */

void tcp_app_publish(struct tcp_app *app, struct tcp_app_core *k)
{
    const struct cham_app_ring *r = &app->context.core[k->number].in;
    k->unpublished = 0;
    cham_store(r->prod, k->entry);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is there before whether the core sleeps */
    if (cham_load(r->wait) && write(app->context.core[k->number].wake, "", 1) < 0)
        return; /* it has been rung often enough, or is gone */
}

/* The entry for one thing that waits: 1, or 0, when the ring is full. */
static int say(struct tcp_app *app, uint32_t conn, uint32_t what)
{
    struct tcp_app_conn *c = app->conns + conn;
    struct tcp_entry *entry = tcp_app_entry(app, c->core);
    if (!entry)
        return 0;
    *entry = (struct tcp_entry){.conn = conn, .generation = c->generation, .end = c->written};
    switch (what) {
    case TCP_WAIT_SEND:
        entry->kind = TCP_SEND;
        entry->flags = c->notify;
        entry->mark = app->more[conn].mark;
        c->notify = 0;
        break;
    case TCP_WAIT_READ:
        entry->kind = TCP_READ;
        break;
    case TCP_WAIT_GROW:
        entry->kind = TCP_GROW;
        entry->value = app->more[conn].want;
        break;
    case TCP_WAIT_SHUT:
        entry->kind = TCP_SHUT;
        break;
    default:
        entry->kind = what == TCP_WAIT_CLOSE ? TCP_CLOSE : TCP_ABORT;
    }
    tcp_app_put(app, c->core);
    return 1;
}

/* What waits for a connection, in the order in which it counts; what is left when the ring is full. */
static uint32_t say_all(struct tcp_app *app, uint32_t conn, uint32_t waiting)
{
    while (waiting) {
        uint32_t first = waiting & -waiting;
        if (!say(app, conn, first))
            break;
        waiting &= ~first;
    }
    return waiting;
}

/* As soon as the ring has room, and behind what waits already. */
void tcp_app_later(struct tcp_app *app, uint32_t conn, uint32_t what)
{
    struct tcp_app_conn *c = app->conns + conn;
    if (!c->waiting && say(app, conn, what))
        return;
    if (!c->waiting) {
        app->more[conn].next_waiting = TCP_CONNECTIONS;
        if (app->waiting == TCP_CONNECTIONS)
            app->waiting = conn;
        else
            app->more[app->last_waiting].next_waiting = conn;
        app->last_waiting = conn;
    }
    c->waiting |= (uint8_t)what;
}

static void say_waiting(struct tcp_app *app)
{
    while (app->waiting != TCP_CONNECTIONS) {
        struct tcp_app_conn *c = app->conns + app->waiting;
        c->waiting = (uint8_t)say_all(app, app->waiting, c->waiting);
        if (c->waiting)
            return;
        app->waiting = app->more[app->waiting].next_waiting;
    }
}

void tcp_app_flush(struct tcp_app *app)
{
    say_waiting(app);
    for (struct tcp_app_core *k = app->core; k < app->core + app->context.cores; k++)
        if (k->unpublished)
            tcp_app_publish(app, k);
}

int tcp_app_idle(const struct tcp_app *app)
{
    for (uint32_t i = 0; i < app->context.cores; i++)
        if (cham_load(app->context.core[i].in.cons) != app->core[i].entry)
            return 0;
    return app->waiting == TCP_CONNECTIONS;
}

/* Send what was put off, then look at whose turn it is for events: 1, or 0 when nobody has any. */
int tcp_app_look(struct tcp_app *app)
{
    struct cham_context *c = &app->context;
    tcp_app_flush(app);
    for (uint32_t i = 0; i < c->cores; i++) {
        struct tcp_app_core *k = app->turn + 1 < app->core + c->cores ? app->turn + 1 : app->core;
        app->turn = k;
        k->seen = cham_load(c->core[k->number].out.prod);
        c->core[k->number].out.pos = k->event; /* for who waits */
        if (k->seen != k->event)
            return 1;
    }
    return 0;
}

/* ---- events ----------------------------------------------------------------------------------------------------------------------- */

/* A size that a buffer can have, at a place that it can have. */
static int plausible(uint64_t place)
{
    uint64_t size = place >> 32;
    return size - 1 < TCP_BUFFER_MAX && !(size & (size - 1)) && (uint32_t)place + size <= TCP_BUFFERS;
}

/* The send buffer, where it is now: 1, or 0, there is none. */
static int find_tx(struct tcp_app *app, uint32_t conn)
{
    struct tcp_app_conn *c = app->conns + conn;
    uint64_t place = tcp_app_place(c->core->tx_places, conn);
    if (!plausible(place))
        return 0;
    c->tx = c->core->tx + (uint32_t)place;
    c->tx_mask = (uint32_t)(place >> 32) - 1;
    return 1;
}

static int opened(struct tcp_app *app, const struct tcp_event *e)
{
    struct tcp_app_conn *c = app->conns + e->conn;
    if (e->core >= app->context.cores || c->waiting)
        return 0;
    *c = (struct tcp_app_conn){.generation = e->generation, .core = app->core + e->core, .state = TCP_APP_OPEN, .taken = e->pos,
                               .ready = e->pos, .written = e->end, .limit = e->end, .checked = e->pos};
    app->more[e->conn] = (struct tcp_app_more){0};
    cham_store(&tcp_app_row(app, e->conn)->taken, c->taken);
    if (find_tx(app, e->conn))
        c->limit = c->written + c->tx_mask + 1;
    return 1;
}

/* The end of a connection that we never had: one that could not be opened. Its number goes back at once. */
static int not_opened(struct tcp_app *app, const struct tcp_event *e)
{
    struct tcp_app_conn *c = app->conns + e->conn;
    if (c->state & TCP_APP_OPEN || c->generation == e->generation || e->core >= app->context.cores)
        return 0;
    *c = (struct tcp_app_conn){.generation = e->generation, .core = app->core + e->core};
    tcp_app_later(app, e->conn, TCP_WAIT_CLOSE);
    return 1;
}

/* Everything but data. 1: the application is to know. */
int tcp_app_event(struct tcp_app *app, struct tcp_event *e)
{
    if (e->conn >= TCP_CONNECTIONS) /* there was not even a number */
        return e->kind == TCP_ENDED;
    struct tcp_app_conn *c = app->conns + e->conn;
    if (e->kind == TCP_CONNECTED || e->kind == TCP_ACCEPTED)
        return opened(app, e);
    if (!(c->state & TCP_APP_OPEN) || c->generation != e->generation)
        return e->kind == TCP_ENDED && not_opened(app, e);
    switch (e->kind) {
    case TCP_FIN:
        c->state |= TCP_APP_FIN;
        return 1;
    case TCP_GROWN:
        c->state &= (uint8_t)~TCP_APP_GROWING;
        c->state |= e->error ? TCP_APP_FULL : 0;
        find_tx(app, e->conn);
        e->kind = TCP_WRITABLE;
        return 1;
    case TCP_WRITABLE:
        c->state &= (uint8_t)~TCP_APP_NOTIFIED;
        return 1;
    case TCP_ENDED:
        c->state |= TCP_APP_ENDED;
        c->limit = c->written;
        return 1;
    }
    return 0;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------- */

/* A receive buffer that moves is somewhere again in a moment: 1, or 0, it is not. */
int tcp_app_moved(struct tcp_app *app, uint32_t conn)
{
    struct tcp_app_conn *c = app->conns + conn;
    for (uint32_t i = 0; i < PATIENCE; i++) {
        uint64_t place = tcp_app_place(c->core->rx_places, conn);
        if (plausible(place)) {
            c->place = place;
            c->rx = c->core->rx + (uint32_t)place;
            return 1;
        }
        __builtin_ia32_pause();
    }
    return 0;
}

/* Tell the peer if what it may send has become much more than it knows. */
void tcp_app_window(struct tcp_app *app, uint32_t conn)
{
    struct tcp_app_conn *c = app->conns + conn;
    uint32_t size = (uint32_t)(c->place >> 32), window = size > TCP_BUFFER ? size : TCP_BUFFER;
    c->checked = c->taken;
    if ((int32_t)(c->taken + window - cham_load(&tcp_app_row(app, conn)->edge)) >= (int32_t)(window / 2))
        tcp_app_later(app, conn, TCP_WAIT_READ);
}

void tcp_app_peek(struct tcp_app *app, uint32_t conn, struct tcp_app_bytes *b)
{
    struct tcp_app_conn *c = app->conns + conn;
    *b = (struct tcp_app_bytes){0, c->ready - c->taken, 0};
    if (!b->len || !tcp_app_moved(app, conn)) {
        b->len = 0;
        return;
    }
    uint32_t size = (uint32_t)(c->place >> 32), at = c->taken & (size - 1);
    b->at = c->rx + at;
    b->len = b->len < size - at ? b->len : size - at;
    b->place = c->place;
}

int tcp_app_consume(struct tcp_app *app, uint32_t conn, const struct tcp_app_bytes *b, uint32_t n)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (!n || n > b->len || n > tcp_app_readable(app, conn) || tcp_app_place(app->conns[conn].core->rx_places, conn) != b->place)
        return 0;
    tcp_app_took(app, conn, n);
    return 1;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------- */

/* TCP_WRITABLE is to come when all before `mark` is acknowledged: by the next TCP_SEND, which follows at once, or by one of its own. */
static void ask_notice(struct tcp_app *app, uint32_t conn, uint32_t mark, int follows)
{
    struct tcp_app_conn *c = app->conns + conn;
    if (c->state & TCP_APP_NOTIFIED)
        return;
    c->state |= TCP_APP_NOTIFIED;
    c->notify = TCP_NOTIFY;
    app->more[conn].mark = mark;
    if (!follows)
        tcp_app_later(app, conn, TCP_WAIT_SEND);
}

static uint32_t power_of_two(uint32_t n) { return n < 2 ? 1 : 1u << (32 - __builtin_clz(n - 1)); }

/* There is less room than `len` bytes, by what we knew: how many of them fit. If not all, TCP_WRITABLE is to come, when they do or, as
 * `writing` goes on with those that fit, when half of the buffer is free. */
uint32_t tcp_app_more_room(struct tcp_app *app, uint32_t conn, uint32_t len, int writing)
{
    struct tcp_app_conn *c = app->conns + conn;
    if ((c->state & (TCP_APP_OPEN | TCP_APP_SHUT | TCP_APP_ENDED | TCP_APP_GROWING)) != TCP_APP_OPEN || !c->tx)
        return 0;
    uint32_t size = c->tx_mask + 1, under_way = c->written - cham_load(&tcp_app_row(app, conn)->acked);
    under_way = under_way < size ? under_way : size;
    uint32_t room = size - under_way;
    c->limit = c->written + room;
    if (len <= room)
        return len;
    uint32_t wanted = len < TCP_APP_SEND_MAX - under_way ? len + under_way : TCP_APP_SEND_MAX;
    writing = writing && room;
    if (size >= wanted || c->state & TCP_APP_FULL) {
        uint32_t free = writing || len > size ? size / 2 : len;
        ask_notice(app, conn, c->written + (writing ? room : 0) - (size - free), writing);
        return room;
    }
    if (under_way > KEEP) { /* it can grow when less is under way */
        ask_notice(app, conn, c->written - KEEP, writing);
        return room;
    }
    app->more[conn].want = power_of_two(wanted);
    c->state |= TCP_APP_GROWING;
    c->limit = c->written;
    tcp_app_later(app, conn, TCP_WAIT_GROW);
    return 0;
}

/* ---- the end ---------------------------------------------------------------------------------------------------------------------- */

int tcp_app_connect(struct tcp_app *app, uint32_t address, uint16_t port, uint32_t tag)
{
    struct tcp_app_core *k = app->core + app->next_core;
    struct tcp_entry *entry = tcp_app_entry(app, k);
    app->next_core = app->next_core + 1 < app->context.cores ? app->next_core + 1 : 0;
    if (!entry)
        return 0;
    *entry = (struct tcp_entry){.kind = TCP_CONNECT, .address = address, .port = port, .tag = tag};
    tcp_app_put(app, k);
    return 1;
}

void tcp_app_shut(struct tcp_app *app, uint32_t conn)
{
    struct tcp_app_conn *c = app->conns + conn;
    if ((c->state & (TCP_APP_OPEN | TCP_APP_SHUT | TCP_APP_ENDED)) != TCP_APP_OPEN)
        return;
    c->state |= TCP_APP_SHUT;
    c->limit = c->written;
    tcp_app_later(app, conn, TCP_WAIT_SHUT);
}

static void give_up(struct tcp_app *app, uint32_t conn, uint32_t how)
{
    struct tcp_app_conn *c = app->conns + conn;
    if (!(c->state & TCP_APP_OPEN))
        return;
    c->state = 0;
    c->limit = c->written;
    c->ready = c->taken;
    tcp_app_later(app, conn, how);
}

void tcp_app_close(struct tcp_app *app, uint32_t conn) { give_up(app, conn, TCP_WAIT_CLOSE); }

void tcp_app_abort(struct tcp_app *app, uint32_t conn) { give_up(app, conn, TCP_WAIT_ABORT); }
