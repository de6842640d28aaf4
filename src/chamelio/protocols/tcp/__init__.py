"""TCP (RFC 9293): the state machine and all that a segment needs in handlers, policy in slowpath.py, tcp.h between them."""
