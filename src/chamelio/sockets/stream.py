"""TCP with asyncio's own interfaces: streams, and transports for protocols, as the event loop gives them for sockets.

    reader, writer = await chamelio.open_connection("10.0.0.1", 80, tenant="blue")
    server = await chamelio.start_server(serve, port=80, tenant="red")      # async def serve(reader, writer)

What is built on them, or on `create_connection` and `create_server`, runs as on sockets; but there are no sockets:
`get_extra_info("socket")` is None. Everywhere `tenant` is by default `$CHAMELIO_TENANT`, `run` chameliod's directory, and
`protocol` the name under which the tenant has loaded TCP. `ssl` takes a context, as in asyncio; `loop.start_tls` works, too.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl as tls
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from chamelio.sockets.stack import Stack, shared_stack
from chamelio.sockets.stream_context import Context
from chamelio.sockets.stream_transport import StreamTransport

PROTOCOL = "tcp"
BACKLOG = 100
LIMIT = 1 << 16  # of a StreamReader, as in asyncio
Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


def _make_context(stack: Stack) -> Context:
    try:
        return Context(stack, StreamTransport)
    except BaseException:
        stack.close()
        raise


async def _context(tenant: str | None, run: str | Path | None, protocol: str) -> Context:
    name = tenant or os.environ.get("CHAMELIO_TENANT")
    if not name:
        raise OSError(errno.EINVAL, "whose connection? give tenant=, or set CHAMELIO_TENANT")
    while True:
        stack = await shared_stack(name, protocol, None if run is None else Path(run), _make_context)
        if not stack.closed:  # who else waited for it may have given it back already
            context: Context = stack.user
            return context


def _over_tls(protocol: asyncio.BaseProtocol, context: tls.SSLContext, **options: Any) -> tuple[Any, asyncio.Future[None]]:
    """The protocol that is to be started in place of `protocol`, and when the handshake is done. For `options` see asyncio."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    return sslproto.SSLProtocol(loop, protocol, context, ready, **options), ready


# ---- servers ---------------------------------------------------------------------------------------------------------------------


class ServerSocket(NamedTuple):
    """What stands for a server's socket: it has a name, and no descriptor."""

    address: str
    port: int
    family: int = socket.AF_INET
    type: int = socket.SOCK_STREAM
    proto: int = socket.IPPROTO_TCP

    def getsockname(self) -> Address:
        """The address and the port."""
        return self.address, self.port

    def fileno(self) -> int:
        """None."""
        return -1


