"""What surrounds a kernel-style program when the interpreter runs it: context, packet, maps, and helpers as Linux has them.

It does what BPF_PROG_TEST_RUN does for `generate.MAPS` and the helpers that random programs call.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from chamelio.bpf.insn import Insn
from chamelio.bpf.interp import Interpreter, Memory
from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.verify.kernel import maps as m

CTX_AT, PACKET_AT, MAPS_AT, RECORDS_AT = 0x1000, 0x1000_0000, 0x20_0000_0000, 0x30_0000_0000
MAP_STRIDE, SLOT_STRIDE = 1 << 20, 1 << 12
HEADROOM, FRAME = 256, 4096 - 320  # of the kernel's test frames: before the packet, and up to where the kernel's own part begins
HEAD_LEAST = 40  # bytes that the kernel keeps before a packet
ETHERNET = 14
U64 = (1 << 64) - 1
Helper = Callable[..., int]
#: Helpers that a world has, and the method of each.
HELPERS = {
    1: "lookup", 2: "update", 3: "delete", 9: "skb_store_bytes", 26: "skb_load_bytes", 28: "csum_diff", 39: "skb_pull_data",
    44: "adjust_head", 65: "adjust_tail", 87: "push", 88: "pop", 89: "peek", 130: "output", 131: "reserve", 132: "submit",
    133: "submit", 189: "xdp_load_bytes", 190: "xdp_store_bytes",
}  # fmt: skip


def complete(insns: list[Insn]) -> bool:
    """Whether a world has all helpers that a program calls."""
    return all(insn.imm in HELPERS for insn in insns if insn.is_call and insn.src == 0)


def error(number: int) -> int:
    """A helper's result for an error."""
    return -number & U64


