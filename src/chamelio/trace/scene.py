"""What a traced handler sees: packet, entry, context and maps at made-up addresses, and the names of those addresses."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chamelio.bpf.interp import FRAME_STRIDE, STACK_BASE, STACK_BYTES, Memory
from chamelio.bpf.object import Object
from chamelio.jit.layout import ARRAY, DATA, HASH, KIND_NAMES, RING_IN, TIMER, TX
from chamelio.messages import Refusal
from chamelio.trace.turn import Turn
from chamelio.trace.values import DECIMAL, Types, parse, show
from chamelio.verify.catalogue import CHAMELIO

CONTEXT, ENTRY, PACKETS, MAPS, VALUES = 0x1000_0000, 0x1100_0000, 0x2000_0000, 0x4000_0000, 0x1_0000_0000
PACKET_STEP, MAP_STEP, VALUES_STEP = 0x1_0000, 0x100, 0x1_0000_0000
MAX_ENTRY = 256
GAP = 64  # bytes between two values of a map: whoever runs over the end of one is found
_FIELDS = {f.offset: f for f in CHAMELIO.fields}

IPV4_FIELDS = {
    (0, 1): "version_ihl", (1, 1): "tos", (2, 2): "total_length", (4, 2): "id", (6, 2): "fragment", (8, 1): "ttl",
    (9, 1): "protocol", (10, 2): "checksum", (12, 4): "src", (16, 4): "dst",
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a run starts with, apart from maps."""

    hook: str
    packet: bytes | None = None
    entry: bytes | None = None
    now: int = 1_000_000_000
    id: int = 0
    hash: int = 0x5EED
    core: int = 0
    csum_ok: int = 0


