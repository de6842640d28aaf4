/* The engine's state: a core, its tenants, their instances, and what units and the round know of each other.
 *
 * Everything here is engine memory. An engine has one or several cores, each with a thread, a pool of frames, tables and
 * counters of its own; they share nothing that is written but the handover rings between them (handover.h). Only the core's own
 * thread writes its memory once it runs; the control thread prepares objects and hands them over by commands (control.c), to
 * every core the same. An instance exists on every core: private memory of each, one region.
 */
#ifndef CHAM_CORE_H
#define CHAM_CORE_H

#include "../include/chamelio.h"
#include "map.h"
#include "port.h"

#define CHAM_MAX_TENANTS 256
#define CHAM_MAX_INSTANCES 256
#define CHAM_MAX_UNITS 64
#define CHAM_MAX_PORTS 8
#define CHAM_MAX_ROUTES 32
#define CHAM_MAX_BINDINGS 1024
#define CHAM_MAX_NEIGHBOURS 256
#define CHAM_DESTINATIONS 256 /* a power of two */
#define CHAM_MAX_CONTEXTS 32
#define CHAM_MAX_CORES 8
#define CHAM_BACKLOG 256
#define CHAM_BATCH 32        /* packets, entries or ids of one hook that a turn serves, at most */
#define CHAM_CHUNK 8         /* so many at a time at most: between them a turn looks at what it has used */
#define CHAM_CHUNK_CYCLES 600000 /* that the contract allows a chunk, unless one run alone is allowed more */
#define CHAM_ENTRY_MAX 256   /* bytes of a ring entry */
#define CHAM_HOOKS 4

enum cham_hook { CHAM_RX, CHAM_RING, CHAM_TXDUE, CHAM_TIMER };

/* How tenants share a core. All but the first are there to be compared with it: they count cycles, and act on none. */
enum cham_policy {
    CHAM_POLICY_CYCLES,  /* deficit round robin in cycles, debt, early drop */
    CHAM_POLICY_PACKETS, /* round robin: every hook of every tenant serves a batch at most */
    CHAM_POLICY_ARRIVAL, /* packets in the order in which they came, whosever they are; other hooks as with PACKETS */
};

struct cham_core;
struct cham_instance;
struct cham_handover;

/* ---- units: jointly compiled code of one protocol ----------------------------------------------------------- */

/* Each batch loop returns how many packets, entries or ids it served. */
struct cham_unit {
    u32 (*rx)(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n);
    u32 (*ring)(struct cham_core *core, struct cham_instance *inst, u32 max);
    u32 (*tx)(struct cham_core *core, struct cham_instance *inst, u32 max);
    u32 (*timer)(struct cham_core *core, struct cham_instance *inst, u32 max);
    u64 cold[CHAM_HOOKS];  /* proven cost of one run, in cycles, 0: no such handler */
    u32 chunk[CHAM_HOOKS]; /* how many runs make a chunk: as many as its contract allows within CHAM_CHUNK_CYCLES, one at least */
};

/* What a handler runs on; the tenant sees the first part. */
struct cham_turn {
    struct chamelio_ctx ctx;
    struct cham_instance *inst;
    struct cham_core *core;
    struct cham_frame *frame; /* NULL until the hook has one */
    struct cham_outcome *outcome;
    u32 emits; /* packets that this run may still emit */
};

/* What a batch leaves behind, settled once at its end. */
struct cham_outcome {
    u32 n_out;
    struct cham_frame *out[CHAM_BATCH * (1 + CHAM_EMITS)];
    u64 done, errors;
};

/* ---- instances and tenants ----------------------------------------------------------------------------------- */

struct cham_hook_counters {
    u64 runs, cycles, errors;
    u64 turns; /* in which it had something to do */
};

/* How long packets waited in a backlog: from the look at the ports that received them to the turn that served them. Log-linear, in units
 * of 8 ns: bucket i counts i units exactly up to 15, then 8 buckets share each power of two, so that none is wider than an eighth
 * of where it begins (Tene's HDR histograms). The last one counts all that waited longer. */
