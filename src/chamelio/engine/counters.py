"""`struct cham_counters` as plain values: what happened, by name; what did not is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chamelio.engine import catalogue

HOOKS = ("rx", "ring", "tx", "timer")
_PACKETS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "done", "punted", "consumed", "injected")
_REASONS = [str(i) for i in range(256)]


def total_counters(cores: np.ndarray[Any, np.dtype[Any]]) -> Any:
    """`struct cham_counters` of all cores together: a live view where there is one core, else the sums as of now."""
    if len(cores) == 1:
        return cores[0]
    words = cores.view(np.uint64).reshape(len(cores), -1).sum(axis=0, dtype=np.uint64)
    return words.view(cores.dtype)[0]


def _nonzero(counts: Any, names: Sequence[str]) -> dict[str, int]:
    return {names[int(i)]: int(counts[i]) for i in np.flatnonzero(counts) if i < len(names)}


def drop_counts(counts: Any) -> dict[str, int]:
    """An array of drops by reason."""
    return _nonzero(counts, [entry.name for entry in catalogue.drops()])


def instance_counts(counters: Any, index: int) -> dict[str, Any]:
    """What an instance's counters say; `reasons` are its handlers' own error codes."""
    one = counters["instances"][index]
    return {
        **{name: int(one[name]) for name in _PACKETS},
        "drops": drop_counts(one["drops"]),
        "events": _nonzero(one["events"], [entry.name for entry in catalogue.events()]),
        "reasons": _nonzero(one["reasons"], _REASONS),
        "hooks": {h: {n: int(one["hooks"][i][n]) for n in ("runs", "cycles", "errors")} for i, h in enumerate(HOOKS)},
    }