class Scene(Turn):
    """Maps that hold what they are given and last from run to run; packet, entry and context are those of a run."""

    def __init__(self, obj: Object) -> None:
        self.types = Types(obj)
        self._values: dict[tuple[int, int], bytearray] = {}
        self._packets = 0
        self._packet: bytearray | None = None
        self._context = bytearray(CHAMELIO.size)
        self.memory = Memory()
        super().__init__(obj.maps)
        for i, m in enumerate(obj.maps):
            if m.kind == DATA:
                self._values[i, 0] = bytearray(m.data or bytes(m.value_size))

    # ---- what a user gives -------------------------------------------------------------------------------------------

    def set_value(self, state: str) -> None:
        """Let a map hold a value: `NAME[KEY]=VALUE`. Raises Refusal."""
        index, key, value = self.types.state(state)
        m = self.maps[index]
        if m.kind not in (ARRAY, HASH):
            what = f"--map-state {state}: {m.name} is of kind {KIND_NAMES[m.kind]}"
            raise Refusal("usage", what, "only arrays and hashes hold values")
        slot = self.insert(index, key)
        if slot is None:
            raise Refusal("usage", f"--map-state {state}: {m.name} has {m.max_entries} entries, and no place for this key")
        self.value(index, slot)[:] = value

    @property
    def _inbound(self) -> int | None:
        return next((i for i, m in enumerate(self.maps) if m.kind == RING_IN), None)

    def parse_entry(self, text: str) -> bytes:
        """An entry of the inbound ring. Raises Refusal."""
        ring = self._inbound
        if ring is None:
            raise Refusal("usage", "the protocol has no inbound ring", "leave --entry out")
        return parse(text, self.types.values[ring], self.maps[ring].value_size, f"--entry {text}")

    def show_entry(self, entry: bytes) -> str:
        """An entry of the inbound ring as text."""
        return show(entry, self.types.values[self._inbound] if self._inbound is not None else None)

    # ---- a run -------------------------------------------------------------------------------------------------------

    def start(self, start: Start) -> None:
        """Put everything in its place. `Scene.memory` is then what the handler may touch."""
        self.now, self.pushed, self.emitted, self.checksum_later = start.now, [], [], None
        for i, ids in self.due.items():
            if self.maps[i].kind == {"tx": TX, "timer": TIMER}.get(start.hook):
                ids.pop(start.id, None)
                self.last_due[i, start.id] = start.now
        self.memory = Memory()
        entry = ENTRY if start.entry is not None else 0
        end = entry + len(start.entry or b"")
        self._context[:] = struct.pack(
            "<QQQQQIIII", 0, 0, entry, end, start.now, start.id, start.hash, start.core, start.csum_ok
        )  # fmt: skip
        self.memory.map(CONTEXT, self._context, writable=False, name="the context")
        if start.entry:
            self.memory.map(ENTRY, bytearray(start.entry), name="the entry")
        self._packet = None
        self.put_packet(start.packet)
        self._mapped: set[tuple[int, int]] = set()
        for i, m in enumerate(self.maps):
            if m.kind == DATA:
                self.memory.map(self.data_address(i, 0), self._values[i, 0], writable=not m.read_only, name=m.name)

    # ---- what Turn asks for ------------------------------------------------------------------------------------------

    def load(self, address: int, size: int) -> bytes:
        """Memory that a helper is given. Raises AccessError."""
        return self.memory.load_bytes(address, size)

    def map_at(self, address: int) -> int:
        """Which map a reference stands for."""
        return (address - MAPS) // MAP_STEP

    def map_address(self, index: int) -> int:
        """The reference to a map."""
        return MAPS + index * MAP_STEP

    def data_address(self, index: int, offset: int) -> int:
        """The address of a byte of global data."""
        return VALUES + index * VALUES_STEP + offset

    def _stride(self, index: int) -> int:
        return -(-self.maps[index].value_size // 8) * 8 + GAP

    def value_address(self, index: int, slot: int) -> int:
        """Where a value lies; from now on the handler may touch it."""
        address = VALUES + index * VALUES_STEP + slot * self._stride(index)
        if (index, slot) not in self._mapped:
            self._mapped.add((index, slot))
            name = f"the value of {self.maps[index].name}[{slot}]"
            self.memory.map(address, self.value(index, slot), name=name)
        return address

    def value(self, index: int, slot: int) -> memoryview:
        """The bytes of a value; those that nobody has written are zero."""
        return memoryview(self._values.setdefault((index, slot), bytearray(self.maps[index].value_size)))

    def buffer(self, index: int, id_: int) -> memoryview:
        """A buffer of a bytes map."""
        return self.value(index, id_)

    def packet_bytes(self) -> bytes | None:
        """The packet as it is."""
        return None if self._packet is None else bytes(self._packet)

    @property
    def _packet_at(self) -> int:
        return PACKETS + self._packets * PACKET_STEP

    def put_packet(self, content: bytes | None) -> None:
        """Another packet, at an address of its own."""
        if self._packet:
            self.memory.unmap(self._packet_at)
        self._packets += 1
        self._packet = None if content is None else bytearray(content)
        if self._packet:
            self.memory.map(self._packet_at, self._packet, name="the packet")
        start = 0 if content is None else self._packet_at
        self._context[:16] = struct.pack("<QQ", start, start + len(content or b""))

    # ---- names -------------------------------------------------------------------------------------------------------

    def place(self, address: int, size: int = 1) -> str:
        """What lies at an address, in words: `packet[12:16] (src)`, `totals[0].muted`, `ctx->now`, `r10-8`."""
        if CONTEXT <= address < CONTEXT + len(self._context):
            f = _FIELDS.get(address - CONTEXT)
            return f"ctx->{f.name}" if f else f"ctx+{address - CONTEXT}"
        if self._packet is not None and self._packet_at <= address <= self._packet_at + len(self._packet):
            return self._packet_place(address - self._packet_at, size)
        if PACKETS <= address < self._packet_at:
            return "an old packet"
        if ENTRY <= address < ENTRY + PACKET_STEP:
            ring = self._inbound
            return "entry" + (self.types.field(ring, address - ENTRY, size) if ring is not None else f"+{address - ENTRY}")
        if address >= STACK_BASE:
            frame, at = divmod(address - STACK_BASE, FRAME_STRIDE)
            return f"stack{at - STACK_BYTES:+d}" + (f" of frame {frame}" if frame else "")
        if address >= VALUES:
            index, at = divmod(address - VALUES, VALUES_STEP)
            if index < len(self.maps) and self.maps[index].kind == DATA:
                return f"{self.maps[index].name}+{at}"
            if index < len(self.maps):
                slot, offset = divmod(at, self._stride(index))
                return f"{self.maps[index].name}[{slot}]{self.types.field(index, offset, size)}"
        if MAPS <= address < MAPS + MAP_STEP * len(self.maps) and not (address - MAPS) % MAP_STEP:
            return f"&{self.maps[self.map_at(address)].name}"
        return f"{address:#x}"

    def _packet_place(self, at: int, size: int) -> str:
        assert self._packet is not None
        if at == len(self._packet):
            return "packet end"
        name = IPV4_FIELDS.get((at, size))
        where = f"packet[{at}:{at + size}]" if size > 1 else f"packet[{at}]"
        return where + (f" ({name})" if name else "")

    def operand(self, value: int) -> str:
        """A register's value: an address by what it points to, a number as a number."""
        if not self._is_address(value):
            return number(value)
        base, length = self._packet_at, len(self._packet or b"")
        if base <= value < base + PACKET_STEP and self._packet is not None:
            return f"packet+{value - base}" + (" (end)" if value - base == length else "")
        if VALUES <= value < STACK_BASE and self.maps[(value - VALUES) // VALUES_STEP].kind != DATA:
            index, at = divmod(value - VALUES, VALUES_STEP)
            slot, offset = divmod(at, self._stride(index))
            return f"&{self.maps[index].name}[{slot}]" + (f"+{offset}" if offset else "")
        if ENTRY <= value <= ENTRY + MAX_ENTRY:
            return f"entry+{value - ENTRY}"
        return self.place(value)

    def _is_address(self, value: int) -> bool:
        return (
            CONTEXT <= value < CONTEXT + len(self._context)
            or ENTRY <= value <= ENTRY + MAX_ENTRY
            or PACKETS <= value < self._packet_at + PACKET_STEP
            or MAPS <= value < MAPS + MAP_STEP * len(self.maps)
            or VALUES <= value < VALUES + VALUES_STEP * len(self.maps)
            or STACK_BASE <= value < STACK_BASE + 8 * FRAME_STRIDE
        )


def number(value: int) -> str:
    """A 64-bit number for people: negative ones as such, what looks like bits in hexadecimal."""
    if value >= 1 << 63:
        return str(value - (1 << 64)) if value >= (1 << 64) - 65536 else f"{value:#x}"
    return str(value) if value < DECIMAL else f"{value:#x}"
