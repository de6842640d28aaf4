"""The fault injector: settings of a wrapper that loses, doubles, reorders, delays and damages packets, reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from chamelio.engine import abi
from chamelio.engine.ports.port import Port, Wrapper
from chamelio.engine.ports.spec import PortSpec

DEFAULT_HOLD_NS = 1_000_000
DEFAULT_LIMIT = 1024
NONE = 0xFFFFFFFF  # CHAM_NONE
PROBABILITIES = ("loss", "dup", "reorder", "biterr")
DIRECTIONS = ("rx", "tx")


def fraction(probability: float) -> int:
    """A probability in units of 2^-32. Certainty is one unit less than 1, which is as good."""
    return min(round(probability * 2**32), 2**32 - 1)


class FaultPort(Wrapper):
    """A port seen through a bad network. `seed` and settings fix what happens to the n-th packet of each direction."""

    kind = "fault"
    ops_symbol = "cham_fault_ops"

    def __init__(self, spec: PortSpec, inner: Port) -> None:
        state = abi.alloc("cham_fault")
        super().__init__(inner, state)
        for name in DIRECTIONS:
            for line in ("line", "late"):
                state[name][line]["head"] = state[name][line]["tail"] = NONE
        self._state = state
        self.set(spec.options)

    def set(self, options: Mapping[str, Any]) -> None:
        """From now on other settings, and their randomness from its start; between rounds. Of a direction with waiting packets
        `direction` must not take the injector away."""
        state = self._state
        for name in PROBABILITIES:
            state[name] = fraction(options.get(name, 0.0))
        state["delay_min"], state["delay_max"] = options.get("delay", (0, 0))
        state["hold_ns"] = options.get("hold", DEFAULT_HOLD_NS)
        state["limit"] = options.get("limit", DEFAULT_LIMIT)
        self.seed = int(options.get("seed", 1))
        self.direction = str(options.get("direction", "both"))
        for name in DIRECTIONS:
            state[name]["enabled"] = int(self.direction in ("both", name))
            state[name]["random"] = stream(self.seed, name)

    def counters(self, direction: str) -> dict[str, int]:
        """What has happened to packets of a direction ("rx" or "tx"), and how many wait."""
        one = self._state[direction][0]
        names = one["counters"].dtype.names or ()
        return {"waiting": int(one["waiting"]), **{name: int(one["counters"][name]) for name in names}}

    def details(self) -> dict[str, Any]:
        """Settings and counters."""
        state = self._state[0]
        return {
            **{name: float(state[name]) / 2**32 for name in PROBABILITIES},
            "delay_ns": [int(state["delay_min"]), int(state["delay_max"])],
            "hold_ns": int(state["hold_ns"]),
            "limit": int(state["limit"]),
            "seed": self.seed,
            "direction": self.direction,
            **{name: self.counters(name) for name in DIRECTIONS},
        }


def stream(seed: int, direction: str) -> int:
    """First state of a direction's generator: unrelated for neighbouring seeds and for the two directions."""
    return int.from_bytes(hashlib.sha256(f"{direction}:{seed}".encode()).digest()[:8], "little")
