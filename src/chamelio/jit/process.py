"""The compiler process: takes jobs, forks a confined child for each, keeps results.

    python -m chamelio.jit.process [--settings JSON] FD

FD is a Unix stream socket, on which requests and replies are framed messages (chamelio/messages.py):

    {"id", "owner", "options"} + object as a descriptor   -> {"id", "cached"} + encoded Built, or {"id", "error"}
    the same with "compile": false                        -> {"id", "found"} + encoded Built if it is in the cache
    {"id", "key"}                                         -> {"id", "found"} + encoded Built if it is in the cache

An answer for which a child has worked says in "cpu_seconds" how much processor time that took.

The process has one thread, imports everything once and then only forks, so a job starts within milliseconds. Its children
do the work on hostile input; they may crash or be killed for their use of time and memory, and that is the job's result
(`compiler_crash`), not an outage. Only the parent writes the cache, and only what it could decode.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import hashlib
import importlib
import os
import pkgutil
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from chamelio import toolchain
from chamelio.confine import PIPE, confine, isolate
from chamelio.files import read_bounded
from chamelio.jit.pool import MAX_BUILT, Built
from chamelio.messages import Channel, Refusal, close_all, decode, memfd

MAX_OBJECT = 16 << 20
_LENGTH = 8  # bytes before a child's result
_REAP_SECONDS = 1.0  # from a child's last word to its end
_PACKAGES = ("chamelio.bpf", "chamelio.verify", "chamelio.jit")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one job, and how many run at once."""

    cpu_seconds: int = 60
    wall_seconds: float = 60.0
    memory_bytes: int = 512 << 20
    workers: int = 2
    cache_bytes: int = 512 << 20


Work = Callable[[bytes, dict[str, Any]], Built]  # what a child does; raises Refusal


