"""UDP datagram sockets (RFC 768): handlers in udp.bpf.c, the slow path in slowpath.py."""
