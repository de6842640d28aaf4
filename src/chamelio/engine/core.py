"""One core of an engine: its `struct cham_core`, its frames, its counters, and the thread that runs its rounds."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.memory import Bell

MAX_CORES = 8
QUANTUM = 16_000  # cycles per round and unit of weight
MAX_DEBT = 2_000_000  # cycles
COMMAND_TIMEOUT_S = 2.0
VIRTUAL_HZ = 3_000_000_000  # cycles per second of the virtual clock
CALIBRATION_S = 0.02
PR_SET_TIMERSLACK = 29
WATCH_BELL = 1 << 32  # CHAM_WATCH_BELL
EPOLL_CTL_MOD = 3
_U32 = 0xFFFFFFFF

Call = dict[str, Callable[..., Any]]


class CoreStuck(Exception):
    """A core did not answer a command."""


@dataclass(frozen=True)
class Clock:
    """How ns follow from cycles: `ns_base` + (cycles - `cycles_base`) x `ns_per_cycle` / 2^32."""

    ns_per_cycle: int
    ns_base: int = 0
    cycles_base: int = 0

    @classmethod
    def virtual(cls) -> Clock:
        """The clock of the cost model."""
        return cls(round(1e9 / VIRTUAL_HZ * 2**32))

    @classmethod
    def calibrated(cls, cycles: Callable[[], int]) -> Clock:
        """The time stamp counter held against CLOCK_MONOTONIC; takes CALIBRATION_S."""
        ns0, cycles0 = _both(cycles)
        time.sleep(CALIBRATION_S)
        ns1, cycles1 = _both(cycles)
        return cls(round((ns1 - ns0) / (cycles1 - cycles0) * 2**32), ns1, cycles1)


def _both(cycles: Callable[[], int]) -> tuple[int, int]:
    """CLOCK_MONOTONIC and the time stamp counter at the same moment: the tightest of a few tries."""
    tries = []
    for _ in range(20):
        before, count, after = time.monotonic_ns(), cycles(), time.monotonic_ns()
        tries.append((after - before, (before + after) // 2, count))
    _, ns, count = min(tries)
    return ns, count


def _epoll_modify(epoll: int, fd: int, event: bytes) -> None:
    """`select.epoll` puts only the descriptor into an event's data; ours tells bells from ports. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).epoll_ctl(epoll, EPOLL_CTL_MOD, fd, event):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Core:
    """Core `index` of `total`. `call` are the provider's entries; `counters` is the memory of its `struct cham_counters`."""

    def __init__(
        self, call: Call, index: int, total: int, *, frames: int, counters: np.ndarray[Any, np.dtype[Any]], clock: Clock,
        adaptive: bool, secret: np.ndarray[Any, np.dtype[np.uint64]],
    ) -> None:  # fmt: skip
        self._call, self.index = call, index
        self.state = abi.alloc("cham_core")
        self.frames, self._free = abi.alloc("cham_frame", frames), np.zeros(frames, np.uint32)
        self._thread: threading.Thread | None = None
        self.bell = Bell()
        self._watched = select.epoll()
        self.busy_until = 0  # virtual time: when the round that it is in ends; for whoever steps it
        self._rings: list[np.ndarray[Any, np.dtype[Any]]] = []
        core = self.state
        core["index"], core["n_cores"] = index, total
        core["secret"][0] = secret
        core["counters"] = counters.ctypes.data
        core["quantum"], core["max_debt"] = QUANTUM, MAX_DEBT
        core["poll_adaptive"] = adaptive
        core["watched"] = self._watched.fileno()
        self.watch(self.bell.fd, bell=True)
        call["cham_core_init"](self.address, self.frames.ctypes.data, self._free.ctypes.data, frames)
        core["ns_per_cycle"] = clock.ns_per_cycle
        if clock.ns_base:
            core["ns_base"], core["cycles_base"], core["cycles"] = clock.ns_base, clock.cycles_base, clock.cycles_base

    @property
    def address(self) -> int:
        """Of the `struct cham_core`."""
        return int(self.state.ctypes.data)

    @property
    def pool_address(self) -> int:
        """Of its frame pool."""
        return self.address + abi.dtype("cham_core").fields["pool"][1]  # type: ignore[index]

    def join(self, other: Core) -> None:
        """Make the ring by which this core hands packets over to another."""
        ring = abi.alloc("cham_handover")
        self._rings.append(ring)
        self.state["to"][0][other.index] = other.state["from"][0][self.index] = ring.ctypes.data
        self.state["bells"][0][other.index] = other.bell.ring_fd

    # ---- what wakes it -----------------------------------------------------------------------------------------------

    def watch(self, fd: int, *, bell: bool) -> None:
        """Wake up when a descriptor becomes readable: a pipe that is then emptied (`bell`), or a port's, which the port reads."""
        self._watched.register(fd, select.EPOLLIN)
        event = struct.pack("<IQ", select.EPOLLIN, fd | (WATCH_BELL if bell else 0))
        _epoll_modify(self._watched.fileno(), fd, event)

    def unwatch(self, fd: int) -> None:
        """Do not wake up for it any more."""
        with contextlib.suppress(OSError):
            self._watched.unregister(fd)

    def ring(self) -> None:
        """Wake it up."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.bell.ring_fd, b"\0")

    def let_sleep(self, may: bool) -> None:
        """Whether everybody who has something for it can wake it."""
        self.state["may_sleep"] = may

    # ---- commands ----------------------------------------------------------------------------------------------------

    def command(self, op: int, arguments: Sequence[int]) -> int:
        """Have the round execute a command; its status. Raises CoreStuck."""
        if self._thread is not None:
            self._await_answer(int(self.state["requested"][0]))  # to a command that was given up: it is not to be overwritten
        command = self.state["command"]
        command["op"] = op
        command["arg"][0] = [a & 2**64 - 1 for a in arguments] + [0] * (7 - len(arguments))
        if self._thread is None:
            self._call["cham_command"](self.address)
        else:
            self._await_round()
        return int(command["status"][0])

    def _await_round(self) -> None:
        ticket = (int(self.state["requested"][0]) + 1) & _U32
        self.state["requested"] = ticket
        self.ring()
        self._await_answer(ticket)

    def _await_answer(self, ticket: int) -> None:
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while int(self.state["completed"][0]) != ticket:
            if time.monotonic() > deadline:
                raise CoreStuck(f"core {self.index} did not answer within {COMMAND_TIMEOUT_S:.0f} s; restart the engine")
            time.sleep(20e-6)

    # ---- running -----------------------------------------------------------------------------------------------------

    def start(self, cpu: int | None) -> None:
        """Run rounds on a thread of their own, pinned to a processor."""
        if self._thread is None:
            self.state["stop"] = 0
            self._thread = threading.Thread(target=self._run, args=(cpu,), name=f"chamelio-core-{self.index}", daemon=True)
            self._thread.start()

    def _run(self, cpu: int | None) -> None:
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)  # naps end when they should
        self._call["cham_run"](self.address)

    def stop(self) -> None:
        """Stop the thread after the round that it is in."""
        if self._thread is not None:
            self.state["stop"] = 1
            self.ring()
            self._thread.join(COMMAND_TIMEOUT_S)
            self._thread = None

    def close(self) -> None:
        """Give descriptors back; it has stopped."""
        self._watched.close()
        self.bell.close()

    @property
    def running(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def step(self, now_ns: int) -> bool:
        """Virtual time: one round at `now_ns`. True if anything was done; `now` tells how long it took."""
        return bool(self._call["cham_step"](self.address, now_ns))

    @property
    def now(self) -> int:
        """Its clock in ns: in virtual time, when its last round ended."""
        return int(self.state["now"][0])

    @property
    def free_frames(self) -> tuple[int, int]:
        """Frames in its pool now, and of how many."""
        pool = self.state["pool"][0]
        return int(pool["n_free"]), int(pool["total"])
