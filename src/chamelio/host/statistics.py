"""The counters file as plain values: what the engine counts, by name.

The file is mapped, never locked: a reader that stalls or dies costs the engine nothing.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.counters import drop_counts, instance_counts, total_counters
from chamelio.host.model import Tenant
from chamelio.messages import Refusal

_HOST = (
    "rounds",
    "idle_rounds",
    "cycles_elapsed",
    "cycles_idle",
    "cycles_provider",
    "cycles_stolen",
    "swaps",
    "rx_packets",
    "tx_packets",
    "arp_handled",
    "icmp_handled",
    "switched",
    "handed_over",
)


class Statistics:
    """Reads the counters of the engine that runs now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._counters: Any = None

    def forget(self) -> None:
        """Another engine, another file."""
        self._counters = None

    def _live(self) -> Any:
        if self._counters is None:
            layout = abi.dtype("cham_counters")
            try:
                fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
                finally:
                    os.close(fd)
            except (OSError, ValueError) as error:
                raise Refusal("engine_down", f"there are no counters: {self._path}: {error}", "is the engine up?") from None
            self._counters = np.frombuffer(mapping, layout, len(mapping) // layout.itemsize)
        return total_counters(self._counters)

    def read(self, tenants: Sequence[Tenant], ports: dict[str, dict[str, int]]) -> dict[str, Any]:
        """Counters since the engine started: of the host, of these tenants and their protocols. Raises Refusal.

        Drops and events that did not happen are left out; `reasons` are handlers' own error codes.
        """
        live = self._live()

        def tenant(about: Tenant) -> dict[str, Any]:
            one = live["tenants"][about.index]
            return {
                **{name: int(one[name]) for name in ("cycles", "turns", "stolen", "icmp_echo")},
                "weight": about.weight,
                "drops": drop_counts(one["drops"]),
                "protocols": {
                    p.name: instance_counts(live, p.instance) for p in about.protocols.values() if p.instance is not None
                },
            }

        return {
            "time_ns": time.monotonic_ns(),
            "engine": {name: int(live[name]) for name in _HOST},
            "drops": drop_counts(live["drops"]),
            "tenants": {t.name: tenant(t) for t in tenants if t.index >= 0},
            "ports": ports,
        }
