"""`.BTF.ext`: the source line of every instruction, and where CO-RE relocations would apply."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from chamelio.bpf.btf import HEADER, SECTIONS, Reader, header, section
from chamelio.bpf.insn import BpfFormatError
from chamelio.bpf.strings import Strings


@dataclass(frozen=True, slots=True)
class LineInfo:
    """The source of the instruction at byte `offset` of its section, in effect until the next."""

    offset: int
    file: str
    line: int
    col: int
    text: str


@dataclass(frozen=True, slots=True)
class BtfExt:
    """Line information by section, and how many CO-RE relocations each section has."""

    lines: dict[str, list[LineInfo]]
    core_relocations: dict[str, int]


_RECORD_SIZE = struct.Struct("<I")
_CORE_PART = struct.Struct("<II")
_SECTION_HEAD = struct.Struct("<II")
_LINE = struct.Struct("<4I")


def parse_btf_ext(data: bytes, strings: Strings) -> BtfExt:
    """A `.BTF.ext` section; its names are in the strings of `.BTF`. BpfFormatError says what is wrong with it."""
    length, fixed = header(data, "BTF.ext")
    func_at, func_length, line_at, line_length = SECTIONS.unpack_from(data, fixed)
    section(data, length, func_at, func_length, "BTF.ext function information")
    lines: dict[str, list[LineInfo]] = {}
    part = section(data, length, line_at, line_length, "BTF.ext line information")
    for name, record_size, records in _per_section(part, strings, _LINE.size):
        rows = lines.setdefault(name, [])
        for at in range(0, len(records), record_size):
            offset, file_at, text_at, line_col = _LINE.unpack_from(records, at)
            rows.append(LineInfo(offset, strings[file_at], line_col >> 10, line_col & 0x3FF, strings[text_at]))
    core: dict[str, int] = {}
    if length >= HEADER.size + SECTIONS.size + _CORE_PART.size:
        core_at, core_length = _CORE_PART.unpack_from(data, fixed + SECTIONS.size)
        part = section(data, length, core_at, core_length, "BTF.ext relocations")
        for name, record_size, records in _per_section(part, strings, _LINE.size):
            core[name] = core.get(name, 0) + len(records) // record_size
    return BtfExt(lines, core)


def _per_section(data: bytes, strings: Strings, least: int) -> list[tuple[str, int, bytes]]:
    """(section, bytes per record, records) of one part of .BTF.ext."""
    if not data:
        return []
    reader = Reader(data, "BTF.ext")
    (record_size,) = reader.take(_RECORD_SIZE)
    if not least <= record_size <= 256 or record_size % 4:
        raise BpfFormatError(f"BTF.ext: records of {record_size} bytes; at least {least} are expected")
    out = []
    while reader.at < len(data):
        name_at, count = reader.take(_SECTION_HEAD)
        end = reader.at + count * record_size
        if end > len(data):
            raise BpfFormatError(f"BTF.ext: section {strings[name_at]} claims {count} records, which end past the data")
        out.append((strings[name_at], record_size, data[reader.at : end]))
        reader.at = end
    return out
