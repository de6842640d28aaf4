"""The cores of an engine as one: made alike, driven by commands that every one of them executes, started and stopped together."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.core import MAX_CORES, Call, Clock, Core, CoreStuck
from chamelio.engine.counters import total_counters
from chamelio.engine.memory import map_file

HAND_OVER = ("ADD_PORT", "ADD_INSTANCE", "SET_UNIT")  # commands that give a core the address of what was made for it
_REASONS = {
    "CHAM_STATUS_TAKEN": "is taken already",
    "CHAM_STATUS_FULL": "does not fit: the table is full",
    "CHAM_STATUS_UNKNOWN": "is not known",
    "CHAM_STATUS_BUSY": "is still in use",
}


class EngineError(Exception):
    """Something the engine refuses, with the reason."""


class Cores:
    """`total` cores with `frames` each, in virtual time or in the machine's. `lock` is held while a command is under way.

    `call` are the provider's entries; `counters` names a file for the cores' `struct cham_counters`; `seed` fixes what is random.
    """

    def __init__(
        self, call: Call, total: int, *, frames: int, virtual: bool, adaptive: bool, counters: Path | None, seed: int | None
    ) -> None:
        if not 1 <= total <= MAX_CORES:
            raise EngineError(f"{total} cores are not within 1..{MAX_CORES}")
        self.lock = threading.RLock()
        self._given_up: list[EngineError] = []
        self._ops, self._status = abi.enum("cham_op"), {v: k for k, v in abi.enum("cham_status").items()}
        layout = abi.dtype("cham_counters")
        self._file = map_file(counters, layout.itemsize * total) if counters else None
        memory: Any = self._file if self._file is not None else abi.aligned(layout.itemsize * total)
        self.counters: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(memory, layout, total)
        self._random = random.Random(seed) if seed is not None else random.SystemRandom()
        clock = Clock.virtual() if virtual else Clock.calibrated(call["cham_cycles"])
        common: dict[str, Any] = {"frames": frames, "clock": clock, "adaptive": adaptive, "secret": self.words(2)}
        self._cores = [Core(call, i, total, counters=self.counters[i : i + 1], **common) for i in range(total)]
        for one, other in itertools.permutations(self._cores, 2):
            one.join(other)

    def __len__(self) -> int:
        return len(self._cores)

    def __iter__(self) -> Iterator[Core]:
        return iter(self._cores)

    def __getitem__(self, index: int) -> Core:
        return self._cores[index]

    def words(self, n: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Random words."""
        return np.array([self._random.getrandbits(64) for _ in range(n)], np.uint64)

    def command(self, op: str, what: str, *arguments: int | Sequence[int]) -> None:
        """Have every core execute a command; EngineError when it cannot. An argument may be a sequence: one value per core."""
        with self.lock:
            for core in self._cores:
                own = [a if isinstance(a, int) else a[core.index] for a in arguments]
                try:
                    status = self._status[core.command(self._ops[f"CHAM_OP_{op}"], own)]
                except CoreStuck as error:
                    stuck = EngineError(str(error))
                    if op in HAND_OVER:  # other cores have it already: the traceback keeps what the callers hold
                        self._given_up.append(stuck)
                    raise stuck from None
                if status != "CHAM_STATUS_OK":  # the cores' tables are alike: it is the first that refuses
                    raise EngineError(f"{what} {_REASONS[status]}")

    def count_frames(self) -> dict[str, int]:
        """Where the frames are: `free`, `waiting` (backlogs, next hops, ports, other cores), `lost`: the rest, which must be 0.

        Each core counts its own between two rounds.
        """
        with self.lock:
            self.command("COUNT_FRAMES", "the count of frames")
            counted = [[int(n) for n in core.state["command"]["arg"][0][:2]] for core in self._cores]
        free, waiting = (sum(column) for column in zip(*counted, strict=True))
        total = sum(core.free_frames[1] for core in self._cores)
        return {"free": free, "waiting": waiting, "total": total, "lost": total - free - waiting}

    @property
    def free_frames(self) -> tuple[int, int]:
        """Frames in the pools now, and of how many. Equal when nothing is in flight."""
        free, total = zip(*(core.free_frames for core in self._cores), strict=True)
        return sum(free), sum(total)

    def total_counters(self) -> Any:
        """`struct cham_counters`, all cores together: names as in fastpath/core.h, values as NumPy scalars and arrays."""
        return total_counters(self.counters)

    # ---- running ---------------------------------------------------------------------------------------------------------

    def start(self, cpus: Sequence[int]) -> None:
        """Run rounds on threads of their own, pinned if there are `cpus`, until `stop`."""
        with self.lock:
            for core in self._cores:
                core.start(cpus[core.index % len(cpus)] if cpus else None)

    def stop(self) -> None:
        """Stop the threads after the rounds that they are in."""
        with self.lock:
            for core in self._cores:
                core.stop()

    @property
    def running(self) -> bool:
        """Whether all threads run."""
        return all(core.running for core in self._cores)

    def step(self, now_ns: int) -> bool:
        """Virtual time: one round of every core at `now_ns`. True if anything was done; `now` tells how long it took."""
        worked = [core.step(now_ns) for core in self._cores]
        return any(worked)

    @property
    def now(self) -> int:
        """The clock in ns: in virtual time, when the last round ended."""
        return max(core.now for core in self._cores)

    def close(self) -> None:
        """Give everything back; the threads have been stopped."""
        for core in self._cores:
            core.close()
