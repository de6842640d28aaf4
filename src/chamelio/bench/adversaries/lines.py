"""Peers at the far end of a wire: packets that come in at given times, in the order of these times, and what is answered.

A source says which packets are due; a line writes them in the order of their times as far as the wire has room, as a network
card does with what arrives: who comes when the ring is full is lost. Everything is done for many packets at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from chamelio.bench.adversaries.packets import ETHERNET, IPV4, PEER_MAC, UDP, arp, octets, udp
from chamelio.engine.engine import Engine
from chamelio.world import World

PAYLOAD = ETHERNET + IPV4 + UDP
MOST_DUE = 1024  # packets of a source that are looked at in one round: more than that fit no wire
_ARP = int.from_bytes(b"\x08\x06", "little")

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Frames = np.ndarray[Any, np.dtype[np.uint8]]  # (packets, bytes)
Times = np.ndarray[Any, np.dtype[np.int64]]  # ns


class Source(Protocol):
    """Whoever sends on a line. `peer` is the address that answers are for."""

    peer: str
    lost: int

    def due(self, now: int) -> tuple[Times, Frames]:
        """Packets that have come since the last look, by time."""

    def sent(self, times: Times, accepted: int) -> None:
        """So many of them, the first ones, are on the wire; the others are lost."""

    def answered(self, now: int, frames: Frames) -> None:
        """What came back, whole frames; bytes beyond a frame's end are arbitrary."""

    def next(self) -> int | None:
        """When the next packet is due; None: not before an answer."""


def template(mac: bytes, source: str, to: str, payload: bytes, port: int = 1000) -> Frames:
    """One frame with a UDP packet, as a row."""
    return np.frombuffer(mac + PEER_MAC + b"\x08\x00" + udp(source, to, payload, sport=port), np.uint8).reshape(1, -1)


def number(frames: Frames, numbers: Numbers) -> None:
    """Write a number into each request: four bytes, four bytes after the beginning of its payload."""
    frames[:, PAYLOAD + 4 : PAYLOAD + 8] = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)


def numbers_of(frames: Frames) -> Numbers:
    """The numbers in requests or their answers."""
    return np.ascontiguousarray(frames[:, PAYLOAD + 4 : PAYLOAD + 8]).view("<u4")[:, 0].astype(np.int64)


class Line:
    """A port of a host and the far end of its wire. `introduce` names who may send on it."""

    def __init__(self, world: World, host: Engine, prefixes: Sequence[str]) -> None:
        self.port, self.wire = world.peer(host)
        for prefix in prefixes:
            host.add_route(prefix, self.port)
        mac = next(p["mac"] for p in host.describe()["ports"] if p["index"] == self.port)
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.sources: list[Source] = []
        memory = self.wire._memory
        self._out, self._in = memory.rings[1], memory.rings[0]
        self._slots = len(self._out["slots"])
        self._prod, self._cons = int(self._out["prod"]), int(self._in["cons"])

    def introduce(self, peer: str, tenant: str) -> None:
        """Ask for the tenant's address, so that it knows the peer's."""
        self._write(np.frombuffer(arp(self.mac, peer, tenant), np.uint8).reshape(1, -1), np.arange(1))
        self._publish(1)

    def _room(self) -> int:
        return self._slots - ((self._prod - int(self._out["cons"])) & 0xFFFFFFFF)

    def _write(self, frames: Frames, places: Numbers) -> None:
        at = (self._prod + places) % self._slots
        slots = self._out["slots"]
        slots["bytes"][at, : frames.shape[1]] = frames
        slots["len"][at], slots["flags"][at] = frames.shape[1], 0

    def _publish(self, n: int) -> None:
        self._prod = (self._prod + n) & 0xFFFFFFFF
        self._out["prod"] = self._prod

    def step(self, now: int) -> int | None:
        """Give answers to those for whom they are, and put on the wire what is due."""
        self._receive(now)
        due = [source.due(now) for source in self.sources]
        order = np.argsort(np.concatenate([times for times, _ in due]), kind="stable") if due else np.empty(0, np.int64)
        if len(order):
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            room, first, wrote = self._room(), 0, 0
            for source, (times, frames) in zip(self.sources, due, strict=True):
                if not len(times):
                    continue
                places = rank[first : first + len(times)]
                first += len(times)
                accepted = int(np.searchsorted(places, room))  # times rise, so places do
                if accepted:
                    self._write(frames[:accepted], places[:accepted])
                source.lost += len(times) - accepted
                source.sent(times, accepted)
                wrote += accepted
            self._publish(wrote)
        waits = [at for source in self.sources if (at := source.next()) is not None]
        return min(waits, default=None)

    def _receive(self, now: int) -> None:
        ready = (int(self._in["prod"]) - self._cons) & 0xFFFFFFFF
        if not ready:
            return
        at = (self._cons + np.arange(ready)) % self._slots
        slots = self._in["slots"]
        head = slots["bytes"][at, :PAYLOAD].view()
        kinds = np.ascontiguousarray(head[:, 12:14]).view("<u2")[:, 0]
        to = np.ascontiguousarray(head[:, 30:34]).view("<u4")[:, 0]
        for source in self.sources:
            mine = np.flatnonzero((to == int.from_bytes(octets(source.peer), "little")) & (kinds != _ARP))
            if len(mine):
                source.answered(now, slots["bytes"][at[mine], : PAYLOAD + 64])
        self._cons = (self._cons + ready) & 0xFFFFFFFF
        self._in["cons"] = self._cons


