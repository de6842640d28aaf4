"""What several processes do alike with files: bounded reads of foreign descriptors, locks, listening sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from pathlib import Path

from chamelio.messages import Refusal


def read_bounded(fd: int, limit: int) -> bytes:
    """All of a regular file (or memfd), read once; closes the descriptor. Raises Refusal if it is none or too large."""
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise Refusal("usage", "the descriptor is no regular file", "pass a file or a memfd")
        if about.st_size > limit:
            raise Refusal("usage", f"the file has {about.st_size} bytes; {limit} is the most")
        parts: list[bytes] = []
        at = 0
        while at < about.st_size and (part := os.pread(fd, about.st_size - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)
    except OSError as error:
        raise Refusal("usage", f"the descriptor cannot be read: {error.strerror}", "open it for reading") from None
    finally:
        os.close(fd)


def listen(path: Path, mode: int, backlog: int) -> socket.socket:
    """A listening Unix socket in place of whatever lies there. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        old = os.umask(0o777 & ~mode)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(old)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock `path` while it is open; None if another process has it. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def await_unlocked(path: Path, seconds: float) -> bool:
    """Wait until no process holds the lock `path`; False if one still does. Raises OSError."""
    end = time.monotonic() + seconds
    while (lock := lock_file(path)) is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    os.close(lock)
    return True