class Cache:
    """Encoded results by key, below the toolchain's cache directory; the oldest go when there are too many bytes."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory, self._limit = directory, limit

    def get(self, key: str) -> bytes | None:
        """A result, if it is there and whole."""
        path = self._directory / key
        try:
            content = path.read_bytes()
            msgspec.msgpack.decode(content, type=Built)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep a result. A full disk is no reason to fail."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = self._directory / f".{key}.{os.getpid()}"
            try:
                temporary.write_bytes(content)
                temporary.replace(self._directory / key)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self._prune()
        except OSError as error:
            print(f"the cache of units cannot be written: {error}", file=sys.stderr)

    def _prune(self) -> None:
        files = [(path.stat(), path) for path in self._directory.iterdir()]
        total = sum(about.st_size for about, _ in files)
        for about, path in sorted(files, key=lambda f: f[0].st_mtime):
            if total <= self._limit:
                return
            path.unlink(missing_ok=True)
            total -= about.st_size


class Job:
    """A request on its way: waiting, then a child with a pipe."""

    def __init__(self, number: int, owner: str, key: str, content: bytes, options: dict[str, Any]) -> None:
        self.number, self.owner, self.key, self.content, self.options = number, owner, key, content, options
        self.pid = 0
        self.pipe = -1
        self.deadline = 0.0
        self.result = bytearray()


class Process:
    """The parent: queue, children, cache."""

    def __init__(self, channel: Channel, settings: Settings, work: Work, key: Callable[..., str], cache: Cache) -> None:
        self._channel, self._settings, self._work, self._key, self._cache = channel, settings, work, key, cache
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the other side hangs up; children still at work are killed then."""
        try:
            while True:
                for event, _ in self._selector.select(self._patience()):
                    if event.fileobj is self._channel:
                        if not self._take():
                            return
                    else:
                        self._read(event.data)
                for job in [j for j in self._running if time.monotonic() > j.deadline]:
                    self._finish(job, _over_time(self._settings.wall_seconds))
                self._start_some()
        except (OSError, Refusal):
            return  # the daemon has gone
        finally:
            for job in self._running:
                os.kill(job.pid, signal.SIGKILL)

    def _patience(self) -> float | None:
        if not self._running:
            return None
        return max(0.0, min(j.deadline for j in self._running) - time.monotonic())

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _take(self) -> bool:
        """One request; False when there will be no more."""
        frame = self._channel.receive()
        if frame is None:
            return False
        number = -1
        try:
            request = decode(frame.payload)
            number = int(request.get("id", -1))
            if "key" in request:
                found = self._cache.get(str(request["key"]))
                self._reply(number, found, found=found is not None)
                return True
            if len(frame.fds) != 1:
                raise Refusal("usage", "a job needs an object as its one descriptor")
            content = read_bounded(frame.fds.pop(), MAX_OBJECT)
            options = dict(request.get("options") or {})
            key = self._key(content, options)
            found = self._cache.get(key)
            if found is not None or not request.get("compile", True):
                self._reply(number, found, cached=True, found=found is not None)
            else:
                self._waiting.append(Job(number, str(request.get("owner")), key, content, options))
        except Refusal as error:
            self._refuse(number, error)
        finally:
            close_all(frame.fds)
        return True

    def _reply(self, number: int, content: bytes | None, **about: Any) -> None:
        fds = [memfd("chamelio-unit", content)] if content is not None else []
        try:
            self._channel.send({"id": number, **about}, fds)
        finally:
            close_all(fds)

    def _refuse(self, number: int, error: Refusal, **about: Any) -> None:
        self._channel.send({"id": number, "error": error.describe(), **about})

    # ---- children ----------------------------------------------------------------------------------------------------

    def _start_some(self) -> None:
        """Start waiting jobs while there is room; one owner has one running, so that nobody waits for a flood."""
        while len(self._running) < self._settings.workers:
            busy = {j.owner for j in self._running}
            job = next((j for j in self._waiting if j.owner not in busy), None)
            if job is None:
                return
            self._waiting.remove(job)
            found = self._cache.get(job.key)  # the same job may have been done while this one waited
            if found is not None:
                self._reply(job.number, found, cached=True)
                continue
            self._start(job)

    def _start(self, job: Job) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._child(job, write)
        os.close(write)
        os.set_blocking(read, False)
        job.pid, job.pipe = pid, read
        job.deadline = time.monotonic() + self._settings.wall_seconds
        self._running.append(job)
        self._selector.register(read, selectors.EVENT_READ, job)

    def _child(self, job: Job, pipe: int) -> None:
        """Never returns."""
        try:
            isolate(pipe)
            confine(cpu_seconds=self._settings.cpu_seconds, memory_bytes=self._settings.memory_bytes)
            answer = b"+" + msgspec.msgpack.encode(self._work(job.content, job.options))
        except Refusal as error:
            answer = b"-" + msgspec.msgpack.encode(error.describe())
        except MemoryError:
            answer = b"-" + msgspec.msgpack.encode(_over_memory(self._settings.memory_bytes).describe())
        except BaseException as error:
            crash = Refusal(
                "compiler_crash", f"the compiler failed: {type(error).__name__}: {error}"[:1000], "this is a bug; please report it"
            )
            answer = b"-" + msgspec.msgpack.encode(crash.describe())
        try:
            view = memoryview(len(answer).to_bytes(_LENGTH, "big") + answer)
            while view:
                view = view[os.write(PIPE, view) :]
        finally:
            os._exit(0)

    def _read(self, job: Job) -> None:
        try:
            data = os.read(job.pipe, 1 << 20)
        except BlockingIOError:
            return
        job.result += data
        if not data:
            self._finish(job, None)
        elif len(job.result) > MAX_BUILT:
            self._finish(job, crash(f"its result has more than {MAX_BUILT} bytes"))

    def _finish(self, job: Job, killed: Refusal | None) -> None:
        """The child has said all that it will; take its result, or `killed` as what it came to."""
        self._selector.unregister(job.pipe)
        os.close(job.pipe)
        self._running.remove(job)
        status, cpu_seconds = self._reap(job.pid, patient=killed is None)
        length = int.from_bytes(job.result[:_LENGTH], "big")
        body = bytes(job.result[_LENGTH:])
        if killed is not None or len(job.result) < _LENGTH or len(body) != length or not body:
            self._refuse(job.number, killed or self._death(status), cpu_seconds=cpu_seconds)
            return
        try:
            if body[:1] == b"+":
                built = msgspec.msgpack.decode(body[1:], type=Built)
                if built.key != job.key:
                    raise Refusal("compiler_crash", "the compiler's child answered for another job")
                self._cache.put(job.key, body[1:])
                self._reply(job.number, body[1:], cached=False, cpu_seconds=cpu_seconds)
                return
            raise Refusal.of(msgspec.msgpack.decode(body[1:]))
        except msgspec.DecodeError as error:
            self._refuse(job.number, crash(f"its result makes no sense: {error}"), cpu_seconds=cpu_seconds)
        except Refusal as error:
            self._refuse(job.number, error, cpu_seconds=cpu_seconds)

    def _death(self, status: int) -> Refusal:
        """What a child's end without a result means."""
        if os.waitstatus_to_exitcode(status) == -signal.SIGXCPU:
            return _over_time(self._settings.cpu_seconds)
        return crash(how_it_ended(status))

    @staticmethod
    def _reap(pid: int, *, patient: bool) -> tuple[int, float]:
        """Wait status of a child, which is killed unless it ends by itself very soon, and the processor time it took."""
        end = time.monotonic() + (_REAP_SECONDS if patient else 0.0)
        while True:
            late = time.monotonic() >= end
            if late:
                os.kill(pid, signal.SIGKILL)
            done, status, usage = os.wait4(pid, 0 if late else os.WNOHANG)
            if done:
                return status, usage.ru_utime + usage.ru_stime
            time.sleep(0.001)


