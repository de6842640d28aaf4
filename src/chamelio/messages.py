"""Framed messages with file descriptors over Unix sockets: what every control socket of the project speaks.

    frame   = u32 big-endian length, then that many bytes of JSON: an object
    request = {"verb": "tenant.show", "token": "..." (optional), arguments of the verb ...}
    reply   = {"ok": result} or {"error": {"code", "message", "remedy", "exit"}}

One request, one reply, in order. Descriptors travel (SCM_RIGHTS) with the first byte of their frame. A frame is read in
two steps, its length and then exactly the rest, so that descriptors always belong to the frame that is being read.
Whatever the other side sends, nothing but these limits decides what it can use of us: bytes, descriptors, time.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

MAX_MESSAGE = 1 << 20  # bytes of JSON in one frame
MAX_DESCRIPTORS = 64  # of one frame, where we are the ones who ask
FRAME_SECONDS = 5.0  # for a frame, from its first byte to its last
_HEADER = struct.Struct(">I")
_CHUNK = 1 << 16

# Stable error codes and the exit status that a command line tool gives for them (others: 1, it failed).
EXITS = {"usage": 2, "rejected": 3, "compiler_crash": 3, "no_daemon": 4, "quota": 5}


class Refusal(Exception):
    """Something that is not done, for people: a stable code, what is wrong with what, and what to do about it.

    `details` (plain values) travel along, e.g. a verifier's verdicts.
    """

    def __init__(self, code: str, message: str, remedy: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy, self.details = code, message, remedy, details

    @property
    def exit(self) -> int:
        """The exit status of a command that ends with this."""
        return EXITS.get(self.code, 1)

    def describe(self) -> dict[str, Any]:
        """The `error` object of a reply."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, "exit": self.exit, **self.details}

    @classmethod
    def of(cls, error: Any) -> Refusal:
        """From the `error` object of a reply."""
        if not isinstance(error, dict):
            return cls("protocol", "the reply is neither a result nor an error", "are both sides of one version?")
        about = {str(k): v for k, v in error.items() if k not in ("code", "message", "remedy", "exit")}
        return cls(str(error.get("code")), str(error.get("message")), str(error.get("remedy", "")), **about)


class Frame(NamedTuple):
    """A received frame; whoever gets it owns the descriptors. `truncated`: more came than wanted, and were closed."""

    payload: bytes
    fds: list[int]
    truncated: bool = False


def encode(message: Any) -> bytes:
    """JSON with its length in front."""
    body = msgspec.json.encode(message)
    return _HEADER.pack(len(body)) + body


