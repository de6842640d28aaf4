"""Where tests of streams run: on the model of the engine's side, or in the virtual world with real handlers."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tcp_model import ADDRESS, Model

import chamelio
from chamelio.sockets.stack import _stacks
from chamelio.toolchain import PACKAGE
from chamelio.world import World

T = TypeVar("T")
PORT = 80


@functools.cache
def reason_names() -> dict[int, str]:
    """What handlers' codes of errors mean."""
    header = (PACKAGE / "protocols" / "tcp" / "conn.h").read_text()
    found = re.search(r"enum reason \{(.*?)\}", header, re.DOTALL)
    assert found is not None
    return dict(enumerate(re.findall(r"[A-Z_]+", found.group(1)), 1))


class Rig:
    """Two applications that can reach each other: `server` at `address`, and `client`."""

    def __init__(self, place: Model | World, address: str, server: str, client: str) -> None:
        self.place, self.address = place, address
        self.server = {"tenant": server, "run": place.directory}
        self.client = {"tenant": client, "run": place.directory}

    def play(self, application: Coroutine[Any, Any, T]) -> T:
        """Run it, then see that its context is given back and that nothing went wrong on the way."""

        async def run() -> T:
            problems: list[dict[str, Any]] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            result = await application
            await asyncio.sleep(0.2)
            assert not _stacks[loop], "the context is given back"
            assert not problems, problems
            return result

        result = self.place.play(run())
        self.check()
        return result

    def check(self) -> None:
        """Everything that was taken is given back."""
        if isinstance(self.place, Model):
            assert not self.place.conns and not self.place.listeners and not self.place.open_contexts
            assert self.place.refusals == 0
        else:
            for resident in self.place.residents:
                assert resident.agent.runtime.errors == 0, resident.agent.runtime.last_error
                assert resident.agent.services.dropped == 0
                assert not resident.agent.region.values("about")["context"].any(), "all numbers are given back"
                refused = {reason_names()[int(code)] for code in resident.counters["reasons"]}
                assert not refused & {"ENTRY_KIND", "NOT_ALLOWED", "STALE", "BAD_END"}, "we ask for what we may ask for"

    async def start_server(self, connected: Any, port: int = PORT, **options: Any) -> Any:
        return await chamelio.start_server(connected, port=port, **self.server, **options)

    async def create_server(self, factory: Any, port: int = PORT, **options: Any) -> Any:
        return await chamelio.create_server(factory, port=port, **self.server, **options)

    async def open_connection(self, port: int = PORT, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await chamelio.open_connection(self.address, port, **self.client, **options)

    async def create_connection(self, factory: Any, port: int = PORT, **options: Any) -> tuple[Any, Any]:
        return await chamelio.create_connection(factory, self.address, port, **self.client, **options)


@contextmanager
def model(**options: Any) -> Iterator[Rig]:
    """A tenant that talks to itself."""
    with Model(**options) as place:
        yield Rig(place, ADDRESS, "red", "red")


@contextmanager
def world(seed: int = 1, fault: str | None = None, cores: int = 1, **options: Any) -> Iterator[Rig]:
    """Two hosts and a wire; `options` as for World.wire."""
    with World(seed) as place:
        a, b = place.host(cores=cores), place.host(cores=cores)
        place.wire(a, b, route="10.0.0.0/24", fault=fault, **options)
        place.tenant(a, "red", "10.0.0.1", "tcp")
        place.tenant(b, "blue", "10.0.0.2", "tcp")
        yield Rig(place, "10.0.0.1", "red", "blue")
