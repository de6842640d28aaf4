/* What handlers, the slow path and applications of TCP share: entries of the rings, events, the row of a connection, sizes.
 *
 * A connection has a number, `conn`, and a generation, which tells it from those that had the number before. Its bytes lie in two ring
 * buffers of pools, `rx_bytes` and `tx_bytes`, each at its sequence number modulo the buffer's size. Buffers start small, and where one
 * lies is told beside them (struct cham_place: offset, size): a receive buffer may move while it is being read, so who has copied
 * bytes out of it looks again whether it is still where it was; a send buffer moves only when its application asks (TCP_GROW), which
 * waits for TCP_GROWN before it writes on.
 *
 * Reading: TCP_DATA says that the bytes up to `end` are there. Whoever has read writes how far to `taken`, and an entry TCP_READ when
 * that opens the window much (half of the buffer beyond `edge`). Writing: bytes into the send buffer, then TCP_SEND with where
 * they end; room is what lies between `acked` and the buffer's size beyond it.
 *
 * A connection's number is its application's until that writes TCP_CLOSE or TCP_ABORT, also when the connection has ended before
 * (TCP_ENDED). Nothing is told of it afterwards.
 */
#ifndef TCP_H
#define TCP_H

#ifndef FAST
#define FAST
#define SLOW
#endif

#define TCP_CONNECTIONS 131072
#define TCP_LISTENERS 1024
#define TCP_CORES 16

/* Buffers: an empty connection's, one that is used, the largest; all of a core's. */
#define TCP_BUFFER_MIN 512
#define TCP_BUFFER 65536
#define TCP_BUFFER_MAX 4194304
#define TCP_BUFFERS 67108864

#define TCP_EVENTS 8192
#define TCP_ENTRIES 4096

/* ---- entries: what applications and the slow path ask of the handlers --------------------------------------------------------- */

/* Of the application that has the connection. */
#define TCP_SEND 1    /* bytes up to `end` are in the send buffer; TCP_NOTIFY in `flags`: say TCP_WRITABLE when all up to `mark` are acknowledged */
#define TCP_READ 2    /* `taken` has grown: tell the peer if its window should open */
#define TCP_SHUT 3    /* nothing will be written after `end`: a FIN */
#define TCP_CLOSE 4   /* as TCP_SHUT, and nothing will be read: the connection's number is given back */
#define TCP_ABORT 5   /* reset, and give the number back */
#define TCP_GROW 6    /* a send buffer of at least `value` bytes */
#define TCP_CONNECT 7 /* of any application: open a connection to `address`, `port`; `tag` comes back in TCP_CONNECTED or TCP_ENDED */

/* Of the slow path only. */
#define TCP_LISTEN 16     /* connections to `local_port` are `value`'s, a context; at most `mark` wait to be taken */
#define TCP_UNLISTEN 17   /* no longer */
#define TCP_RETRANSMIT 18 /* what is not acknowledged is lost: from the beginning; `value`: the timeout's backoff, a power of two */
#define TCP_PROBE 19      /* send a segment that must be answered; `value`: backoff, as above */
#define TCP_FAIL 20       /* end the connection by the error `value`; `mark` not 0: with a reset */
#define TCP_RELEASE 21    /* its application, context `value`, has gone: TCP_ABORT */
#define TCP_ALIVE 22      /* ask for a TCP_TIMEOUT of kind TCP_KEEPALIVE after `value` ms without a segment from the peer; 0: do not */

#define TCP_NOTIFY 1

struct tcp_entry {
    unsigned int kind;
    unsigned int conn;
    unsigned int generation;
    unsigned int end;   /* SEND, SHUT, CLOSE: the sequence number after the last byte */
    unsigned int flags; /* SEND */
    unsigned int mark;
    unsigned int value;
    unsigned int address;    /* CONNECT; addresses and ports in packet byte order */
    unsigned short port, local_port; /* CONNECT: local_port 0: any */
    unsigned int tag;
};

/* ---- events ------------------------------------------------------------------------------------------------------------------ */

#define TCP_CONNECTED 1 /* the connection of a TCP_CONNECT is open: first byte to read at `pos`, to write at `end` */
#define TCP_ACCEPTED 2  /* a connection to a port that we serve, `tag`, host order; as above */
#define TCP_DATA 3      /* bytes up to `end` can be read */
#define TCP_FIN 4       /* and there will be no more */
#define TCP_WRITABLE 5  /* what a TCP_NOTIFY asked for; `end`: everything before is acknowledged */
#define TCP_ENDED 6     /* the connection is no more; `error`: why, an errno value; 0: both sides had closed */
#define TCP_GROWN 7     /* the answer to TCP_GROW: the send buffer may be written again; `error`: it has not grown */

/* To the slow path. */
#define TCP_TIMEOUT 16 /* `error` says which timer; `pos` snd_una, `end` snd_max, `tag` for how many ms the peer was not heard.
                         It is told again until it is answered, but for TCP_KEEPALIVE: */
