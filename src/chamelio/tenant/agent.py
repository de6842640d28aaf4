"""A tenant's agent: runs the slow path of a protocol, and lets the tenant's applications use it.

    python -m chamelio.tenant.agent TENANT PROTOCOL [--name NAME] [--migrate] [--run DIR]

Applications connect to `$RUN/tenants/TENANT/NAME.sock`. The first request, `hello`, gives an application a context: its number,
where its rings lie, and as descriptors the region and its doorbell. Other requests go to the slow path. When the connection ends,
however it ends, the slow path frees what the application had and the context is closed.

When an agent ends and another one takes its place in time, applications can come back with `hello {context}` and their doorbell as
the proof that it is theirs: their rings have worked on meanwhile. That takes a slow path that `resumes`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from chamelio.bpf.object import load_object
from chamelio.jit.layout import RING_IN, RING_OUT, Layout
from chamelio.messages import AsyncChannel, Refusal, close_all, decode
from chamelio.tenant.attachment import REATTACH_S, TRANSIENT, Attachment, attach, migrate
from chamelio.tenant.folder import Manifest, find_folder, read_protocol
from chamelio.tenant.migration import load_migration
from chamelio.tenant.region import Region, plain_type, slow_columns, value_types
from chamelio.tenant.runtime import RequestError, Runtime, Services, SlowPath
from chamelio.tenant.watch import Watch

MAX_APPLICATIONS = 64
SETTLE_S = 0.0002  # between looks whether the engine has taken a request
SETTLE_LIMIT_NS = 1_000_000_000
RECLAIM_S = 3.0  # how long a new agent keeps the contexts of applications that have not come back to it yet
NEW_ENGINE_S = 10.0  # how long we wait for chameliod to bring up another engine


def load_slow_path(folder: Path | None, manifest: Manifest) -> type[SlowPath]:
    """The class that a protocol names, from the module in its folder; a protocol without one has a slow path that does nothing."""
    if manifest.slowpath is None or folder is None:
        return SlowPath
    module_name, _, class_name = manifest.slowpath.partition(":")
    spec = importlib.util.spec_from_file_location(f"chamelio_slowpath_{manifest.name}", folder / f"{module_name}.py")
    if spec is None or spec.loader is None:
        raise Refusal("usage", f"{folder}: there is no module {module_name}.py", "correct `slowpath` in protocol.toml")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, SlowPath)):
        raise Refusal("usage", f"{folder / module_name}.py: {class_name or 'nothing'} is no SlowPath", "correct `slowpath`")
    return found


class Attached(Protocol):
    """What an agent needs of its attachment: where everything lies, and a way to open and close contexts."""

    instance: int
    address: str
    origin: int
    resumed: bool
    layout: Layout
    region_fd: int
    bells: list[int]
    wake: list[int]
    about: dict[str, Any]

    async def call(self, verb: str, **arguments: Any) -> Any:
        """`context.open` or `context.close`. Raises Refusal."""


class Agent:
    """One protocol of one tenant. `now` gives ns, on the clock of the loop that it runs on."""

    def __init__(self, attachment: Attached, protocol: str, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._attachment, self.now = attachment, now
        manifest, content = read_protocol(protocol)
        obj = load_object(content, manifest.name)
        self._types = value_types(obj)
        self._slow = slow_columns(obj)
        self.region = Region(attachment.region_fd, attachment.origin, attachment.layout, self._types, self._slow, attachment.wake)
        rings = {m.kind: m.name for m in attachment.layout.maps if m.kind in (RING_IN, RING_OUT)}
        low, high = attachment.about["ports"]
        self.services = Services(self.region, attachment.address, (low, high), rings.get(RING_IN))
        self.slow_path = load_slow_path(find_folder(protocol), manifest)(self.services)
        self.runtime = Runtime(self.region, self.services, self.slow_path, rings.get(RING_OUT))
        self._control = asyncio.Lock()  # chameliod answers one request at a time
        self._applications: set[asyncio.Task[None]] = set()
        self._contexts: set[int] = set()  # given to applications that live
        self._orphans: set[int] = set()  # of a former agent's applications, which may come back
        self._prepared = asyncio.Event()
        self._rung = asyncio.Event()  # there is work for the slow path
        self.engine_gone = asyncio.Event()

    # ---- the slow path ------------------------------------------------------------------------------------------------

    async def run_slow_path(self) -> None:
        """Poll while there is work, sleep on the doorbell and the next deadline otherwise."""
        loop = asyncio.get_running_loop()
        if self._attachment.resumed and self.slow_path.resumes:
            self._orphans = set(self._attachment.about["contexts"])
        await self.close_forgotten(self._attachment.about["contexts"])  # applications of a former agent went with it
        self.runtime.start(resumed=self._attachment.resumed)
        self._prepared.set()
        reclaiming = loop.create_task(self._end_orphans())
        bell, rung = self._attachment.bells[0], self._rung
        loop.add_reader(bell, self._ring, bell)
        try:
            while True:
                if self.runtime.poll(self.now()) or not self.runtime.sleep():
                    await asyncio.sleep(0)
                    continue
                due = self.runtime.due
                timeout = None if due is None else max(0.0, (due - self.now()) / 1e9)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await rung.wait()
                rung.clear()
        finally:
            reclaiming.cancel()
            loop.remove_reader(bell)

    async def _end_orphans(self) -> None:
        """Who has not come back by now has gone with the former agent."""
        if self._orphans:
            await asyncio.sleep(RECLAIM_S)
        while self._orphans:
            await self._end_context(self._orphans.pop())

    def _ring(self, bell: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(bell, 4096):  # the engine held the other end
                asyncio.get_running_loop().remove_reader(bell)
                self.engine_gone.set()
        self._rung.set()

    async def settle(self) -> None:
        """Wait until the engine has taken all requests of the slow path, so that what was promised holds."""
        deadline = self.now() + SETTLE_LIMIT_NS
        while not self.engine_gone.is_set() and not self.services.flush() and self.now() < deadline:
            await asyncio.sleep(SETTLE_S)

    # ---- applications --------------------------------------------------------------------------------------------------

    async def serve(self, listener: socket.socket) -> None:
        """Accept applications until cancelled."""
        await self._prepared.wait()
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            if len(self._applications) >= MAX_APPLICATIONS:
                sock.close()
                continue
            task = asyncio.create_task(self._application(AsyncChannel(sock, max_fds=1)))
            self._applications.add(task)
            task.add_done_callback(self._applications.discard)

    async def _application(self, channel: AsyncChannel) -> None:
        context: int | None = None
        try:
            while (frame := await channel.receive()) is not None:
                try:
                    request = decode(frame.payload)
                    verb = request.pop("verb", None)
                    if verb == "hello" and context is None:
                        wanted = request.get("context")
                        context = await self._open_context() if wanted is None else self._reclaim(wanted, frame.fds)
                        attached = self._attachment
                        fds = [attached.region_fd, attached.bells[context], *attached.wake]
                        await channel.send({"ok": self._describe(context)}, fds)
                        continue
                    if context is None or not isinstance(verb, str):
                        raise RequestError("EPROTO", "say hello first")
                    result = self.runtime.request(context, verb, request)
                    self._rung.set()  # it may be due earlier now
                    await self.settle()
                    await channel.send({"ok": result})
                except RequestError as error:
                    await channel.send({"error": {"code": error.code, "message": str(error), "remedy": "", "exit": 1}})
                except Refusal as refusal:
                    await channel.send({"error": refusal.describe()})
                finally:
                    close_all(frame.fds)
        except (Refusal, OSError, TimeoutError):
            pass  # it broke the rules of framing, or went away
        finally:
            channel.close()
            if context is not None:
                await self._end_context(context)

    def _reclaim(self, context: Any, fds: list[int]) -> int:
        """The context of an application that comes back: who has the reading end of its doorbell. Raises RequestError."""
        if context not in self._orphans or not fds or not os.path.sameopenfile(fds[0], self._attachment.bells[context]):
            raise RequestError("ESTALE", f"context {context!r} is not one that you had")
        self._orphans.discard(context)
        self._contexts.add(context)
        return int(context)

    async def _end_context(self, context: int) -> None:
        self.runtime.application_gone(context)
        self._rung.set()  # it may be due earlier now
        await self.settle()
        await self._close_context(context)

    async def hang_up(self) -> None:
        """Tell all applications that it is over."""
        for task in self._applications:
            task.cancel()
        await asyncio.gather(*self._applications, return_exceptions=True)

    async def _open_context(self) -> int:
        async with self._control:
            result = await self._attachment.call("context.open", instance=self._attachment.instance)
            context = int(result["context"])
            self._contexts.add(context)
        return context

    async def _close_context(self, context: int) -> None:
        async with self._control:
            self._contexts.discard(context)
            with contextlib.suppress(Refusal, OSError):  # chameliod has gone: its successor is told
                await self._attachment.call("context.close", instance=self._attachment.instance, context=context)

    async def close_forgotten(self, contexts: list[int]) -> None:
        """Close those of the contexts that no application of ours has."""
        for context in contexts:
            if context not in self._contexts and context not in self._orphans:
                await self._close_context(context)

    def _describe(self, context: int) -> dict[str, Any]:
        """What an application needs to know; `places` has plain numbers for those who would rather not parse much."""
        places: dict[str, int] = {}
        for m in self._attachment.layout.maps:
            if m.shared is not None:
                at = self._attachment.origin + m.shared + context * m.context_stride
                step = self._attachment.layout.core_bytes if m.per_core else 0
                of_map = {"at": at, "stride": m.stride, "entries": m.max_entries, "core_step": step}
                places |= {f"{m.name}.{what}": number for what, number in of_map.items()}
        return {
            "context": context,
            "cores": self.region.cores,
            "address": self._attachment.address,
            "origin": self._attachment.origin,
            "layout": msgspec.to_builtins(self._attachment.layout),
            "types": {name: plain_type(t) for name, t in self._types.items()},
            "slow": self._slow,
            "places": places,
        }


def listen(path: Path) -> socket.socket:
    """The socket that applications connect to; an old one of that name is replaced."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.bind(os.fspath(path))
    path.chmod(0o600)
    sock.listen(16)
    sock.setblocking(False)
    return sock