def moments(begin: int, rate: float, numbers: Numbers) -> Times:
    """When the packets of these numbers come, at `rate` per second from `begin` on."""
    times: Times = begin + np.ceil((numbers + 1) * (1e9 / rate)).astype(np.int64)
    return times


class Stream:
    """Packets at a fixed rate (per second) from `begin` on, rows of `frames` in turn, whatever becomes of them."""

    def __init__(self, peer: str, frames: Frames, rate: float, begin: int) -> None:
        self.peer, self.frames, self.rate, self.begin = peer, frames, rate, begin
        self.count = self.lost = 0

    def due(self, now: int) -> tuple[Times, Frames]:
        """All since the last look; what no wire would have room for is lost at once."""
        total = max(0, int((now - self.begin) * self.rate / 1e9))
        first = max(self.count, total - MOST_DUE)
        self.lost += first - self.count
        self.count = total
        numbers = np.arange(first, total)
        return self._at(numbers), self.frames[numbers % len(self.frames)]

    def _at(self, numbers: Numbers) -> Times:
        return moments(self.begin, self.rate, numbers)

    def sent(self, times: Times, accepted: int) -> None:
        """Nobody waits for them."""

    def answered(self, now: int, frames: Frames) -> None:
        """Nor for answers."""

    def next(self) -> int | None:
        """By the rate."""
        return int(self._at(np.array([self.count]))[0])


class Outstanding:
    """Every row of `frames` is a request, and gets a number; an answer starts it again, and so does its loss at the port."""

    def __init__(self, peer: str, frames: Frames, begin: int) -> None:
        self.peer, self.frames, self.begin = peer, frames.copy(), begin
        number(self.frames, np.arange(len(frames)))
        self.ready = np.arange(len(frames))
        self.answers = self.lost = 0
        self._waits = True

    def due(self, now: int) -> tuple[Times, Frames]:
        """Those that are not outstanding."""
        self._waits = now < self.begin
        ready = self.ready[: 0 if self._waits else None]
        return np.full(len(ready), now), self.frames[ready]

    def sent(self, times: Times, accepted: int) -> None:
        """Now they are."""
        self.ready = self.ready[accepted:]

    def answered(self, now: int, frames: Frames) -> None:
        """By number."""
        self.answers += len(frames)
        self.ready = np.concatenate([self.ready, numbers_of(frames)])

    def next(self) -> int | None:
        """At the beginning; then when an answer comes."""
        return self.begin if self._waits else None
