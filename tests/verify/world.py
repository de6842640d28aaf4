"""A world that programs run in twice: on the reference interpreter and as machine code, over the same bytes.

Everything that a handler can reach lies in one arena at its real address, each object between bytes that nothing may
change. Helpers are Python (chamelio.trace.turn), called by the interpreter and by machine code alike. A change of the
packet's length moves the packet, so that a stale pointer cannot go unnoticed.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm

from chamelio.bpf.interp import Interpreter, Memory
from chamelio.bpf.object import Object
from chamelio.jit import modules
from chamelio.jit.layout import ARRAY, BYTES, DATA, HASH
from chamelio.jit.lift import Environment, lift
from chamelio.trace.turn import Turn, charge_of
from chamelio.verify import Proof
from chamelio.verify.catalogue import HELPERS
from chamelio.verify.catalogue import Helper as HelperEntry
from chamelio.verify.cost import LINE, insn_cost, miss, table
from verify.suite import MAPS

GAP = 64
FILL = 0xC5
CTX, CORE, INSTANCE = 0, 56, 64  # of the turn: the context's fields, then two pointers
ENTRY_BYTES = 16
ROOM = 256  # bytes for a packet in this world
Helper = Callable[..., int]
SHARED = ("lookup", "update", "delete", "push", "resize", "bytes_to_pkt", "csum")  # helpers that are as they are for everybody


@dataclass
class Input:
    """What a run starts with."""

    packet: bytes
    entry: bytes
    now: int
    id: int
    hash: int
    table: bytes  # values of map 0
    flows: dict[bytes, bytes]  # keys and values of map 1
    shared: bytes  # values of map 2
    data: bytes  # global data


class World(Turn):
    """The arena. `run` interprets a program, `call` calls its machine code; both start from the same input."""

    longest = ROOM
    contexts = 4

    def __init__(self) -> None:
        super().__init__(MAPS)
        self.places: dict[str, tuple[int, int]] = {}  # name -> (offset, size)
        at = GAP
        sizes = {"turn": 72, "core": 8, "packet_a": ROOM, "packet_b": ROOM, "entry": ENTRY_BYTES, "key": 8}
        sizes |= {f"map_{i}": 64 for i in range(len(MAPS))}
        for i, m in enumerate(MAPS):
            if m.kind in (ARRAY, HASH, BYTES, DATA):
                sizes[f"values_{i}"] = m.value_size * m.max_entries
        for name, size in sizes.items():
            self.places[name] = (at, size)
            at += -(-size // 64) * 64 + GAP
        self._room = bytearray(at + 64)
        skip = -ctypes.addressof(ctypes.c_uint8.from_buffer(self._room)) % 64
        self.arena = memoryview(self._room)[skip : skip + at]
        self.base = ctypes.addressof(ctypes.c_uint8.from_buffer(self.arena))
        shared = {f"cham_{name}" for name in SHARED}
        self.helpers = {
            h.id: getattr(self, h.name) if h.name in shared else functools.partial(self._other, h) for h in HELPERS.values()
        }

    def address(self, name: str) -> int:
        return self.base + self.places[name][0]

    def view(self, name: str) -> memoryview:
        at, size = self.places[name]
        return self.arena[at : at + size]

    # ---- beginning and end of a run ---------------------------------------------------------------------------

    def reset(self, start: Input, ring: bool) -> None:
        self.arena[:] = bytes([FILL]) * len(self.arena)
        self.side, self.length = "packet_a", len(start.packet)
        self.view("packet_a")[: self.length] = start.packet
        self.view("packet_b")[:] = bytes(ROOM)
        self.view("entry")[:] = start.entry
        self.view("core")[:] = bytes(8)
        self.view("values_0")[:] = start.table
        self.view("values_2")[:] = start.shared
        self.view("values_8")[:] = start.data
        self.view("values_9")[:] = bytes(MAPS[9].data or b"")
        self.view("values_5")[:] = bytes(range(256)) * 2
        self.begin(start.now)
        for key, value in start.flows.items():
            slot = self.insert(1, key)
            assert slot is not None
            self.value(1, slot)[:] = value
        self.log: list[tuple[object, ...]] = []
        entry = self.address("entry") if ring else 0
        turn = struct.pack(
            "<QQQQQIIIIQQ", 0, 0, entry, entry + ENTRY_BYTES if ring else 0, start.now, start.id, start.hash, 3, 1,
            self.address("core"), self.base,
        )  # fmt: skip
        self.view("turn")[:] = turn
        self.interpreter: Interpreter | None = None
        self.charged = 0
        self.missed: set[int] = set()  # cache lines that instructions have accessed
        self.missing = 0  # cache lines that helpers may have
        self._point_at_packet()

    def _point_at_packet(self) -> None:
        start = self.address(self.side) if self.length else 0
        self.view("turn")[:16] = struct.pack("<QQ", start, start + self.length)

    def packet(self) -> tuple[int, int]:
        """The packet's first byte and one past its last; both NULL where there is none."""
        start, end = struct.unpack("<QQ", self.view("turn")[:16])
        return start, end

    def outcome(self) -> tuple[object, ...]:
        """Everything that a run may have changed; the turn's pointers and the clock aside."""
        where = ["entry", "values_0", "values_1", "values_2", "values_5", "values_8", "values_9"]
        packet = bytes(self.view(self.side)[: self.length])
        flows, pushed = sorted(self.slots[1].items()), tuple(self.pushed)
        return (packet, *(bytes(self.view(name)) for name in where), flows, pushed, tuple(self.log))

    def intact(self) -> bool:
        """Whether the bytes between the objects are as they were."""
        at = 0
        for offset, size in self.places.values():
            if any(byte != FILL for byte in self.arena[at:offset]):
                return False
            at = offset + size
        return all(byte == FILL for byte in self.arena[at:])

    # ---- the interpreter ----------------------------------------------------------------------------------------

    def memory(self, ring: bool) -> Memory:
        """The arena as the interpreter may see it."""
        memory = Memory()
        memory.map(self.address("turn"), self.view("turn")[:56], writable=False, name="the context")
        if self.length:
            memory.map(self.address(self.side), self.view(self.side)[: self.length], name="the packet")
        if ring:
            memory.map(self.address("entry"), self.view("entry"), name="the entry")
        for i, m in enumerate(MAPS):
            if m.kind == DATA:
                memory.map(self.address(f"values_{i}"), self.view(f"values_{i}"), writable=not m.read_only, name=m.name)
            elif m.kind in (ARRAY, HASH):
                for slot in range(m.max_entries):
                    at = slot * m.value_size
                    part = self.view(f"values_{i}")[at : at + m.value_size]
                    memory.map(self.address(f"values_{i}") + at, part, name=f"{m.name}[{slot}]")
        return memory

    def run(self, proof: Proof, start: Input, on_step: Callable[[World, int, list[int]], None] | None = None) -> tuple[int, int]:
        """Interpret; returns r0 and the cycles counted. Raises Fault."""
        ring = proof.hook == "ring"
        self.reset(start, ring)
        insns = proof.program.insns
        turn = range(self.address("turn"), self.address("turn") + self.places["turn"][1])

        def step(pc: int, regs: list[int]) -> None:
            insn = insns[pc]
            self.charged += insn_cost(insn)
            if insn.is_load or insn.is_store or insn.is_atomic:
                at = regs[insn.src if insn.is_load else insn.dst] + insn.off
                if 0 <= at - self.base < len(self.arena) and at not in turn:
                    self.missed |= {at // LINE, (at + insn.size - 1) // LINE}
            if on_step is not None:
                on_step(self, pc, regs)

        self.interpreter = Interpreter(
            insns, helpers={i: self._interpreted(i) for i in self.helpers}, memory=self.memory(ring), on_step=step,
            map_address=lambda i: self.address(f"map_{i}"), max_steps=200_000,
            map_value_address=lambda i, offset: self.address(f"values_{i}") + offset,
        )  # fmt: skip
        return self.interpreter.run(self.address("turn")), self.charged

    @property
    def cold(self) -> int:
        """What the run would have cost if every cache line that it accessed had missed once."""
        return self.charged + miss() * (len(self.missed) + self.missing)

    def _interpreted(self, number: int) -> Helper:
        helper = HELPERS[number]
        lines = min(cost.lines for cost in (helper.cost, *table().helpers[helper.name].values()))  # on any kind of map

        def call(interpreter: Interpreter, *args: int) -> int:
            self.charged += charge_of(number, args)
            self.missing += lines
            return int(self.helpers[number](*args[: len(helper.args)]))

        return call

    def load(self, address: int, size: int) -> bytes:
        """Memory that a helper is given; the interpreter knows what of it holds a value."""
        return self.interpreter.memory.load_bytes(address, size) if self.interpreter else ctypes.string_at(address, size)

    # ---- helpers ------------------------------------------------------------------------------------------------

    def map_at(self, address: int) -> int:
        return next(i for i in range(len(MAPS)) if self.address(f"map_{i}") == address)

    def value_address(self, index: int, slot: int) -> int:
        return self.address(f"values_{index}") + slot * MAPS[index].value_size

    def value(self, index: int, slot: int) -> memoryview:
        size = MAPS[index].value_size
        return self.view(f"values_{index}")[slot * size : (slot + 1) * size]

    buffer = value

    def packet_bytes(self) -> bytes | None:
        return bytes(self.view(self.side)[: self.length])

    def put_packet(self, content: bytes | None) -> None:
        old, content = self.side, content or b""
        self.side = "packet_b" if old == "packet_a" else "packet_a"
        self.view(self.side)[:] = content + bytes(ROOM - len(content))
        if self.interpreter is not None and self.length:
            self.interpreter.memory.unmap(self.address(old))
        self.length = len(content)
        if self.interpreter is not None and self.length:
            self.interpreter.memory.map(self.address(self.side), self.view(self.side)[: self.length], name="the packet")
        self._point_at_packet()

    def cham_bytes_to_pkt(self, ctx: int, where: int, id_: int, pos: int, span: int) -> int:
        result = super().cham_bytes_to_pkt(ctx, where, id_, pos, span)
        if result:
            self.put_packet(self.packet_bytes())  # it ends packet addresses whatever it does
        return result

    def _other(self, helper: HelperEntry, *args: int) -> int:
        """A helper of no interest here: its numbers are noted, pointers are not; what ends the packet does."""
        numbers = [x for x, arg in zip(args, helper.args, strict=True) if arg.kind == "scalar"]
        self.log.append((helper.name, *numbers))
        return self.cham_resize(0, 0) if helper.invalidates_packet else len(self.log) * 0x9E3779B97F4A7C15 % (1 << 64)

    # ---- machine code -------------------------------------------------------------------------------------------

    def compile(self, obj: Object, proofs: Sequence[Proof], *, harden: bool) -> Compiled:
        """Machine code of many programs, in one module, counting what they cost."""
        environment = Environment(
            core_offset=CORE, instance_offset=INSTANCE, vcycles_offset=0, count=True, harden=harden,
            data_offsets={i: self.places[f"values_{i}"][0] for i, m in enumerate(MAPS) if m.kind == DATA},
            map_symbols=[f"map_{i}" for i in range(len(MAPS))],
        )  # fmt: skip
        texts = []
        for n, proof in enumerate(proofs):
            text = lift([proof], obj, environment)
            texts.append(text.replace(f"cham_handler_{proof.hook}", f"handler_{n}").replace("cham_local_", f"local_{n}_"))
        module = modules.link(texts)
        modules.optimise(module)
        builder = llvm.JITLibraryBuilder().add_object_img(modules.emit(module))
        callbacks = []
        for helper in HELPERS.values():
            kind = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * len(helper.args))
            callback = kind(lambda _turn, *args, call=self.helpers[helper.id]: call(*args) & (1 << 64) - 1)
            callbacks.append(callback)
            builder.import_symbol(f"cham_h_{helper.name}", ctypes.cast(callback, ctypes.c_void_p).value)
        for i in range(len(MAPS)):
            builder.import_symbol(f"map_{i}", self.address(f"map_{i}"))
        for n in range(len(proofs)):
            builder.export_symbol(f"handler_{n}")
        return Compiled(self, builder.link(_jit(), f"world-{next(_serial)}"), list(proofs), callbacks)


@dataclass
class Compiled:
    """Machine code of programs."""

    world: World
    tracker: llvm.orcjit.ResourceTracker
    proofs: list[Proof]
    callbacks: list[object]

    def call(self, n: int, start: Input) -> tuple[int, int]:
        """Run one; returns r0 and the cycles that the code has counted."""
        self.world.reset(start, self.proofs[n].hook == "ring")
        handler = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(self.tracker[f"handler_{n}"])
        result = handler(self.world.address("turn"))
        return int(result), int.from_bytes(self.world.view("core"), "little")


_serial = itertools.count()
_engine: list[llvm.orcjit.LLJIT] = []


def _jit() -> llvm.orcjit.LLJIT:
    if not _engine:
        _engine.append(llvm.create_lljit_compiler(modules.machine()))
    return _engine[0]