def decode(payload: bytes) -> dict[str, Any]:
    """The object in a frame. Raises Refusal."""
    try:
        message = msgspec.json.decode(payload)
    except RecursionError:
        raise Refusal("usage", "the message is nested too deeply", "no verb needs more than a few levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("usage", f"the message is not JSON: {error}", "send one JSON object per frame") from None
    if not isinstance(message, dict):
        raise Refusal("usage", "the message is not a JSON object", 'send {"verb": ..., ...}')
    return message


def result_of(frame: Frame | None, who: str) -> tuple[Any, list[int]]:
    """The result in a reply and its descriptors. Raises Refusal for an error, and when there is no reply."""
    if frame is None:
        raise Refusal("gone", f"{who} closed the connection instead of answering", "try again; its log may say why")
    message = decode(frame.payload)
    if "ok" in message:
        return message["ok"], frame.fds
    close_all(frame.fds)
    raise Refusal.of(message.get("error"))


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, whatever they are."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


class FrameReader:
    """Bytes in, frames out; knows nothing of sockets.

    Ask for at most `want` bytes and `feed` what came. Raises Refusal when the other side does not keep to the limits;
    the connection is of no use then.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._need = _HEADER.size
        self._in_body = False
        self._fds: list[int] = []
        self._truncated = False

    @property
    def want(self) -> int:
        """How many bytes the next read may return at most."""
        return min(self._need - len(self._buffer), _CHUNK)

    @property
    def idle(self) -> bool:
        """Nothing of a frame has come yet."""
        return not self._in_body and not self._buffer

    def feed(self, data: bytes, fds: Sequence[int] = (), *, truncated: bool = False, keep: int = MAX_DESCRIPTORS) -> Frame | None:
        """A frame when it is complete. Descriptors beyond the first `keep` are closed."""
        room = max(0, keep - len(self._fds))
        self._fds += fds[:room]
        close_all(fds[room:])
        self._truncated |= truncated or len(fds) > room
        self._buffer += data
        if len(self._buffer) < self._need:
            return None
        if not self._in_body:
            (length,) = _HEADER.unpack(self._buffer)
            if length > self._limit:
                raise Refusal("usage", f"a message of {length} bytes; {self._limit} is the most", "pass data as a file descriptor")
            self._buffer.clear()
            self._need, self._in_body = length, True
            if length:
                return None
        frame = Frame(bytes(self._buffer), self._fds, self._truncated)
        self._buffer.clear()
        self._need, self._in_body, self._fds, self._truncated = _HEADER.size, False, [], False
        return frame

    def close(self) -> None:
        """Close descriptors of a frame that will never be complete."""
        close_all(self._fds)
        self._fds = []


def receive_once(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int], bool]:
    """One recvmsg: bytes, descriptors (close on exec), and whether the kernel had to drop some. Raises OSError."""
    space = socket.CMSG_SPACE(max_fds * 4) if max_fds else 0
    data, ancillary, flags, _ = sock.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, fds.tolist(), bool(flags & socket.MSG_CTRUNC)


def send_once(sock: socket.socket, data: memoryview, fds: Sequence[int]) -> int:
    """One sendmsg; how many bytes went. Raises OSError."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    return sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


class Channel:
    """A blocking end of a control socket. `timeout`: seconds for a whole request and its reply."""

    def __init__(self, sock: socket.socket, *, timeout: float | None = None) -> None:
        self.sock = sock
        sock.settimeout(timeout)
        self._reader = FrameReader(limit=64 * MAX_MESSAGE)

    def fileno(self) -> int:
        """Becomes readable when the other side says something or goes."""
        return self.sock.fileno()

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send one frame. Raises OSError."""
        data = memoryview(encode(message))
        sent = send_once(self.sock, data, fds)
        while sent < len(data):
            sent += send_once(self.sock, data[sent:], ())

    def receive(self) -> Frame | None:
        """The next frame; None when the other side has gone. Raises OSError (also TimeoutError) and Refusal."""
        while True:
            try:
                data, fds, truncated = receive_once(self.sock, self._reader.want, MAX_DESCRIPTORS)
            except ConnectionError:
                data, fds, truncated = b"", [], False
            if not data:
                self._reader.close()
                return None
            frame = self._reader.feed(data, fds, truncated=truncated)
            if frame is not None:
                return frame

    def call(self, verb: str, fds: Sequence[int] = (), /, **arguments: Any) -> tuple[Any, list[int]]:
        """One request: the result, and the descriptors that came with it (the caller's now). Raises Refusal."""
        try:
            self.send({"verb": verb, **arguments}, fds)
            frame = self.receive()
        except TimeoutError:
            raise Refusal("timeout", f"{verb}: no answer in {self.sock.gettimeout():g} s", "is the daemon stopped?") from None
        except ConnectionError:
            frame = None
        return result_of(frame, "the other side")

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class AsyncChannel:
    """An asyncio end of a control socket, for one reader at a time.

    `max_fds`: descriptors accepted with a frame, more are closed by the kernel. `limit`: bytes of a frame.
    `frame_seconds`: a frame that has begun must be complete after that; a reply must be taken within that.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit: int = MAX_MESSAGE,
        max_fds: int = MAX_DESCRIPTORS,
        frame_seconds: float = FRAME_SECONDS,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._reader = FrameReader(limit)
        self._max_fds = max_fds
        self._frame_seconds = frame_seconds
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()

    async def _ready(self, *, writing: bool = False) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        fd = self.sock.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(fd, _wake, future)
        self._waiters.add(future)
        try:
            await future
        finally:
            self._waiters.discard(future)
            if not self._closed:
                remove(fd)

    async def receive(self, idle_seconds: float | None = None) -> Frame | None:
        """The next frame; None when the other side has gone.

        Raises Refusal (limits; a frame not complete in time) and TimeoutError (nothing began within `idle_seconds`).
        """
        if self._reader.idle:
            async with asyncio.timeout(idle_seconds):
                frame, over = await self._receive_some()
            if frame is not None or over:
                return frame
        try:
            async with asyncio.timeout(self._frame_seconds):
                while True:
                    frame, over = await self._receive_some()
                    if frame is not None or over:
                        return frame
        except TimeoutError:
            raise Refusal(
                "timeout", f"half a message, and then nothing for {self._frame_seconds:g} s", "send a frame in one go"
            ) from None

    async def _receive_some(self) -> tuple[Frame | None, bool]:
        """Read once: a frame if that completed one, and whether the other side has gone."""
        while not self._closed:
            try:
                data, fds, truncated = receive_once(self.sock, self._reader.want, self._max_fds)
            except (BlockingIOError, InterruptedError):
                await self._ready()
                continue
            except OSError:
                break
            if not data:
                break
            return self._reader.feed(data, fds, truncated=truncated, keep=self._max_fds), False
        return None, True

    async def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send one frame. Raises OSError when the other side has gone or does not take it in time."""
        data = memoryview(encode(message))
        async with asyncio.timeout(self._frame_seconds):
            while data:
                try:
                    sent = send_once(self.sock, data, fds)
                except (BlockingIOError, InterruptedError):
                    await self._ready(writing=True)
                    if self._closed:
                        raise BrokenPipeError("closed") from None
                    continue
                data, fds = data[sent:], ()

    def close(self) -> None:
        """Hang up; whoever waits in `receive` gets None."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # no loop any more
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.sock.fileno())
            loop.remove_writer(self.sock.fileno())
        for future in self._waiters:
            _wake(future)
        self._reader.close()
        self.sock.close()


class Credentials(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel knows."""

    pid: int
    uid: int
    gid: int


def credentials(sock: socket.socket) -> Credentials:
    """SO_PEERCRED. Raises OSError."""
    return Credentials(*struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


def memfd(name: str, content: bytes) -> int:
    """A sealed memory file with this content, to be passed on; the caller closes it. Raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


def default_run() -> Path:
    """Where the daemon's sockets are: `$CHAMELIO_RUN`, `$XDG_RUNTIME_DIR/chamelio`, or `/tmp/chamelio-UID`."""
    chosen = os.environ.get("CHAMELIO_RUN")
    if chosen:
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "chamelio" if runtime else Path(f"/tmp/chamelio-{os.getuid()}")


API_SOCKET = "api.sock"
CONNECT_SECONDS = 5


def connect(run: Path | None = None, *, timeout: float | None = 60.0) -> Channel:
    """A connection to the daemon of a run directory. Raises Refusal `no_daemon`."""
    path = (run or default_run()) / API_SOCKET
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # a time limit of the kernel's, for with one of Python's a full backlog is an error at once
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", CONNECT_SECONDS, 0))
        sock.connect(os.fspath(path))
    except OSError as error:
        sock.close()
        reason = "there is no socket" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise Refusal(
            "no_daemon",
            f"no daemon answers at {path}: {reason}",
            "start one with `chamelio up`, or name its directory with --run or CHAMELIO_RUN",
        ) from None
    return Channel(sock, timeout=timeout)