def _over_memory(memory_bytes: int) -> Refusal:
    return _over_budget(f"more than {memory_bytes >> 20} MiB of memory", "out of memory")


def _over_time(seconds: float) -> Refusal:
    return _over_budget(f"more than {seconds:g} s", "out of time")


def _over_budget(amount: str, message: str) -> Refusal:
    return Refusal(
        "rejected",
        f"budget: verifying and compiling need {amount}",
        "make the object smaller: fewer branches, fewer unrolled loops",
        verdicts=[{"verdict": "budget", "message": message}],
    )


def crash(how: str) -> Refusal:
    """The refusal for a child that did not come to an end of its own."""
    return Refusal("compiler_crash", f"the compiler did not survive this object: {how}", "make the object smaller or simpler")


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code} and no result"


# ---- what children do -------------------------------------------------------------------------------------------------


def prepare() -> tuple[Work, Callable[..., str], str]:
    """Import and read all that children will need, for they can open nothing: work, the key of a job, the machine."""
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name != __spec__.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    from chamelio.engine import abi
    from chamelio.jit import compile as compiler
    from chamelio.jit import modules, work

    for owner, function in ((modules, "provider_text"), (compiler, "provider_digest")):
        if not hasattr(getattr(owner, function), "cache_info"):
            setattr(owner, function, functools.cache(getattr(owner, function)))
    modules.provider_text("unit.c")
    compiler.provider_digest()
    abi.types()
    return work.build, work.key, modules.host()


def main(arguments: list[str] | None = None) -> int:
    """Run the compiler process."""
    parser = argparse.ArgumentParser(prog="chamelio.jit.process")
    parser.add_argument("fd", type=int)
    parser.add_argument("--settings", default="{}")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the daemon's business
    settings = msgspec.json.decode(options.settings, type=Settings)
    channel = Channel(socket.socket(fileno=options.fd))
    work, key, host = prepare()
    gc.freeze()
    directory = toolchain.cache_dir() / "units" / hashlib.sha256(host.encode()).hexdigest()[:16]
    Process(channel, settings, work, key, Cache(directory, settings.cache_bytes)).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
