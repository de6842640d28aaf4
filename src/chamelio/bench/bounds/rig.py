"""A handler's compiled code in a rig that runs it alone, from any state of its maps, and times it (rig.c)."""

from __future__ import annotations

import ctypes
import functools
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from chamelio import toolchain
from chamelio.bpf.object import Object, load_object
from chamelio.engine import abi
from chamelio.engine.engine import Engine
from chamelio.engine.image import LIBC_IMPORTS, UNIT_IMPORTS
from chamelio.jit import modules, unit
from chamelio.jit.artifact import Options
from chamelio.jit.compile import compile_unit
from chamelio.jit.layout import BYTES, PAGE, RING_HEADER, RING_IN, RING_OUT, MapLayout
from chamelio.jit.layout import DATA as GLOBALS
from chamelio.verify import Proof, verify_object
from chamelio.verify.catalogue import HELPERS

DATA, CODE, PAGES = 1, 2, 4  # what is cold
COLD = DATA | CODE | PAGES
N_PAGES = 4096
FRAMES_USED = 4  # the pool gives out frame 0 first; a run takes one for each packet that it makes
ADDRESS, PEER = "10.0.0.1", "10.0.0.2"
CONTEXTS = 2
NOW = 1 << 40
PACKET_AT = 128  # in a frame: after its header and the room for a link's


class _Span(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("from_", ctypes.c_uint64), ("bytes", ctypes.c_uint64)]


class _Job(ctypes.Structure):
    """`struct bounds_job` of rig.c."""

    _fields_ = [
        ("code", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 5),
        *((name, ctypes.c_uint64) for name in ("core", "inst", "frame", "packet", "entry", "packet_bytes", "entry_bytes", "now")),
        *((name, ctypes.c_uint32) for name in ("id", "hash", "csum_ok", "cold", "repetitions", "n_spans")),
        *(
            (name, ctypes.c_uint64)
            for name in ("spans", "text", "text_bytes", "pages", "n_pages", "near", "verdict", "emitted", "best")
        ),
    ]


@dataclass
class Run:
    """What a handler is run on: maps as they are in `state`, and what its hook gives it.

    `buffers`: of byte maps what a run may touch, as (map, first byte, bytes); `arguments`: of a helper, after the
    turn; `near`: the address of what was just used, as a stack is.
    """

    state: State
    packet: bytes | None = None
    entry: bytes | None = None
    id: int = 0
    csum_ok: int = 0
    buffers: list[tuple[str, int, int]] = field(default_factory=list)
    arguments: tuple[int, ...] = ()
    near: int = 0


class State:
    """A copy of an instance's memory (all but byte buffers) that is changed before it is put in place for a run."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.memory = {at: bytearray(content) for at, content in rig.pristine.items()}
        self.reached: list[tuple[int, int]] = []  # what else a run may touch: flushed, never put back

    def view(self, offset: int, dtype: Any, count: int = 1) -> np.ndarray[Any, np.dtype[Any]]:
        """Part of it, by offset from the instance's base."""
        for at, content in self.memory.items():
            if at <= offset < at + len(content):
                return np.frombuffer(content, dtype, count, offset - at)
        raise KeyError(offset)

    def value(self, name: str, index: int) -> Any:
        """A value of an array map, as a structure that can be written."""
        m = self.rig.maps[name]
        return self.view(m.values + index * m.stride, self.rig.types[name])[0:1][0]

    def ring(self, name: str, context: int, pos: int, peer: int, cons: int) -> None:
        """Set the positions of an outbound ring: ours, where a run writes an entry, the peer's as we know it, and as it is."""
        m = self.rig.maps[name]
        at = m.values + context * m.context_stride + RING_HEADER + pos % m.max_entries * m.stride
        self.reached.append((at, m.stride))
        ours = self.view(m.index + 16 * context, np.uint32, 4)
        ours[:] = pos & 0xFFFFFFFF, peer & 0xFFFFFFFF, 0, 0
        shared = self.view(m.values + context * m.context_stride, np.uint32, 17)
        shared[0], shared[16] = pos & 0xFFFFFFFF, cons & 0xFFFFFFFF

    def pool_place(self, name: str, id_: int) -> int:
        """Where in a pool the buffer of an id begins."""
        return int(self.view(self.rig.maps[name].index + 8 * id_, np.uint32)[0])


