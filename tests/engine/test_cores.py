"""Several cores: flows have one owner, packets are handed over, nothing is touched by two."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.engine import abi
from chamelio.engine.engine import Engine, EngineError, _LoadedUnit
from chamelio.engine.ports import WireMemory, WirePeer, WirePort, parse
from chamelio.engine.ports.wire import create_memory
from chamelio.jit.artifact import Options
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import PAGE
from chamelio.sockets.datagram import create_datagram_endpoint
from chamelio.world import World
from virtual import HANDLERS, PEER_MAC, Net, Tenant, address, udp

A, B = "10.0.0.1", "10.0.0.2"
MIX = 0x9E3779B97F4A7C15


def owner(cores: int, sport: int, dport: int = 7, peer: str = Net.PEER) -> int:
    """The core that owns a flow by the rule of fastpath/demux.h."""
    ports = int.from_bytes(sport.to_bytes(2, "big") + dport.to_bytes(2, "big"), "little")
    product = (address(peer) << 32 | ports) * MIX
    return ((product ^ product >> 64) & (1 << 64) - 1) // (1 << 32) % cores


@pytest.fixture(params=[2, 3])
def net(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Net(cores=request.param) as net:
        net.n = request.param
        net.tenant = Tenant(net.host, A)
        net.other = Tenant(net.host, B, unit_index=net.tenant.unit)
        net.run()
        yield net


def runs(net: Any, core: int, tenant: Any = None) -> int:
    """How often a core has run the rx hook of an instance."""
    one = net.host.cores.counters[core]["instances"][(tenant or net.tenant).instance.index]
    return int(one["hooks"]["runs"][0])


def test_every_flow_is_handled_by_its_owner_and_answered(net: Any) -> None:
    expected = [0] * net.n
    for sport in range(1000, 1090):
        net.order(A, "e", sport=sport)
        expected[owner(net.n, sport)] += 1
        assert len(net.run(50_000)) == 1
    assert [runs(net, k) for k in range(net.n)] == expected
    assert min(expected) > 15, "flows spread over the cores"
    assert net.host.free_frames[0] == net.host.free_frames[1]


def test_a_handed_over_packet_is_charged_on_both_cores(net: Any) -> None:
    sport = next(p for p in itertools.count(1000) if owner(net.n, p) != 0)
    before = [int(c["tenants"][net.tenant.index]["cycles"]) for c in net.host.cores.counters]
    net.order(A, "e", sport=sport)
    assert len(net.run()) == 1
    charged = [int(c["tenants"][net.tenant.index]["cycles"]) - b for c, b in zip(net.host.cores.counters, before, strict=True)]
    mine = owner(net.n, sport)
    assert charged[0] >= 150 + 60, "the port's core: input and handover, there and back"
    assert charged[mine] > charged[0], "the owner: the handler"
    assert [c for k, c in enumerate(charged) if k not in (0, mine)] == [0] * (net.n - 2)
    assert int(net.host.counters()["handed_over"]) == 2, "the request to its owner, the answer to the port"


def test_counters_are_the_sum_over_the_cores(net: Any) -> None:
    net.order(A, "e")
    net.run()  # the next hop is known from here on
    before = int(net.host.counters()["rx_packets"])
    for sport in range(2000, 2040):
        net.order(A, "e", sport=sport)
    net.order(A, "x", sport=2050)
    net.run(2_000_000)
    counters = net.host.counters()
    assert int(counters["rx_packets"]) - before == 41
    assert int(counters["instances"][net.tenant.instance.index]["rx_packets"]) == 42
    assert net.tenant.drops() == {"handler_error": 1}
    assert int(counters["cycles_elapsed"]) == sum(int(c["cycles_elapsed"]) for c in net.host.cores.counters)


def test_a_full_ring_between_cores_drops_by_reason_and_leaks_nothing() -> None:
    with Net(cores=2) as net:
        tenant = Tenant(net.host, A)
        net.run()
        sport = next(p for p in itertools.count(1000) if owner(2, p) == 1)
        first, second = net.host.cores
        for i in range(700):  # the second core does not run meanwhile
            net.order(A, "e", sport=sport)
            if i % 50 == 49:
                net.world.now += 1000
                first.step(net.world.now)
        for _ in range(5):
            net.world.now += 1000
            first.step(net.world.now)
        assert tenant.drops() == {"handover_full": 700 - 512}
        assert first.free_frames[1] - first.free_frames[0] == 512
        assert second.free_frames[0] == second.free_frames[1]
        for _ in range(30):
            net.run(100_000)
        assert net.host.free_frames[0] == net.host.free_frames[1]
        assert runs_of(net, 1, tenant) + sum(n for r, n in tenant.drops().items() if r != "handover_full") >= 512


def flood(net: Any, to: str, packets: int) -> None:
    """Packets for a flow of the second core, which does not run."""
    sport = next(p for p in itertools.count(1000) if owner(2, p) == 1)
    for i in range(packets):
        net.order(to, "e", sport=sport)
        if i % 50 == 49 or i == packets - 1:
            net.world.now += 1000
            net.host.cores[0].step(net.world.now)


def test_who_fills_a_ring_between_cores_leaves_room_for_others() -> None:
    with Net(cores=2) as net:
        greedy = Tenant(net.host, A)
        other = Tenant(net.host, B, unit_index=greedy.unit)
        net.run()
        flood(net, A, 700)
        flood(net, B, 100)
        assert greedy.drops()["handover_full"] > 0 and other.drops() == {}
        for _ in range(30):
            net.run(100_000)
        assert runs_of(net, 1, other) == 100
        flood(net, A, 400)
        assert greedy.drops()["handover_full"] == 700 - 512, "what was taken makes room again"
        for _ in range(30):
            net.run(100_000)
        assert net.host.count_frames()["waiting"] == 0


def test_what_is_on_its_way_to_a_port_does_not_leave_by_its_successor_in_another_network() -> None:
    with Net(cores=2) as net:
        tenant = Tenant(net.host, A)
        net.run()
        flood(net, A, 20)
        net.world.now += 1000
        net.host.cores[1].step(net.world.now)  # its answers are on their way to the first core
        net.host.remove_port(net.port)
        _, successor = net.world.peer(net.host, network=5)
        net.run(100_000)
        assert successor.receive() == []
        assert tenant.drops() == {"port_down": 20}
        assert net.host.count_frames()["waiting"] == 0


def runs_of(net: Any, core: int, tenant: Tenant) -> int:
    return int(net.host.cores.counters[core]["instances"][tenant.instance.index]["hooks"]["runs"][0])


class Watch:
    """What each core alone may write: its state, its frames, its private parts of every instance, and its rings in the regions."""

    def __init__(self, host: Engine, tenants: list[Tenant]) -> None:
        self.host, self.tenants = host, tenants
        self._fields = [
            name for name in abi.dtype("cham_core").names or () if name not in ("to", "from", "command", "requested", "completed")
        ]

    def belongings(self, core: int) -> tuple[bytes, ...]:
        """The core's own memory as bytes."""
        one = self.host.cores[core]
        parts = [one.state[name].tobytes() for name in self._fields]
        parts += [one.frames.tobytes(), self.host.cores.counters[core].tobytes()]
        for tenant in self.tenants:
            layout, memory = tenant.instance.layout, tenant.instance.memory.cores[core]
            parts.append(memory.read(0, layout.private_bytes - tenant.instance.origin - PAGE))
            parts.append(memory.read(layout.private_bytes + layout.shared_bytes, layout.core_bytes - PAGE))
        return tuple(parts)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_state_is_touched_by_two_cores(seed: int) -> None:
    """Random traffic of two tenants; whenever one core runs a round, everything that belongs to the others stays as it was."""
    rng = random.Random(seed)
    with Net(cores=2, frames=128) as net:
        tenants = [Tenant(net.host, A), Tenant(net.host, B)]
        net.run()
        watch = Watch(net.host, tenants)
        worked = [0, 0]
        for _ in range(120):
            for _ in range(rng.randrange(4)):
                to, what = rng.choice([A, B]), rng.choice("eeeprtahdx")
                net.order(to, what, address(B) if what == "d" else rng.randrange(16), sport=rng.randrange(1000, 1100))
            if rng.random() < 0.3:
                tenant, context = rng.choice(tenants), rng.randrange(4)
                tenant.ring("requests", context).put(rng.choice([1, 2, 3]), 0, rng.randrange(16))
            net.world.now += rng.randrange(1000, 200_000)
            for core, other in ((0, 1), (1, 0)):
                before = watch.belongings(other)
                worked[core] += net.host.cores[core].step(net.world.now)
                assert watch.belongings(other) == before, f"core {core} has written what belongs to core {other}"
            net.peer.receive()
        assert min(worked) > 50, "both cores had work"