async def _serve(attachment: Attachment, protocol: str, name: str, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set or the instance is gone."""
    agent = Agent(attachment, protocol)
    watch = Watch(agent.runtime, attachment.run, attachment.proof)
    path = attachment.directory / f"{name}.sock"
    listener = listen(path)
    ours = path.stat().st_ino  # a successor may put its own socket there
    work = (agent.run_slow_path(), agent.serve(listener), attachment.keep(agent.close_forgotten))
    ends = (stopping.wait(), agent.engine_gone.wait())
    tasks = [asyncio.create_task(t) for t in (*work, *ends)]
    print(f"serving {name} for {attachment.tenant} at {attachment.address}", flush=True)
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == ours:
                path.unlink()
        await agent.hang_up()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(watch.stop)
        attachment.close()


async def _attach_again(tenant: str, name: str, run_directory: Path | None) -> Attachment:
    """Attach after the engine died: chameliod, if it is there, brings up another one. Raises Refusal."""
    deadline = time.monotonic() + NEW_ENGINE_S
    while True:
        try:
            return await attach(tenant, name, run=run_directory)
        except Refusal as refusal:
            if refusal.code == "no_daemon" or refusal.code not in TRANSIENT or time.monotonic() > deadline:
                raise
        await asyncio.sleep(REATTACH_S)


async def _migrate(tenant: str, name: str, protocol: str, run_directory: Path | None) -> Attachment:
    """Let this version take the place of one with other maps. Raises Refusal."""
    manifest, content = read_protocol(protocol)
    convert = load_migration(find_folder(protocol), manifest)
    try:
        return await migrate(tenant, name, content, convert, run=run_directory)
    except Refusal:
        raise
    except Exception as error:
        traceback.print_exc()
        reason = f"the migration of {name} has failed: {type(error).__name__}: {error}"
        raise Refusal("failed", reason, "the old version runs on; correct the migration and try again") from None


async def run(tenant: str, protocol: str, run_directory: Path | None, name: str | None = None, *, migrating: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, whatever happens to chameliod and the engine meanwhile. Raises Refusal.

    `name`: what the tenant has loaded the protocol as.
    """
    name = name or read_protocol(protocol)[0].name
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if migrating:
        attachment = await _migrate(tenant, name, protocol, run_directory)
    else:
        attachment = await attach(tenant, name, run=run_directory)
    while True:
        await _serve(attachment, protocol, name, stopping)
        if stopping.is_set():
            return
        print(f"the engine has gone, and the instance of {name} with it", file=sys.stderr, flush=True)
        attachment = await _attach_again(tenant, name, run_directory)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="chamelio.tenant.agent", description="Run a protocol's slow path for a tenant.")
    parser.add_argument("tenant")
    parser.add_argument("protocol", help="a folder with protocol.toml, or the name of a shipped protocol")
    parser.add_argument("--name", help="what the tenant has loaded it as [default: the protocol's own name]")
    parser.add_argument("--migrate", action="store_true", help="take the place of a running version with other maps")
    parser.add_argument("--run", type=Path, help="chameliod's directory")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.tenant, arguments.protocol, arguments.run, arguments.name, migrating=arguments.migrate))
    except Refusal as refusal:
        print(f"error[{refusal.code}]: {refusal}", file=sys.stderr)
        return refusal.exit
    return 0


if __name__ == "__main__":
    sys.exit(main())
