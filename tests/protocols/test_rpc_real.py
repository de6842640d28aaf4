"""rpc with real processes: versions replaced and agents killed while a thousand requests are outstanding."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from chamelio import toolchain
from chamelio.bench.stage import C_SOURCES, Stage, build_program
from chamelio.messages import Refusal
from chamelio.protocols import rpc
from chamelio.tenant.folder import SHIPPED
from host.pair import ADDRESSES, Pair
from host.rig import wait_until

PORT, OUTSTANDING = 7, 1000
SOURCE = SHIPPED / "rpc" / "rpc.bpf.c"


class Host(Pair):
    """Red serves."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, "rpc")

    def contexts(self, tenant: str) -> list[int]:
        contexts: list[int] = self.stage.call("protocol.show", tenant=tenant, protocol="rpc")["contexts"]
        return contexts


@pytest.fixture
def host() -> Iterator[Host]:
    with Stage() as stage:
        yield Host(stage)


@pytest.fixture(scope="module", params=[1, 2], ids=["one core", "two cores"])
def echoing(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A host whose red answers, in C."""
    with Stage("--cores", str(request.param)) as stage:
        host = Host(stage)
        stage.start(program("rpc_echo"), stage.socket("red", "rpc"), str(PORT))
        yield host


async def while_asking(host: Host, event: Callable[[], Awaitable[None]]) -> None:
    """Ask, a thousand requests at a time, until `event` has happened. Each is answered once and executed once."""
    executed: Counter[bytes] = Counter()

    async def handler(request: bytes) -> bytes:
        executed[request] += 1
        await asyncio.sleep(0.05)
        return request[::-1]

    server = await rpc.serve(handler, PORT, tenant="red", run=host.stage.run)
    client = await rpc.connect(ADDRESSES["red"], PORT, outstanding=OUTSTANDING, tenant="blue", run=host.stage.run)
    numbers, over, answered = itertools.count(), asyncio.Event(), 0

    async def ask() -> None:
        nonlocal answered
        while not over.is_set():
            request = b"request %d" % next(numbers)
            assert await client.call(request, timeout=30) == request[::-1]
            answered += 1

    asking = asyncio.gather(*(ask() for _ in range(OUTSTANDING)))
    await asyncio.sleep(0.2)
    await event()
    await asyncio.sleep(0.2)
    over.set()
    await asking
    assert len(executed) == answered == next(numbers) > 2 * OUTSTANDING
    assert set(executed.values()) == {1}
    later = await rpc.connect(ADDRESSES["red"], PORT, tenant="blue", run=host.stage.run)
    assert await later.call(b"later", timeout=5) == b"retal"
    await later.close()
    await client.close()
    await server.close()


def test_a_version_is_replaced_while_a_thousand_requests_are_outstanding(host: Host) -> None:
    async def replace() -> None:
        for ttl in (50, 51):
            for tenant in ADDRESSES:
                content = toolchain.bpf_object(SOURCE, defines=(f"RPC_TTL={ttl}",))
                loaded = await asyncio.to_thread(host.stage.load, tenant, "rpc", content)
                assert loaded["action"] == "swapped"
        unfit = toolchain.bpf_object(SOURCE, defines=("RPC_EVENTS=8192",))
        with pytest.raises(Refusal, match="does not fit the running one"):
            await asyncio.to_thread(host.stage.load, "red", "rpc", unfit)

    asyncio.run(while_asking(host, replace))


@pytest.mark.parametrize("tenants", [("red",), ("blue",), ("red", "blue")])
def test_agents_are_replaced_while_a_thousand_requests_are_outstanding(host: Host, tenants: tuple[str, ...]) -> None:
    contexts = {tenant: host.contexts(tenant) for tenant in ADDRESSES}

    async def replace() -> None:
        for tenant in tenants:
            contexts[tenant] = host.contexts(tenant)
            await asyncio.to_thread(host.replace_agent, tenant)
        await asyncio.sleep(0.3)
        for tenant in tenants:
            assert host.contexts(tenant) == contexts[tenant], "applications have kept their contexts"

    asyncio.run(while_asking(host, replace))


def program(name: str) -> str:
    """One of rpc's C programs."""
    c = SHIPPED / "rpc" / "c"
    return str(build_program(c / f"{name}.c", c / "rpc_app.c", C_SOURCES / "chamelio_context.c"))


@pytest.mark.parametrize(
    ("options", "at_least"),
    [(("--outstanding", "1000"), 10_000), (("--outstanding", "8", "--bytes", "65536"), 50), (("--rate", "2000"), 1500)],
)
def test_the_load_generator_gets_all_its_answers(echoing: Host, options: tuple[str, ...], at_least: int) -> None:
    target = (echoing.stage.socket("blue", "rpc"), ADDRESSES["red"], str(PORT))
    load = echoing.stage.start(program("rpc_load"), *target, "--seconds", "1", *options, ready=False)
    report = load.final(10)
    assert report is not None, load.errors()
    assert report["sent"] == report["answered"] >= at_least
    assert [report[what] for what in ("lost", "late", "wrong", "failed", "closed")] == [0] * 5


def test_c_applications_go_on_when_their_agents_are_replaced(host: Host) -> None:
    echo = host.stage.start(program("rpc_echo"), host.stage.socket("red", "rpc"), str(PORT))
    target = (host.stage.socket("blue", "rpc"), ADDRESSES["red"], str(PORT))
    load = host.stage.start(
        program("rpc_load"), *target, "--seconds", "3", "--outstanding", "1000", "--interval", "0.1", ready=False
    )
    assert wait_until(lambda: load.reports)
    for tenant in ADDRESSES:
        host.replace_agent(tenant)
    report = load.final(10)
    assert report is not None and echo.running, load.errors()
    assert report["sent"] == report["answered"] > 10_000
    assert [report[what] for what in ("lost", "late", "wrong", "failed", "closed")] == [0] * 5
    assert sum(r["answered"] == 0 for r in load.reports) < 5, "while there is no agent, too"


def test_an_application_that_goes_with_the_agent_leaves_nothing(host: Host) -> None:
    echo = host.stage.start(program("rpc_echo"), host.stage.socket("red", "rpc"), str(PORT))

    async def call() -> None:
        client = await rpc.connect(ADDRESSES["red"], PORT, tenant="blue", run=host.stage.run)
        assert await client.call(b"hello", timeout=5) == b"hello"
        os.kill(host.agents["red"].pid, signal.SIGSTOP)
        os.kill(echo.pid, signal.SIGKILL)
        host.replace_agent("red")
        with pytest.raises((ConnectionResetError, TimeoutError)):
            await client.call(b"anybody there?", timeout=10)
        await client.close()
        assert await asyncio.to_thread(wait_until, lambda: host.contexts("red") == [])

    asyncio.run(call())
