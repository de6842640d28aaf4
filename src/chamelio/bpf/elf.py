"""Relocatable ELF files for BPF: sections, symbols and relocations, every offset checked before it is followed.

System V ABI, chapter 4; only what a BPF compiler writes: 64 bits, little-endian, ET_REL, machine EM_BPF.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chamelio.bpf.insn import BpfFormatError
from chamelio.bpf.strings import Strings

MAX_BYTES = 16 << 20
MAX_SECTIONS = 0xFF00 - 1  # more are not counted in the header
MAX_SYMBOLS = 1 << 19

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 0x1, 0x2, 0x4, 0x800
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = 0, 1, 2, 3
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2

_HEADER = struct.Struct("<4sBBBBQ2HI3QI6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")


class ObjectError(BpfFormatError):
    """An object file that cannot be read. The message names the object, the place, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `data` is empty for SHT_NOBITS, whose `size` counts zero bytes."""

    index: int
    name: str
    type: int
    flags: int
    size: int
    link: int
    info: int
    data: bytes

    @property
    def executable(self) -> bool:
        """Holds instructions."""
        return self.type == SHT_PROGBITS and bool(self.flags & SHF_EXECINSTR)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol; `section` is the index of the section that `value` (bytes) counts from, or SHN_UNDEF."""

    name: str
    type: int
    bind: int
    section: int
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Relocation:
    """A place to fill in: `offset` in bytes, the type, and the index of the symbol that it refers to."""

    offset: int
    type: int
    symbol: int


@dataclass(frozen=True)
class Elf:
    """An object file, taken apart. `relocations` are by the index of the section that they apply to."""

    sections: list[Section]
    symbols: list[Symbol]
    relocations: dict[int, list[Relocation]]

    def find(self, name: str) -> Section | None:
        """The first section with this name."""
        return next((section for section in self.sections if section.name == name), None)


def _sections(data: bytes, table: int, count: int, names: int) -> list[Section]:
    headers, total = [], 0
    for index in range(count):
        header = _SECTION.unpack_from(data, table + index * _SECTION.size)
        headers.append(header)
        _, type_, flags, _, offset, size, *_ = header
        if type_ not in (0, SHT_NOBITS) and offset + size > len(data):
            raise ObjectError(f"section {index}: bytes {offset}..{offset + size} are past the end of the file")
        total += 0 if type_ in (0, SHT_NOBITS) else size
        if total > len(data):
            raise ObjectError(f"section {index}: overlaps another; {len(data)} bytes of file hold {total} of sections")
        if flags & SHF_COMPRESSED:
            raise ObjectError(f"section {index}: is compressed; build without -gz")
    if names >= count:
        raise ObjectError(f"the table of section names is section {names} of {count}")
    at, length = headers[names][4], headers[names][5]
    strings = Strings(data[at : at + length] if headers[names][1] == SHT_STRTAB else b"", "section names")
    out = []
    for index, (name_at, type_, flags, _, offset, size, link, info, _, _) in enumerate(headers):
        content = b"" if type_ in (0, SHT_NOBITS) else data[offset : offset + size]
        out.append(Section(index, strings[name_at], type_, flags, size, link, info, content))
    return out


def _linked(sections: list[Section], section: Section) -> Section:
    if section.link >= len(sections):
        raise ObjectError(f"section {section.name}: is linked to section {section.link} of {len(sections)}")
    return sections[section.link]


def _whole(section: Section, record: int) -> None:
    if section.size % record:
        raise ObjectError(f"section {section.name}: {section.size} bytes are not a multiple of {record}")


def _symbols(sections: list[Section]) -> list[Symbol]:
    tables = [section for section in sections if section.type == SHT_SYMTAB]
    if len(tables) > 1:
        raise ObjectError(f"there are {len(tables)} symbol tables; an object has one")
    out = []
    for table in tables:
        _whole(table, _SYMBOL.size)
        if table.size > MAX_SYMBOLS * _SYMBOL.size:
            raise ObjectError(f"{table.size // _SYMBOL.size} symbols; an object has at most {MAX_SYMBOLS}")
        strings = Strings(_linked(sections, table).data, "symbol names")
        for index, (name_at, info, _, section, value, size) in enumerate(_SYMBOL.iter_unpack(table.data)):
            name = strings[name_at]
            if SHN_UNDEF < section < SHN_LORESERVE and section >= len(sections):
                raise ObjectError(f"symbol {name or index}: is in section {section} of {len(sections)}")
            out.append(Symbol(name, info & 0xF, info >> 4, section, value, size))
    return out


def _relocations(sections: list[Section], symbols: list[Symbol]) -> dict[int, list[Relocation]]:
    out: dict[int, list[Relocation]] = {}
    for section in sections:
        if section.type not in (SHT_REL, SHT_RELA):
            continue
        if section.info >= len(sections):
            raise ObjectError(f"section {section.name}: relocates section {section.info} of {len(sections)}")
        target = sections[section.info]
        if not target.flags & SHF_ALLOC:
            continue  # debugging information
        if section.type == SHT_RELA:
            raise ObjectError(f"section {section.name}: relocations with addends (RELA) are not what BPF compilers write")
        _whole(section, _RELOCATION.size)
        if _linked(sections, section).type != SHT_SYMTAB:
            raise ObjectError(f"section {section.name}: is not linked to the symbol table")
        entries = out.setdefault(section.info, [])
        for offset, info in _RELOCATION.iter_unpack(section.data):
            symbol = info >> 32
            if symbol >= len(symbols) or offset >= target.size:
                raise ObjectError(
                    f"section {section.name}: relocates byte {offset} of {target.name} ({target.size} bytes) "
                    f"by symbol {symbol} of {len(symbols)}"
                )
            entries.append(Relocation(offset, info & 0xFFFFFFFF, symbol))
    return out


def read(data: bytes) -> Elf:
    """Take an object file apart. ObjectError: not an object for BPF, or damaged."""
    if len(data) > MAX_BYTES:
        raise ObjectError(f"{len(data)} bytes; an object has at most {MAX_BYTES}")
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise ObjectError("is not an ELF file; build it with `chamelio protocol build FILE.c`")
    fields = _HEADER.unpack_from(data)
    _, bits, order, _, _, _, type_, machine, _, _, _, table, _, _, _, _, entry_size, count, names = fields
    if bits == 2 and order == 2:
        raise ObjectError("is big-endian; compile for -target bpfel")
    if bits != 2 or order != 1:
        raise ObjectError("is not a 64-bit little-endian ELF file; compile for -target bpfel")
    if type_ != 1:
        raise ObjectError(f"is an ELF file of type {type_}, not relocatable (1); compile with -c, do not link")
    if machine not in (0, 247):  # clang before 3.9 wrote 0
        raise ObjectError(f"is for machine {machine}, not BPF (247); compile with -target bpfel")
    if entry_size != _SECTION.size or not 0 < count <= MAX_SECTIONS:
        raise ObjectError(f"has {count} sections described by {entry_size} bytes each; 1..{MAX_SECTIONS}, 64 are expected")
    if table + count * _SECTION.size > len(data):
        raise ObjectError(f"is truncated: the section table at {table} is past the end of {len(data)} bytes")
    sections = _sections(data, table, count, names)
    symbols = _symbols(sections)
    return Elf(sections, symbols, _relocations(sections, symbols))
