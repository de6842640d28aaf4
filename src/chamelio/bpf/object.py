"""The object loader: an ELF file for BPF to programs, maps and type information, linked as libbpf links them.

Every program comes out whole: the functions it calls are appended behind it, local calls are relative, references to
maps and global data are wide loads with a pseudo source. What is not understood is refused by name.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cached_property

from chamelio.bpf import elf as e
from chamelio.bpf.btf import Btf
from chamelio.bpf.btf_ext import BtfExt, parse_btf_ext
from chamelio.bpf.elf import Elf, ObjectError, Section, Symbol
from chamelio.bpf.insn import (
    CALLX,
    LDDW,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    PSEUDO_KFUNC_CALL,
    PSEUDO_MAP,
    PSEUDO_MAP_VALUE,
    SLOT,
    BpfFormatError,
    Insn,
    decode,
)
from chamelio.bpf.maps import MAP_KIND_DATA, MAPS_SECTION, DataMaps, MapDef, declared_maps, is_data

__all__ = ["MAP_KIND_DATA", "Line", "MapDef", "Object", "ObjectError", "Program", "load_object"]

MAX_INSNS = 1_000_000  # of all programs together, after linking

R_BPF_64_64, R_BPF_64_32 = 1, 10


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

    `subprogs` names the function that starts at a slot; `lines` has a slot only where the source line changes.
    """

    name: str
    section: str
    insns: list[Insn]
    subprogs: dict[int, str] = field(default_factory=dict)
    lines: dict[int, Line] = field(default_factory=dict)

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
    lines: list[tuple[int, Line]] = field(default_factory=list)
    calls: dict[int, _Function] = field(default_factory=dict)  # slot in the section -> callee