#define TCP_RETRANSMISSION 1 /* nothing was acknowledged in time: answer with TCP_RETRANSMIT or TCP_FAIL */
#define TCP_PERSIST 2        /* the peer's window is closed, and there is something to send: TCP_PROBE */
#define TCP_KEEPALIVE 3      /* nothing was heard for the time that TCP_ALIVE set: TCP_PROBE or TCP_FAIL */
#define TCP_LOSS 17   /* a loss was noticed and fast recovery begins: `win` is reduced by `beta` already */
#define TCP_MARKED 18 /* the peer has seen congestion marks: `win` is reduced by `beta` or `alpha` already */

struct tcp_event {
    unsigned int kind;
    unsigned int conn;
    unsigned int generation;
    unsigned int pos;
    unsigned int end;
    unsigned int tag;
    unsigned int error;
    unsigned int core; /* whose ring takes this connection's entries */
};

/* ---- the row of a connection: map `about` -------------------------------------------------------------------------------------- */

struct tcp_about {
    /* Read or written for every segment. */
    unsigned int acked FAST; /* snd_una */
    unsigned int edge FAST;  /* up to where the peer may send, as it was told last */
    unsigned int taken SLOW; /* the application has read up to here */
    unsigned int win FAST;   /* congestion window, bytes */
    unsigned int ssthresh FAST;
    /* Congestion control: the slow path says how, handlers do it. They clear what is SLOW when a connection begins and is nobody's yet. */
    unsigned int epoch SLOW; /* a new number: `win` becomes `cwnd` (and `ssthresh` becomes `thresh`, if that is not 0) */
    unsigned int cwnd SLOW;
    unsigned int thresh SLOW;
    unsigned int grow SLOW;   /* in congestion avoidance `win` grows by this many bytes for each window acknowledged; 0: a segment */
    unsigned short beta SLOW; /* a loss makes `win` of what is under way this part, in 1/1024; 0: half */
    unsigned short alpha SLOW; /* marks make `win` smaller by this part, in 1/1024; 0: as a loss does */
    unsigned int pace SLOW;   /* ns between two packets for each KiB of the first; 0: as fast as the window allows */
    unsigned int mss_limit SLOW; /* bytes of a segment at most, options included; 0: as negotiated */
    unsigned int delivered FAST; /* bytes that the peer has, acknowledged in order or selectively; wraps */
    unsigned int marked FAST;    /* bytes acknowledged with ECN's echo; wraps */
    unsigned int reserved FAST;
    /* Who it is. */
    unsigned int state FAST; /* states.h; 0: closed */
    unsigned int generation FAST;
    unsigned int context FAST; /* whose; 0: nobody's any more */
    unsigned int address FAST;
    unsigned short port FAST, local_port FAST;
    unsigned int iss FAST, irs FAST;
    unsigned int options FAST; /* TCP_OPT_* that both sides have agreed on */
    unsigned int mss FAST;     /* bytes of a segment, options included */
    unsigned int srtt FAST, rttvar FAST; /* us; 0: not known */
    unsigned int losses FAST, timeouts FAST, marks FAST; /* reductions of `win` by each */
    unsigned int retransmitted FAST; /* segments sent again */
    unsigned int sent FAST;          /* snd_max */
};

#define TCP_OPT_TIMESTAMPS 1
#define TCP_OPT_SACK 2
#define TCP_OPT_WSCALE 4
#define TCP_OPT_ECN 8

/* What the slow path decides for all connections of a core: map `config`, one row per core. */
struct tcp_config {
    unsigned int first SLOW, count SLOW; /* the numbers of connections of this core */
    unsigned int cores SLOW;             /* how many there are */
    unsigned int local SLOW;             /* our address */
    unsigned int port_low SLOW, port_high SLOW; /* for connections that we open; host order */
    unsigned int options SLOW;           /* TCP_OPT_*, what we offer and accept */
    unsigned int mss SLOW;               /* what we announce */
    unsigned int initial_window SLOW;    /* segments */
    unsigned int rto_min SLOW, rto_max SLOW, rto_initial SLOW; /* us */
    unsigned int ack_delay SLOW;         /* us */
    unsigned int time_wait SLOW;         /* ms; also how long an orphan waits for the peer's FIN */
    unsigned int buffer_max SLOW;        /* bytes a receive buffer may grow to */
    unsigned int dctcp SLOW;             /* 1: congestion marks are echoed as RFC 8257 says */
    unsigned int beta SLOW;              /* of a connection that begins: what its row's `beta` is at first */
};

/* What the slow path remembers of who listens, for one that comes after it: map `listening`. Handlers do not look at it. */
struct tcp_listening {
    unsigned int port SLOW; /* host order; 0: the row is free */
    unsigned int context SLOW, backlog SLOW;
};

#endif
