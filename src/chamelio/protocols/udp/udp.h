/* What handlers, the slow path and applications share: entries of the rings, the values of sockets, sizes.
 *
 * An application owns one context (its number comes from the agent): an outbound ring `received`, an inbound ring `requests`.
 * Every socket has an id, a receive buffer and a send buffer (maps `rx_bytes` and `tx_bytes`), addressed by free-running
 * positions modulo their size. The handler writes a datagram's payload at `rx_pos` and announces it by an entry; the
 * application gives the room back by advancing `taken` in the socket's value. What the application sends it writes to the
 * send buffer and announces by an entry; when the ring's consumer index has passed the entry, the room is free again.
 */
#ifndef UDP_H
#define UDP_H

#ifndef FAST
#define FAST
#define SLOW
#endif

#define UDP_SOCKETS 128
#define UDP_BUFFER 65536
#define UDP_RECEIVED 1024
#define UDP_REQUESTS 512
#define UDP_PAYLOAD_MAX 1472 /* what fits an Ethernet MTU of 1500 */

/* Kinds of requests. All but SEND are the slow path's; addresses and ports in packet byte order. */
#define UDP_SEND 1
#define UDP_OPEN 2
#define UDP_CLOSE 3
#define UDP_ERROR 4 /* tell the socket's application */

struct udp_request {
    unsigned int kind;
    unsigned int socket;
    unsigned int address; /* SEND: destination of an unconnected socket; OPEN: the peer's, 0 if unconnected */
    unsigned short port;  /* of that address */
    unsigned short local_port; /* OPEN */
    unsigned int pos;     /* SEND: where in the send buffer the payload begins */
    unsigned int len;     /* SEND: bytes of payload; ERROR: an errno value */
    unsigned int context; /* OPEN: the application that owns the socket */
    unsigned int local;   /* OPEN: our address */
};

struct udp_received {
    unsigned int socket;
    unsigned int pos; /* where in the receive buffer the payload begins */
    unsigned int len;
    unsigned int address; /* the sender's, packet byte order */
    unsigned short port;
    unsigned short generation; /* of the socket id: entries of its former owner are told apart */
    unsigned int error; /* not 0: no datagram has come, but word of what became of one that was sent; an errno value */
};

/* The shared value of a socket: one writer per field. */
struct udp_socket {
    unsigned int taken SLOW;   /* receive buffer: everything before this position is free again */
    unsigned int generation FAST;
    unsigned long long received FAST; /* datagrams */
    unsigned long long dropped FAST;  /* datagrams that found no room */
    unsigned long long sent FAST;
};

#endif
