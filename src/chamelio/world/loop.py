"""An asyncio event loop in virtual time: where another loop would sleep, this one lets the world go on.

Sockets between agents and applications and doorbells are real descriptors of this process, polled without waiting. What comes
out is a function of the world's inputs: one thread, one order.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any

Advance = Callable[[int | None, Callable[[], bool]], bool]


class Stuck(RuntimeError):
    """A coroutine waits for what will never happen: no packet, timer or task is under way."""


class _Selector(selectors.BaseSelector):
    """Ready descriptors, and the passing of time until there are some.

    `advance(ns, ready)` lets the world go on for at most `ns` (None: until the end of all deadlines) or until `ready()`, and
    says whether time passed.
    """

    def __init__(self, advance: Advance, turn_ns: int) -> None:
        self._real = selectors.DefaultSelector()
        self._advance, self._turn_ns = advance, turn_ns
        self._found: list[tuple[selectors.SelectorKey, int]] = []

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As any selector's; a turn of the loop takes `turn_ns`."""
        if timeout is not None and timeout <= 0:
            self._advance(self._turn_ns, lambda: False)
            self._look()
        elif not self._look():
            ns = None if timeout is None else max(1, round(timeout * 1e9))
            if not self._advance(ns, self._look) and ns is None and not self._look():
                raise Stuck("nothing will ever happen in this world, and a coroutine waits for it")
        return self._found

    def _look(self) -> bool:
        self._found = self._real.select(0)
        return bool(self._found)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real selector."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the real selector."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real selector."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the real selector."""
        return self._real.get_map()

    def close(self) -> None:
        """As the real selector."""
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now()` gives virtual ns; `advance` as for the selector; `turn_ns`: what a turn of the loop takes."""

    def __init__(self, now: Callable[[], int], advance: Advance, turn_ns: int = 1_000) -> None:
        self._now = now
        super().__init__(_Selector(advance, turn_ns))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds."""
        return self._now() / 1e9
