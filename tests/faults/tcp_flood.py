"""A TCP server under a flood, beside another tenant, in virtual time.

    under = run(syns, rate=LINE_RATE)
    assert_clean(under.neighbour, beside)

Red serves TCP to blue, on another host, over a wire of their own; what floods red comes from behind a router at a second port;
green, of the same weight, answers requests of a peer at a third (neighbours.py).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import chamelio
from chamelio.lab.segments import ACK, MSS, SYN, Segment, encode
from chamelio.protocols.tcp.states import machine
from chamelio.world import World
from neighbours import VICTIM, VICTIM_PEER, WARM_UP_NS, End, Measurement, Requests
from virtual import PEER_MAC, Tenant

RED, BLUE, PORT, BACKLOG = "10.0.2.1", "10.0.2.2", 80, 64
ROUTER, ATTACKERS = "10.0.3.254", "10.9.0.0/16"
LINE_RATE = 1_488_095  # packets per second: the shortest ones on 1 Gbit/s
STREAMS, BUSY_STREAMS, PIECE = 4, 8, 10_000  # with fewer busy ones red does not always use its whole turn
BEFORE_NS, MEASURED_NS = 3_000_000, 8_000_000
LIMIT_S = 0.01  # for a newcomer to be connected, and to be answered
SYN_RCVD, ESTABLISHED = machine().number("SYN_RCVD"), machine().number("ESTABLISHED")
Flood = Callable[[random.Random], Segment]


def spoofed(rnd: random.Random, flags: int, **fields: Any) -> Segment:
    """A segment for red's server from nobody."""
    source = f"10.9.{rnd.randrange(256)}.{1 + rnd.randrange(250)}"
    return Segment(source, RED, rnd.randrange(1024, 65536), PORT, rnd.getrandbits(32), flags=flags, window=65535, **fields)


def syns(rnd: random.Random) -> Segment:
    """Connections that nobody wants."""
    return spoofed(rnd, SYN, options=((MSS, b"\x05\xb4"),))


def cookies(rnd: random.Random) -> Segment:
    """Acknowledgements that might bring a cookie back, if one were guessed."""
    return spoofed(rnd, ACK, ack=rnd.getrandbits(32))


def both(rnd: random.Random) -> Segment:
    """SYNs, so that cookies are believed, and guesses."""
    return syns(rnd) if rnd.randrange(2) else cookies(rnd)


class Attacker:
    """What comes from behind the router, and what goes there."""

    def __init__(self, world: World, host: Any, flood: Flood, rate: float) -> None:
        self.port, self.wire = world.peer(host)
        host.add_route("10.0.3.0/24", self.port)
        host.add_route(ATTACKERS, self.port, gateway=ROUTER)
        mac = next(p["mac"] for p in host.describe()["ports"] if p["index"] == self.port)
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.flood, self.rate = flood, rate
        self.sent = self.lost = 0  # lost: the wire was full
        self.flags: dict[int, int] = {}  # of what came back
        self._random, self._begun, self._tokens = random.Random(3), 0, 0

    def begin(self, now: int) -> None:
        self._begun = now

    def step(self, now: int) -> int | None:
        """What is due at this rate, and ARP."""
        for frame in self.wire.receive():
            if frame[12:14] == b"\x08\x00":
                self.flags[frame[47]] = self.flags.get(frame[47], 0) + 1
            elif frame[20:22] == b"\0\1":
                reply = frame[14:20] + b"\0\2" + PEER_MAC + frame[38:42] + frame[22:32]
                self.wire.send(frame[6:12] + PEER_MAC + b"\x08\x06" + reply)
        if not self._begun:
            return None
        due = int((now - self._begun) * self.rate / 1e9)
        while self._tokens < due:
            self._tokens += 1
            frame = self.mac + PEER_MAC + b"\x08\x00" + encode(self.flood(self._random))
            if self.wire.send(frame):
                self.sent += 1
            else:
                self.lost += 1
        return now + int(1e9 / self.rate)


@dataclass
class Outcome:
    """What everybody has seen."""

    neighbour: Measurement  # green is its victim, red its neighbour
    echoed: int = 0  # bytes of the established streams, while it was measured
    wrong: int = 0
    resets: int = 0
    newcomers: list[float] = field(default_factory=list)  # seconds until a new connection had its answer
    half_open: int = 0
    open: int = 0
    flooded: int = 0
    answers: dict[int, int] = field(default_factory=dict)  # to the attackers, by flags
    drops: dict[str, int] = field(default_factory=dict)
    reasons: dict[int, int] = field(default_factory=dict)


