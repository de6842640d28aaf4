"""The object loader: an ELF file for BPF to programs, maps and type information, linked as libbpf links them.

Every program comes out whole: the functions it calls are appended behind it, local calls are relative, references to
maps and global data are wide loads with a pseudo source. What an instruction asks for and cannot have is its fault: a
trap stands in its place, and whoever gets there knows why. Only an object that cannot be read at all is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from chamelio.bpf import elf as e
from chamelio.bpf.btf import Btf
from chamelio.bpf.btf_ext import NOTHING, BtfExt, parse_btf_ext
from chamelio.bpf.elf import Elf, ObjectError, Section, Symbol
from chamelio.bpf.fault import BUDGET, CALL_TARGET, INSTRUCTION, REFERENCE, Fault, Unsupported
from chamelio.bpf.insn import (
    CALLX,
    LDDW,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    PSEUDO_KFUNC_CALL,
    PSEUDO_MAP,
    PSEUDO_MAP_VALUE,
    SLOT,
    TRAP,
    BpfFormatError,
    Insn,
    decode_any,
)
from chamelio.bpf.maps import MAP_KIND_DATA, DataMaps, MapDef, declared_maps, is_data, is_maps

__all__ = ["MAP_KIND_DATA", "Fault", "Line", "MapDef", "Object", "ObjectError", "Program", "load_object"]

MAX_INSNS = 1_000_000  # of all programs together, after linking

R_BPF_64_64, R_BPF_64_32 = 1, 10

_FOREIGN = {".addr_space.1": "data in an arena", ".jumptables": "a table for an indirect jump (gotox)"}


@dataclass(frozen=True, slots=True)
class Line:
    """A place in the source, and the text of that line."""

    file: str
    line: int
    col: int
    text: str


@dataclass
class Program:
    """A handler: the main function at slot 0, behind it the functions that it calls.

    `subprogs` names the function that starts at a slot; `lines` has a slot only where the source line changes; `faults` has
    the slots where something is asked for that cannot be had. There stands TRAP (in both slots of a wide load).
    """

    name: str
    section: str
    insns: list[Insn]
    subprogs: dict[int, str] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)
    faults: dict[int, Fault] = field(default_factory=dict)

    @cached_property
    def _marks(self) -> list[int]:
        return sorted(self.lines)

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self.subprogs)

    def subprog_at(self, pc: int) -> int:
        """The slot at which the function of the instruction at `pc` starts."""
        return self._starts[bisect_right(self._starts, pc) - 1]

    def line_at(self, pc: int) -> Line | None:
        """The source line of the instruction at `pc`: the last one noted at or before it in its function."""
        at = bisect_right(self._marks, pc) - 1
        if at < 0 or self._marks[at] < self.subprog_at(pc):
            return None
        return self.lines[self._marks[at]]


@dataclass
class Object:
    """What an object file holds. `sha256` is of the whole file, in hex."""

    programs: list[Program]
    maps: list[MapDef]
    btf: Btf | None
    license: str
    sha256: str


@dataclass(eq=False)
class _Function:
    """A function as the compiler left it: slots [start, end) of its section, whose wide loads are relocated already."""

    name: str
    section: Section
    start: int
    end: int
    bind: int
    lines: list[tuple[int, Line]] = field(default_factory=list)
    calls: dict[int, _Function] = field(default_factory=dict)  # slot in the section -> callee
    faults: dict[int, Fault] = field(default_factory=dict)  # by slot in the section
    called: bool = False  # by another function


class _Loader:
    """One object on its way from ELF to programs."""

    def __init__(self, elf: Elf, btf: Btf | None, ext: BtfExt) -> None:
        self.elf, self.btf, self.ext = elf, btf, ext
        self.maps, self.map_at = declared_maps(elf, btf)
        self.data = DataMaps(elf, btf, self.maps)
        self.code: dict[int, list[Insn]] = {}  # by section
        self.functions: dict[int, list[_Function]] = {}  # by section, in order

    def programs(self) -> list[Program]:
        sections = [section for section in self.elf.sections if section.executable and section.size]
        symbols: dict[int, list[Symbol]] = {section.index: [] for section in sections}
        for symbol in self.elf.symbols:
            if symbol.section in symbols and _is_function(symbol):
                symbols[symbol.section].append(symbol)
        for section in sections:
            self.decode(section, symbols[section.index])
        for section in sections:
            self.relocate(section)
        budget, out = MAX_INSNS, []
        for main in self.mains(sections):
            out.append(_link(main, self.code, budget))
            budget -= len(out[-1].insns)
        return out

    def mains(self, sections: list[Section]) -> Iterator[_Function]:
        """Where programs begin: at the functions outside .text, but for static ones that others call; in an object with nothing
        else at the functions of .text that nobody calls. All are called: at the first."""
        for function in (f for functions in self.functions.values() for f in functions):
            for callee in function.calls.values():
                callee.called |= callee is not function
        handlers = [s for s in sections if s.name != ".text" and not s.name.startswith(".text.")]
        for section in handlers or sections:
            functions = self.functions[section.index]
            found = [f for f in functions if not f.called or (handlers and f.bind != e.STB_LOCAL)]
            yield from found or functions[:1]

    def decode(self, section: Section, symbols: list[Symbol]) -> None:
        """The instructions of a section and its functions: each from one symbol to the next, so that nothing is left out."""
        try:
            insns, wrong = decode_any(section.data)
        except BpfFormatError as error:
            raise ObjectError(f"section {section.name}: {error}") from None
        starts: dict[int, Symbol | None] = {}
        for symbol in sorted(symbols, key=lambda s: (s.value, s.bind == e.STB_LOCAL, s.type != e.STT_FUNC)):
            if symbol.value % SLOT or symbol.value >= section.size:
                raise ObjectError(f"section {section.name}: function {symbol.name} begins at byte {symbol.value} of {section.size}")
            starts.setdefault(symbol.value // SLOT, symbol)
        order: list[int] = sorted({0, *starts})
        for start in order:
            if start and insns[start - 1].op == LDDW:
                raise ObjectError(f"section {section.name}: a function begins in the middle of instruction {start - 1}")
        functions = self.functions[section.index] = []
        for start, end in zip(order, [*order[1:], len(insns)], strict=True):
            found = starts.get(start)
            name, bind = (found.name, found.bind) if found is not None else (section.name, e.STB_GLOBAL)
            functions.append(_Function(name, section, start, end, bind))
        self.code[section.index] = insns
        for slot, reason in wrong.items():
            self.fault(section, slot, Fault(INSTRUCTION, *_named(reason)))
        for slot, insn in enumerate(insns):
            if insn.op == CALLX:
                self.fault(section, slot, Fault(INSTRUCTION, "an indirect call (callx)", "functions are called by name"))
        for relocation in self.ext.core_relocations.get(section.name, []):
            if relocation.offset < section.size:
                what = relocation.describe(self.btf)
                self.fault(
                    section,
                    relocation.offset // SLOT,
                    Fault(REFERENCE, f"a CO-RE relocation ({what})", "it takes the types of a running kernel; there is none here"),
                )
        for slot, line in self.lines(section):
            _containing(functions, slot).lines.append((slot, line))

    def lines(self, section: Section) -> Iterator[tuple[int, Line]]:
        """(slot, source line) of a section; what points elsewhere is left out."""
        for info in self.ext.lines.get(section.name, []):
            if info.offset % SLOT == 0 and info.offset < section.size:
                yield info.offset // SLOT, Line(info.file, info.line, info.col, info.text.strip("\r\n"))

    def fault(self, section: Section, slot: int, fault: Fault) -> None:
        """Let an instruction be a trap; its first fault is the one that is told."""
        insns = self.code[section.index]
        if slot and insns[slot - 1].op == LDDW:
            slot -= 1
        slots = (slot, slot + 1) if insns[slot].op == LDDW else (slot,)
        function = _containing(self.functions[section.index], slot)
        function.calls.pop(slot, None)
        for at in slots:
            insns[at] = TRAP
            function.faults.setdefault(at, fault)

    # ---- relocation --------------------------------------------------------------------------------------------

    def relocate(self, section: Section) -> None:
        """Resolve what the instructions of a section refer to: maps, global data, functions."""
        insns, relocated = self.code[section.index], set()
        for relocation in self.elf.relocations.get(section.index, []):
            slot, symbol = relocation.offset // SLOT, self.elf.symbols[relocation.symbol]
            try:
                if relocation.offset % SLOT or slot in relocated:
                    raise Unsupported(REFERENCE, "an instruction that is relocated in its middle, or twice", _relocated(relocation))
                relocated.add(slot)
                insn = insns[slot]
                if relocation.type == R_BPF_64_64 and insn.op == LDDW:
                    insns[slot] = self.wide_load(section, slot, insn, symbol)
                elif relocation.type == R_BPF_64_32 and insn.is_call:
                    self.call(section, slot, insn, symbol)
                elif slot not in _containing(self.functions[section.index], slot).faults:
                    raise Unsupported(REFERENCE, f"a relocation of type {relocation.type}", _relocated(relocation))
            except Unsupported as error:
                self.fault(section, slot, error.fault)
        for slot, insn in enumerate(insns):
            if slot in relocated:
                continue
            try:
                if insn.is_call and insn.src == PSEUDO_KFUNC_CALL:
                    raise Unsupported(REFERENCE, f"kernel function (kfunc) {insn.imm}", "there is no kernel behind a handler")
                if insn.is_call and insn.src == PSEUDO_CALL:
                    self.link_call(section, slot, section, slot + 1 + insn.imm)
                if insn.op == LDDW and insn.src != 0:
                    raise Unsupported(
                        INSTRUCTION, f"a wide load with pseudo source {insn.src}", "only a relocation says what it refers to"
                    )
            except Unsupported as error:
                self.fault(section, slot, error.fault)

    def wide_load(self, section: Section, slot: int, insn: Insn, symbol: Symbol) -> Insn:
        target = self.target(symbol)
        offset = symbol.value + insn.imm
        if is_maps(target):
            found = self.map_at.get((target.index, offset))
            if found is None:
                raise Unsupported(REFERENCE, f"byte {offset} of section {target.name}", "no map begins there")
            if isinstance(found, Fault):
                raise Unsupported(found.code, found.message, found.reason)
            return replace(insn, src=PSEUDO_MAP, imm=found)
        if target.executable:
            if offset % SLOT:
                raise Unsupported(CALL_TARGET, f"byte {offset} of section {target.name}", "it is the middle of an instruction")
            self.link_call(section, slot, target, offset // SLOT)
            return replace(insn, src=PSEUDO_FUNC, imm=0)
        if not is_data(target):
            name = f" ({symbol.name})" if symbol.name else ""
            what = _FOREIGN.get(target.name, f"section {target.name}")
            raise Unsupported(REFERENCE, what + name, "only maps, code and global data can be referred to")
        if offset >= target.size:
            raise Unsupported(REFERENCE, f"byte {offset} of section {target.name}", f"it has {target.size}")
        return replace(insn, src=PSEUDO_MAP_VALUE, imm=self.data.index(target) | offset << 32)

    def call(self, section: Section, slot: int, insn: Insn, symbol: Symbol) -> None:
        target = self.target(symbol, called=True)
        if insn.src != PSEUDO_CALL or not target.executable or symbol.value % SLOT:
            raise Unsupported(CALL_TARGET, f"a call of {symbol.name or target.name}", "it is not a function of this object")
        self.link_call(section, slot, target, symbol.value // SLOT + insn.imm + 1)

    def link_call(self, section: Section, slot: int, target: Section, to: int) -> None:
        """Note that the instruction at `slot` needs the function that starts at slot `to` of section `target`."""
        functions = self.functions.get(target.index)
        callee = _containing(functions, to) if functions else None
        if callee is None or callee.start != to:
            raise Unsupported(CALL_TARGET, "a call to where no function begins", f"it goes to instruction {to} of {target.name}")
        _containing(self.functions[section.index], slot).calls[slot] = callee

    def target(self, symbol: Symbol, *, called: bool = False) -> Section:
        """The section that a symbol is in. Unsupported: an extern."""
        if symbol.section == e.SHN_UNDEF:
            name = symbol.name or "without a name"
            if called and self.btf is not None and self.btf.is_kernel_function(symbol.name):
                raise Unsupported(REFERENCE, f"kernel function (kfunc) {name}", "there is no kernel behind a handler; use helpers")
            raise Unsupported(
                REFERENCE,
                f"{'function' if called else 'extern'} {name}, which this object does not define",
                "there is no C library and no kernel behind a handler",
            )
        if symbol.section >= e.SHN_LORESERVE:
            raise Unsupported(REFERENCE, f"symbol {symbol.name}", "it is in no section of this object")
        return self.elf.sections[symbol.section]


def _is_function(symbol: Symbol) -> bool:
    """Where a function begins. Compilers before LLVM 7 gave functions no type; what is local there is a label."""
    return symbol.type == e.STT_FUNC or (symbol.type == e.STT_NOTYPE and symbol.bind != e.STB_LOCAL and bool(symbol.name))


def _named(reason: str) -> tuple[str, str]:
    """(message, reason) of what is wrong with an instruction."""
    what, said, _ = reason.partition(" is not supported")
    return (what, "handlers are made of the instructions of RFC 9669") if said else ("no instruction", reason)


def _relocated(relocation: e.Relocation) -> str:
    return f"byte {relocation.offset} is relocated by symbol {relocation.symbol}, type {relocation.type}"


def _containing(functions: list[_Function], slot: int) -> _Function:
    """The last function that starts at or before a slot (the first one, before slot 0)."""
    return functions[max(bisect_right(functions, slot, key=lambda f: f.start) - 1, 0)]


def _link(main: _Function, code: dict[int, list[Insn]], budget: int) -> Program:
    """A function and all that it calls, one behind the other; over `budget` instructions, a trap that says so."""
    base: dict[_Function, int] = {}
    order: list[_Function] = []
    total, queue = 0, deque([main])
    while queue:
        function = queue.popleft()
        if function in base:
            continue
        base[function] = total
        order.append(function)
        total += function.end - function.start
        if total > budget:
            reason = f"its programs, each with all that it calls, have over {MAX_INSNS:,} instructions"
            fault = Fault(BUDGET, "the object is too long", reason)
            return Program(main.name, main.section.name, [TRAP], {0: main.name}, {}, {0: fault})
        queue.extend(callee for _, callee in sorted(function.calls.items(), key=lambda item: item[0]))
    program = Program(main.name, main.section.name, [])
    for function in order:
        at = base[function]
        program.subprogs[at] = function.name
        program.insns += code[function.section.index][function.start : function.end]
        for slot, callee in function.calls.items():
            here = at + slot - function.start
            relative = base[callee] - (here + 1)
            insn = program.insns[here]
            program.insns[here] = replace(insn, imm=relative & 0xFFFFFFFF if insn.op == LDDW else relative)
        for slot, line in function.lines:
            program.lines[at + slot - function.start] = line
        for slot, fault in function.faults.items():
            program.faults[at + slot - function.start] = fault
    return program


def _types(elf: Elf) -> tuple[Btf | None, BtfExt]:
    """Type information as far as it can be read. Without it there are no lines, and maps in .maps are faults."""
    section, ext = elf.find(".BTF"), elf.find(".BTF.ext")
    btf, about = None, NOTHING
    with contextlib.suppress(BpfFormatError, struct.error):
        if section is not None:
            btf = Btf.parse(section.data)
            about = parse_btf_ext(ext.data, btf.strings) if ext is not None else NOTHING
    return btf, about


def load_object(data: bytes, name: str = "object") -> Object:
    """Load an object file; `name` is what errors call it.

    ObjectError: not a BPF object, damaged, or over a limit (16 MB, 65,279 sections). All else that is not supported is a fault
    of the programs that use it.
    """
    try:
        elf = e.read(data)
        btf, ext = _types(elf)
        loader = _Loader(elf, btf, ext)
        programs = loader.programs()
    except (BpfFormatError, struct.error) as error:
        raise ObjectError(f"{name}: {error}") from None
    license_section = elf.find("license")
    text = license_section.data.split(b"\0")[0].decode("utf-8", "replace") if license_section is not None else ""
    return Object(programs, loader.maps, btf, text, hashlib.sha256(data).hexdigest())
