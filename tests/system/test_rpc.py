"""rpc between two hosts over AF_XDP, all real processes, through a wire that loses one packet in a hundred."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from chamelio.bench.netns import Veth
from chamelio.bench.stage import Stage
from chamelio.protocols import rpc
from netns import namespaces, need_af_xdp

pytestmark = pytest.mark.root

SERVER, CLIENT, PORT = "10.77.0.10", "10.77.0.20", 7
REQUESTS, OUTSTANDING = 10_000, 256


@dataclass
class Hosts:
    """Two hosts, each with a tenant that has rpc."""

    server: Stage
    client: Stage

    def faults(self) -> dict[str, int]:
        """What the injector has done, both directions together."""
        (about,) = self.server.call("port.list")
        return {name: about["rx"][name] + about["tx"][name] for name in ("packets", "lost")}


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    need_af_xdp()
    with contextlib.ExitStack() as stack:
        left, right = stack.enter_context(namespaces("left", "right"))
        Veth(left, right).join()
        stages = []
        for ns, fault, tenant, address in ((left, "fault(loss=1%,seed=7):", "red", SERVER), (right, "", "blue", CLIENT)):
            port = f"eth={fault}afxdp:veth0,netns={ns.name}"
            stage = stack.enter_context(Stage("--port", port, "--route", "10.77.0.0/24=eth"))
            stage.tenant(tenant, address)
            stage.load(tenant, "rpc")
            stage.agent(tenant, "rpc")
            stages.append(stage)
        yield Hosts(*stages)


def messages(total: int, size: int) -> list[bytes]:
    generator = random.Random(size)
    return [b"%d." % i + generator.randbytes(size) for i in range(total)]


async def exchange(hosts: Hosts, requests: list[bytes], outstanding: int) -> Counter[bytes]:
    """Each request is asked once and gets its own answer; what was executed."""
    executed: Counter[bytes] = Counter()

    async def handler(request: bytes) -> bytes:
        executed[request] += 1
        return request[::-1]

    server = await rpc.serve(handler, PORT, tenant="red", run=hosts.server.run)
    client = await rpc.connect(SERVER, PORT, outstanding=outstanding, tenant="blue", run=hosts.client.run)
    todo = iter(requests)

    async def ask() -> None:
        for request in todo:
            assert await client.call(request, timeout=20) == request[::-1]

    await asyncio.gather(*(ask() for _ in range(outstanding)))
    await client.close()
    await server.close()
    return executed


@pytest.mark.parametrize(("total", "size", "outstanding"), [(REQUESTS, 50, OUTSTANDING), (300, 50_000, 16)])
def test_requests_are_answered_and_executed_once(hosts: Hosts, total: int, size: int, outstanding: int) -> None:
    before = hosts.faults()
    executed = asyncio.run(exchange(hosts, messages(total, size), outstanding))
    assert len(executed) == total and set(executed.values()) == {1}
    after = hosts.faults()
    packets, lost = (after[name] - before[name] for name in ("packets", "lost"))
    assert packets > 2 * total and 0.005 * packets < lost < 0.02 * packets
