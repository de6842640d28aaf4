"""Two hosts with TCP and a line between them: connections are opened, bytes flow, and what happens can be watched.

with Laboratory(rate=10e6, delay=0.02, fault="loss=1%,seed=7") as lab:
    done = lab.transfer(1_000_000)
    print(done.seconds, done.goodput)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chamelio.engine.ports import WirePeer, parse
from chamelio.lab.application import Attempt, Connection, swap
from chamelio.lab.flow import Flow
from chamelio.lab.language import NS, PORT, FlowSpec
from chamelio.lab.line import Line
from chamelio.lab.link import arp_request, port_mac
from chamelio.lab.pattern import OURS, PEERS
from chamelio.lab.record import Record
from chamelio.lab.segments import SYN, Malformed, decode
from chamelio.lab.station import Station
from chamelio.world import World

A, B = "10.0.0.1", "10.0.0.2"
SLICE_NS = 100_000_000
LIMIT_S = 3600.0


class Stalled(RuntimeError):
    """What was waited for does not happen; the words say how far it came."""


@dataclass
class Stream:
    """A connection from a to b, with both of its ends. What comes is read at once at both, and compared with what was written."""

    attempt: Attempt
    a: Connection
    b: Connection

    @property
    def forth(self) -> int:
        """Bytes that b has read."""
        return self.b.read_to

    @property
    def back(self) -> int:
        """Bytes that a has read."""
        return self.a.read_to

    def close(self) -> None:
        """At both ends."""
        for end in (self.a, self.b):
            if not end.given_up:
                end.close()


@dataclass(frozen=True)
class Transfer:
    """What a transfer has taken: bytes that were read at the far end (or both), and virtual seconds."""

    bytes: int
    seconds: float

    @property
    def goodput(self) -> float:
        """Bits per second, as an application counts them."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