class Rig:
    """A protocol's unit and one instance of it, at 10.0.0.1. Its handlers are called one by one; with `helpers` these too, as
    functions that read their maps' descriptors. Close it.
    """

    def __init__(self, source: Path, *, ip_protocol: int = 253, helpers: bool = False) -> None:
        self.helpers = helpers
        content = toolchain.bpf_object(source)
        self.object: Object = load_object(content)
        image = compile_unit(content, Options(contexts=CONTEXTS))
        self.layout = image.layout
        self.verdicts = verify_object(self.object)
        self.proofs: dict[str, Proof] = {v.proof.hook: v.proof for v in self.verdicts if v.proof is not None}
        self.maps: dict[str, MapLayout] = {m.name: m for m in self.layout.maps}
        self.types = _types(self.object)
        self.engine = Engine(poll="spin", seed=1, frames=64)
        tenant = self.engine.add_tenant()
        self.engine.bind_address(tenant, ADDRESS)
        self.instance = self.engine.add_instance(tenant, self.engine.load_unit(image), ADDRESS, ip_protocol)
        for context in range(CONTEXTS):
            self.engine.attach(self.instance.index, context)
        self.memory = self.instance.memory.cores[0]
        self.base = self.memory.base
        self.core = self.engine.cores[0]
        self.core.state["now"] = NOW
        self._link()
        self.pristine = {at: self.memory.read(at, size) for at, size in self._parts()}
        self._pool = self.core.state["pool"].tobytes(), self.core._free.tobytes()
        self._pages = np.ones(N_PAGES * 4096, np.uint8)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """What is put back before each run: offset and bytes; all but byte buffers and the entries of rings."""
        yield 0, self.layout.private_bytes - 2 * PAGE
        for m in self.layout.maps:
            if m.kind in (RING_IN, RING_OUT):
                yield from ((m.values + context * m.context_stride, RING_HEADER) for context in range(m.contexts))
            elif m.shared is not None and m.kind != BYTES:
                yield m.values, m.stride * m.max_entries
            elif m.kind == BYTES and m.key_size:
                yield m.free, 8 * m.max_entries

    def _link(self) -> None:
        hooks = unit.live_hooks(self.layout, list(self.proofs))
        handlers = [f"cham_handler_{hook}" for hook in hooks]
        kept = [*handlers, *(f"cham_h_{helper.name}" for helper in HELPERS.values())] if self.helpers else handlers
        proofs = list(self.proofs.values())
        code = modules.emit(unit.joint_module(proofs, self.object, self.layout, virtual=False, hardening=True, keep=kept))
        builder = llvm.JITLibraryBuilder().add_object_img(code)
        for name in UNIT_IMPORTS:
            builder.import_symbol(name, self.engine.image.address(name))
        libc = ctypes.CDLL(None)
        for name in LIBC_IMPORTS:
            address = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
            assert address
            builder.import_symbol(name, address)
        for name in kept:
            builder.export_symbol(name)
        self._jit = llvm.create_lljit_compiler(modules.machine())
        self._code = builder.link(self._jit, "bounds")
        self._text, self._text_bytes, self.code_bytes = _text(code, {name: int(self._code[name]) for name in handlers})

    @property
    def head(self) -> Any:
        """The instance's `struct cham_instance`."""
        return self.memory.head

    def cycles(self, what: str, run: Run, *, cold: int, repetitions: int = 20) -> int:
        """The fastest of some repetitions, in TSC cycles; `last` is the job with its verdict afterwards.

        `what`: a hook, a helper's name, or "": an empty call.
        """
        job = _Job(
            core=self.core.address, inst=self.base, now=NOW, id=run.id, csum_ok=run.csum_ok, cold=cold, repetitions=repetitions,
            text=self._text, text_bytes=self._text_bytes, pages=self._pages.ctypes.data, n_pages=N_PAGES, near=run.near,
        )  # fmt: skip
        restored: dict[int, bytes | bytearray] = {self.base + at: content for at, content in run.state.memory.items()}
        restored |= {self.core.pool_address: self._pool[0], self.core._free.ctypes.data: self._pool[1]}
        if run.packet is not None:
            frame = self.core.frames[-1:]
            head = np.zeros_like(frame)
            head["index"], head["len"], head["flags"] = len(self.core.frames) - 1, len(run.packet), run.csum_ok
            job.frame = frame.ctypes.data
            job.packet, job.packet_bytes = job.frame + PACKET_AT, len(run.packet)
            restored[job.frame] = head.tobytes()[:PACKET_AT] + run.packet
        if run.entry is not None:
            offset = abi.dtype("cham_instance").fields["entry"][1]  # type: ignore[index]
            run.state.view(offset, np.uint8, len(run.entry))[:] = np.frombuffer(run.entry, np.uint8)
            job.entry, job.entry_bytes = self.base + offset, len(run.entry)
        if what:
            job.code = int(self._code[f"cham_h_{what}" if what.startswith("cham_") else f"cham_handler_{what}"])
        job.arguments[: len(run.arguments)] = run.arguments
        contents = {at: np.frombuffer(content, np.uint8) for at, content in restored.items()}
        spans = [_Span(at, content.ctypes.data, content.nbytes) for at, content in contents.items()]
        spans += [_Span(at, 0, size) for at, size in self._flushed(run)]
        table = (_Span * len(spans))(*spans)
        job.n_spans, job.spans = len(spans), ctypes.addressof(table)
        library().bounds_measure(ctypes.addressof(job))
        self.last = job
        return int(job.best)

    def _flushed(self, run: Run) -> Iterator[tuple[int, int]]:
        """What a run may touch and is never put back: address and bytes."""
        frame_bytes = abi.dtype("cham_frame").itemsize
        yield self.core.address, self.core.state.nbytes
        yield int(self.memory.head["counters"][0]), abi.dtype("cham_instance_counters").itemsize
        yield self.core.frames.ctypes.data, FRAMES_USED * frame_bytes
        yield from ((self.base + at, size) for at, size in run.state.reached)
        for name, offset, size in run.buffers:
            m = self.maps[name]
            yield from ((self.base + m.values + at, n) for at, n in _wrapped(offset, size, m))

    def state_now(self) -> State:
        """The maps as the last run has left them."""
        state = State(self)
        state.memory = {at: bytearray(self.memory.read(at, len(content))) for at, content in self.pristine.items()}
        return state

    def close(self) -> None:
        """Free the code and the engine."""
        self._code.close()
        self.engine.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wrapped(offset: int, size: int, m: MapLayout) -> Iterator[tuple[int, int]]:
    """A span of a byte ring that begins at `offset` of all buffers: as one or two stretches."""
    start, at = offset - offset % m.stride, offset % m.stride
    head = min(size, m.stride - at)
    yield start + at, head
    if size > head:
        yield start, size - head