@dataclass
class Store:
    """One map's values: `slots[key]` is the number of the value's place; places of deleted elements are used again."""

    definition: MapDef
    at: int
    places: list[bytearray] = field(default_factory=list)
    slots: dict[bytes, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    queued: list[bytes] = field(default_factory=list)

    def address(self, slot: int) -> int:
        """Where a value lies."""
        return self.at + slot * SLOT_STRIDE


class World:
    """One run: built from the contents that the kernel's maps have, too."""

    def __init__(self, maps: list[MapDef], context: str, packet: bytes, contents: dict[int, dict[bytes, bytes]]) -> None:
        self.context, self.memory = context, Memory()
        self.stores: list[Store] = []
        self.frame = bytearray(FRAME)
        self.start = HEADROOM
        if context == "socket_filter":
            self.ethernet, packet = packet[:ETHERNET], packet[ETHERNET:]
        else:
            self.ethernet = packet[:ETHERNET]
        self.end = self.start + len(packet)
        self.frame[self.start : self.end] = packet
        self.ctx = bytearray(192 if context != "xdp_md" else 24)
        self.ring_position, self.records = 0, 0
        for index, definition in enumerate(maps):
            self._make(index, definition, contents.get(index, {}))
        self.memory.map(CTX_AT, self.ctx, name="the context")
        self._fill_context()
        self._map_packet()

    def _make(self, index: int, d: MapDef, content: dict[bytes, bytes]) -> None:
        store = Store(d, MAPS_AT + index * MAP_STRIDE)
        self.stores.append(store)
        if d.kind == MAP_KIND_DATA:
            store.places = [bytearray(d.data or b"")]
            self.memory.map(store.at, store.places[0], writable=not d.read_only, name=d.name)
            return
        if d.kind in (m.RINGBUF, m.QUEUE, m.PROG_ARRAY):
            return
        count = d.max_entries + (1 if d.kind in (m.HASH, m.LRU_HASH) else 0)  # a hash replaces an element by a spare one
        store.places = [bytearray(d.value_size) for _ in range(count)]
        for slot, place in enumerate(store.places):
            self.memory.map(store.address(slot), place, name=f"{d.name}[{slot}]")
        store.free = list(range(count))[::-1]
        for key, value in content.items():
            slot = struct.unpack("<I", key)[0] if d.kind in (m.ARRAY, m.PERCPU_ARRAY) else store.free.pop()
            store.slots[key] = slot
            store.places[slot][:] = value

    # ---- context and packet -------------------------------------------------------------------------------------

    def _fill_context(self) -> None:
        start, end = PACKET_AT + self.start, PACKET_AT + self.end
        if self.context == "xdp_md":
            self.ctx[:] = struct.pack("<IIIIII", start, end, start, 1, 0, 0)
            return
        kind = int.from_bytes(self.ethernet[12:14], "big")
        if kind < 0x600:  # a length: Novell's frames or those of 802.2
            kind = 1 if self.frame[self.start + (0 if self.context == "socket_filter" else ETHERNET) :][:2] == b"\xff\xff" else 4
        to = self.ethernet[:6]
        addressed = (
            0 if to == bytes(6) else 1 if to == b"\xff" * 6 else 2 if to[:1] and to[0] & 1 else 3
        )  # us, all, a group, others
        struct.pack_into("<II", self.ctx, 0, self.end - self.start, addressed)
        struct.pack_into(">H", self.ctx, 16, kind)
        struct.pack_into("<I", self.ctx, 40, 1)
        struct.pack_into("<II", self.ctx, 76, start, end)

    def _map_packet(self) -> None:
        self.mapped = PACKET_AT + self.start
        if self.end > self.start:
            self.memory.map(self.mapped, memoryview(self.frame)[self.start : self.end], name="the packet")

    def _move(self, start: int, end: int) -> None:
        if self.end > self.start:
            self.memory.unmap(self.mapped)
        self.start, self.end = start, end
        self._map_packet()
        struct.pack_into("<III", self.ctx, 0, PACKET_AT + start, PACKET_AT + end, PACKET_AT + start)

    # ---- running -------------------------------------------------------------------------------------------------

    def run(self, insns: list[Insn], on_step: Callable[[int, list[int]], None] | None = None) -> int:
        """r0. Raises Fault."""
        interpreter = Interpreter(
            insns, memory=self.memory, max_steps=2_000_000, on_step=on_step, map_address=lambda i: MAPS_AT + i * MAP_STRIDE + 8,
            helpers={number: self._called(getattr(self, name)) for number, name in HELPERS.items()},
            map_value_address=lambda i, at: MAPS_AT + i * MAP_STRIDE + at,
        )  # fmt: skip
        return interpreter.run(CTX_AT)

    @staticmethod
    def _called(helper: Helper) -> Helper:
        return lambda _interpreter, *args: int(helper(*args))

    def packet(self) -> bytes:
        """The packet as it stands."""
        return bytes(self.frame[self.start : self.end])

    def contents(self, index: int) -> dict[bytes, bytes]:
        """Keys and values of a map."""
        store = self.stores[index]
        if store.definition.kind == MAP_KIND_DATA:
            return {bytes(4): bytes(store.places[0])}
        return {key: bytes(store.places[slot]) for key, slot in store.slots.items()}

    # ---- maps ----------------------------------------------------------------------------------------------------

    def store_at(self, address: int) -> Store:
        """The map that a program has an address of."""
        return self.stores[(address - MAPS_AT) // MAP_STRIDE]

    def _key(self, store: Store, key: int) -> bytes:
        return self.memory.load_bytes(key, store.definition.key_size)

    def lookup(self, where: int, key: int, *_: int) -> int:
        store = self.store_at(where)
        slot = store.slots.get(self._key(store, key))
        return 0 if slot is None else store.address(slot)

    def update(self, where: int, key: int, value: int, flags: int, *_: int) -> int:
        store = self.store_at(where)
        k, content = self._key(store, key), self.memory.load_bytes(value, store.definition.value_size)
        slot = store.slots.get(k)
        if flags > 2:
            return error(errno.EINVAL)
        if store.definition.kind == m.ARRAY:
            if slot is None:
                return error(errno.E2BIG)
            if flags == 1:
                return error(errno.EEXIST)
        else:
            if slot is not None and flags == 1:
                return error(errno.EEXIST)
            if slot is None and flags == 2:
                return error(errno.ENOENT)
            if slot is None and len(store.slots) == store.definition.max_entries:
                return error(errno.E2BIG)
            spare = store.free.pop() if slot is None else store.free.pop(0)
            if slot is not None:
                store.free.insert(0, slot)
            slot = store.slots[k] = spare
        store.places[slot][:] = content
        return 0

    def delete(self, where: int, key: int, *_: int) -> int:
        store = self.store_at(where)
        if store.definition.kind == m.ARRAY:
            return error(errno.EINVAL)
        slot = store.slots.pop(self._key(store, key), None)
        if slot is None:
            return error(errno.ENOENT)
        store.free.append(slot)
        return 0

    def push(self, where: int, value: int, flags: int, *_: int) -> int:
        store = self.store_at(where)
        content = self.memory.load_bytes(value, store.definition.value_size)
        if flags > 2 or flags == 1:
            return error(errno.EINVAL)
        if len(store.queued) == store.definition.max_entries:
            if flags != 2:
                return error(errno.E2BIG)
            store.queued.pop(0)
        store.queued.append(content)
        return 0

    def pop(self, where: int, value: int, *_: int) -> int:
        return self._queue(where, value, take=True)

    def peek(self, where: int, value: int, *_: int) -> int:
        return self._queue(where, value, take=False)

    def _queue(self, where: int, value: int, take: bool) -> int:
        store = self.store_at(where)
        if not store.queued:
            self.memory.store_bytes(value, bytes(store.definition.value_size))
            return error(errno.ENOENT)
        self.memory.store_bytes(value, store.queued.pop(0) if take else store.queued[0])
        return 0

    # ---- the ring ------------------------------------------------------------------------------------------------

    def _room(self, where: int, size: int) -> bool:
        position = self.ring_position + (size + 8 + 7) // 8 * 8
        if position > self.store_at(where).definition.max_entries - 1:
            return False
        self.ring_position = position
        return True

    def output(self, where: int, data: int, size: int, flags: int, *_: int) -> int:
        self.memory.load_bytes(data, size)
        return 0 if self._room(where, size) else error(errno.EAGAIN)

    def reserve(self, where: int, size: int, *_: int) -> int:
        if not self._room(where, size):
            return 0
        self.records += 1
        at = RECORDS_AT + self.records * SLOT_STRIDE
        self.memory.map(at, bytearray(size), name=f"record {self.records}")
        return at

    def submit(self, at: int, *_: int) -> int:
        self.memory.unmap(at)
        return 0

    # ---- packets -------------------------------------------------------------------------------------------------

    def adjust_head(self, _ctx: int, delta: int, *_: int) -> int:
        start = self.start + _int(delta)
        if start < HEAD_LEAST or start > self.end - ETHERNET:
            return error(errno.EINVAL)
        self._move(start, self.end)
        return 0

    def adjust_tail(self, _ctx: int, delta: int, *_: int) -> int:
        end = self.end + _int(delta)
        if end > FRAME or end < self.start + ETHERNET:
            return error(errno.EINVAL)
        if end > self.end:
            self.frame[self.end : end] = bytes(end - self.end)
        self._move(self.start, end)
        return 0

    def xdp_load_bytes(self, _ctx: int, offset: int, to: int, size: int, *_: int) -> int:
        offset, size = offset & 0xFFFFFFFF, size & 0xFFFFFFFF
        if offset > 0xFFFF or size > 0xFFFF:
            return error(errno.EFAULT)
        if offset + size > self.end - self.start:
            return error(errno.EINVAL)
        self.memory.store_bytes(to, self.packet()[offset : offset + size])
        return 0

    def xdp_store_bytes(self, _ctx: int, offset: int, source: int, size: int, *_: int) -> int:
        offset, size = offset & 0xFFFFFFFF, size & 0xFFFFFFFF
        content = self.memory.load_bytes(source, size)
        if offset > 0xFFFF or size > 0xFFFF:
            return error(errno.EFAULT)
        if offset + size > self.end - self.start:
            return error(errno.EINVAL)
        self.frame[self.start + offset : self.start + offset + size] = content
        return 0

    def skb_load_bytes(self, _ctx: int, offset: int, to: int, size: int, *_: int) -> int:
        offset, size = offset & 0xFFFFFFFF, size & 0xFFFFFFFF
        if offset + size > self.end - self.start:
            self.memory.store_bytes(to, bytes(size))
            return error(errno.EFAULT)
        self.memory.store_bytes(to, self.packet()[offset : offset + size])
        return 0

    def skb_store_bytes(self, _ctx: int, offset: int, source: int, size: int, flags: int) -> int:
        offset, size = offset & 0xFFFFFFFF, size & 0xFFFFFFFF
        content = self.memory.load_bytes(source, size)
        if flags > 3:
            return error(errno.EINVAL)
        if offset + size > self.end - self.start:
            return error(errno.EFAULT)
        self.frame[self.start + offset : self.start + offset + size] = content
        return 0

    def skb_pull_data(self, _ctx: int, size: int, *_: int) -> int:
        return error(errno.ENOMEM) if size & 0xFFFFFFFF > self.end - self.start else 0

    def csum_diff(self, old: int, old_size: int, new: int, new_size: int, seed: int) -> int:
        total = seed & 0xFFFFFFFF
        content = self.memory.load_bytes(new, new_size & 0xFFFFFFFF)
        for at in range(0, len(content), 2):
            total += int.from_bytes(content[at : at + 2], "little")
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return total


def _int(value: int) -> int:
    """The low 32 bits as C's int."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