class _Streams:
    """Blue's connections: each sends, and compares what comes back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.echoed = self.wrong = self.resets = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            self.resets += 1
        writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await chamelio.open_connection(RED, PORT, tenant="blue", run=self.world.directory)

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seed: int) -> None:
        """One piece there and back."""
        data = random.Random(seed).randbytes(PIECE)
        writer.write(data)
        got = await reader.readexactly(PIECE)
        self.echoed += PIECE
        self.wrong += got != data

    async def run(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, every_s: float) -> None:
        """Until it is cancelled, one piece after the other, or one every so many seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            for seed in itertools.count(number, BUSY_STREAMS):
                await self.ask(reader, writer, seed)
                due = max(due + every_s, loop.time())
                await asyncio.sleep(due - loop.time())
        except ConnectionResetError:
            self.resets += 1


def run(flood: Flood = syns, rate: float = 0, *, every_s: float = 0, newcomers: int = 0) -> Outcome:
    """Red's established streams, newcomers and green, while red is flooded (rate 0: it is not).

    `every_s`: when a stream sends its next piece; 0: at once, so that red has as much to do as it can.
    """
    with World(1) as world:
        host, far = world.host(), world.host()
        ends = End(world, host, "10.0.0.0/24", VICTIM_PEER, VICTIM)
        green = Tenant(host, VICTIM)
        world.wire(host, far, route="10.0.2.0/24")
        attacker = Attacker(world, host, flood, rate)
        red = world.tenant(host, "red", RED, "tcp")
        world.tenant(far, "blue", BLUE, "tcp")
        requests, streams = Requests(ends), _Streams(world)
        ends.arp()
        least = host.free_frames[0]

        def watch(now: int) -> None:
            nonlocal least
            least = min(least, host.free_frames[0])

        for task in (requests.step, attacker.step, watch):
            world.task(task)

        async def play() -> Outcome:
            server = await chamelio.start_server(streams.serve, port=PORT, tenant="red", run=world.directory, backlog=BACKLOG)
            pairs = [await streams.connect() for _ in range(STREAMS if every_s else BUSY_STREAMS)]
            running = [asyncio.create_task(streams.run(n, *pair, every_s)) for n, pair in enumerate(pairs)]
            await asyncio.sleep(BEFORE_NS / 1e9)
            if rate:
                attacker.begin(world.now)
            await asyncio.sleep(WARM_UP_NS / 1e9)
            requests.latencies.clear()
            requests.wrong, echoed, loop, took = 0, streams.echoed, asyncio.get_running_loop(), []
            begun = loop.time()
            for n in range(newcomers):
                at = loop.time()
                pairs.append(await asyncio.wait_for(streams.connect(), LIMIT_S))
                await asyncio.wait_for(streams.ask(*pairs[-1], 1000 + n), LIMIT_S)
                took.append(loop.time() - at)
            await asyncio.sleep(MEASURED_NS / 1e9 - (loop.time() - begun))
            spent = loop.time() - begun
            states = red.agent.region.values("about")["state"]
            one = host.counters()["tenants"][red.index]
            outcome = Outcome(
                Measurement(
                    goodput=len(requests.latencies) / spent,
                    p99=float(np.percentile(requests.latencies, 99)),
                    wrong=requests.wrong,
                    victim_drops=green.drops() | green.events(),
                    neighbour_drops=red.counters["drops"],
                    neighbour_events=red.counters["events"],
                    neighbour_turns=int(one["turns"]),
                    neighbour_cycles=int(one["cycles"]),
                    least_free=least,
                    frames=host.free_frames[1],
                ),
                echoed=streams.echoed - echoed,
                wrong=streams.wrong,
                resets=streams.resets,
                newcomers=took,
                half_open=int((states == SYN_RCVD).sum()),
                open=int((states == ESTABLISHED).sum()),
            )
            attacker.rate = 1.0  # what is under way comes to its end
            await asyncio.sleep(0.001)
            outcome.flooded, outcome.answers = attacker.sent, dict(attacker.flags)
            outcome.drops = red.counters["drops"]
            outcome.reasons = {int(code): n for code, n in red.counters["reasons"].items()}
            for task in running:
                task.cancel()
            for _, writer in pairs:
                writer.transport.abort()
            server.close()
            await asyncio.sleep(0.01)
            return outcome

        return world.play(play())
