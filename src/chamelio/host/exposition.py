"""The OpenMetrics endpoint: counters as text, over HTTP on a Unix socket in the run directory and, if asked for, on a TCP address.

    curl --unix-socket $RUN/metrics.sock http://localhost/metrics

The daemon serves it, from the counters file that the engine writes to and never waits for. A reader can delay nobody: an exchange
has a few seconds, the text is made at most four times a second and in a tenth of the time, however many ask, and when there are too
many readers the oldest is hung up on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import accumulate

from chamelio.engine import delays
from chamelio.engine.metrics import FAMILIES, Family, Values

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
READERS = 16  # at once
EXCHANGE_SECONDS = 5.0
REQUEST_BYTES = 4096
FRESH_SECONDS = 0.25  # a text is given to whoever asks within this time,
FRESH_COSTS = 20  # or within so many times the time that writing it took: about twice that is what it costs the daemon

log = logging.getLogger("chameliod.metrics")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _braces(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items()) + "}" if labels else ""


def _walk(labels: tuple[str, ...], what: object, found: dict[str, str]) -> Iterator[tuple[dict[str, str], object]]:
    """Every value of a family, with its labels."""
    if not labels:
        yield found, what
        return
    assert isinstance(what, dict)
    for text, inner in what.items():
        yield from _walk(labels[1:], inner, {**found, labels[0]: text})


@functools.cache
def _ends() -> tuple[tuple[int, str], ...]:
    """Buckets of ours after which one of the exposition ends: one for each power of two; with what it ends at, in seconds."""
    edges = delays.edges()
    return tuple((last + 1, repr(edges[last] / 1e9)) for last in range(delays.PER_POWER - 1, delays.BUCKETS - 1, delays.PER_POWER))


def _histogram(family: Family, labels: dict[str, str], what: object) -> Iterator[str]:
    assert isinstance(what, dict)
    counts = [0] * delays.BUCKETS
    for i, n in what["buckets"].items():
        counts[int(i)] = n
    plain = _braces(labels)
    begin = f"{family.full}_bucket{plain[:-1]}," if plain else f"{family.full}_bucket{{"
    so_far = list(accumulate(counts))
    for after, end in _ends():
        yield f'{begin}le="{end}"}} {so_far[after - 1]}'
    yield f'{begin}le="+Inf"}} {so_far[-1]}'
    yield f"{family.full}_count{plain} {so_far[-1]}"
    yield f"{family.full}_sum{plain} {what['sum'] / 1e9!r}"


def render(values: Values) -> str:
    """A snapshot (engine/metrics.py) as OpenMetrics 1.0 text."""
    lines = []
    for family in FAMILIES:
        if family.name not in values:
            continue
        lines.append(f"# TYPE {family.full} {family.kind}")
        if family.unit:
            lines.append(f"# UNIT {family.full} {family.unit}")
        lines.append(f"# HELP {family.full} {_escaped(family.text)}")
        suffix = "_total" if family.kind == "counter" else ""
        for labels, what in _walk(family.labels, values[family.name], {}):
            if family.kind == "histogram":
                lines += _histogram(family, labels, what)
            else:
                assert isinstance(what, int | float) and math.isfinite(what)
                lines.append(f"{family.full}{suffix}{_braces(labels)} {what!r}")
    return "\n".join([*lines, "# EOF", ""])


class Exposition:
    """Serves what `snapshot` says."""

    def __init__(self, snapshot: Callable[[], Awaitable[Values]]) -> None:
        self._snapshot = snapshot
        self._servers: list[asyncio.Server] = []
        self._readers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the oldest first
        self._text = b""
        self._stale = -math.inf
        self._making = asyncio.Lock()

    @property
    def readers(self) -> int:
        """How many there are now."""
        return len(self._readers)

    async def start(self, listener: socket.socket) -> None:
        """Serve whoever connects there, from now on."""
        self._servers.append(await asyncio.start_server(self._accepted, sock=listener, limit=REQUEST_BYTES))

    async def stop(self) -> None:
        """Serve nobody any more."""
        for server in self._servers:
            server.close()
        for task, writer in list(self._readers.items()):
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while len(self._readers) >= READERS:
            oldest = next(iter(self._readers))
            self._readers.pop(oldest).transport.abort()
            oldest.cancel()
        self._readers[task] = writer
        writer.transport.set_write_buffer_limits(0)  # drained: the kernel has it all
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._exchange(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except Exception:
            log.exception("metrics could not be read")
        finally:
            writer.transport.abort()
            self._readers.pop(task, None)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)[0].split(b" ")
        status, content, body = "404 Not Found", "text/plain", b"ask for /metrics\n"
        if len(request) != 3 or request[0] not in (b"GET", b"HEAD"):
            status, body = "405 Method Not Allowed", b"GET /metrics\n"
        elif request[1].split(b"?")[0] in (b"/metrics", b"/"):
            status, content, body = "200 OK", CONTENT_TYPE, await self.text()
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + (b"" if request[0] == b"HEAD" else body))
        await writer.drain()

    async def text(self) -> bytes:
        """The text of now, or of a moment ago."""
        async with self._making:
            if time.monotonic() > self._stale:
                values = await self._snapshot()
                begin = time.monotonic()
                self._text = (await asyncio.to_thread(render, values)).encode()
                now = time.monotonic()
                self._stale = now + max(FRESH_SECONDS, FRESH_COSTS * (now - begin))
            return self._text


def listen_tcp(address: str) -> socket.socket:
    """A listening socket at HOST:PORT ([HOST]:PORT for IPv6). Raises OSError, ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{address} is not HOST:PORT")
    family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    with contextlib.ExitStack() as undo:
        undo.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(READERS)
        undo.pop_all()
    return listener
