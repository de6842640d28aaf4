/* What handlers, slow path and applications share. */
#ifndef PING_H
#define PING_H

struct ping_request { /* an application wants to know how far somebody is */
    u32 from, to;     /* addresses in packet byte order */
    u32 sequence;
    u32 pad;
};

struct ping_reply { /* somebody has answered */
    u32 from;
    u32 sequence;
    u64 took; /* ns */
};

/* One writer per field: handlers write FAST ones, the slow path SLOW ones. */
struct ping_totals {
    u64 answered CHAM_FAST;
    u64 ignored CHAM_FAST;
    u32 muted CHAM_SLOW; /* 1: do not answer */
    u32 pad;
};

#endif
