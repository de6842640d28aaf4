"""The engine's side of TCP in Python: real rings, buffers and rows in a real region, and an ideal network.

What handlers do with segments is not modelled: bytes that one connection sends reach the other one in steps of `STEP_NS`, as far
as its window goes. Agent, slow path and applications are the real ones; connections are between applications of the one tenant.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from chamelio.bpf.object import load_object
from chamelio.jit.layout import make_layout
from chamelio.messages import Refusal
from chamelio.sockets.stream_context import (
    ABORT,
    ACCEPTED,
    CLOSE,
    CONNECT,
    CONNECTED,
    DATA,
    ENDED,
    FIN,
    GROW,
    GROWN,
    READ,
    SEND,
    SHUT,
    WRITABLE,
)  # fmt: skip
from chamelio.tenant.agent import Agent, listen
from chamelio.tenant.folder import read_protocol
from chamelio.tenant.region import Region, slow_columns, value_types
from chamelio.world.loop import VirtualLoop

T = TypeVar("T")
ADDRESS = "10.0.0.1"
LISTEN, UNLISTEN, RELEASE = 16, 17, 21
STEP_NS = 10_000
U32 = 0xFFFFFFFF
SMALL, USED, LARGEST, KEEP = 512, 65536, 4 << 20, 1920
IDLE_STEPS = 10  # without work before time jumps


class Ring:
    """The engine's end of a ring."""

    def __init__(self, region: Region, name: str, context: int, core: int) -> None:
        m = region.maps[name]
        assert m.shared is not None
        at = m.shared + context * m.context_stride + core * region.layout.core_bytes
        self.words = region.content[at : at + 128].cast("I")
        self.slots = m.max_entries
        self.entries = np.ndarray((m.max_entries,), region.types[name], region.content, at + 128, (m.stride,))

    def push(self, *entry: int) -> bool:
        if (self.words[0] - self.words[16]) & U32 >= self.slots:
            return False
        self.entries[self.words[0] % self.slots] = entry
        self.words[0] = (self.words[0] + 1) & U32
        return True

    def take(self) -> Any:
        entry = self.entries[self.words[16] % self.slots].copy()
        self.words[16] = (self.words[16] + 1) & U32
        return entry

    @property
    def ready(self) -> int:
        return (self.words[0] - self.words[16]) & U32


