"""TCP of a tenant beside TCP of unmodified Linux: the same streams on either side, so that a test can put each at either end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import chamelio
from chamelio.bench.netns import NetNs, Veth
from chamelio.bench.stage import Stage
from chamelio.protocols.tcp.states import machine
from chamelio.sockets.stack import Stack
from netns import namespaces, need_af_xdp
from system.rig import HOST, PEER

TENANT, OURS = "red", "10.77.0.10"
SILENT = "10.99.0.1"  # each host sends there by way of the other, which drops it without a word
LIMIT = 1 << 20  # of stream readers
BLOCK = random.Random(5).randbytes(1_000_003)  # a prime: what is taken from the wrong place differs
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
States = dict[tuple[int, int], str]  # by the two ports, its own first
LINUX_STATES = (  # include/net/tcp_states.h, from 1 on
    "ESTABLISHED", "SYN_SENT", "SYN_RCVD", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED", "CLOSE_WAIT", "LAST_ACK", "LISTEN",
    "CLOSING", "SYN_RCVD",
)  # fmt: skip
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Listening = contextlib.AbstractAsyncContextManager[int]


class Side(Protocol):
    """One end: where it is, and how it serves and connects. Both are used from one event loop."""

    address: str

    def listening(self, connected: Connected) -> Listening:
        """Accept connections inside the context: at which port."""

    async def connect(self, address: str, port: int, local_port: int = 0) -> Streams:
        """A connection; `local_port` 0: from any. Raises OSError."""

    async def states(self) -> States:
        """Of its connections."""


@dataclass
class Ours:
    """Applications of a tenant."""

    stage: Stage
    address: str = OURS
    backlog: int = 2000

    @contextlib.asynccontextmanager
    async def listening(self, connected: Connected) -> AsyncIterator[int]:
        server = await chamelio.start_server(connected, backlog=self.backlog, limit=LIMIT, tenant=TENANT, run=self.stage.run)
        try:
            yield server.port
        finally:
            server.close()

    async def call(self, verb: str, **arguments: Any) -> Any:
        """A request to the slow path."""
        stack = await Stack.connect(TENANT, "tcp", self.stage.run)
        try:
            return await stack.call(verb, **arguments)
        finally:
            stack.close()

    async def states(self) -> States:
        stack = await Stack.connect(TENANT, "tcp", self.stage.run)
        about = stack.region.values("about")
        about = about[about["state"] != 0]
        ports = about["local_port"].byteswap().tolist(), about["port"].byteswap().tolist()
        found = {(local, port): machine().states[state] for local, port, state in zip(*ports, about["state"].tolist(), strict=True)}
        stack.close()
        return found

    async def connect(self, address: str, port: int, local_port: int = 0) -> Streams:
        options: dict[str, Any] = {"limit": LIMIT, "tenant": TENANT, "run": self.stage.run}
        return await chamelio.open_connection(address, port, local_port=local_port, **options)


@dataclass
class Linux:
    """Kernel sockets in a namespace; `options` are set before a socket listens or connects: (level, name, value)."""

    where: NetNs
    address: str = PEER
    options: list[tuple[int, int, Any]] = field(default_factory=list)

    async def states(self) -> States:
        found = {}
        for line in self.where.call(Path("/proc/thread-self/net/tcp").read_text).splitlines()[1:]:
            _, local, other, state, *_ = line.split()
            ends = int(local.rpartition(":")[2], 16), int(other.rpartition(":")[2], 16)
            found[ends] = LINUX_STATES[int(state, 16) - 1]
        return found

    def counted(self, name: str) -> int:
        """A counter of TCP's, as /proc/net/netstat has it."""
        names, values = self.where.call(Path("/proc/thread-self/net/netstat").read_text).splitlines()[:2]
        return int(values.split()[names.split().index(name)])

    def received(self) -> int:
        """TCP segments that have come to this host (RFC 4022, tcpInSegs)."""
        lines = self.where.call(Path("/proc/thread-self/net/snmp").read_text).splitlines()
        names, values = (line.split() for line in lines if line.startswith("Tcp:"))
        return int(values[names.index("InSegs")])

    def socket(self) -> socket.socket:
        made = self.where.socket(socket.SOCK_STREAM)
        made.setblocking(False)
        for option in self.options:
            made.setsockopt(*option)
        return made

    @contextlib.asynccontextmanager
    async def listening(self, connected: Connected) -> AsyncIterator[int]:
        sock = self.socket()
        sock.bind((self.address, 0))
        sock.listen(2000)
        server = await asyncio.start_server(connected, sock=sock, limit=LIMIT, backlog=2000)
        try:
            yield sock.getsockname()[1]
        finally:
            server.close()

    async def connect(self, address: str, port: int, local_port: int = 0) -> Streams:
        sock = self.socket()
        try:
            if local_port:
                sock.bind((self.address, local_port))
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, limit=LIMIT)

    async def connect_at_once(self, address: str, port: int, count: int) -> list[Streams]:
        """So many connections, whose SYNs leave within a few milliseconds, however busy the machine is. Raises OSError."""
        socks = [self.socket() for _ in range(count)]
        for sock in socks:
            sock.setblocking(False)
        for sock in socks:
            sock.connect_ex((address, port))
        loop = asyncio.get_running_loop()
        for sock in socks:
            await loop.sock_connect(sock, (address, port))  # it is under way
        return [await asyncio.open_connection(sock=sock, limit=LIMIT) for sock in socks]


