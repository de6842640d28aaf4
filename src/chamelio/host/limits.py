"""How much of the daemon anybody can use, and how long it waits: all numbers of policy."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes, counts and seconds."""

    connections: int = 512
    connections_per_uid: int = 128  # of one user; the provider's own user has all `connections`
    message_bytes: int = 1 << 20
    frame_seconds: float = 5.0  # half a message must become a whole one
    idle_seconds: float = 300.0  # a connection that serves no protocol says something at least so often
    object_bytes: int = 16 << 20
    read_seconds: float = 5.0  # for reading an object from the descriptor that came
    grace_seconds: float = 5.0  # an instance outlives its agent so long
    protocols_per_tenant: int = 8
    memory_per_tenant: int = 512 << 20  # bytes of all instances
    loads_per_tenant: int = 4  # protocols being verified and compiled, or waiting for that
    frame_quota: int = 1024  # frames that a tenant's backlogs hold, by default
