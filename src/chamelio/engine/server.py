"""The engine process: owns an Engine, obeys the control plane over a Unix socket, and outlives it.

    python -m chamelio.engine.server --run DIR [--ready FD] [--settings JSON]

It lives in a session of its own. `$RUN/engine.sock` (mode 0600) takes framed messages (chamelio/messages.py) from
processes of the same user; `$RUN/counters` can be mapped by anybody who may read it. What the control plane has to
remember of tenants, units and instances it leaves here as labels, so that a new one finds everything in `describe`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from chamelio import __version__
from chamelio.engine.client import COUNTERS, SOCKET, Settings
from chamelio.engine.engine import Engine, EngineError
from chamelio.engine.instance import Instance
from chamelio.engine.ports import PortError, open_port
from chamelio.files import listen, lock_file, read_bounded
from chamelio.jit.artifact import UnitImage
from chamelio.messages import AsyncChannel, Frame, Refusal, close_all, credentials, decode

LOCK = "engine.lock"
MAX_IMAGE = 64 << 20  # bytes of a unit's image
REFRESH_SECONDS = 1.0
COMPLAINT_SECONDS = 60.0  # between lines about the same instance's rings
BACKLOG = 16


class Labels(msgspec.Struct):
    """What the control plane wants remembered, by index."""

    tenants: dict[int, Any] = {}
    units: dict[int, Any] = {}
    instances: dict[int, Any] = {}
    ports: dict[int, Any] = {}


class Server:
    """Verbs of the engine's socket; each method named `do_...` is one, its parameters are the verb's arguments."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.labels = Labels()
        self.stopping = asyncio.Event()
        self._lost_frames = 0
        self._damage: dict[int, tuple[int, float]] = {}  # by instance: damaged rings when we last said so, and when that was

    # ---- verbs -----------------------------------------------------------------------------------------------------

    def do_ping(self) -> dict[str, Any]:
        """Who is there."""
        return {"pid": os.getpid(), "version": __version__}

    def do_clock(self) -> dict[str, Any]:
        """Cycles per second of the cores' clock."""
        return {"hz": self.engine.hz}

    def do_describe(self) -> dict[str, Any]:
        """Everything that a new control plane has to know."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "settings": msgspec.to_builtins(self.settings),
            "engine": self.engine.describe(),
            "labels": msgspec.to_builtins(self.labels, str_keys=True),
        }

    def do_label(self, kind: str, index: int, label: Any) -> None:
        """Remember something about a tenant, unit, instance or port."""
        self._labels(kind)[index] = label

    def _labels(self, kind: str) -> dict[int, Any]:
        labels = getattr(self.labels, kind, None)
        if not isinstance(labels, dict):
            raise Refusal("usage", f"there are no labels of {kind!r}", "they are of tenants, units, instances, ports")
        return labels

    def do_port_add(self, name: str, spec: str) -> int:
        """Open a port and put it into service."""
        port = open_port(spec)
        try:
            index = self.engine.add_port(name, port)
        except BaseException:
            port.close()
            raise
        self.labels.ports[index] = {"spec": spec}
        return index

    def do_port_list(self) -> list[dict[str, Any]]:
        """All ports, with state and counters."""
        ports: list[dict[str, Any]] = self.engine.describe()["ports"]
        return ports

    def do_port_remove(self, index: int) -> None:
        """Take a port out of service."""
        self.engine.remove_port(index)
        self.labels.ports.pop(index, None)

    def do_route_add(self, prefix: str, port: int, gateway: str | None = None, network: int = 0) -> None:
        """Add a route."""
        self.engine.add_route(prefix, port, gateway, network)

    def do_tenant_add(self, weight: int, frame_quota: int, addresses: list[str], network: int, label: Any) -> int:
        """A tenant with its addresses; all or nothing."""
        index = self.engine.add_tenant(weight, frame_quota)
        try:
            for address in addresses:
                self.engine.bind_address(index, address, network)
        except BaseException:
            self.engine.remove_tenant(index)
            raise
        self.labels.tenants[index] = label
        return index

    def do_tenant_remove(self, index: int) -> None:
        """Remove a tenant with all that it has."""
        gone = [i.index for i in self.engine.instances() if i.tenant == index]
        self.engine.remove_tenant(index)
        self.labels.tenants.pop(index, None)
        for instance in gone:
            self.labels.instances.pop(instance, None)

    def do_tenant_weight(self, index: int, weight: int) -> None:
        """Change a tenant's share."""
        self.engine.set_weight(index, weight)

    def do_tenant_frames(self, index: int, frame_quota: int) -> None:
        """Change how many frames may wait in a tenant's backlogs."""
        self.engine.set_frame_quota(index, frame_quota)

    def do_tenant_waiting(self, index: int) -> int:
        """How many do now."""
        return self.engine.waiting_frames(index)

    def do_unit_load(self, image: bytes, label: Any) -> int:
        """Load a unit; its image comes as a descriptor."""
        index = self.engine.load_unit(_image(image))
        self.labels.units[index] = label
        return index

    def do_unit_unload(self, index: int) -> None:
        """Free a unit that nobody uses."""
        self.engine.unload_unit(index)
        self.labels.units.pop(index, None)

    def do_instance_add(
        self, tenant: int, unit: int, address: str, ip_protocol: int, network: int, ports: list[int], steer: str, label: Any
    ) -> int:
        """Run a protocol for a tenant."""
        low, high = ports
        how: dict[str, Any] = {"network": network, "ports": (low, high), "steer": steer}
        instance = self.engine.add_instance(tenant, unit, address, ip_protocol, **how)
        self.labels.instances[instance.index] = label
        return instance.index

    def do_instance_move(self, index: int, unit: int) -> float:
        """Let another unit run an instance; returns seconds."""
        return self.engine.move_instance(index, unit)

    def do_instance_prepare(
        self, tenant: int, unit: int, address: str, ip_protocol: int, network: int, ports: list[int], steer: str, label: Any,
        old: int, carry: list[str],
    ) -> int:  # fmt: skip
        """An instance that can take the place of an old one, which is paused, with maps carried over; all or nothing."""
        low, high = ports
        how: dict[str, Any] = {"network": network, "ports": (low, high), "steer": steer, "bound": False}
        self.engine.pause_instance(old, pause=True)
        try:
            new = self.engine.add_instance(tenant, unit, address, ip_protocol, **how).index
            try:
                self.engine.carry_maps(old, new, carry)
            except BaseException:
                self.engine.remove_instance(new)
                raise
        except BaseException:
            self.engine.pause_instance(old, pause=False)
            raise
        self.labels.instances[new] = label
        return new

    def do_instance_replace(self, old: int, new: int) -> None:
        """Let a prepared instance take the place of the old one, which is removed."""
        self.engine.replace_instance(old, new)
        self.labels.instances.pop(old, None)

    def do_instance_resume(self, index: int) -> None:
        """Let a paused instance go on."""
        self.engine.pause_instance(index, pause=False)

    def do_instance_remove(self, index: int) -> None:
        """Stop an instance and free its memory."""
        self.engine.remove_instance(index)
        self.labels.instances.pop(index, None)

    def do_instance_open(self, index: int) -> tuple[dict[str, Any], list[int]]:
        """What a tenant needs to map an instance: origin and layout; descriptors of region, doorbells, cores' bells."""
        instance: Instance = self.engine.instance(index)
        about = {"origin": instance.origin, "layout": msgspec.to_builtins(instance.layout)}
        return about, [instance.region_fd, *instance.bells, *instance.wake_fds]

    def do_attach(self, instance: int, context: int) -> None:
        """Give a context to a new owner."""
        self.engine.attach(instance, context)

    def do_detach(self, instance: int, context: int) -> None:
        """Nobody uses a context any more."""
        self.engine.detach(instance, context)

    def do_shutdown(self) -> None:
        """End, after this answer."""
        self.stopping.set()

    # ---- serving ---------------------------------------------------------------------------------------------------

    def answer(self, frame: Frame) -> tuple[dict[str, Any], list[int]]:
        """The reply to a request, and descriptors to go with it (they stay ours). Closes the request's."""
        try:
            request = decode(frame.payload)
            verb = str(request.pop("verb", ""))
            handler: Callable[..., Any] | None = getattr(self, "do_" + verb.replace(".", "_"), None)
            if handler is None:
                raise Refusal("usage", f"the engine has no verb {verb!r}", "are daemon and engine of one version?")
            if frame.fds:
                request["image"] = read_bounded(os.dup(frame.fds[0]), MAX_IMAGE)
            result = handler(**request)
        except Refusal as error:
            return {"error": error.describe()}, []
        except (EngineError, PortError) as error:
            return {"error": Refusal("engine", str(error)).describe()}, []
        except (TypeError, ValueError) as error:
            return {"error": Refusal("usage", f"the engine does not understand: {error}").describe()}, []
        except Exception as error:
            traceback.print_exc()
            return {"error": Refusal("internal", f"the engine failed: {error}", "its log has more").describe()}, []
        finally:
            close_all(frame.fds)
        return ({"ok": result[0]}, result[1]) if isinstance(result, tuple) else ({"ok": result}, [])

    async def connection(self, sock: socket.socket) -> None:
        """Serve one connection until it ends."""
        channel = AsyncChannel(sock, limit=64 << 20, max_fds=1, frame_seconds=60.0)
        try:
            while (frame := await channel.receive()) is not None:
                await channel.send(*self.answer(frame))
        except (Refusal, OSError):
            pass  # whoever it was does not keep to the protocol or has gone
        finally:
            channel.close()

    def report_damage(self, now: float) -> None:
        """A line for every instance whose rings were found damaged, at most one a minute for each."""
        damaged = self.engine.damaged_rings()
        self._damage = {i: said for i, said in self._damage.items() if said[0] <= damaged.get(i, 0)}  # the others are new ones
        for index, count in damaged.items():
            said, when = self._damage.get(index, (0, -COMPLAINT_SECONDS))
            if count > said and now - when >= COMPLAINT_SECONDS:
                self._damage[index] = count, now
                label = self.labels.instances.get(index) or {}
                whose = f"protocol {label.get('protocol')} of tenant {label.get('tenant')}"
                with contextlib.suppress(OSError):  # a full disk is no reason to stop
                    print(
                        f"instance {index}, {whose}: {count - said} rings with indices that cannot be true; it is out of service "
                        "until it attaches again",
                        file=sys.stderr,
                        flush=True,
                    )

    def report_lost_frames(self) -> None:
        """A line when there are more lost frames than ever before: that is the provider's mistake."""
        frames = self.engine.count_frames()
        if frames["lost"] > self._lost_frames:
            self._lost_frames = frames["lost"]
            with contextlib.suppress(OSError):
                print(f"{frames['lost']} of {frames['total']} frames are lost; please report this", file=sys.stderr, flush=True)

    async def refresh(self) -> None:
        """Once a second: ports look at the outside world, frames are counted, damaged rings are reported."""
        while True:
            with contextlib.suppress(EngineError, PortError):
                self.engine.refresh()
                self.report_lost_frames()
            self.report_damage(time.monotonic())
            await asyncio.sleep(REFRESH_SECONDS)

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections until `stopping`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        tasks = {asyncio.create_task(self.refresh())}
        tasks.add(asyncio.create_task(self._accept(listener, tasks)))
        await self.stopping.wait()
        await asyncio.sleep(0.05)  # the answer to `shutdown` leaves
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket, tasks: set[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            if credentials(sock).uid != os.getuid():
                sock.close()
                continue
            task = asyncio.create_task(self.connection(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


def _image(content: bytes) -> UnitImage:
    try:
        return msgspec.msgpack.decode(content, type=UnitImage)
    except msgspec.DecodeError as error:
        raise Refusal("usage", f"the unit's image cannot be read: {error}") from None


def _tell(ready: int | None, message: Mapping[str, Any]) -> None:
    """Tell who started us how that went."""
    if ready is not None:
        with contextlib.suppress(OSError):
            os.write(ready, msgspec.json.encode(message))
        os.close(ready)


def main(arguments: list[str] | None = None, make: Callable[..., Engine] = Engine) -> int:
    """Run the engine process; `make` builds its Engine."""
    parser = argparse.ArgumentParser(prog="chamelio.engine.server")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--ready", type=int)
    parser.add_argument("--settings", default="{}")
    options = parser.parse_args(arguments)
    lock = lock_file(options.run / LOCK)
    if lock is None:
        _tell(options.ready, {"error": f"an engine runs in {options.run} already"})
        return 1
    try:
        settings = msgspec.json.decode(options.settings, type=Settings)
        engine = make(
            cores=settings.cores,
            cpus=settings.cpus,
            frames=settings.frames,
            poll=settings.poll,
            hardening=settings.hardening,
            counters=options.run / COUNTERS,
        )
        listener = listen(options.run / SOCKET, 0o600, BACKLOG)
        engine.start()
    except Exception as error:
        if not isinstance(error, (EngineError, msgspec.DecodeError, OSError)):
            traceback.print_exc()
        _tell(options.ready, {"error": str(error) or type(error).__name__})
        return 1

    async def run() -> None:
        server = Server(engine, settings)
        _tell(options.ready, {"ok": os.getpid()})
        await server.serve(listener)

    try:
        asyncio.run(run())
    finally:
        (options.run / SOCKET).unlink(missing_ok=True)
        listener.close()
        engine.close()
        (options.run / COUNTERS).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
