"""Congestion control as a registry: an algorithm is a file of this folder with one class, which works on many connections at once.

Handlers do what every acknowledgement asks for (RFC 5681): slow start, growth in congestion avoidance, one reduction for each loss
or mark. An algorithm says by how much, in columns of `about`: `beta`, `alpha`, `grow`. It is told of losses, marks and timeouts,
and from the first of them on looks at the connection about once a round trip, for as long as that makes progress.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

TICK_NS = 5_000_000  # connections are not looked at more often
INTERVAL_MAX_NS = 1_000_000_000
REST_NS = 2_000_000_000  # without progress for that long, a connection is left alone until something happens again
UNIT = 1024  # of `beta` and `alpha`
_TIMESTAMPS, _TIMESTAMP_BYTES = 1, 12  # TCP_OPT_TIMESTAMPS

_registry: dict[str, type[CongestionControl]] = {}


@dataclass(frozen=True)
class Tick:
    """A look at connections. Arrays have an item for each row of `rows`: ns, and bytes since the look before."""

    rows: Array
    now: int
    elapsed: Array
    delivered: Array
    marked: Array


class CongestionControl:
    """An algorithm. Whoever derives from it is known by the name of its module. Rows are indices into `about`, none twice.

    `beta`: what a loss makes of the window, in 1/1024 (0: half). `ticks`: it wants `on_tick`.
    """

    beta = 0
    ticks = True

    def __init_subclass__(cls) -> None:
        _registry[cls.__module__.rpartition(".")[2]] = cls

    def __init__(self, about: Any) -> None:
        self.about = about

    def begin(self, rows: Array) -> None:
        """Connections that were not known before: with these numbers new ones have begun."""
        self.about["beta"][rows] = self.beta
        self.about["alpha"][rows] = 0
        self.about["grow"][rows] = 0

    def on_loss(self, rows: Array, now: int) -> None:
        """Fast recovery begins; `win` and `ssthresh` are reduced already."""

    def on_marked(self, rows: Array, now: int) -> None:
        """Congestion marks came back; `win` and `ssthresh` are reduced already."""

    def on_timeout(self, rows: Array, now: int) -> None:
        """The first retransmission timeout of what is outstanding; `win` and `ssthresh` are about to be reduced, by `beta`."""

    def on_tick(self, tick: Tick) -> None:
        """About once a round trip, or in TICK_NS if that is longer."""

    def on_idle(self, rows: Array) -> None:
        """There will be no ticks until something happens again."""

    def segment(self, rows: Array) -> Array:
        """Bytes of data in a full segment."""
        mss, limit = self.about["mss"][rows], self.about["mss_limit"][rows]
        mss = np.where((limit != 0) & (limit < mss), limit, mss).astype(np.float64)
        found: Array = np.maximum(mss - _TIMESTAMP_BYTES * (self.about["options"][rows] & _TIMESTAMPS), 64)
        return found


def names() -> list[str]:
    """All algorithms that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type[CongestionControl]:
    """The algorithm of a name. KeyError, with what there is."""
    if name not in names():
        close = difflib.get_close_matches(str(name), names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names())}"
        raise KeyError(f"there is no congestion control {name!r}: {hint}")
    importlib.import_module(f"{__name__}.{name}")
    return _registry[name]


def interval(about: Any, rows: Array) -> Array:
    """ns between two ticks of connections: a round trip, within reason."""
    found: Array = np.clip(about["srtt"][rows].astype(np.int64) * 1000, TICK_NS, INTERVAL_MAX_NS)
    return found


class Tuner:
    """Lets an algorithm see the connections that have met with congestion, and knows when it must see them next."""

    def __init__(self, about: Any, control: CongestionControl) -> None:
        n = len(about)
        self._about = about
        self._generation = np.zeros(n, np.uint32)
        self._due = np.zeros(n, np.int64)  # 0: it is not watched
        self._seen = np.zeros(n, np.int64)  # the last tick
        self._moved = np.zeros(n, np.int64)  # the last tick that found something delivered
        self._delivered = np.zeros(n, np.uint32)  # as of the last tick
        self._marked = np.zeros(n, np.uint32)
        self._rows: Array = np.zeros(0, np.int64)  # those that are watched
        self.control = control

    @property
    def watched(self) -> int:
        """How many connections are looked at from time to time."""
        return len(self._rows)

    @property
    def due(self) -> int | None:
        """When `tick` must be called next (ns)."""
        return int(self._due[self._rows].min()) if len(self._rows) else None

    def use(self, control: CongestionControl) -> None:
        """Another algorithm from now on; connections that have met with congestion begin anew under it."""
        known = np.flatnonzero((self._generation != 0) & (self._generation == self._about["generation"]))
        control.begin(known)
        self._generation[:] = 0
        self._due[self._rows] = 0
        self._rows = self._rows[:0]
        self.control = control

    def loss(self, rows: Array, now: int) -> None:
        """TCP_LOSS of these connections."""
        self.control.on_loss(self._watch(rows, now), now)

    def marked(self, rows: Array, now: int) -> None:
        """TCP_MARKED of these connections."""
        self.control.on_marked(self._watch(rows, now), now)

    def timeout(self, rows: Array, now: int) -> None:
        """A first TCP_TIMEOUT of these connections."""
        self.control.on_timeout(self._watch(rows, now), now)

    def _watch(self, rows: Array, now: int) -> Array:
        rows = np.unique(rows)
        generation = self._about["generation"][rows]
        new = self._generation[rows] != generation
        if new.any():
            self._generation[rows] = generation
            self.control.begin(rows[new])
        if self.control.ticks:
            unseen = rows[new | (self._due[rows] == 0)]
            self._rows = np.concatenate((self._rows, rows[self._due[rows] == 0]))
            self._seen[unseen] = self._moved[unseen] = now
            self._delivered[unseen] = self._about["delivered"][unseen]
            self._marked[unseen] = self._about["marked"][unseen]
            self._due[unseen] = now + interval(self._about, unseen)
        return rows

    def tick(self, now: int) -> int | None:
        """Look at those that are due; returns when to be called again (ns)."""
        rows = self._rows[self._due[self._rows] <= now]
        if len(rows):
            about = self._about
            lives = (about["state"][rows] != 0) & (about["generation"][rows] == self._generation[rows])
            self._due[rows[~lives]] = 0
            rows = rows[lives]
            delivered, marked = about["delivered"][rows], about["marked"][rows]
            news = (delivered - self._delivered[rows]).view(np.int32)  # it goes back when the peer's SACKs are forgotten
            news = np.where((news > 0) & (news < 1 << 30), news, 0)
            tick = Tick(rows, now, now - self._seen[rows], news, marked - self._marked[rows])
            self.control.on_tick(tick)
            self._seen[rows], self._delivered[rows], self._marked[rows] = now, delivered, marked
            self._moved[rows[tick.delivered != 0]] = now
            still, usual = now - self._moved[rows], interval(about, rows)
            self._due[rows] = now + np.clip(still, usual, INTERVAL_MAX_NS)
            resting = rows[still > REST_NS + 4 * usual]
            self.control.on_idle(resting)
            self._due[resting] = 0
            self._rows = self._rows[self._due[self._rows] != 0]
        due = self.due
        return None if due is None else max(due, now + TICK_NS)