class Laboratory:
    """Hosts a (10.0.0.1) and b (10.0.0.2), each with a tenant that has TCP, in virtual time.

    `fault`: the fault injector at a, as in a port's text, e.g. "loss=1%,reorder=5%,seed=7". `rate` (bits/s), `delay` (s, one
    way), `queue` and `mark` (packets) are those of `Line`. `trace`: keep what is said on the line. Without any of these the
    hosts are on one wire, and `line` is None. `settings`: of both slow paths, as in the verb `configure` (times in seconds).
    `protocol`: the folder of the TCP at a, `peer`: at b, by default the same. Raises Refusal, Rejected, EngineError, RequestError.
    """

    def __init__(
        self,
        *,
        fault: str | None = None,
        rate: float | None = None,
        delay: float = 0.0,
        queue: int = 1000,
        mark: int | None = None,
        trace: bool = False,
        settings: Mapping[str, Any] | None = None,
        protocol: str | Path = "tcp",
        peer: str | Path | None = None,
        seed: int = 1,
        cores: int = 1,
        mtu: int = 1500,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="chamelio-lab-")
        self.world = World(seed)
        self.stations: list[Station] = []
        self.streams: list[Stream] = []
        self.trace: list[Record] = []
        self.line: Line | None = None
        self._flows: dict[tuple[int, int], Flow] = {}
        try:
            hosts = [self.world.host(cores=cores) for _ in range(2)]
            if rate is None and not delay and mark is None and not trace:
                self.world.wire(*hosts, route="10.0.0.0/24", fault=fault, mtu=mtu)
            else:
                ports = [self.world.peer(host, mtu=mtu, fault=fault if host is hosts[0] else None) for host in hosts]
                for host, (port, _) in zip(hosts, ports, strict=True):
                    host.add_route("10.0.0.0/24", port)
                tap = self._see if trace else None
                self.line = Line(ports[0][1], ports[1][1], rate=rate, delay=delay, queue=queue, mark=mark, tap=tap)
                self.world.task(self.line.step)
                self._introduce(ports)
            about = [("red", A, protocol, (OURS, PEERS)), ("blue", B, peer or protocol, (PEERS, OURS))]
            for host, (name, address, folder, patterns) in zip(hosts, about, strict=True):
                self.stations.append(
                    Station(self.world, host, name, address, protocol=folder, settings=settings,
                            directory=Path(self._directory.name) / name, patterns=patterns)
                )  # fmt: skip
            self.a, self.b = self.stations
            self.world.task(self._read)
            self._start = self.world.now
        except BaseException:
            self.close()
            raise

    def _introduce(self, ports: list[tuple[int, WirePeer]]) -> None:
        """Let both hosts know where the other one is, so that the first packet does not wait for ARP."""
        hosts = self.world.hosts
        macs = [port_mac(host, port) for host, (port, _) in zip(hosts, ports, strict=True)]
        ports[0][1].send(arp_request(macs[1], B, A))
        ports[1][1].send(arp_request(macs[0], A, B))

    @property
    def now(self) -> float:
        """Virtual seconds since the laboratory was set up."""
        return (self.world.now - self._start) / NS

    # ---- doing ------------------------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.world.now + round(seconds * NS)
        while self.world.now < end:
            self.world.run(min(SLICE_NS, end - self.world.now))
        self._must_work()

    def until(self, condition: Callable[[], bool], limit: float = LIMIT_S) -> None:
        """Let time pass until a condition holds. Raises Stalled after `limit` virtual seconds."""
        end = self.world.now + round(limit * NS)
        while not condition():
            if self.world.now >= end:
                raise Stalled(f"nothing more within {limit:g} s: {self._standing()}")
            self.world.run(min(SLICE_NS, end - self.world.now), until=condition)
            self._must_work()

    def mistreat(self, fault: str) -> None:
        """From now on the fault injector does this, beginning with its seed. There must have been a `fault` from the beginning."""
        self.world.faults[0].set(parse(f"fault({fault}):wire:w0").options)

    def open(self, port: int = PORT, forth: int = 0, *, limit: float = 60) -> Stream:
        """A connection from a to b; `forth`: bytes that a writes as soon as it can.

        Raises Stalled when there is none within `limit` seconds, OSError when it fails.
        """
        if port not in self.b.listening:
            self.b.listen(port)
        attempt = self.a.application.connect(B, port)
        self.until(lambda: attempt.error is not None or attempt.connection is not None, limit)
        near = attempt.connection
        if near is None:
            raise OSError(attempt.error, "the connection was not opened")
        near.write(forth)
        self.until(lambda: near.ended is not None or self._accepted(attempt) is not None, limit)
        far = self._accepted(attempt)
        if far is None:
            raise OSError(near.ended, "the connection has ended before it was accepted")
        self.b.application.accepted.remove(far)
        self.streams.append(Stream(attempt, near, far))
        return self.streams[-1]

    def _accepted(self, attempt: Attempt) -> Connection | None:
        """b's end of a connection that a has opened."""
        if attempt.connection is None:
            return None
        ports = swap(int(self.a.application.about["local_port"][attempt.connection.conn]))
        return next((c for c in self.b.application.accepted if self.b.application.peer_port(c) == ports), None)

    def transfer(self, forth: int, back: int = 0, *, limit: float = LIMIT_S) -> Transfer:
        """Open a connection, send so many bytes from a to b, and at the same time from b to a, read and compare them, close.

        Raises Stalled; ValueError when other bytes come than were written.
        """
        started = self.world.now
        stream = self.open(forth=forth)
        stream.b.write(back)
        self.until(lambda: stream.forth >= forth and stream.back >= back, limit)
        took = self.world.now - started
        stream.close()
        self.run(0.001)
        return Transfer(forth + back, took / NS)

    def _read(self, now: int) -> int | None:
        worked = False
        for stream in self.streams:
            for end in (stream.a, stream.b):
                if end.readable and not end.given_up:
                    worked = bool(end.read_all()) or worked
        return now if worked else None

    def _must_work(self) -> None:
        for station in self.stations:
            station.must_work()
        for stream in self.streams:
            for end in (stream.a, stream.b):
                if end.ended:
                    raise OSError(end.ended, f"a connection has ended: {self._standing()}")

    def _standing(self) -> str:
        """Where all streams are."""
        words = []
        for stream in self.streams:
            for name, end in (("a", stream.a), ("b", stream.b)):
                row = end.row
                state = self.a.contract.states[row["state"]]
                words.append(
                    f"{name} {state}, {end.written_to} written, {end.acked} acknowledged, {end.read_to} read, win {row['win']}"
                )
        return "; ".join(words) or "no connection is open"

    # ---- watching ---------------------------------------------------------------------------------------------------------------

    def _see(self, forth: bool, packet: bytes, dropped: bool) -> None:
        """A packet on the line. Numbers are relative to each side's SYN; `>` goes from a to b."""
        try:
            segment = decode(packet)
        except Malformed as error:
            self.trace.append(Record(self.world.now - self._start, ">" if forth else "<", "", str(error)))
            return
        ports = segment.source_port, segment.destination_port
        key = ports if forth else ports[::-1]
        flow = self._flows.get(key)
        if flow is None or (segment.flags & SYN and forth and flow.iss not in (None, segment.seq)):
            flow = self._flows[key] = Flow(FlowSpec(str(key[0]), key[1], 0), key[0])
        if segment.flags & SYN and forth:
            flow.iss, flow.our_syn = segment.seq, segment
        elif segment.flags & SYN:
            flow.isn, flow.peer_syn = segment.seq, segment
        text = flow.describe(segment, ours=forth) + ("  (dropped)" if dropped else "")
        self.trace.append(Record(self.world.now - self._start, ">" if forth else "<", flow.name, text))

    def trace_lines(self) -> list[str]:
        """What was said on the line, in the words of scripts; `trace=True` must have been asked for."""
        several = len(self._flows) > 1
        return [record.line(several) for record in self.trace]

    # ---- the end ----------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give everything back."""
        for station in self.stations:
            station.close()
        self.world.close()
        self._directory.cleanup()

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
