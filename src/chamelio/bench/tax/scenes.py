"""What is measured: per protocol a driver in C, and the memory that slow paths leave when everything is set up.

A scene is set up on a real engine, by the protocol's own slow path; the instances' memory then goes into a file for the driver
(`struct setup` in rig.h). It holds no addresses.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from chamelio import toolchain
from chamelio.bpf.object import Object, load_object
from chamelio.engine.engine import Engine
from chamelio.engine.instance import Instance
from chamelio.jit.artifact import UnitImage
from chamelio.jit.layout import DATA, INSTANCE_HEAD, PAGE
from chamelio.protocols.rpc.slowpath import RpcSlowPath
from chamelio.protocols.udp.slowpath import UdpSlowPath
from chamelio.tenant.region import Region, slow_columns, value_types
from chamelio.tenant.runtime import Runtime, Services, SlowPath

HERE = Path(__file__).parent
CONTEXTS = 2
CLIENT, SERVER, PEER, PORT = "10.0.0.1", "10.0.0.2", "10.0.0.9", 7
SETTLE_S = 5.0
OPENED = 1  # RPC_OPENED


class Party:
    """A tenant of the scene: its instance, and its slow path run by hand."""

    def __init__(
        self, engine: Engine, unit: int, obj: Object, address: str, ip_protocol: int, rings: tuple[str, str],
        slow_path: Callable[[Services], SlowPath],
    ) -> None:  # fmt: skip
        tenant = engine.add_tenant()
        engine.bind_address(tenant, address)
        self.address, self.instance = address, engine.add_instance(tenant, unit, address, ip_protocol)
        for context in range(CONTEXTS):
            engine.attach(self.instance.index, context)
        self.region = Region(
            self.instance.region_fd, self.instance.origin, self.instance.layout, value_types(obj), slow_columns(obj)
        )
        self.services = Services(self.region, address, (0, 65535), rings[1])
        self.slow_path = slow_path(self.services)
        self.runtime = Runtime(self.region, self.services, self.slow_path, rings[0])
        self.events = self.region.consumer(rings[0], 1)

    def place(self, name: str) -> int:
        """Where a map's shared part lies in the region."""
        shared = self.region.maps[name].shared
        assert shared is not None
        return shared

    def ring_place(self, name: str) -> tuple[int, int, int]:
        """`struct ring_place` of context 1."""
        m = self.region.maps[name]
        return self.place(name) + m.context_stride, m.stride, m.max_entries


def _settle(parties: Sequence[Party], done: Callable[[], bool]) -> None:
    end = time.monotonic() + SETTLE_S
    while not (all(party.services.flush() for party in parties) and done()):
        for party in parties:
            party.runtime.poll(time.monotonic_ns())
        if time.monotonic() > end:
            raise RuntimeError("the scene is not set up in time: the engine does not take what slow paths ask for")
        time.sleep(0.001)


def _udp(parties: Sequence[Party]) -> list[int]:
    (server,) = parties
    server.slow_path.on_request(1, "bind", {"port": PORT})
    _settle(parties, lambda: True)
    numbers = [int.from_bytes(bytes(map(int, a.split("."))), "little") for a in (PEER, server.address)]
    return [server.place("sockets"), server.region.maps["sockets"].stride, numbers[0], PORT << 8, numbers[1]]


def _rpc(parties: Sequence[Party]) -> list[int]:
    client, server = parties
    server.slow_path.on_request(1, "serve", {"port": PORT})
    client.slow_path.on_request(1, "connect", {"address": server.address, "port": PORT})
    _settle(parties, lambda: all(party.events.ready for party in parties))
    about: list[int] = []
    slots = 0
    for party in parties:
        (event,) = party.events.take(1)
        assert event["kind"] == OPENED
        about += [int(event["session"]), int(event["generation"])]
        slots = int(event["len"])
    return [*about, slots]


class Scene(NamedTuple):
    """One protocol's. `rings`: outbound and inbound; `prepare` returns what the driver wants to know beyond the common."""

    source: Path
    ip_protocol: int
    rings: tuple[str, str]
    addresses: tuple[str, ...]
    slow_path: Callable[[Services], SlowPath]
    prepare: Callable[[Sequence[Party]], list[int]]
    driver: tuple[Path, ...]

    def write(self, path: Path, image: UnitImage, payload: int) -> None:
        """Set the scene up, and write down what there is."""
        obj = load_object(toolchain.bpf_object(self.source))
        with Engine(poll="spin") as engine:
            unit = engine.load_unit(image)
            parties = [
                Party(engine, unit, obj, address, self.ip_protocol, self.rings, self.slow_path) for address in self.addresses
            ]
            engine.start()
            more = self.prepare(parties)
            engine.stop()
            first = parties[0]
            layout = first.instance.layout
            snapshots = [_snapshot(party.instance) for party in parties]
            header = struct.pack(
                "<Q4Q4Q4I", engine.now, *image.cold, layout.private_bytes, layout.region_bytes(), layout.punt,
                INSTANCE_HEAD + len(snapshots[0][0]), len(layout.maps), len(parties), self.ip_protocol, payload,
            )  # fmt: skip
            header += struct.pack("<6I", *first.ring_place(self.rings[0]), *first.ring_place(self.rings[1]))
            header += struct.pack("<10I", first.place("rx_bytes"), first.place("tx_bytes"), *more, *[0] * (8 - len(more)))
            content = header + b"".join(m.descriptor() for m in layout.maps)
            for party, (private, region) in zip(parties, snapshots, strict=True):
                head = party.instance.memory.cores[0].head
                keys = (*head["secret"][0], *head["cookie_secret"][0], head["random"][0])
                content += struct.pack("<5Q4s4x", *map(int, keys), bytes(map(int, party.address.split("."))))
                content += private + region
            path.write_bytes(content)


def _snapshot(instance: Instance) -> tuple[bytes, bytes]:
    """Private parts and the region's content, as they are now."""
    layout, memory = instance.layout, instance.memory.cores[0]
    used = max([INSTANCE_HEAD, *(m.values for m in layout.maps if m.kind == DATA)], default=INSTANCE_HEAD)
    used = max(used, layout.private_bytes - 2 * PAGE)
    private = memory.read(INSTANCE_HEAD, used - INSTANCE_HEAD)
    return private, memory.read(layout.private_bytes, layout.region_bytes() - PAGE) + bytes(PAGE)  # the last is for the colour


_LIBRARY = toolchain.PACKAGE / "sockets" / "c"
_PROTOCOLS = toolchain.PACKAGE / "protocols"

SCENES = {
    "udp": Scene(
        source=_PROTOCOLS / "udp" / "udp.bpf.c",
        ip_protocol=17,
        rings=("received", "requests"),
        addresses=(SERVER,),
        slow_path=UdpSlowPath,
        prepare=_udp,
        driver=(HERE / "udp_driver.c", _LIBRARY / "chamelio_app.c"),
    ),
    "rpc": Scene(
        source=_PROTOCOLS / "rpc" / "rpc.bpf.c",
        ip_protocol=254,
        rings=("events", "entries"),
        addresses=(CLIENT, SERVER),
        slow_path=RpcSlowPath,
        prepare=_rpc,
        driver=(HERE / "rpc_driver.c", _PROTOCOLS / "rpc" / "c" / "rpc_app.c"),
    ),
}
COMMON = (HERE / "rig.c", _LIBRARY / "chamelio_context.c")
INCLUDES = (toolchain.FASTPATH, toolchain.INCLUDE, _LIBRARY, HERE, _PROTOCOLS / "rpc" / "c")