#define CHAM_DELAY_BUCKETS 224 /* up to 8 s */
#define CHAM_DELAY_SHIFT 3
struct cham_delays {
    u64 sum; /* ns */
    u64 buckets[CHAM_DELAY_BUCKETS];
};

struct cham_instance_counters {
    u64 rx_packets, rx_bytes; /* handed to the rx hook */
    u64 tx_packets, tx_bytes; /* accepted for transmission */
    u64 done, punted;         /* packets finished with, given to the slow path */
    u64 consumed;             /* frames that were received by nobody: a hook took them, and gave them back */
    u64 injected;             /* raw packets taken from the slow path */
    u64 drops[CHAM_N_DROPS];
    u64 events[CHAM_N_EVENTS];
    u64 reasons[256]; /* handler errors by the tenant's own code */
    struct cham_hook_counters hooks[CHAM_HOOKS];
    struct cham_delays delays;
};

struct cham_tenant_counters {
    u64 cycles; /* charged */
    u64 turns;
    u64 stolen; /* measured beyond the contract's bound: the machine's doing, not charged */
    u64 icmp_echo;
    u64 drops[CHAM_N_DROPS]; /* before an instance was known */
};

/* Counters live in a file of their own, mapped by whoever wants to read them. */
struct cham_counters {
    u64 rounds, idle_rounds;
    u64 cycles_elapsed, cycles_idle, cycles_provider;
    u64 cycles_stolen; /* measured beyond what the work can cost: the machine's doing, in anybody's turn or in input */
    u64 swaps;
    u64 handed_over; /* packets given to another core */
    u64 rx_packets, tx_packets; /* all ports */
    u64 arp_handled, icmp_handled; /* consumed by the provider: answered, or given to the slow path that it concerns */
    u64 switched; /* from one tenant of this host to another */
    u64 drops[CHAM_N_DROPS]; /* nobody's: before a tenant was known */
    struct cham_tenant_counters tenants[CHAM_MAX_TENANTS];
    struct cham_instance_counters instances[CHAM_MAX_INSTANCES];
};

enum cham_instance_state {
    CHAM_INSTANCE_FREE,
    CHAM_INSTANCE_ACTIVE,
    CHAM_INSTANCE_QUARANTINED, /* a ring is damaged: nothing runs, what comes is dropped */
    CHAM_INSTANCE_PAUSED,      /* nothing runs, what comes waits */
    CHAM_INSTANCE_PREPARED,    /* bound to nothing yet: the ring hook alone runs, for the slow path that fills its maps */
};

/* The head of an instance's private memory; maps follow. `base` of every map offset is its address. */
struct cham_instance {
    u64 secret[2]; /* key of the hash maps; nothing that a handler sees depends on it but time */
    u64 cookie_secret[2]; /* key of what cham_hash returns */
    u64 random;           /* state of cham_random */
    u32 index;
    u32 tenant;
    u32 unit;
    u32 state;
    u32 network;
    u32 address; /* packet byte order */
    u32 protocol;
    u32 attached; /* contexts that have an application (bit 0: the slow path) */
    u32 woken;    /* contexts pushed to in this turn */
    u32 next;     /* next instance of the tenant */
    const struct cham_map *maps; /* the protocol's descriptors, for attaching, waking and clean-up */
    u32 n_maps;
    u64 outbound;     /* bit i: map i is a ring to the application */
    u32 next_context; /* where the ring hook goes on, so that no application starves another */
    struct cham_instance_counters *counters;
    struct cham_ring punt, xmit;                           /* the provider's raw rings to and from the slow path */
    u64 raw_rings;                                         /* offset of their shared parts: punt, then xmit */
    s32 bells[CHAM_MAX_CONTEXTS];                          /* write ends of pipes, non-blocking */
    u32 backlog_head, backlog_len;
    u32 backlog[CHAM_BACKLOG]; /* frame indices */
    u8 entry[CHAM_ENTRY_MAX] CHAM_ALIGNED(64); /* the private copy of a ring entry */
} CHAM_ALIGNED(64);

#define CHAM_INSTANCE_BYTES 2048 /* where the first map's private part may begin */
_Static_assert(sizeof(struct cham_instance) <= CHAM_INSTANCE_BYTES, "maps follow the instance's head");

