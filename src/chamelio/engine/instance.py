"""An instance as the control thread holds it: memory on every core, doorbells, and what it was made with."""

from __future__ import annotations

from typing import Any

from chamelio.engine.memory import Bell, InstanceMemory
from chamelio.jit.layout import Layout


class Instance:
    """A protocol at a tenant's address: its memory, its doorbells (one per context), the unit that runs it. Raises OSError.

    `steer` says which core owns a flow: "flow" or "port" (enum cham_steer in fastpath/core.h).
    """

    def __init__(
        self, index: int, tenant: int, unit: int, address: str, network: int, ip_protocol: int, ports: tuple[int, int],
        ring_start: int, layout: Layout, *, cores: int = 1, steer: str = "flow",
    ) -> None:  # fmt: skip
        self.index, self.tenant, self.unit = index, tenant, unit
        self.address, self.network, self.ip_protocol, self.ports = address, network, ip_protocol, ports
        self.ring_start, self.steer = ring_start, steer
        self.layout = layout
        self.memory = InstanceMemory(layout, index, cores)
        self._bells = [Bell() for _ in range(layout.contexts)]
        self.core_bells = [Bell() for _ in range(cores)]  # by which the tenant wakes the cores

    @property
    def region_fd(self) -> int:
        """The region's memfd, to be handed to the tenant."""
        return self.memory.fd

    @property
    def origin(self) -> int:
        """Where in the memfd the region's content begins."""
        return self.memory.origin

    @property
    def bells(self) -> list[int]:
        """Per context the descriptor that becomes readable when the engine rings (the read end of a pipe)."""
        return [bell.fd for bell in self._bells]

    @property
    def wake_fds(self) -> list[int]:
        """Per core the descriptor by which the tenant wakes it when it sleeps (the write end of a pipe)."""
        return [bell.ring_fd for bell in self.core_bells]

    def ring_fds(self) -> list[int]:
        """The engine's ends of the doorbells."""
        return [bell.ring_fd for bell in self._bells]

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        cores = len(self.memory.cores)
        return {
            "index": self.index,
            "tenant": self.tenant,
            "unit": self.unit,
            "address": self.address,
            "network": self.network,
            "ip_protocol": self.ip_protocol,
            "ports": list(self.ports),
            "steer": self.steer,
            "contexts": self.layout.contexts,
            "region_bytes": self.layout.region_bytes(cores),
            "private_bytes": cores * self.layout.private_bytes,
        }

    def close(self) -> None:
        """Free memory and doorbells."""
        self.memory.close()
        for bell in (*self._bells, *self.core_bells):
            bell.close()
