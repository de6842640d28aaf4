/* TCP's state machine (RFC 9293, figure 5), the only copy: handlers look their next state up here, the diagram in the docs is drawn from it
 * and tests walk it. LISTEN is not a connection's state: a listener is an entry of its own. */
#ifndef TCP_STATES_H
#define TCP_STATES_H

#define TCP_STATES(S)                                                                                                          \
    S(CLOSED) S(SYN_SENT) S(SYN_RCVD) S(ESTABLISHED) S(FIN_WAIT_1) S(FIN_WAIT_2) S(CLOSING) S(TIME_WAIT) S(CLOSE_WAIT) S(LAST_ACK)

/* What makes a connection change its state. */
#define TCP_INPUTS(I)                                                                                                          \
    I(CONNECT)    /* an application opens it */                                                                              \
    I(SYN)        /* the peer's first SYN, or what a SYN cookie says of it */                                                \
    I(SYN_ACKED)  /* our SYN is acknowledged, and the peer's has come */                                                     \
    I(SHUT)       /* the application will write no more */                                                                   \
    I(FIN)        /* the peer will send no more, and we have all that it sent */                                             \
    I(FIN_ACKED)  /* our FIN is acknowledged */                                                                              \
    I(EXPIRED)    /* it has been waited for long enough */                                                                   \
    I(RESET)      /* the peer, the application or the slow path ends it at once */

#define TCP_TRANSITIONS(T)                                                                                                     \
    T(CLOSED,      CONNECT,   SYN_SENT)                                                                                       \
    T(CLOSED,      SYN,       SYN_RCVD)                                                                                       \
    T(SYN_SENT,    SYN_ACKED, ESTABLISHED)                                                                                    \
    T(SYN_SENT,    SYN,       SYN_RCVD) /* both open at the same time */                                                      \
    T(SYN_SENT,    SHUT,      CLOSED)                                                                                         \
    T(SYN_SENT,    RESET,     CLOSED)                                                                                         \
    T(SYN_RCVD,    SYN_ACKED, ESTABLISHED)                                                                                    \
    T(SYN_RCVD,    SHUT,      FIN_WAIT_1)                                                                                     \
    T(SYN_RCVD,    RESET,     CLOSED)                                                                                         \
    T(ESTABLISHED, SHUT,      FIN_WAIT_1)                                                                                     \
    T(ESTABLISHED, FIN,       CLOSE_WAIT)                                                                                     \
    T(ESTABLISHED, RESET,     CLOSED)                                                                                         \
    T(FIN_WAIT_1,  FIN,       CLOSING)                                                                                        \
    T(FIN_WAIT_1,  FIN_ACKED, FIN_WAIT_2)                                                                                     \
    T(FIN_WAIT_1,  RESET,     CLOSED)                                                                                         \
    T(FIN_WAIT_2,  FIN,       TIME_WAIT)                                                                                      \
    T(FIN_WAIT_2,  EXPIRED,   CLOSED)   /* nobody reads any more: the peer's FIN is not waited for for ever */                \
    T(FIN_WAIT_2,  RESET,     CLOSED)                                                                                         \
    T(CLOSING,     FIN_ACKED, TIME_WAIT)                                                                                      \
    T(CLOSING,     RESET,     CLOSED)                                                                                         \
    T(TIME_WAIT,   EXPIRED,   CLOSED)                                                                                         \
    T(TIME_WAIT,   RESET,     CLOSED)                                                                                         \
    T(CLOSE_WAIT,  SHUT,      LAST_ACK)                                                                                       \
    T(CLOSE_WAIT,  RESET,     CLOSED)                                                                                         \
    T(LAST_ACK,    FIN_ACKED, CLOSED)                                                                                         \
    T(LAST_ACK,    RESET,     CLOSED)

#endif