class Pool:
    """One core's buffers of a map. A block is as large as its size says, and never used for another size."""

    def __init__(self, region: Region, name: str, core: int) -> None:
        m = region.maps[name]
        assert m.shared is not None
        step = core * region.layout.core_bytes
        total = m.stride << m.key_size
        self.bytes = np.ndarray((total,), np.uint8, region.content, m.shared + step)
        self.places = np.ndarray((m.max_entries, 2), "<u4", region.content, m.free - region.layout.private_bytes + step)
        self.free: dict[int, list[int]] = {}
        self.next = 0
        self.refuse = False

    def open(self, id_: int, size: int, pos: int = 0, keep: int = 0) -> bool:
        blocks = self.free.setdefault(size, [])
        if not blocks:
            at = -(-self.next // size) * size
            if self.refuse or at + size > len(self.bytes):
                return False
            blocks.append(at)
            self.next = at + size
        kept = self.read(id_, pos, keep)
        self.close(id_)
        offset = blocks.pop()
        self.places[id_] = offset, size
        self.write(id_, pos, kept)
        return True

    def close(self, id_: int) -> None:
        offset, size = self.places[id_].tolist()
        if size:
            self.bytes[offset : offset + size] = 0xEE  # whoever reads there still is found out
            self.free.setdefault(size, []).append(offset)
            self.places[id_] = 0

    def size(self, id_: int) -> int:
        return int(self.places[id_, 1])

    def _at(self, id_: int, pos: int, length: int) -> tuple[slice, slice]:
        offset, size = self.places[id_].tolist()
        at = pos % size if size else 0
        head = min(length, size - at)
        return slice(offset + at, offset + at + head), slice(offset, offset + length - head)

    def read(self, id_: int, pos: int, length: int) -> np.ndarray[Any, np.dtype[Any]]:
        a, b = self._at(id_, pos, length)
        return np.concatenate((self.bytes[a], self.bytes[b]))

    def write(self, id_: int, pos: int, data: np.ndarray[Any, np.dtype[Any]]) -> None:
        a, b = self._at(id_, pos, len(data))
        head = a.stop - a.start
        self.bytes[a], self.bytes[b] = data[:head], data[head:]


@dataclass(eq=False)
class Conn:
    """One end."""

    id: int
    core: int
    context: int
    generation: int
    iss: int
    peer: Conn | None = None
    held: bool = True
    sent: int = 0  # how far the peer has it
    end: int = 0
    fin: bool = False
    fin_sent: bool = False
    mark: int | None = None
    received: int = 0
    alive: bool = True
    owed: deque[tuple[int, ...]] = field(default_factory=deque)


class Model:
    """A tenant with TCP and this model for its engine, in virtual time. `stalled`: it takes no entries."""

    def __init__(self, cores: int = 1, seed: int = 1, chunk: int = 20_000, contexts: int = 9) -> None:
        manifest, content = read_protocol("tcp")
        obj = load_object(content, manifest.name)
        self.layout = make_layout(obj.maps, contexts)
        self.cores, self.chunk, self.random = cores, chunk, random.Random(seed)
        self.now, self.stalled, self.refusals = 1_000_000_000, False, 0
        self.entries: list[tuple[int, ...]] = []  # all that came from applications
        self.region_fd = os.memfd_create("model")
        os.ftruncate(self.region_fd, self.layout.region_bytes(cores))
        self.region = Region(self.region_fd, 0, self.layout, value_types(obj), slow_columns(obj))
        self.pipes = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(contexts + cores)]
        self.about = self.region.values("about")._writable
        self.rings = [[Ring(self.region, "entries", c, core) for c in range(contexts)] for core in range(cores)]
        self.events = [[Ring(self.region, "events", c, core) for c in range(contexts)] for core in range(cores)]
        self.rx = [Pool(self.region, "rx_bytes", core) for core in range(cores)]
        self.tx = [Pool(self.region, "tx_bytes", core) for core in range(cores)]
        self.conns: dict[int, Conn] = {}
        self.free = [list(range(16384 * core + 16383, 16384 * core - 1, -1)) for core in range(cores)]
        self.listeners: dict[int, int] = {}
        self.waiting: list[tuple[int, Callable[[], None]]] = []
        self.loop = VirtualLoop(lambda: self.now, self._advance)
        self.directory = Path(tempfile.mkdtemp(prefix="chamelio-model-"))
        (self.directory / "tenants" / "red").mkdir(parents=True)
        self.start()

    # ---- the attachment of an agent --------------------------------------------------------------------------------------------

    instance, origin, address, resumed = 0, 0, ADDRESS, False

    def start(self) -> None:
        """An agent with its slow path."""
        self.bells = [r for r, _ in self.pipes[: self.layout.contexts]]
        self.wake = [w for _, w in self.pipes[self.layout.contexts :]]
        self.open_contexts: set[int] = set(getattr(self, "open_contexts", ()))
        self.about_us: dict[str, Any] = {"contexts": sorted(self.open_contexts), "ports": [0, 65535]}
        self.agent = Agent(_Attached(self), "tcp", lambda: self.now)
        self.listener = listen(self.directory / "tenants" / "red" / "tcp.sock")
        self.tasks = [self.loop.create_task(self.agent.run_slow_path()), self.loop.create_task(self.agent.serve(self.listener))]

    async def kill_agent(self) -> None:
        """It is gone, as if its process had ended."""
        for task in self.tasks:
            task.cancel()
        self.listener.close()
        (self.directory / "tenants" / "red" / "tcp.sock").unlink()
        self.agent.runtime.slow_path.on_application_gone = lambda context: None
        self.agent._close_context = lambda context: asyncio.sleep(0)
        await self.agent.hang_up()

    def kill_engine(self) -> None:
        """The doorbells close."""
        for read, write in self.pipes[: self.layout.contexts]:
            os.close(write)
            self.pipes[self.pipes.index((read, write))] = (read, -1)

    def play(self, application: Coroutine[Any, Any, T]) -> T:
        """Run it until it returns."""
        return self.loop.run_until_complete(application)

    def close(self) -> None:
        """Give everything back."""
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
        self.loop.run_until_complete(self.agent.hang_up())
        self.listener.close()
        self.loop.close()
        for read, write in self.pipes:
            os.close(read)
            with contextlib.suppress(OSError):
                os.close(write)
        os.close(self.region_fd)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- time --------------------------------------------------------------------------------------------------------------------

    def _advance(self, ns: int | None, ready: Callable[[], bool]) -> bool:
        end = None if ns is None else self.now + ns
        idle = 0
        while not ready():
            if end is not None and self.now >= end:
                return True
            idle = 0 if self.step() else idle + 1
            if idle < IDLE_STEPS:
                self.now += STEP_NS if end is None else min(STEP_NS, end - self.now)
                continue
            deadlines = [when for when, _ in self.waiting] + ([] if end is None else [end])
            if not deadlines:
                return False
            self.now = max(self.now + 1, min(deadlines))
        return True

    def later(self, ns: int, what: Callable[[], None]) -> None:
        self.waiting.append((self.now + ns, what))

    def step(self) -> bool:
        """Take entries, move bytes, tell applications."""
        worked = False
        due = [w for when, w in self.waiting if when <= self.now]
        self.waiting = [(when, w) for when, w in self.waiting if when > self.now]
        for what in due:
            what()
        for core in range(self.cores):
            for context, ring in enumerate(self.rings[core]):
                while ring.ready and not (self.stalled and context):
                    self._entry(core, context, ring.take())
                    worked = True
        for conn in list(self.conns.values()):
            worked |= self._move(conn)
            while conn.owed and self._push(conn, *conn.owed[0]):
                conn.owed.popleft()
                worked = True
        for context in range(1, self.layout.contexts):
            if any(self.events[core][context].ready and self.events[core][context].words[17] for core in range(self.cores)):
                self._ring(context)
        for core in range(self.cores):
            if self.events[core][0].words[17] and self.events[core][0].ready:
                self._ring(0)
        return worked

    def _ring(self, context: int) -> None:
        for core in range(self.cores):
            self.events[core][context].words[17] = 0
        with contextlib.suppress(OSError):
            os.write(self.pipes[context][1], b"\0")

    # ---- connections -----------------------------------------------------------------------------------------------------------

    def _push(self, conn: Conn, kind: int, pos: int, end: int, tag: int, error: int) -> bool:
        return self.events[conn.core][conn.context].push(kind, conn.id, conn.generation, pos, end, tag, error, conn.core)

    def tell(self, conn: Conn, kind: int, pos: int = 0, end: int = 0, tag: int = 0, error: int = 0) -> None:
        if conn.held:
            conn.owed.append((kind, pos & U32, end & U32, tag, error))

    def new(self, core: int, context: int, port: int, local_port: int) -> Conn:
        id_ = self.free[core].pop()
        row = self.about[id_]
        row["generation"] += 1
        row["context"], row["address"] = context, int.from_bytes(socket.inet_aton(ADDRESS), "little")
        row["port"], row["local_port"], row["state"] = socket.htons(port), socket.htons(local_port), 3
        conn = self.conns[id_] = Conn(id_, core, context, int(row["generation"]), self.random.getrandbits(32))
        conn.sent = conn.end = conn.iss
        row["acked"], row["win"] = conn.iss, 14_600
        assert self.rx[core].open(id_, SMALL) and self.tx[core].open(id_, SMALL)
        return conn

    def connect(self, core: int, context: int, entry: Any) -> None:
        port, tag = socket.ntohs(int(entry["port"])), int(entry["tag"])
        local_port = socket.ntohs(int(entry["local_port"])) or 40_000
        ours = self.new(core, context, port, local_port)
        if int(entry["address"]) != int.from_bytes(socket.inet_aton(ADDRESS), "little"):
            self.later(10_000_000_000, lambda: self.finish(ours, errno.ETIMEDOUT, tag))
            return
        if port not in self.listeners:
            self.later(50_000, lambda: self.finish(ours, errno.ECONNREFUSED, tag))
            return
        theirs = self.new(self.random.randrange(self.cores), self.listeners[port], local_port, port)
        ours.peer, theirs.peer = theirs, ours
        for one, kind, what in ((theirs, ACCEPTED, port), (ours, CONNECTED, tag)):
            assert one.peer is not None
            one.received = one.peer.iss
            self.about["taken"][one.id] = one.received
            self.about["edge"][one.id] = (one.received + USED) & U32
            self.tell(one, kind, one.received, one.iss, what)

    def finish(self, conn: Conn, error: int, tag: int = 0) -> None:
        """The connection is no more."""
        if conn.alive:
            conn.alive = False
            self.about["state"][conn.id] = 0
            self.tell(conn, ENDED, tag=tag, error=error)
            if not conn.held:
                self.give_back(conn)

    def give_back(self, conn: Conn) -> None:
        conn.held = False
        if not conn.alive:
            del self.conns[conn.id]
            self.rx[conn.core].close(conn.id)
            self.tx[conn.core].close(conn.id)
            self.about["context"][conn.id] = 0
            self.about["generation"][conn.id] += 1
            self.free[conn.core].append(conn.id)

    def reset(self, conn: Conn) -> None:
        """Both ends."""
        peer = conn.peer
        self.finish(conn, errno.ECONNRESET)
        if peer is not None:
            self.finish(peer, errno.ECONNRESET)

    def _entry(self, core: int, context: int, entry: Any) -> None:
        kind, id_ = int(entry["kind"]), int(entry["conn"])
        if not context:
            self._order(kind, entry)
            return
        self.entries.append(tuple(entry.tolist()))
        if kind == CONNECT:
            self.connect(core, context, entry)
            return
        conn = self.conns.get(id_)
        if conn is None or conn.generation != entry["generation"] or conn.context != context or not conn.held:
            self.refusals += 1
            return
        assert conn.core == core
        if kind in (SEND, SHUT, CLOSE) and conn.alive and not conn.fin:
            acked = int(self.about["acked"][id_])
            assert (int(entry["end"]) - acked) & U32 <= self.tx[core].size(id_), "no more than the buffer holds"
            assert (int(entry["end"]) - conn.end) & U32 < 1 << 31
            conn.end = int(entry["end"])
        if kind == SEND and entry["flags"]:
            conn.mark = int(entry["mark"])
        if kind in (SHUT, CLOSE):
            conn.fin = True
        if kind == CLOSE:
            unread = (conn.received - int(self.about["taken"][id_])) & U32
            conn.held = False
            conn.owed.clear()
            if unread:
                self.reset(conn)
            if not conn.alive and id_ in self.conns:
                self.give_back(conn)
        if kind == ABORT:
            conn.held = False
            self.reset(conn)
            if self.conns.get(id_) is conn:
                self.give_back(conn)
        if kind == GROW and conn.alive:
            acked = int(self.about["acked"][id_])
            keep = (conn.end - acked) & U32
            done = keep <= KEEP and self.tx[core].open(id_, int(entry["value"]), acked, keep)
            self.tell(conn, GROWN, error=0 if done else errno.ENOBUFS)
        if kind == READ:
            self._open_window(conn)

    def _order(self, kind: int, entry: Any) -> None:
        port = socket.ntohs(int(entry["local_port"]))
        if kind == LISTEN:
            self.listeners[port] = int(entry["value"])
        elif kind == UNLISTEN:
            self.listeners.pop(port, None)
        elif kind == RELEASE:
            conn = self.conns.get(int(entry["conn"]))
            if conn is not None and conn.generation == entry["generation"]:
                conn.held = False
                self.reset(conn)
                if self.conns.get(conn.id) is conn:
                    self.give_back(conn)

    def _open_window(self, conn: Conn) -> None:
        space = max(self.rx[conn.core].size(conn.id), USED)
        self.about["edge"][conn.id] = (int(self.about["taken"][conn.id]) + space) & U32

    def _move(self, conn: Conn) -> bool:
        """Bytes that a connection has sent, to its peer; acknowledgements; its FIN."""
        peer, about = conn.peer, self.about
        if peer is None or not conn.alive:
            return False
        acked = int(about["acked"][conn.id])
        if acked != conn.sent:
            about["acked"][conn.id] = conn.sent
            about["win"][conn.id] = min(int(about["win"][conn.id]) + ((conn.sent - acked) & U32), 1 << 24)
        if conn.mark is not None and (conn.sent - conn.mark) & U32 < 1 << 31:
            conn.mark = None
            self.tell(conn, WRITABLE, end=conn.sent)
        ready, window = (conn.end - conn.sent) & U32, (int(about["edge"][peer.id]) - conn.sent) & U32
        length = min(ready, window, self.random.randint(1, self.chunk))
        if length:
            if not peer.held:
                self.reset(conn)
                return True
            length = self._make_room(peer, length)
            data = self.tx[conn.core].read(conn.id, conn.sent, length)
            self.rx[peer.core].write(peer.id, conn.sent, data)
            conn.sent = peer.received = (conn.sent + length) & U32
            if length:
                self.tell(peer, DATA, end=peer.received)
                if self.random.random() < 0.5:
                    self._open_window(peer)
        elif conn.fin and not conn.fin_sent and conn.sent == conn.end:
            conn.fin_sent = True
            self.tell(peer, FIN)
            if peer.fin_sent:
                self.finish(peer, 0)
                self.finish(conn, 0)
            return True
        return bool(length)

    def _make_room(self, peer: Conn, length: int) -> int:
        """How much of it can be received, in a larger buffer if need be."""
        pool, taken = self.rx[peer.core], int(self.about["taken"][peer.id])
        unread, size = (peer.received - taken) & U32, pool.size(peer.id)
        if unread + length > size < LARGEST and unread <= KEEP:
            pool.open(peer.id, max(USED, min(4 * size, LARGEST)), taken, unread)
            self._open_window(peer)
        return min(length, pool.size(peer.id) - unread)


class _Attached:
    """What an agent needs of its attachment."""

    def __init__(self, model: Model) -> None:
        self._model = model
        for name in ("instance", "address", "origin", "resumed", "layout", "region_fd", "bells", "wake"):
            setattr(self, name, getattr(model, name))
        self.about = model.about_us

    async def call(self, verb: str, **arguments: Any) -> Any:
        """`context.open` and `context.close`, as chameliod would."""
        model = self._model
        if verb == "context.open":
            free = next((c for c in range(1, model.layout.contexts) if c not in model.open_contexts), None)
            if free is None:
                raise Refusal("quota", "all contexts are in use")
            model.open_contexts.add(free)
            for core in range(model.cores):
                for ring in (model.rings[core][free], model.events[core][free]):
                    ring.words[0] = ring.words[16] = ring.words[17] = 0
            return {"context": free}
        model.open_contexts.discard(arguments["context"])
        return {}