class TcpInfo(NamedTuple):
    """What Linux says of a socket, linux/tcp.h: the first `struct tcp_info` that has them all is Linux 6.2's."""

    options: int
    sent_mss: int
    received_mss: int
    retransmitted: int
    peer_window: int
    own_window: int
    congestion: str


def linux_info(streams: Streams) -> TcpInfo:
    """Of a kernel's socket."""
    sock = streams[1].get_extra_info("socket")
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 236)
    congestion = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    numbers = (info[5], *(int.from_bytes(info[at : at + 4], "little") for at in (16, 20, 100, 228, 232)))
    return TcpInfo(*numbers, congestion)


def our_info(streams: Streams) -> dict[str, int]:
    """Of a tenant's connection: its row of `about`."""
    row: dict[str, int] = streams[1].get_extra_info("tcp_info")
    return row


@dataclass
class Line:
    """A tenant and a Linux host with a link between them."""

    backend: str
    stage: Stage
    peer: NetNs
    ours: Ours
    linux: Linux

    @property
    def interface(self) -> str:
        """Of the Linux host."""
        return "veth0" if self.backend == "afxdp" else "tap0"

    def ends(self, client: str) -> tuple[Side, Side]:
        """Client and server, by who is the client: `ours` or `linux`."""
        return (self.ours, self.linux) if client == "ours" else (self.linux, self.ours)


BACKENDS = ("afxdp", "tap")


@contextlib.contextmanager
def joined(backend: str, fault: str = "") -> Iterator[Line]:
    """A line over AF_XDP or TAP, with a fault injector's arguments if there are to be faults. Skips where it cannot be."""
    with contextlib.ExitStack() as stack:
        peer, host = stack.enter_context(namespaces("peer", "host"))
        if backend == "afxdp":
            need_af_xdp()
            Veth(peer, host, PEER, HOST).join()
            port = f"afxdp:veth0,netns={host.name}"
        else:
            port = f"tap:tap0,netns={peer.name}"
        routes = ("--route", "10.77.0.0/24=eth", "--route", f"10.99.0.0/24=eth@{PEER}", "--route", f"10.88.0.0/24=eth@{PEER}")
        stage = stack.enter_context(Stage("--port", f"eth=fault({fault}):{port}" if fault else f"eth={port}", *routes))
        if backend == "tap":
            peer.address("tap0", PEER)
        stage.tenant(TENANT, OURS)
        stage.load(TENANT, "tcp")
        stage.agent(TENANT, "tcp")
        yield Line(backend, stage, peer, Ours(stage), Linux(peer))


@contextlib.contextmanager
def sysctls(where: NetNs, **values: Any) -> Iterator[None]:
    """Settings of a namespace's TCP, by names without `tcp_`; they are as before at the end."""
    before = {}
    try:
        for name, value in values.items():
            before[name] = where.sysctl(f"net/ipv4/tcp_{name}", value)
        yield
    finally:
        for name, value in before.items():
            where.sysctl(f"net/ipv4/tcp_{name}", value)


@contextlib.asynccontextmanager
async def serving(side: Side, handler: Handler) -> AsyncIterator[int]:
    """Serve at the port that is given. Who has been served is waited for at the end, and what a handler raises is raised."""
    served: list[asyncio.Task[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.ensure_future(handler(reader, writer)))

    async with side.listening(connected) as port:
        yield port
        await asyncio.wait_for(asyncio.gather(*served), 10)


# ---- what goes over it ---------------------------------------------------------------------------------------------------------


def pieces(length: int, seed: int = 0) -> Iterator[memoryview]:
    """So many bytes, which `seed` shifts."""
    at = seed * 7919 % len(BLOCK)
    while length:
        part = memoryview(BLOCK)[at : at + min(length, len(BLOCK) - at)]
        yield part
        length -= len(part)
        at = 0


def digest(length: int, seed: int = 0) -> str:
    """SHA-256 of `pieces`."""
    whole = hashlib.sha256()
    for part in pieces(length, seed):
        whole.update(part)
    return whole.hexdigest()


async def send(writer: asyncio.StreamWriter, length: int, seed: int = 0) -> None:
    """`pieces`, and the end of what is said."""
    for part in pieces(length, seed):
        writer.write(bytes(part))
        await writer.drain()
    writer.write_eof()


async def receive(reader: asyncio.StreamReader) -> tuple[int, str]:
    """All up to the end: how much, and its SHA-256."""
    length, whole = 0, hashlib.sha256()
    while data := await reader.read(LIMIT):
        length += len(data)
        whole.update(data)
    return length, whole.hexdigest()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes goes back, up to the end."""
    while data := await reader.read(LIMIT):
        writer.write(data)
        await writer.drain()
    await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    """Close it, and wait until it is."""
    writer.close()
    await writer.wait_closed()