def _types(obj: Object) -> dict[str, np.dtype[Any]]:
    assert obj.btf is not None
    return {m.name: obj.btf.dtype(m.value_type) for m in obj.maps if m.value_type is not None and m.kind != GLOBALS}


@functools.cache
def library() -> ctypes.CDLL:
    """rig.c, loaded. Raises BuildError."""
    source = Path(__file__).with_name("rig.c")
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(toolchain.shared_library([source]))
        file.flush()
        loaded = ctypes.CDLL(file.name)
    loaded.bounds_measure.argtypes, loaded.bounds_measure.restype = [ctypes.c_void_p], None
    loaded.bounds_chain.argtypes = [ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p]
    loaded.bounds_chain.restype = loaded.bounds_now.restype = ctypes.c_uint64
    return loaded


def _text(code: bytes, addresses: dict[str, int]) -> tuple[int, int, dict[str, int]]:
    """Where a unit's machine code lies, how long it is, and the bytes of each handler."""
    elf = ELFFile(io.BytesIO(code))
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    sizes = {}
    start = size = 0
    for symbol in table.iter_symbols():
        if symbol.name in addresses:
            sizes[symbol.name.removeprefix("cham_handler_")] = int(symbol["st_size"])
            section = elf.get_section(symbol["st_shndx"])
            start, size = addresses[symbol.name] - int(symbol["st_value"]), int(section["sh_size"])
    return start, size, sizes
