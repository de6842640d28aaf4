"""The tenant that is measured: requests of 64 bytes on one connection, and when exactly each of them was served.

    arrival   a request is at the port
    start     the victim's handler begins with it
    answer    the round that sent its answer ends

Virtual time stands still while nobody counts, so the victim's rx function is entered through one that notes the clock, packet by
packet: what it does costs nothing and changes nothing.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from chamelio.bench.adversaries.lines import MOST_DUE, Frames, Numbers, Times, moments, number, numbers_of
from chamelio.bench.adversaries.packets import IPV4, UDP
from chamelio.engine import abi
from chamelio.engine.engine import Engine

REQUEST_BYTES = 64
MOST = 1 << 20  # requests of a run

_Rx = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)


class Clock:
    """The core's virtual clock as it is inside of a round (core_stamp in fastpath/core.h), in ns."""

    def __init__(self, host: Engine) -> None:
        at, fields = host.cores[0].address, abi.dtype("cham_core").fields
        assert fields is not None
        words = [
            ctypes.c_uint64.from_address(at + fields[name][1]) for name in ("ns_base", "vcycles", "cycles_base", "ns_per_cycle")
        ]
        self._ns, self._cycles, self._base, self._rate = words

    def __call__(self) -> int:
        """Now."""
        return self._ns.value + ((self._cycles.value - self._base.value) * self._rate.value >> 32)


class Watched:
    """A loaded unit whose rx hook is observed: `start` and `end` by a request's number (ns), `order` in which they were served."""

    def __init__(self, host: Engine, unit: int) -> None:
        self.start, self.end = np.zeros(MOST, np.int64), np.zeros(MOST, np.int64)
        self.order: list[int] = []
        fields = abi.dtype("cham_frame").fields
        assert fields is not None
        at = fields["bytes"][1] + 64 + IPV4 + UDP + 4  # CHAM_IP_OFFSET; see lines.number
        clock = Clock(host)
        self._table = host._units[unit].table
        self._original = _Rx(int(self._table["rx"][0]))
        inner = self._original
        size = ctypes.sizeof(ctypes.c_void_p)

        def enter(core: int, instance: int, frames: Any, n: int) -> int:
            first = ctypes.cast(frames, ctypes.c_void_p).value or 0
            for i in range(n):
                which = ctypes.c_uint32.from_address(frames[i] + at).value % MOST
                self.start[which] = clock()
                self.order.append(which)
                inner(core, instance, ctypes.cast(first + i * size, ctypes.POINTER(ctypes.c_void_p)), 1)
                self.end[which] = clock()
            return int(n)

        self._callback = _Rx(enter)
        self._table["rx"] = ctypes.cast(self._callback, ctypes.c_void_p).value


@dataclass
class Requests:
    """The victim's peer as a line's source: at `rate` per second from `begin` on, or with `outstanding` at any time (rate 0)."""

    peer: str
    frame: Frames
    begin: int
    rate: float = 0.0
    outstanding: int = 0

    def __post_init__(self) -> None:
        self.arrival, self.answer = np.zeros(MOST, np.int64), np.zeros(MOST, np.int64)
        self.count = self.lost = self.wrong = 0
        self._open = self._first = 0
        self._waits = True

    def due(self, now: int) -> tuple[Times, Frames]:
        """By the clock, or as many as have been answered."""
        self._waits = now < self.begin
        if self._waits:
            n = 0
        elif self.rate:
            n = int((now - self.begin) * self.rate / 1e9) - self.count
        else:
            n = self.outstanding - self._open
        n = max(0, min(n, MOST_DUE, MOST - self.count))
        numbers = np.arange(self.count, self.count + n)
        frames = np.repeat(self.frame, n, axis=0)
        number(frames, numbers)
        return self._times(numbers, now), frames

    def _times(self, numbers: Numbers, now: int) -> Times:
        if not self.rate:
            return np.full(len(numbers), now)
        return moments(self.begin, self.rate, numbers)

    def sent(self, times: Times, accepted: int) -> None:
        """Note when they came. What is lost has no answer."""
        self.arrival[self.count : self.count + accepted] = times[:accepted]
        self._open += accepted
        self.count += len(times) if self.rate else accepted

    def answered(self, now: int, frames: Frames) -> None:
        """Note when, and that it is the answer to a request."""
        numbers = numbers_of(frames)
        known = (numbers < self.count) & (self.answer[numbers % MOST] == 0)
        self.wrong += int(len(numbers) - known.sum())
        self.answer[numbers[known]] = now
        self._open -= int(known.sum())

    def next(self) -> int | None:
        """By the rate; else when an answer comes."""
        if self._waits and not self.rate:
            return self.begin
        return int(self._times(np.array([self.count]), 0)[0]) if self.rate else None


def delays(requests: Requests, watched: Watched, since: int) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Of the requests that came at `since` or later and were served, in ns.

    `delay`: from arrival to start; `head`: the same, but from the end of the victim's request before it, if that was later: what
    others made it wait; `latency`: from arrival to answer.
    """
    order = np.array(watched.order, np.int64)
    order = order[requests.answer[order] > 0]
    arrival, start = requests.arrival[order], watched.start[order]
    before = np.concatenate([[0], watched.end[order][:-1]])
    kept = arrival >= since
    return {
        "delay": (start - arrival)[kept],
        "head": (start - np.maximum(arrival, before))[kept],
        "latency": (requests.answer[order] - arrival)[kept],
    }