/* Raw packets between provider and slow path: rings of 64 slots in a format that the provider defines. */
#define CHAM_RAW_SLOTS 64
#define CHAM_RAW_MAX 2016
struct cham_raw {
    u32 len;   /* bytes of the packet, from the IP header on */
    u32 flags; /* punt: enum cham_hook that gave it; xmit: reserved, 0 */
    u64 now;   /* punt: engine time in ns; xmit: reserved, 0 */
    u32 hash;
    u32 reserved[3];
    u8 bytes[CHAM_RAW_MAX];
};
CHAM_ASSERT_SIZE(struct cham_raw, 2048);
#define CHAM_RAW_RING_BYTES (128 + CHAM_RAW_SLOTS * sizeof(struct cham_raw))

struct cham_tenant {
    u32 used;
    u32 weight;
    s64 deficit;   /* cycles it may still use; negative: debt */
    u32 instances; /* first of its list */
    u32 parked;    /* frames waiting for a next hop */
    u32 frames;    /* frames in its backlogs */
    u32 frame_quota;
    u32 burst_packets; /* received in this burst: its share of the input's cycles */
    u32 pad;
};

/* ---- addresses, routes, neighbours ---------------------------------------------------------------------------- */

/* (network, address, IP protocol, port range) -> instance. Protocol 0: the address itself, for ARP and ICMP echo. */
struct cham_binding {
    u64 at;      /* network << 32 | address */
    u32 first;   /* protocol << 16 | the lowest port, in host order */
    u32 further; /* how many ports more */
    u32 tenant;
    u32 instance;
    u32 steer; /* enum cham_steer */
    u32 next;  /* next binding of the same hash bucket */
    u32 used;
    u32 pad;
};
#define CHAM_NO_PROTOCOL (1u << 31) /* `first` of the address itself */

/* Which core owns a flow: chosen by who wrote the protocol, computed by everybody in the same way (demux.h). */
enum cham_steer {
    CHAM_STEER_FLOW, /* by the peer's address and both ports */
    CHAM_STEER_PORT, /* by the local port alone: whoever has it sees all of it */
};

struct cham_route {
    u32 network, prefix, mask; /* packet byte order */
    u32 gateway;               /* 0: on link */
    u32 port;
};

enum cham_neighbour_state { CHAM_NB_FREE, CHAM_NB_INCOMPLETE, CHAM_NB_REACHABLE, CHAM_NB_STALE };

struct cham_neighbour {
    u32 state;
    u32 network, address, port;
    u8 mac[6];
    u16 tries;
    u32 source;  /* the address that asks */
    u64 expires; /* next look at it */
    u32 parked;  /* first frame that waits */
    u32 n_parked;
};

/* Where packets for an address leave this host: what routes, neighbours and bindings said when one was last sent there. It holds as long as
 * its version is the core's, which changes whenever one of those tables does in a way that could matter. */
struct cham_destination {
    u64 to; /* network << 32 | address */
    u64 version;
    struct cham_port *port; /* polled by this core */
    u8 eth[2 + CHAM_ETH_LEN]; /* the Ethernet header, at an even place in a vector */
} CHAM_ALIGNED(64);

#define CHAM_WATCH_BELL (1ull << 32) /* in an event's data: a pipe that is to be emptied */

/* ---- the core -------------------------------------------------------------------------------------------------- */

struct cham_command {
    u32 op, status; /* status: 0, or what went wrong (enum cham_status) */
    u64 arg[7];
};

