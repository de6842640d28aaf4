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

from chamelio.engine import abi, metrics
from chamelio.engine.counters import drop_counts, instance_counts, total_counters
from chamelio.host.model import Tenant
from chamelio.messages import Refusal

_HOST = tuple(f.field for f in metrics.of_scope("engine") if not f.label)
_TENANT = tuple(f.field for f in metrics.of_scope("tenant") if not f.label)
_TIME = next(f for f in metrics.FAMILIES if f.field == "cycles_elapsed")


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
                **{name: int(one[name]) for name in _TENANT},
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

    def snapshot(
        self, tenants: Sequence[Tenant], total_weight: int, *, ports: dict[str, dict[str, int]], provider: bool
    ) -> metrics.Values:
        """What all metrics of these tenants say now, by name (engine/metrics.py); all of the host for the provider.

        `total_weight` is that of all tenants. Raises Refusal.
        """
        values: metrics.Values = {}
        live = self._live()
        for family in metrics.of_scope("engine") if provider else (_TIME,):
            metrics.put(values, family, (), metrics.value(family, live))
        if provider:
            values["engine_up"] = 1
        for tenant in tenants:
            if tenant.index < 0:
                continue
            values.setdefault("tenant_weight", {})[tenant.name] = tenant.weight
            values.setdefault("tenant_guaranteed_ratio", {})[tenant.name] = tenant.weight / total_weight
            for family in metrics.of_scope("tenant"):
                metrics.put(values, family, (tenant.name,), metrics.value(family, live["tenants"][tenant.index]))
            for protocol in tenant.protocols.values():
                if protocol.instance is not None:
                    metrics.put_instance(values, (tenant.name, protocol.name), live["instances"][protocol.instance])
        for port, counters in ports.items():
            for family in metrics.of_scope("port"):
                if family.field in counters:
                    metrics.put(values, family, (port,), counters[family.field])
        return values
