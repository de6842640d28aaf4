"""Which core owns a flow: the rule of fastpath/demux.h, for slow paths that tell a core's handlers what is theirs."""

from __future__ import annotations

_FACTOR = 0x9E3779B97F4A7C15
_U64 = (1 << 64) - 1


def flow_core(cores: int, remote: int, remote_port: int, local_port: int) -> int:
    """The core of a flow that is steered by `flow`; the address in packet byte order, ports in host order."""
    ports = int.from_bytes(remote_port.to_bytes(2, "big") + local_port.to_bytes(2, "big"), "little")
    product = (remote << 32 | ports) * _FACTOR
    return ((product ^ product >> 64) & _U64) // (1 << 32) % cores
