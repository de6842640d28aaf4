"""How much of the daemon anybody can use, and how long it waits: all numbers of policy."""

from __future__ import annotations

import msgspec

from chamelio.verify.catalogue import HOOKS

HOOK_BUDGET = 200_000  # of a handler for which nothing else was said: less than a tenth of a millisecond


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one tenant may have. What these are for people, see host/quotas.py."""

    memory: int = 512 << 20
    protocols: int = 8
    flows: int = 1 << 20
    timers: int = 1 << 20
    rings: int = 1024
    contexts: int = 128
    frames: int = 1024
    compiler: int = 600


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
    quotas: Quotas = msgspec.field(default_factory=Quotas)  # of a tenant for which nothing else was said
    loads_per_tenant: int = 4  # protocols being verified and compiled, or waiting for that
    compiler_window_seconds: float = 3600.0  # over which the compiler's time is counted
    migration_seconds: float = 2.0  # an instance is paused at most so long, until another one takes its place
    budgets: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(HOOKS, HOOK_BUDGET))  # cycles, cold, by hook
    versions: int = 16  # that are remembered of a protocol
