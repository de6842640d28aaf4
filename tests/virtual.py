"""Rigs for tests in virtual time: units from test handlers, packets, and the tenant's end of rings."""

from __future__ import annotations

import functools
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.bench.adversaries import tenant as bare
from chamelio.bench.adversaries.packets import PEER_MAC, checksum, ipv4, udp
from chamelio.bench.adversaries.tenant import Ring
from chamelio.bpf.object import load_object
from chamelio.engine.catalogue import drops, events
from chamelio.engine.engine import Engine
from chamelio.engine.ports import WirePeer
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import PAGE
from chamelio.world import World

__all__ = [
    "CONTEXTS",
    "HANDLERS",
    "PEER_MAC",
    "Net",
    "Ring",
    "Tenant",
    "address",
    "checksum",
    "ipv4",
    "named",
    "udp",
    "unit",
    "value_dtype",
]

HANDLERS = Path(__file__).parent / "handlers"
CONTEXTS = 4


@functools.cache
def unit(name: str = "naughty", **options: Any) -> UnitImage:
    """A test protocol, compiled for virtual time."""
    source = HANDLERS / f"{name}.bpf.c"
    return compile_unit(toolchain.bpf_object(source), Options(**{"virtual": True, "contexts": CONTEXTS, **options}))


@functools.cache
def value_dtype(handlers: str, map_name: str) -> np.dtype[Any]:
    """The value type of a map of a test protocol."""
    obj = load_object(toolchain.bpf_object(HANDLERS / f"{handlers}.bpf.c"))
    assert obj.btf is not None
    found = next(m for m in obj.maps if m.name == map_name)
    assert found.value_type is not None
    return obj.btf.dtype(found.value_type)


def address(text: str) -> int:
    """An IPv4 address in packet byte order."""
    return int.from_bytes(bytes(map(int, text.split("."))), "little")


class _Types(dict[str, "np.dtype[Any]"]):
    """Value types of the maps of a test protocol, by name."""

    def __init__(self, handlers: str) -> None:
        super().__init__()
        self._handlers = handlers

    def __missing__(self, name: str) -> np.dtype[Any]:
        return value_dtype(self._handlers, name)


class Tenant(bare.Tenant):
    """A tenant of one host with one instance of a test protocol, all its contexts attached."""

    def __init__(self, host: Engine, at: str, *, handlers: str = "naughty", unit_index: int | None = None, **options: Any) -> None:
        super().__init__(host, at, unit(handlers) if unit_index is None else unit_index, _Types(handlers), **options)

    def values(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Bytes of a shared map's values or buffers, one row per id."""
        m = next(m for m in self.instance.layout.maps if m.name == name)
        assert m.shared is not None
        return np.frombuffer(self.content, np.uint8, m.stride * m.max_entries, m.shared).reshape(m.max_entries, m.stride)

    def send_raw(self, packet: bytes, length: int | None = None, **fields: int) -> None:
        """What the slow path does to send a packet; `length` and `fields` are for lies."""
        ring = self.raw("xmit")
        slot = ring.entries[ring.prod % ring.slots]
        slot["len"] = len(packet) if length is None else length
        for name in ("flags", "now", "hash", "reserved"):
            slot[name] = fields.get(name, 0)
        slot["bytes"][0, : len(packet)] = list(packet)
        ring.prod += 1

    def memory(self) -> tuple[bytes, bytes]:
        """All that the instance has: engine memory, up to the guard page, and the region."""
        layout = self.instance.layout
        return self.instance.memory.cores[0].read(0, layout.private_bytes - self.instance.origin - PAGE), bytes(self.content)

    def drops(self) -> dict[str, int]:
        """Drop reasons of this instance that are not zero."""
        return named(self.counters["drops"])

    def events(self) -> dict[str, int]:
        """Events of this instance that are not zero."""
        return {e.name: int(n) for e, n in zip(events(), self.counters["events"], strict=True) if n}


def named(array: Any) -> dict[str, int]:
    """Drop counters by name, without zeros."""
    return {d.name: int(n) for d, n in zip(drops(), array, strict=True) if n}


class Net:
    """A host with one wire to a peer in Python, 10.0.0.0/24, where the peer is 10.0.0.9."""

    PEER = "10.0.0.9"

    def __init__(self, seed: int = 1, **options: Any) -> None:
        self.world = World(seed)
        self.host = self.world.host(**options)
        self.port, self.peer = self.world.peer(self.host)
        self.peer: WirePeer
        self.host.add_route("10.0.0.0/24", self.port)
        self.mac = bytes.fromhex(self.host.describe()["ports"][0]["mac"].replace(":", ""))
        self.arp_reply()

    def send(self, packet: bytes, *, ethertype: int = 0x0800, mac: bytes | None = None) -> None:
        """A packet from the peer; it is on the wire, not yet received."""
        assert self.peer.send((mac or self.mac) + PEER_MAC + ethertype.to_bytes(2, "big") + packet)

    def arp_reply(self, sender: str = PEER, target: str = "10.0.0.1", op: int = 2) -> None:
        """The peer says where it is."""
        ips = [bytes(map(int, a.split("."))) for a in (sender, target)]
        arp = bytes.fromhex("0001080006040000")[:6] + op.to_bytes(2, "big") + PEER_MAC + ips[0] + self.mac + ips[1]
        self.send(arp, ethertype=0x0806)

    def run(self, ns: int = 200_000) -> list[bytes]:
        """Let time pass; returns the IPv4 packets that arrived at the peer, ARP answered meanwhile."""
        packets: list[bytes] = []
        self.world.run(for_ns=ns)
        for _ in range(2):
            for frame in self.peer.receive():
                if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == bytes([10, 0, 0, 9]):
                    self.arp_reply(target=".".join(map(str, frame[28:32])))
                elif frame[12:14] == b"\x08\x00":
                    packets.append(frame[14:])
            self.world.run(for_ns=ns)
        return packets

    def order(self, to: str, what: str, argument: int = 0, **ports: int) -> None:
        """A UDP packet that tells the naughty handler what to do."""
        self.send(udp(self.PEER, to, what.encode() + bytes(3) + argument.to_bytes(4, "little"), **ports))

    def __enter__(self) -> Net:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.close()


assert PAGE == mmap.PAGESIZE
