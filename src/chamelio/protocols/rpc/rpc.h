/* What handlers, the slow path and applications share: entries of the rings, values of sessions, sizes.
 *
 * A session joins an (address, port) with another; one end, the client, asks, the other answers. It has RPC_SLOTS slots, and a slot
 * carries one request at a time, under a running number. Slot k of session s has the number s * RPC_SLOTS + k: under that number
 * it has a buffer for what is sent (map `tx_bytes`), one for what is received (`rx_bytes`), and a timer. A message lies in its buffer
 * from RPC_BASE on, modulo the buffer's size, so that the beginnings of buffers do not all fall into the same sets of a cache.
 *
 * The client writes a request to the slot's send buffer and an entry CALL to its inbound ring; the slot is its own again, both
 * buffers included, when a RESPONSE or FAILED event has come for that number. The server gets a REQUEST event, reads the
 * request from the slot's receive buffer, writes the answer to the send buffer and an entry REPLY; from then on the receive buffer
 * may change at any time, and the send buffer must stay as it is until the slot's next request.
 */
#ifndef RPC_H
#define RPC_H

#ifndef FAST
#define FAST
#define SLOW
#endif

#define RPC_SESSIONS 64
#define RPC_SLOTS 32
#define RPC_MESSAGE_MAX 65536
#define RPC_BUFFER 65536
#define RPC_SEGMENT 1440 /* bytes of a message in one packet; with the headers it fits an Ethernet MTU of 1500 */
#ifndef RPC_EVENTS
#define RPC_EVENTS 4096 /* more than there are slots: what an application has not looked at yet always has room */
#endif
#define RPC_ENTRIES 2048
#define RPC_BASE(id) ((id) * 320u)

/* Kinds of entries from applications and, from OPEN on, from the slow path. */
#define RPC_CALL 1  /* client: send the request that lies in the slot's buffer */
#define RPC_REPLY 2 /* server: send the answer that lies there */
#define RPC_OPEN 16
#define RPC_CLOSE 17

struct rpc_entry {
    unsigned int kind;
    unsigned int session;
    unsigned int slot;
    unsigned int number;
    unsigned int len;        /* CALL, REPLY: bytes of the message */
    unsigned int generation; /* CALL, REPLY: as the session's events have it */
    unsigned int context;    /* OPEN, CLOSE: the application that owns the session */
    unsigned int server;     /* OPEN: 1: we answer */
    unsigned int local, address;     /* OPEN: ours and the peer's; addresses and ports in packet byte order */
    unsigned short local_port, port; /* OPEN */
    unsigned int token, peer_token;  /* OPEN: what packets to us and to the peer carry */
    unsigned int slots;              /* OPEN: how many may be used */
    unsigned int error;              /* CLOSE: why, an errno value; 0: both ends agree. REPLY: not 0: the message says what went wrong */
};

/* Kinds of events. */
#define RPC_OPENED 1
#define RPC_CLOSED 2   /* the session has ended, or could not be opened; `error`: why */
#define RPC_REQUEST 3  /* server: a request lies in the slot's receive buffer */
#define RPC_RESPONSE 4 /* client: the answer does */
#define RPC_FAILED 5   /* client: nobody has answered, and whether the request was executed is not known; or the server says what
                          went wrong: `error` is RPC_REMOTE_ERROR, and the words are in the receive buffer */
#define RPC_REMOTE_ERROR 121 /* EREMOTEIO */

struct rpc_event {
    unsigned int kind;
    unsigned int session;
    unsigned int slot;
    unsigned int number;
    unsigned int len;        /* REQUEST, RESPONSE, FAILED: bytes of the message; OPENED: slots that may be used */
    unsigned int generation; /* of the session's number: who had it before is told apart */
    unsigned int core;       /* which has the session: entries go to the ring of this core */
    unsigned int error;      /* CLOSED, FAILED: an errno value */
};

/* The shared value of a session. Handlers copy here what the slow path, also one that comes later, may want to know. */
struct rpc_session {
    unsigned int open FAST;
    unsigned int generation FAST;
    unsigned int context FAST;
    unsigned int server FAST;
    unsigned int address FAST;
    unsigned short local_port FAST, port FAST;
    unsigned int token FAST, peer_token FAST;
    unsigned int slots FAST;
    unsigned int gap SLOW; /* ns between two packets of the session, 0: no limit */
    unsigned long long heard FAST;         /* when the peer's last packet came, ns */
    unsigned long long messages FAST;      /* requests or answers that were sent, */
    unsigned long long packets FAST;       /* packets that it took, */
    unsigned long long retransmitted FAST; /* and packets that were sent again */
};

#endif