@pytest.mark.parametrize("cores", [0, 9])
def test_a_number_of_cores_that_there_cannot_be_is_refused(cores: int) -> None:
    with pytest.raises(EngineError, match=f"{cores} cores are not within 1..8"):
        Engine(cores=cores, virtual=True)


# ---- whole systems --------------------------------------------------------------------------------------------------------


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Collect(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait(data)


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_udp_sockets_work_wherever_their_ports_live(world: World, cores: int) -> None:
    a, b = world.host(cores=cores), world.host(cores=cores)
    world.wire(a, b, route="10.0.0.0/24")
    world.tenant(a, "red", A, "udp")
    world.tenant(b, "blue", B, "udp")

    async def run() -> None:
        ports = range(7, 7 + 2 * cores)
        servers = [await create_datagram_endpoint(Echo, (None, p), tenant="red", run=world.directory) for p in ports]
        clients = [await create_datagram_endpoint(Collect, remote_addr=(A, p), tenant="blue", run=world.directory) for p in ports]
        for i in range(20):
            for transport, collect in clients:
                transport.sendto(bytes([i]) * 100)
                async with asyncio.timeout(1):
                    assert await collect.received.get() == bytes([i]) * 100
        for transport, _ in [*servers, *clients]:
            transport.close()

    world.play(run())
    served = [int(c["instances"][0]["hooks"]["runs"][0]) for c in a.cores.counters]
    assert served == [40] * cores, "each core has served the ports that live on it"


def test_two_threads_lose_nothing_and_their_counters_sum_up() -> None:
    """The real clock: two cores on threads of their own, a peer on a wire, flows of both."""
    unit = compile_unit_native()
    memory = WireMemory(create_memory("cores"))
    try:
        with Engine(cores=2, frames=1024) as engine:
            engine.add_port("w", WirePort(parse("wire:cores:a"), os.dup(memory.fd)))
            tenant = engine.add_tenant()
            engine.bind_address(tenant, A)
            instance = engine.add_instance(tenant, engine.load_unit(unit), A, 17)
            engine.add_route("10.0.0.0/24", 0)
            mac = bytes.fromhex(engine.describe()["ports"][0]["mac"].replace(":", ""))
            peer = WirePeer(memory)
            ips = [bytes(map(int, a.split("."))) for a in (Net.PEER, A)]
            arp = bytes.fromhex("000108000604") + b"\0\1" + PEER_MAC + ips[0] + bytes(6) + ips[1]
            assert peer.send(mac + PEER_MAC + b"\x08\x06" + arp)
            engine.start()
            total, sent, answered = 20_000, 0, 0
            end = time.monotonic() + 20
            while answered < total and time.monotonic() < end:
                while sent < total and sent - answered < 64:
                    frame = mac + PEER_MAC + b"\x08\x00" + udp(Net.PEER, A, b"e" + bytes(7), sport=1000 + sent % 50)
                    if not peer.send(frame):
                        break
                    sent += 1
                answered += sum(f[12:14] == b"\x08\x00" for f in peer.receive())
            engine.stop()
            assert (sent, answered) == (total, total)
            per_core = [int(c["instances"][instance.index]["rx_packets"]) for c in engine.cores.counters]
            assert sum(per_core) == total and min(per_core) > total // 5
            assert int(engine.counters()["handed_over"]) == 2 * per_core[1]
            for core in engine.cores:  # what the other side has copied is taken back in the next round
                core._call["cham_round"](core.address)
            assert engine.free_frames[0] == engine.free_frames[1]
    finally:
        memory.close()


def compile_unit_native() -> Any:
    """The naughty protocol for the machine's own clock."""
    return compile_unit(toolchain.bpf_object(HANDLERS / "naughty.bpf.c"), Options(contexts=4))


def test_a_command_that_was_given_up_is_executed_before_the_next_and_what_it_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second core does not answer in time."""
    unit = compile_unit_native()
    with Engine(cores=2, frames=64) as engine:
        engine.start()
        slow = engine.cores[1]
        monkeypatch.setattr("chamelio.engine.core.COMMAND_TIMEOUT_S", 0.05)
        slow.state["stop"] = 1
        slow.ring()
        assert slow._thread is not None
        slow._thread.join()
        with pytest.raises(EngineError, match="core 1 did not answer"):
            engine.load_unit(unit)
        gc.collect()
        table = int(engine.cores[0].state["units"][0][0])
        assert table in [int(o.table.ctypes.data) for o in gc.get_objects() if type(o) is _LoadedUnit]
        with pytest.raises(EngineError, match="core 1 did not answer"):
            engine.count_frames()
        slow._thread = None
        slow.start(None)
        assert engine.count_frames()["lost"] == 0
        assert int(slow.state["units"][0][0]) == table, "what was given up came first"
