/* A C application's connection to its tenant's agent, whatever the protocol: a context, its rings, its doorbell.
 *
 *     struct cham_context c;
 *     cham_context_open(&c, "/run/.../tenants/red/udp.sock", "received", "requests");   -1 and a message in c.error otherwise
 *     while (cham_context_take(&c, &entry, sizeof entry)) ...                           what handlers have pushed
 *     cham_context_put(&c, core, &entry, sizeof entry);                                 0: no room yet
 *     cham_context_wait(&c, milliseconds);                     sleeps on the doorbell unless something is there
 *
 * One thread, one context, rings to and from each of the engine's cores. SIGPIPE is ignored from then on.
 */
#ifndef CHAMELIO_CONTEXT_H
#define CHAMELIO_CONTEXT_H

#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define CHAM_APP_CORES 8

/* Our end of a ring. `pos`: the next entry that we take or write. */
struct cham_app_ring {
    volatile uint32_t *prod, *cons, *wait;
    uint8_t *entries;
    uint32_t stride, slots, pos;
};

struct cham_context {
    int fd, bell;
    uint32_t number;
    uint8_t *region;
    uint64_t region_bytes;
    uint32_t cores;
    struct {
        struct cham_app_ring out, in; /* from the core, to it */
        int wake;                     /* wakes the core when it sleeps */
    } core[CHAM_APP_CORES];
    uint32_t next_core; /* whose ring is looked at first, so that none starves */
    char path[108];     /* of the agent's socket */
    char *about;        /* what the agent has said of the context */
    char error[256];
};

/* Connect; `out` and `in` name the protocol's rings. */
int cham_context_open(struct cham_context *c, const char *path, const char *out, const char *in);
/* Come back, with the rings and the context that we have, to an agent that has taken the place of ours (the protocol's slow path must
 * resume): 0, or -1 if there is none yet or the context is no longer ours. The rings work on meanwhile. */
int cham_context_resume(struct cham_context *c);
/* Of a map: "at", where it lies in bytes from the region's beginning, "stride" or "entries"; -1 if there is no such map. */
int64_t cham_context_place(const struct cham_context *c, const char *map, const char *what);
/* A message of our own in c->error, with errno's text if that is set. Returns -1. */
int cham_context_fail(struct cham_context *c, const char *what);
/* One request to the slow path, as JSON. Its answer, to be freed; NULL, and a message, when it is refused. */
char *cham_context_call(struct cham_context *c, const char *json);
/* The number behind a key that occurs once in an answer, or -1. */
int64_t cham_context_number(const char *text, const char *key);
void cham_context_wait(struct cham_context *c, int milliseconds);
void cham_context_wait_ns(struct cham_context *c, uint64_t ns);
/* Whether the tenant's agent holds our connection and the engine the doorbell; without them the context is no longer ours. */
int cham_context_alive(struct cham_context *c);
void cham_context_close(struct cham_context *c);

static inline uint32_t cham_load(const volatile uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void cham_store(volatile uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

/* The next entry of any core: 1, or 0 when there is none. */
static inline int cham_context_take(struct cham_context *c, void *entry, uint32_t size)
{
    for (uint32_t k = 0; k < c->cores; k++) {
        struct cham_app_ring *r = &c->core[c->next_core].out;
        c->next_core = c->next_core + 1 < c->cores ? c->next_core + 1 : 0;
        if (cham_load(r->prod) != r->pos) {
            memcpy(entry, r->entries + (uint64_t)(r->pos % r->slots) * r->stride, size);
            cham_store(r->cons, ++r->pos);
            return 1;
        }
    }
    return 0;
}

/* Entries that fit into the ring to a core. */
static inline uint32_t cham_context_room(const struct cham_context *c, uint32_t core)
{
    const struct cham_app_ring *r = &c->core[core].in;
    return r->slots - (r->pos - cham_load(r->cons));
}

/* Give an entry to a core and wake it if it sleeps: 1, or 0 when there is no room. */
static inline int cham_context_put(struct cham_context *c, uint32_t core, const void *entry, uint32_t size)
{
    struct cham_app_ring *r = &c->core[core].in;
    if (!cham_context_room(c, core))
        return 0;
    memcpy(r->entries + (uint64_t)(r->pos % r->slots) * r->stride, entry, size);
    cham_store(r->prod, ++r->pos);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* what is there before whether the core sleeps */
    if (cham_load(r->wait) && write(c->core[core].wake, "", 1) < 0)
        return 1; /* it has been rung often enough, or is gone */
    return 1;
}

#endif
