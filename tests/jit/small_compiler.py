"""A compiler process whose children do what the object says, for tests of the process itself."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from chamelio.jit.layout import Layout
from chamelio.jit.pool import Built
from chamelio.jit.process import Cache, Process, Settings
from chamelio.messages import Channel, Refusal


def key(content: bytes, options: dict[str, Any]) -> str:
    return hashlib.sha256(content + msgspec.json.encode(options)).hexdigest()


def attempt(what: str) -> str:
    """Something that a confined process must not be able to do; what became of it."""
    try:
        if what == "open":
            Path("/etc/passwd").read_bytes()
        elif what == "unlink":
            Path(sys.argv[1]).unlink()
        elif what == "socket":
            socket.socket()
        elif what == "fork":
            os.fork()
        elif what == "kill":
            os.kill(os.getppid(), signal.SIGTERM)
        elif what == "exec":
            os.execv("/bin/true", ["true"])
    except OSError as error:
        return type(error).__name__
    return "done"


def work(content: bytes, options: dict[str, Any]) -> Built:
    order, _, argument = content.decode().partition(" ")
    if order == "reject":
        raise Refusal("rejected", "no", verdicts=[{"verdict": "unsafe"}])
    if order == "segfault":
        ctypes.string_at(0)
    if order == "abort":
        os.abort()
    if order == "exit":
        os._exit(3)
    if order == "raise":
        raise ValueError("unexpected")
    if order == "spin":
        while True:
            pass
    if order == "hang":
        time.sleep(60)
    if order == "memory":
        bytearray(1 << 40)
    if order == "lie":
        os.write(3, (1 << 20).to_bytes(8, "big") + b"+")
        os._exit(0)
    if order == "wait":
        end = time.monotonic() + float(argument)
        while time.monotonic() < end:
            pass
    mode = attempt(argument) if order == "attempt" else "joint"
    name = "0" * 64 if order == "other" else key(content, options)
    image = bytes(int(argument)) if order == "size" else str(os.getpid()).encode()
    return Built(name, "", mode, Layout(1, 0, 0, 0, 0, 0, []), [], [], [], 0, {"verify": 1.0}, image)


def main() -> None:
    directory, settings, fd = Path(sys.argv[1]), sys.argv[3], int(sys.argv[4])
    limits = msgspec.json.decode(settings, type=Settings)
    Process(Channel(socket.socket(fileno=fd)), limits, work, key, Cache(directory, limits.cache_bytes)).run()


if __name__ == "__main__":
    main()