struct cham_core {
    /* time */
    u64 ns_base, cycles_base; /* now = ns_base + (cycles - cycles_base) * ns_per_cycle */
    u64 ns_per_cycle;         /* 32.32 fixed point */
    u64 cycles;               /* the last stamp */
    u64 now;                  /* ns, at that stamp */
    u64 vcycles;              /* virtual time: counted by the cost model */
    u64 quantum;              /* cycles a tenant of weight 1 gets per round */
    s64 max_debt;
    u64 idle_ns;              /* when there was last something to do */
    u64 secret[2];
    u32 index;   /* of this core */
    u32 n_cores; /* of the engine */
    u32 stop;
    u32 may_sleep; /* 1: everybody who has something for this core can wake it; written by the control thread */
    s32 watched;   /* an epoll descriptor: bells (CHAM_WATCH_BELL | descriptor) and ports */
    s32 bells[CHAM_MAX_CORES]; /* write ends that wake the other cores */
    u32 poll_adaptive; /* 1: nap when idle */
    u32 n_polled; /* ports in `polled` */
    u32 n_active; /* tenants in `active` */
    u32 first;    /* who has the first turn of this round */
    u32 arrivals; /* packets that went to backlogs, where their order matters (CHAM_POLICY_ARRIVAL) */
    u64 neighbours_due;
    struct cham_pool pool;
    struct cham_counters *counters;
    struct cham_handover *to[CHAM_MAX_CORES], *from[CHAM_MAX_CORES]; /* NULL: the core itself */
    struct cham_port *ports[CHAM_MAX_PORTS];
    struct cham_port *polled[CHAM_MAX_PORTS]; /* those of this core, in order */
    const struct cham_unit *units[CHAM_MAX_UNITS];
    struct cham_instance *instances[CHAM_MAX_INSTANCES];
    struct cham_tenant tenants[CHAM_MAX_TENANTS];
    u32 active[CHAM_MAX_TENANTS];
    u32 bindings_head[256];
    struct cham_binding bindings[CHAM_MAX_BINDINGS];
    u32 n_routes;
    struct cham_route routes[CHAM_MAX_ROUTES]; /* the longest prefix first */
    struct cham_neighbour neighbours[CHAM_MAX_NEIGHBOURS];
    u64 version; /* of bindings, ports, routes and neighbours */
    struct cham_destination destinations[CHAM_DESTINATIONS];
    /* the mailbox: the control thread fills `command`, then raises `requested`; the round answers by `completed` */
    u32 requested CHAM_ALIGNED(64);
    u32 completed CHAM_ALIGNED(64);
    struct cham_command command;
};

/* ---- costs of the provider's own work, in cycles of the cost model ------------------------------------------- */

enum cham_price {
    COST_ROUND = 60,
    COST_RX_PACKET = 150,
    COST_TX_PACKET = 120,
    COST_TURN = 80,
    COST_DISPATCH = 30,
    COST_RING_POLL = 12,
    COST_WAKEUP = 600,
    COST_RAW_PACKET = 400,
    COST_HANDOVER = 60,
    COST_WHEEL_MOVE = 40,    /* an id that goes from the second level of a wheel to the first */
    COST_CHECKSUM_BYTES = 4, /* bytes of a checksum that a cycle sums up */
    /* What the provider may at most spend, cold: on a packet or a run, on a turn and a round beside these, on waking one context. What is
     * measured beyond these and the contracts is not a tenant's; what delays others is computed from them (host/bound.py). */
    COST_PACKET_BOUND = 4000,
    COST_TURN_BOUND = 6000,
    COST_ROUND_BOUND = 6000,
    COST_WAKEUP_BOUND = 20000,
};

/* What a turn may do, in runs, packets and cycles. */
enum cham_limit {
    CHAM_LIMIT_BURST = CHAM_BURST,
    CHAM_LIMIT_BATCH = CHAM_BATCH,
    CHAM_LIMIT_CHUNK = CHAM_CHUNK,
    CHAM_LIMIT_CHUNK_CYCLES = CHAM_CHUNK_CYCLES,
    CHAM_LIMIT_RAW = CHAM_BATCH / 4, /* packets of a slow path */
};

CHAM_INLINE void charge(struct cham_core *core, u64 cycles)
{
    if (cham_cfg_virtual)
        core->vcycles += cycles;
}

CHAM_INLINE u64 core_cycles(const struct cham_core *core)
{
    return cham_cfg_virtual ? core->vcycles : __builtin_readcyclecounter();
}

/* Take a time stamp: returns the cycles since the last one. */
CHAM_INLINE u64 core_stamp(struct cham_core *core)
{
    u64 cycles = core_cycles(core), elapsed = cycles - core->cycles;
    core->cycles = cycles;
    core->now = core->ns_base + (u64)(((unsigned __int128)(cycles - core->cycles_base) * core->ns_per_cycle) >> 32);
    return elapsed;
}

