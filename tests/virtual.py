"""Rigs for tests in virtual time: units from test handlers, packets, and the tenant's end of rings."""

from __future__ import annotations

import functools
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.engine import abi
from chamelio.engine.catalogue import drops, events
from chamelio.engine.engine import Engine, Instance
from chamelio.engine.ports import WirePeer
from chamelio.jit.artifact import Options, UnitImage
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import PAGE
from chamelio.world import World

HANDLERS = Path(__file__).parent / "handlers"
PEER_MAC = bytes.fromhex("020000000099")
RING_HEADER = 128
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


def checksum(data: bytes) -> int:
    """RFC 1071."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64).sum()
    total = int(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: str, dst: str, payload: bytes, protocol: int = 17, **changes: int) -> bytes:
    """An IPv4 packet; `changes` replaces header bytes by offset name: ihl, total, fragment, ttl."""
    header = bytearray(20)
    header[0] = 0x40 | changes.get("ihl", 5)
    header[2:4] = changes.get("total", 20 + len(payload)).to_bytes(2, "big")
    header[6:8] = changes.get("fragment", 0).to_bytes(2, "big")
    header[8], header[9] = changes.get("ttl", 64), protocol
    header[12:16], header[16:20] = bytes(map(int, src.split("."))), bytes(map(int, dst.split(".")))
    header[10:12] = changes.get("checksum", checksum(bytes(header))).to_bytes(2, "big")
    return bytes(header) + payload


def udp(src: str, dst: str, payload: bytes, sport: int = 1000, dport: int = 7) -> bytes:
    """A UDP packet without a checksum."""
    return ipv4(src, dst, b"".join(v.to_bytes(2, "big") for v in (sport, dport, 8 + len(payload), 0)) + payload)


class Ring:
    """The tenant's end of one ring of one context: honest methods, and the raw indices for dishonest tests."""

    def __init__(self, content: memoryview, at: int, stride: int, slots: int, dtype: np.dtype[Any]) -> None:
        self.words = np.frombuffer(content, np.uint32, 17 + 1, at)
        self.slots = slots
        raw = np.frombuffer(content, np.uint8, stride * slots, at + RING_HEADER).reshape(slots, stride)
        self.entries = [raw[i, : dtype.itemsize].view(dtype) for i in range(slots)]

    @property
    def prod(self) -> int:
        return int(self.words[0])

    @prod.setter
    def prod(self, value: int) -> None:
        self.words[0] = value & 0xFFFFFFFF

    @property
    def cons(self) -> int:
        return int(self.words[16])

    @cons.setter
    def cons(self, value: int) -> None:
        self.words[16] = value & 0xFFFFFFFF

    def sleep(self, asleep: bool = True) -> None:
        self.words[17] = int(asleep)

    def put(self, *values: int) -> None:
        self.entries[self.prod % self.slots][0] = values
        self.prod += 1

    def take(self) -> list[tuple[Any, ...]]:
        out = []
        while self.cons != self.prod:
            out.append(tuple(self.entries[self.cons % self.slots][0].tolist()))
            self.cons += 1
        return out


class Tenant:
    """A tenant of one host with one instance of a test protocol, all its contexts attached."""

    def __init__(self, host: Engine, at: str, *, handlers: str = "naughty", weight: int = 1, ring_start: int = 0,
                 unit_index: int | None = None, protocol: int = 17, frame_quota: int = 1024, network: int = 0) -> None:  # fmt: skip
        self.host, self.address, self.handlers = host, at, handlers
        self.index = host.add_tenant(weight, frame_quota)
        host.bind_address(self.index, at, network)
        self.unit = host.load_unit(unit(handlers)) if unit_index is None else unit_index
        self.instance: Instance = host.add_instance(self.index, self.unit, at, protocol, ring_start=ring_start, network=network)
        self._mapping = mmap.mmap(self.instance.region_fd, 0)
        self.content = memoryview(self._mapping)[self.instance.origin :]
        for context in range(CONTEXTS):
            host.attach(self.instance.index, context)

    def ring(self, name: str, context: int) -> Ring:
        """One ring of a map."""
        m = next(m for m in self.instance.layout.maps if m.name == name)
        assert m.shared is not None
        at = m.shared + context * m.context_stride
        return Ring(self.content, at, m.stride, m.max_entries, value_dtype(self.handlers, name))

    def raw(self, which: str) -> Ring:
        """The provider's raw ring: "punt" or "xmit"."""
        at = getattr(self.instance.layout, which)
        return Ring(self.content, at, abi.dtype("cham_raw").itemsize, 64, abi.dtype("cham_raw"))

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

    @property
    def counters(self) -> Any:
        return self.host.counters()["instances"][self.instance.index]

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