class _Loader:
    """One object on its way from ELF to programs."""

    def __init__(self, elf: Elf, btf: Btf | None, ext: BtfExt | None) -> None:
        self.elf, self.ext = elf, ext
        self.maps, self.map_at = declared_maps(elf, btf)
        self.data = DataMaps(elf, btf, self.maps)
        self.code: dict[int, list[Insn]] = {}  # by section
        self.functions: dict[int, list[_Function]] = {}  # by section, in order

    def programs(self) -> list[Program]:
        sections = [section for section in self.elf.sections if section.executable and section.size]
        for section in sections:
            self.code[section.index] = _decode(section)
        symbols: dict[int, list[Symbol]] = {section.index: [] for section in sections}
        for symbol in self.elf.symbols:
            if symbol.type == e.STT_FUNC and symbol.section in symbols:
                symbols[symbol.section].append(symbol)
        for section in sections:
            self.functions[section.index] = self.split(section, symbols[section.index])
        for section in sections:
            self.relocate(section)
        handlers = [s for s in sections if s.name != ".text" and not s.name.startswith(".text.")]
        mains = [function for section in handlers for function in self.functions[section.index]]
        budget, out = MAX_INSNS, []
        for main in mains:
            out.append(_link(main, self.code, budget))
            budget -= len(out[-1].insns)
        return out

    def split(self, section: Section, symbols: list[Symbol]) -> list[_Function]:
        """The functions of a section, from its symbols: they cover it without overlap."""
        insns, functions, at = self.code[section.index], [], 0
        if self.ext is not None and self.ext.core_relocations.get(section.name):
            raise ObjectError(f"section {section.name}: CO-RE relocations are not supported (preserve_access_index)")
        for symbol in sorted(symbols, key=lambda s: (s.value, s.size)):
            start, end = symbol.value // SLOT, (symbol.value + symbol.size) // SLOT
            where = f"section {section.name}: function {symbol.name}"
            if symbol.value % SLOT or symbol.size % SLOT or not symbol.size or end > len(insns):
                raise ObjectError(f"{where}: bytes {symbol.value}..{symbol.value + symbol.size} are not whole instructions in it")
            if start != at:
                raise ObjectError(f"{where}: starts at instruction {start}; the one before it ends at {at}")
            functions.append(_Function(symbol.name, section, start, end))
            at = end
        if at != len(insns):
            raise ObjectError(f"section {section.name}: instructions {at}..{len(insns)} belong to no function")
        for slot, line in self.lines(section):
            _containing(functions, slot).lines.append((slot, line))
        for slot, insn in enumerate(insns):
            if insn.op == CALLX:
                raise ObjectError(f"section {section.name}: instruction {slot}: indirect calls (callx) are not supported")
        return functions

    def lines(self, section: Section) -> list[tuple[int, Line]]:
        """(slot, source line) of a section. ObjectError: a line information that points outside it."""
        infos = self.ext.lines.get(section.name, []) if self.ext is not None else []
        out = []
        for info in infos:
            if info.offset % SLOT or info.offset >= section.size:
                raise ObjectError(f"section .BTF.ext: line information for byte {info.offset} of {section.name}")
            out.append((info.offset // SLOT, Line(info.file, info.line, info.col, info.text.strip("\r\n"))))
        return out

    # ---- relocation --------------------------------------------------------------------------------------------

    def relocate(self, section: Section) -> None:
        """Resolve what the instructions of a section refer to: maps, global data, functions."""
        insns = self.code[section.index]
        relocated = set()
        for relocation in self.elf.relocations.get(section.index, []):
            slot, symbol = relocation.offset // SLOT, self.elf.symbols[relocation.symbol]
            where = f"section {section.name}: instruction {slot}"
            if relocation.offset % SLOT or slot in relocated:
                raise ObjectError(f"{where}: byte {relocation.offset} is relocated in its middle, or twice")
            relocated.add(slot)
            insn = insns[slot]
            if relocation.type == R_BPF_64_64 and insn.op == LDDW:
                insns[slot] = self.wide_load(where, section, slot, insn, symbol)
            elif relocation.type == R_BPF_64_32 and insn.is_call:
                self.call(where, section, slot, insn, symbol)
            else:
                raise ObjectError(f"{where}: relocation of type {relocation.type} on opcode {insn.op:#04x} is not supported")
        for slot, insn in enumerate(insns):
            if slot in relocated:
                continue
            where = f"section {section.name}: instruction {slot}"
            if insn.is_call and insn.src == PSEUDO_KFUNC_CALL:
                raise ObjectError(f"{where}: calls kernel function {insn.imm}; kfuncs are not supported, use helpers")
            if insn.is_call and insn.src == PSEUDO_CALL:
                self.link_call(where, section, slot, section, slot + 1 + insn.imm)
            if insn.op == LDDW and insn.src != 0:
                raise ObjectError(f"{where}: a wide load with pseudo source {insn.src} without a relocation")

    def wide_load(self, where: str, section: Section, slot: int, insn: Insn, symbol: Symbol) -> Insn:
        target = self.target(where, symbol)
        offset = symbol.value + insn.imm
        if target.name == MAPS_SECTION:
            if offset not in self.map_at:
                raise ObjectError(f"{where}: refers to byte {offset} of .maps, where no map begins")
            return replace(insn, src=PSEUDO_MAP, imm=self.map_at[offset])
        if target.executable:
            if offset % SLOT:
                raise ObjectError(f"{where}: refers to byte {offset} of {target.name}, the middle of an instruction")
            self.link_call(where, section, slot, target, offset // SLOT)
            return replace(insn, src=PSEUDO_FUNC, imm=0)
        if not is_data(target):
            raise ObjectError(f"{where}: refers to section {target.name}, which is neither maps, code nor global data")
        if offset >= target.size:
            raise ObjectError(f"{where}: refers to byte {offset} of {target.name}, which has {target.size}")
        return replace(insn, src=PSEUDO_MAP_VALUE, imm=self.data.index(target) | offset << 32)

    def call(self, where: str, section: Section, slot: int, insn: Insn, symbol: Symbol) -> None:
        target = self.target(where, symbol)
        if insn.src != PSEUDO_CALL or not target.executable or symbol.value % SLOT:
            raise ObjectError(f"{where}: calls {symbol.name or target.name}, which is not a function of this object")
        self.link_call(where, section, slot, target, symbol.value // SLOT + insn.imm + 1)

    def link_call(self, where: str, section: Section, slot: int, target: Section, to: int) -> None:
        """Note that the instruction at `slot` needs the function that starts at slot `to` of section `target`."""
        functions = self.functions.get(target.index)
        callee = _containing(functions, to) if functions else None
        if callee is None or callee.start != to:
            raise ObjectError(f"{where}: calls instruction {to} of {target.name}, where no function begins")
        _containing(self.functions[section.index], slot).calls[slot] = callee

    def target(self, where: str, symbol: Symbol) -> Section:
        """The section that a symbol is in. ObjectError: an extern."""
        if symbol.section == e.SHN_UNDEF:
            raise ObjectError(
                f"{where}: needs {symbol.name or 'a symbol without a name'}, which this object does not define; "
                "there is no C library and no kernel behind a handler"
            )
        if symbol.section >= e.SHN_LORESERVE:
            raise ObjectError(f"{where}: needs {symbol.name}, which is in no section")
        return self.elf.sections[symbol.section]


def _decode(section: Section) -> list[Insn]:
    if section.size > MAX_INSNS * SLOT:
        raise ObjectError(f"section {section.name}: {section.size // SLOT} instructions; the limit is {MAX_INSNS}")
    try:
        return decode(section.data)
    except BpfFormatError as error:
        raise ObjectError(f"section {section.name}: {error}") from None


def _containing(functions: list[_Function], slot: int) -> _Function:
    """The last function that starts at or before a slot (the first one, before slot 0)."""
    return functions[max(bisect_right(functions, slot, key=lambda f: f.start) - 1, 0)]


def _link(main: _Function, code: dict[int, list[Insn]], budget: int) -> Program:
    """A function and all that it calls, one behind the other. ObjectError: more than `budget` instructions."""
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
            raise ObjectError(
                f"section {main.section.name}: program {main.name} with all that it calls brings the object "
                f"over {MAX_INSNS} instructions"
            )
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
    return program


def _types(elf: Elf) -> tuple[Btf | None, BtfExt | None]:
    section = elf.find(".BTF")
    if section is None:
        return None, None
    btf = Btf.parse(section.data)
    ext = elf.find(".BTF.ext")
    return btf, parse_btf_ext(ext.data, btf.strings) if ext is not None else None


def load_object(data: bytes, name: str = "object") -> Object:
    """Load an object file; `name` is what errors call it.

    ObjectError: not a BPF object, damaged, over a limit (16 MB, 4,096 sections, 64 maps, 1M instructions), or using
    what is not supported: CO-RE relocations, kfuncs, externs, indirect calls, legacy maps, legacy packet access.
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
