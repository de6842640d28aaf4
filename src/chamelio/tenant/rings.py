"""Single-producer, single-consumer rings in a region, seen from the tenant's side.

The engine is not trusted less than it trusts us, but indices are checked all the same: a damaged ring is a state, not a crash.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

import numpy as np

HEADER = 128  # struct ring_shared: prod at 0, cons at 64, wait at 68, entries from here on
_PROD, _CONS, _WAIT = 0, 16, 17  # words
U32 = 0xFFFFFFFF

Entries = np.ndarray[Any, np.dtype[Any]]

_lock = threading.Lock()


class RingDamaged(Exception):
    """An index of the other side that cannot be true."""


def fence() -> None:
    """Order our stores before our later loads: taking a lock is a locked instruction."""
    with _lock:
        pass


class _Ring:
    def __init__(self, content: memoryview, at: int, stride: int, slots: int, dtype: np.dtype[Any]) -> None:
        self.words = content[at : at + HEADER].cast("I")
        self.slots = slots
        self.entries: Entries = np.ndarray((slots,), dtype, content, at + HEADER, (stride,))


class Consumer(_Ring):
    """The reading end of an outbound ring."""

    def __init__(self, content: memoryview, at: int, stride: int, slots: int, dtype: np.dtype[Any]) -> None:
        super().__init__(content, at, stride, slots, dtype)
        self.pos = self.words[_CONS]

    @property
    def ready(self) -> int:
        """Entries that can be taken. Raises RingDamaged."""
        ready = (self.words[_PROD] - self.pos) & U32
        if ready > self.slots:
            raise RingDamaged(f"producer index {self.words[_PROD]} is not within {self.slots} of {self.pos}")
        return ready

    def take(self, limit: int = 256) -> Entries:
        """Up to `limit` entries, copied; their room is given back. Raises RingDamaged."""
        n = min(self.ready, limit)
        first = self.pos % self.slots
        head = min(n, self.slots - first)
        taken: Entries = np.concatenate((self.entries[first : first + head], self.entries[: n - head]))
        self.pos = (self.pos + n) & U32
        self.words[_CONS] = self.pos
        return taken

    def sleep(self) -> bool:
        """Ask to be woken by the doorbell. False: there is something to take already. Raises RingDamaged."""
        self.words[_WAIT] = 1
        fence()
        if self.ready:
            self.words[_WAIT] = 0
            return False
        return True

    def awake(self) -> None:
        """No doorbell for now: we look by ourselves."""
        self.words[_WAIT] = 0


class Producer(_Ring):
    """The writing end of an inbound ring."""

    def __init__(
        self, content: memoryview, at: int, stride: int, slots: int, dtype: np.dtype[Any], bell: int | None = None
    ) -> None:
        """`bell`: the descriptor that wakes the engine's core when it sleeps."""
        super().__init__(content, at, stride, slots, dtype)
        self.pos = self.words[_PROD]
        self._bell = bell

    @property
    def consumed(self) -> int:
        """The index up to which the engine has taken entries. Raises RingDamaged."""
        consumed = self.words[_CONS]
        if (self.pos - consumed) & U32 > self.slots:
            raise RingDamaged(f"consumer index {consumed} is not within {self.slots} of {self.pos}")
        return consumed

    @property
    def room(self) -> int:
        """Entries that still fit. Raises RingDamaged."""
        return self.slots - ((self.pos - self.consumed) & U32)

    def put(self, entry: tuple[Any, ...]) -> bool:
        """Append one entry; False if the ring is full. Raises RingDamaged."""
        if not self.room:
            return False
        self.entries[self.pos % self.slots] = entry
        self.publish()
        return True

    def publish(self) -> None:
        """The entry at `pos` has been written in place; the engine may take it."""
        self.pos = (self.pos + 1) & U32
        self.words[_PROD] = self.pos
        if self._bell is not None:
            fence()
            if self.words[_WAIT]:
                with contextlib.suppress(OSError):  # it is full, or the engine has gone
                    os.write(self._bell, b"\0")
