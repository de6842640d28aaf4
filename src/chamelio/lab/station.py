"""A host of the laboratory: a tenant with TCP; its slow path and its application are stepped by hand, once a round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chamelio.engine.engine import Engine
from chamelio.lab.application import Application
from chamelio.lab.contract import contract
from chamelio.lab.pattern import OURS, PEERS
from chamelio.protocols.tcp.slowpath import DEFAULTS as USUAL
from chamelio.tenant.runtime import RequestError
from chamelio.world import World
from chamelio.world.residents import CONTEXTS, Resident

CONTEXT = 1  # the application's
SETTLE_NS = 1_000_000  # for what is promised to hold

# What the laboratory asks of every slow path, whatever that would choose: the verb `configure`, times in seconds.
DEFAULTS: dict[str, Any] = {**USUAL, "options": ["timestamps", "sack", "wscale"], "congestion": "newreno"}


class Station:
    """A tenant with TCP at an address of an engine, and an application of it. `settings` change DEFAULTS.

    `patterns`: of what the application writes and reads, see Application.
    Raises Refusal, Rejected, EngineError, RequestError.
    """

    def __init__(
        self,
        world: World,
        host: Engine,
        name: str,
        address: str,
        *,
        protocol: str | Path = "tcp",
        settings: Mapping[str, Any] | None = None,
        directory: Path,
        patterns: tuple[int, int] = (OURS, PEERS),
    ) -> None:
        self.world, self.host, self.address = world, host, address
        self.contract = contract(str(protocol))
        self.resident = Resident(host, name, address, str(protocol), directory, weight=1, network=0, contexts=CONTEXTS)
        self.region, self.services = self.resident.agent.region, self.resident.agent.services
        self.runtime = self.resident.agent.runtime
        self.listening: set[int] = set()
        host.attach(self.resident.instance.index, CONTEXT)
        self.application = Application(self.region, self.contract, CONTEXT, patterns)
        self.runtime.start(resumed=False)
        world.task(self._step)
        self.settle()
        self.must_work()
        self.request("configure", **DEFAULTS | dict(settings or {}))

    def _step(self, now: int) -> int | None:
        """In each round: the slow path, then the application."""
        worked = self.runtime.poll(now)
        worked = self.application.step() or worked
        return now if worked else self.runtime.due

    def settle(self) -> None:
        """Let the engine take what the slow path has asked for."""
        self.world.run(SETTLE_NS, until=self.services.flush)

    def request(self, verb: str, **arguments: Any) -> Any:
        """What the application asks the slow path. Raises RequestError."""
        result = self.runtime.request(CONTEXT, verb, arguments)
        self.settle()
        return result

    def listen(self, port: int, backlog: int = 16) -> None:
        """Take connections to a port."""
        self.request("listen", port=port, backlog=backlog)
        self.listening.add(port)

    def must_work(self) -> None:
        """Raise RequestError when the slow path has failed."""
        if self.runtime.errors:
            raise RequestError("EIO", f"the slow path has failed: {self.runtime.last_error.strip()}")

    @property
    def counters(self) -> dict[str, Any]:
        """The instance's counters by name: drops and events that happened."""
        return self.resident.counters

    def close(self) -> None:
        """Give everything back."""
        self.resident.close()