CHAM_INLINE u8 *instance_base(struct cham_instance *inst) { return (u8 *)inst; }

/* Whether a map is a wheel whose ids come due: not of an instance out of service, nor without the handler. */
CHAM_INLINE u32 wheel_runs(const struct cham_core *core, const struct cham_instance *inst, const struct cham_map *m)
{
    const struct cham_unit *unit = core->units[inst->unit];
    return inst->state == CHAM_INSTANCE_ACTIVE && ((m->kind == CHAM_MAP_TX && unit->tx) || (m->kind == CHAM_MAP_TIMER && unit->timer));
}

/* ---- the parts, in the order in which a packet meets them ----------------------------------------------------- */

/* round.c */
u32 cham_round(struct cham_core *core);
/* arrivals.c: all packets that wait, in the order in which they came (CHAM_POLICY_ARRIVAL); how many */
u32 cham_serve_arrivals(struct cham_core *core);
/* enter.c: into an instance's unit; each returns how many it served, 0 where there is no such handler */
u32 cham_enter_rx(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n);
u32 cham_enter_ring(struct cham_core *core, struct cham_instance *inst, u32 max);
u32 cham_enter_tx(struct cham_core *core, struct cham_instance *inst, u32 max);
u32 cham_enter_timer(struct cham_core *core, struct cham_instance *inst, u32 max);
/* input.c: parse, check, demultiplex a burst to backlogs. Owns the frames from here on. */
void cham_input(struct cham_core *core, struct cham_port *port, struct cham_frame **frames, u32 n);
/* input.c: a packet from one tenant of this host to another, or from the provider to one */
void cham_switch(struct cham_core *core, u32 network, struct cham_frame *frame);
/* input.c: to the backlog of the instance that a packet is for */
enum cham_origin { CHAM_RECEIVED, CHAM_SWITCHED, CHAM_HANDED_OVER };
void cham_deliver(struct cham_core *core, u32 network, struct cham_frame *frame, enum cham_origin origin);
/* input.c: count a packet's end, under the instance, else the tenant, else nobody, and give its frame back */
void cham_drop(struct cham_core *core, struct cham_instance *inst, u32 tenant, struct cham_frame *frame, u32 reason);
/* icmp.c: an ICMP message for a local address */
void cham_icmp(struct cham_core *core, u32 network, const struct cham_binding *address, struct cham_frame *frame);
/* neighbour.c */
void cham_arp(struct cham_core *core, struct cham_port *port, struct cham_frame *frame);
const struct cham_neighbour *cham_neighbour(struct cham_core *core, const struct cham_port *port, u32 next_hop);
void cham_neighbour_send(struct cham_core *core, struct cham_port *port, struct cham_instance *inst, u32 next_hop,
                         struct cham_frame *frame);
void cham_neighbours_age(struct cham_core *core);
void cham_neighbours_forget_port(struct cham_core *core, u32 port);
/* raw.c: packets between provider and slow path */
void cham_punt(struct cham_core *core, struct cham_instance *inst, struct cham_frame *frame, u32 hook);
u32 cham_raw_poll(struct cham_core *core, struct cham_instance *inst);
void cham_ring_damaged(struct cham_core *core, struct cham_instance *inst, struct cham_ring *ring);
void cham_wake(struct cham_core *core, struct cham_instance *inst);
/* output.c: what a tenant sends; then what anybody sends from a local address, checked */
void cham_output(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n);
void cham_send(struct cham_core *core, u32 network, struct cham_instance *inst, struct cham_frame *frame);
void cham_port_queue(struct cham_core *core, struct cham_port *port, struct cham_frame *frame);
/* handover.c: to the core that owns a flow, to the core that polls a port, and from the others */
void cham_hand_delivery(struct cham_core *core, u32 to, u32 network, const struct cham_binding *b, struct cham_frame *frame);
void cham_hand_send(struct cham_core *core, const struct cham_port *port, struct cham_instance *inst, u32 next_hop,
                    struct cham_frame *frame);
u32 cham_poll_handovers(struct cham_core *core);
/* control.c */
void cham_command(struct cham_core *core);

#endif
