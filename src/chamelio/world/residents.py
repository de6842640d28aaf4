"""Tenants of virtual hosts: what chameliod and an agent's process would set up, in this process and on the world's loop."""

from __future__ import annotations

import asyncio
import functools
import os
import random
from pathlib import Path
from typing import Any

import msgspec

from chamelio import toolchain
from chamelio.engine.counters import instance_counts
from chamelio.engine.engine import Engine
from chamelio.engine.instance import Instance
from chamelio.jit import modules
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import compile_unit, unit_key
from chamelio.messages import Refusal
from chamelio.tenant.agent import Agent, listen
from chamelio.tenant.folder import read_protocol

CONTEXTS = 9


@functools.lru_cache(maxsize=64)
def compile_virtual(content: bytes, contexts: int, hardening: bool) -> UnitImage:
    """A protocol's unit for virtual time, verified and compiled once for all worlds of this machine."""
    options = Options(virtual=True, hardening=hardening, contexts=contexts)
    image = toolchain.cached(
        "unit",
        [unit_key(content, options), " ".join(modules.cpu())],
        lambda: msgspec.msgpack.encode(compile_unit(content, options)),
    )
    return msgspec.msgpack.decode(image, type=UnitImage)


class _Attachment:
    """What `tenant.attachment.Attachment` is to an agent, without a daemon between: contexts are given out here."""

    def __init__(self, host: Engine, instance: Instance, directory: Path) -> None:
        self._host, self._one = host, instance
        self.instance, self.address, self.origin = instance.index, instance.address, instance.origin
        self.layout, self.directory, self.resumed = instance.layout, directory, False
        self.region_fd = os.dup(instance.region_fd)
        self.bells = [os.dup(fd) for fd in instance.bells]
        self.wake = [os.dup(fd) for fd in instance.wake_fds]
        self.about: dict[str, Any] = {"contexts": [], "ports": list(instance.ports)}
        self._open: set[int] = set()
        host.attach(instance.index, 0)

    async def call(self, verb: str, **arguments: Any) -> Any:
        """`context.open` and `context.close`, as chameliod would. Raises Refusal."""
        if verb == "context.open":
            free = next((c for c in range(1, self.layout.contexts) if c not in self._open), None)
            if free is None:
                raise Refusal("quota", f"all {self.layout.contexts - 1} contexts are in use", "close one")
            self._open.add(free)
            self._host.attach(self.instance, free)
            return {"context": free}
        if verb == "context.close":
            self._open.discard(arguments["context"])
            self._host.detach(self.instance, arguments["context"])
            return {}
        raise Refusal("usage", f"there is no {verb} in the virtual world")

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in (self.region_fd, *self.bells, *self.wake):
            os.close(fd)


class Resident:
    """A tenant of a virtual host with one protocol: its instance, its slow path, and the directory that applications name."""

    def __init__(
        self, host: Engine, name: str, address: str, protocol: str, directory: Path, *, weight: int, network: int, contexts: int
    ) -> None:
        manifest, content = read_protocol(protocol)
        self.host, self.name, self.address, self.protocol = host, name, address, manifest.name
        self.directory = directory / "tenants" / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.index = host.add_tenant(weight)
        host.bind_address(self.index, address, network)
        image = compile_virtual(content, contexts, host.hardening)
        how: dict[str, Any] = {"network": network, "ports": manifest.ports, "steer": manifest.steer}
        self.instance = host.add_instance(self.index, host.load_unit(image), address, manifest.ip_protocol, **how)
        self._attachment = _Attachment(host, self.instance, self.directory)
        self.agent = Agent(self._attachment, protocol)
        self.agent.services.random = random.Random(f"{name} {address}")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the slow path and serve applications on a loop."""
        self.agent.now = lambda: round(loop.time() * 1e9)
        self._listener = listen(self.directory / f"{self.protocol}.sock")
        self._tasks = [loop.create_task(self.agent.run_slow_path()), loop.create_task(self.agent.serve(self._listener))]

    def swap(self, content: bytes) -> None:
        """Replace the protocol's version at a round's boundary. Raises EngineError when it does not fit."""
        self.host.swap_unit(self.instance.unit, compile_virtual(content, self.instance.layout.contexts, self.host.hardening))

    @property
    def counters(self) -> dict[str, Any]:
        """The instance's counters by name; drops and events that happened."""
        return instance_counts(self.host.counters(), self.instance.index)

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel what runs; the tasks, to be awaited."""
        for task in self._tasks:
            task.cancel()
        return self._tasks

    def close(self) -> None:
        """Give everything back; the loop has stopped."""
        if self._tasks:
            self._listener.close()
        self._attachment.close()