class Server(asyncio.AbstractServer):
    """Accepts connections to a port. Made by `create_server` and `start_server`."""

    def __init__(self, context: Context, factory: Factory, port: int, backlog: int, ssl: tls.SSLContext | None) -> None:
        self._context, self._factory, self._backlog, self._ssl = context, factory, backlog, ssl
        self.port = port  # 0: any, before it serves
        self._serving = self._closed = self._stopping = False
        self._transports: set[StreamTransport] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._forever: asyncio.Future[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def sockets(self) -> tuple[ServerSocket, ...]:
        """One, which says where it serves; none when it is closed."""
        return () if self._closed else (ServerSocket(self._context.stack.address, self.port),)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which it serves."""
        return self._context.loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Accept connections. Raises OSError."""
        async with self._starting:
            if self._closed:
                raise RuntimeError(f"server {self!r} is closed")
            if not self._serving:
                self.port = await self._context.listen(self, self.port, self._backlog)
                self._serving = True
            if self._closed:  # meanwhile
                self._stop()

    async def listen_again(self) -> None:
        """Another agent has taken over. Raises OSError."""
        await self._context.listen(self, self.port, self._backlog)

    def accept(self, transport: StreamTransport) -> None:
        """A connection is open."""
        try:
            protocol = self._factory()
            if self._ssl is not None:
                protocol, ready = _over_tls(protocol, self._ssl, server_side=True)
                ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio has told the loop
        except Exception as error:
            self._context.loop.call_exception_handler({"message": "Error on transport creation", "exception": error})
            transport.abort()
            return
        self._transports.add(transport)
        transport.start(protocol, lambda: self._detach(transport))

    def _detach(self, transport: StreamTransport) -> None:
        self._transports.discard(transport)
        self._wake()

    @property
    def _over(self) -> bool:
        return self._closed and not self._stopping and not self._transports

    def _wake(self) -> None:
        if self._over:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    async def serve_forever(self) -> None:
        """Serve until this is cancelled, which closes the server, or the agent or the engine is gone, which raises OSError."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        await self.start_serving()
        self._forever = self.get_loop().create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Accept no more connections; those that there are go on."""
        if not self._closed:
            self._closed = True
            if self._serving:
                self._stop()
            if self._forever is not None and not self._forever.done():
                self._forever.cancel()
            self._wake()

    def _stop(self) -> None:
        self._serving, self._stopping = False, True
        self._context.background(self._unlisten())

    async def _unlisten(self) -> None:
        await self._context.unlisten(self.port)
        self._stopping = False
        self._wake()

    def close_clients(self) -> None:
        """Close all connections."""
        for transport in list(self._transports):
            transport.close()

    def abort_clients(self) -> None:
        """Reset all connections."""
        for transport in list(self._transports):
            transport.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed and its last connection is, as asyncio's since Python 3.12."""
        if not self._over:
            waiter = self.get_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def connection_lost(self, error: Exception | None) -> None:
        """The agent or the engine has gone."""
        self._closed, self._serving = True, False
        if self._forever is not None and not self._forever.done():
            self._forever.set_exception(error or ConnectionAbortedError(errno.ECONNABORTED, "the application's context is closed"))
        self._wake()


async def create_server(
    protocol_factory: Factory,
    host: str | None = None,
    port: int = 0,
    *,
    tenant: str | None = None,
    run: str | Path | None = None,
    protocol: str = PROTOCOL,
    backlog: int = BACKLOG,
    ssl: tls.SSLContext | None = None,
    start_serving: bool = True,
) -> Server:
    """As `loop.create_server`, at the tenant's address. Raises OSError.

    `port` 0 gives any port: see `Server.port`. `backlog`: connections that are being opened at most; what comes beyond it is opened
    with SYN cookies.
    """
    context = await _context(tenant, run, protocol)
    try:
        if host not in (None, "", "0.0.0.0", context.stack.address):
            raise OSError(errno.EADDRNOTAVAIL, f"this tenant has the address {context.stack.address}, not {host}")
        server = Server(context, protocol_factory, port, backlog, ssl)
        if start_serving:
            await server.start_serving()
        return server
    finally:
        context.release()


async def start_server(
    client_connected_cb: Connected, host: str | None = None, port: int = 0, *, limit: int = LIMIT, **options: Any
) -> Server:
    """As `asyncio.start_server`, at the tenant's address; `options` as for `create_server`. Raises OSError."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, **options)


# ---- clients ---------------------------------------------------------------------------------------------------------------------


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system knows them. Raises OSError."""
    try:
        return [str(ipaddress.IPv4Address(host))]
    except ValueError:
        found: Iterable[Any] = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=socket.AF_INET, type=socket.SOCK_STREAM
        )
        return [address[0] for *_, address in found]


async def create_connection(
    protocol_factory: Factory,
    host: str,
    port: int,
    *,
    tenant: str | None = None,
    run: str | Path | None = None,
    protocol: str = PROTOCOL,
    local_port: int = 0,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """As `loop.create_connection`, from the tenant's address; `local_port` 0: any. Raises OSError.

    ConnectionRefusedError when nobody listens there, TimeoutError when nobody answers.
    """
    if not 0 < port < 1 << 16 or not 0 <= local_port < 1 << 16:
        raise OSError(errno.EINVAL, f"{port} and {local_port} are not both ports")
    addresses = await _resolve(host, port)
    context = await _context(tenant, run, protocol)
    for last, address in enumerate(addresses, 1 - len(addresses)):
        try:
            transport = await context.connect(address, port, local_port)
            break
        except OSError:
            if not last:
                raise
    try:
        made = protocol_factory()
        if ssl is None:
            transport.start(made)
            return transport, made
        name = host if server_hostname is None else server_hostname
        outer, ready = _over_tls(made, ssl, server_side=False, server_hostname=name)
        transport.start(outer)
        await ready
    except BaseException:
        transport.abort()
        raise
    return outer._app_transport, made


async def open_connection(
    host: str, port: int, *, limit: int = LIMIT, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `asyncio.open_connection`, from the tenant's address; `options` as for `create_connection`. Raises OSError."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    made = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await create_connection(lambda: made, host, port, **options)
    return reader, asyncio.StreamWriter(transport, made, reader, loop)
