"""The virtual world: hosts with real engines and real compiled code, joined by wires, in virtual time.

    world = World()
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24", fault="loss=1%,seed=7")
    world.tenant(a, "red", "10.0.0.1", "udp")
    world.play(application())

Time advances by what the engines' cost model counts while there is work, and jumps to the next deadline when there is none; a
run is a function of its inputs. Slow paths and applications are coroutines on the world's own event loop (loop.py); a simulated
peer can also be a task: a function of the current time that is called once per round and returns when it wants to be called
even if nothing happens.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from chamelio.engine.engine import Engine
from chamelio.engine.ports import FaultPort, Port, WireMemory, WirePeer, WirePort, parse
from chamelio.engine.ports.wire import create_memory
from chamelio.world.loop import VirtualLoop
from chamelio.world.residents import CONTEXTS, Resident

Task = Callable[[int], int | None]
T = TypeVar("T")

IDLE_ROUNDS = 3  # rounds without work before time jumps: what a task did shows in the next one
DEFAULT_SEED = 1


class World:
    """Hosts, wires and tasks that share one virtual clock, `now`, in ns."""

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.now = 1_000_000_000
        self.seed = seed
        self.hosts: list[Engine] = []
        self._tasks: list[Task] = []
        self._memories: list[WireMemory] = []
        self.faults: list[FaultPort] = []  # injectors, in the order in which they were asked for
        self._wires = 0
        self.residents: list[Resident] = []

    def host(self, **options: Any) -> Engine:
        """A new engine in virtual time; `options` as for Engine."""
        engine = Engine(virtual=True, seed=self.seed + len(self.hosts), **options)
        self.hosts.append(engine)
        return engine

    def _port(self, memory: int, end: str, fault: str | None, options: str) -> Port:
        fd = os.dup(memory)
        text = f"wire:w{self._wires}:{end}{options}"
        spec = parse(f"fault({fault}):{text}" if fault else text)
        if spec.inner is None:
            return WirePort(spec, fd)
        self.faults.append(FaultPort(spec, WirePort(spec.inner, fd)))
        return self.faults[-1]

    def wire(
        self,
        a: Engine,
        b: Engine,
        *,
        route: str | None = None,
        network: int = 0,
        mtu: int = 1500,
        offload: bool = False,
        fault: str | None = None,
    ) -> tuple[int, int]:
        """Join two hosts; returns the index of the new port of each.

        `route`: a prefix (CIDR) that both reach by it; `fault`: options of a fault injector at `a`, e.g. "loss=1%,seed=7".
        """
        options = f",network={network},mtu={mtu}" + (",offload=on" if offload else "")
        memory = create_memory(f"w{self._wires}")
        ends = self._port(memory, "a", fault, options), self._port(memory, "b", None, options)
        os.close(memory)
        self._wires += 1
        name = f"w{self._wires - 1}"
        ports = a.add_port(name, ends[0]), b.add_port(name, ends[1])
        if route is not None:
            a.add_route(route, ports[0], network=network)
            b.add_route(route, ports[1], network=network)
        return ports

    def peer(self, host: Engine, *, network: int = 0, mtu: int = 1500, fault: str | None = None) -> tuple[int, WirePeer]:
        """A wire whose far end is in Python: the host's port, and the peer that sends and receives whole frames."""
        memory = WireMemory(create_memory(f"w{self._wires}"))
        self._memories.append(memory)
        port = self._port(memory.fd, "a", fault, f",network={network},mtu={mtu}")
        self._wires += 1
        return host.add_port(f"w{self._wires - 1}", port), WirePeer(memory)

    def tenant(
        self,
        host: Engine,
        name: str,
        address: str,
        protocol: str | Path,
        *,
        weight: int = 1,
        network: int = 0,
        contexts: int = CONTEXTS,
    ) -> Resident:
        """A tenant of a host with a protocol (a folder, a file or a shipped one's name): verified, compiled, its slow path running.

        Applications run by `play` reach it as in the real world, with `run=world.directory`. Raises Refusal, Rejected, EngineError.
        """
        resident = Resident(host, name, address, str(protocol), self.directory, weight=weight, network=network, contexts=contexts)
        self.residents.append(resident)
        resident.start(self.loop)
        return resident

    @functools.cached_property
    def directory(self) -> Path:
        """Where applications find the sockets of this world's agents."""
        return Path(tempfile.mkdtemp(prefix="chamelio-world-"))

    @functools.cached_property
    def loop(self) -> VirtualLoop:
        """The loop that agents and applications run on."""
        return VirtualLoop(lambda: self.now, self._advance)

    def play(self, application: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in this world until it returns. Raises Stuck when it waits for what will never happen."""
        return self.loop.run_until_complete(application)

    def task(self, task: Task) -> None:
        """Call `task(now)` in every round. It returns its next deadline in ns, or None."""
        self._tasks.append(task)

    def run(self, for_ns: int | None = None, *, until: Callable[[], bool] | None = None, rounds: int = 1_000_000) -> bool:
        """Advance until `for_ns` have passed, `until()` holds, or nothing will ever happen again.

        True if time passed or the condition came true; RuntimeError after `rounds` rounds: something never comes to rest.
        """
        end = self.now + for_ns if for_ns is not None else None
        idle = 0
        for _ in range(rounds):
            if until is not None and until():
                return True
            if end is not None and self.now >= end:
                return until is None
            deadlines = [due for task in self._tasks if (due := task(self.now)) is not None]
            busy = self._rounds()
            idle = 0 if busy else idle + 1
            after = max(self.now + 1, busy)
            if idle < IDLE_ROUNDS:
                self.now = after
                continue
            deadlines += [due for host in self.hosts if (due := host.next_deadline()) is not None]
            if not deadlines:
                if end is None:
                    return until is None
                self.now = end
                continue
            self.now = max(after, min(deadlines) if end is None else min(*deadlines, end))
        raise RuntimeError(f"no rest within {rounds} rounds")

    def _rounds(self) -> int:
        """A round of every core that has ended its last one. When the first of those at work ends its round; 0: none works."""
        ends = []
        for core in (core for host in self.hosts for core in host.cores):
            if core.busy_until > self.now or core.step(self.now):
                core.busy_until = max(core.busy_until, core.now)
                ends.append(core.busy_until)
        return min(ends, default=0)

    def _advance(self, ns: int | None, ready: Callable[[], bool]) -> bool:
        """For the loop: let time pass. False if nothing will happen."""
        return self.run(ns, until=ready) or ns is not None

    def close(self) -> None:
        """End tenants, hosts and wires."""
        if self.residents:
            tasks = [task for resident in self.residents for task in resident.stop()]
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for resident in self.residents:
                resident.close()
            shutil.rmtree(self.directory, ignore_errors=True)
        if "loop" in self.__dict__:
            self.loop.close()
        for host in self.hosts:
            host.close()
        for memory in self._memories:
            memory.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
