"""`.BTF.ext`: the source line of every instruction, and where CO-RE relocations would apply."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field

from chamelio.bpf.btf import HEADER, SECTIONS, Btf, Reader, header, section
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
class CoreRelocation:
    """A number in the instruction at byte `offset` that depends on a kernel's types: `kind` of what, of `type`, at `access`."""

    offset: int
    type: int
    access: str
    kind: int

    def describe(self, btf: Btf | None) -> str:
        """What is asked of which type, for people."""
        kind = _CORE_KINDS[self.kind] if self.kind < len(_CORE_KINDS) else f"kind {self.kind}"
        try:
            return f"{kind} of {btf.describe(self.type) if btf is not None else self.type}"
        except BpfFormatError:
            return kind


@dataclass(frozen=True, slots=True)
class BtfExt:
    """Line information and CO-RE relocations by section."""

    lines: dict[str, list[LineInfo]] = field(default_factory=dict)
    core_relocations: dict[str, list[CoreRelocation]] = field(default_factory=dict)


NOTHING = BtfExt()
_CORE_KINDS = (
    "the offset of a field", "the size of a field", "the existence of a field", "the sign of a field", "the place of a bit field",
    "the place of a bit field", "the local number", "the kernel's number", "the existence", "the size", "the existence of a value",
    "a value", "the likeness",
)  # fmt: skip
_RECORD_SIZE = struct.Struct("<I")
_CORE_PART = struct.Struct("<II")
_SECTION_HEAD = struct.Struct("<II")
_RECORD = struct.Struct("<4I")


def parse_btf_ext(data: bytes, strings: Strings) -> BtfExt:
    """A `.BTF.ext` section; its names are in the strings of `.BTF`. A part that is damaged counts as empty.

    BpfFormatError: its header is damaged.
    """
    length, fixed = header(data, "BTF.ext")
    _, _, line_at, line_length = SECTIONS.unpack_from(data, fixed)
    lines: dict[str, list[LineInfo]] = {}
    core: dict[str, list[CoreRelocation]] = {}
    with contextlib.suppress(BpfFormatError):
        lines = _lines(section(data, length, line_at, line_length, "BTF.ext line information"), strings)
    if length >= HEADER.size + SECTIONS.size + _CORE_PART.size:
        core_at, core_length = _CORE_PART.unpack_from(data, fixed + SECTIONS.size)
        with contextlib.suppress(BpfFormatError):
            core = _core_relocations(section(data, length, core_at, core_length, "BTF.ext relocations"), strings)
    return BtfExt(lines, core)


def _core_relocations(part: bytes, strings: Strings) -> dict[str, list[CoreRelocation]]:
    core: dict[str, list[CoreRelocation]] = {}
    for name, record_size, records in _per_section(part, strings):
        found = core.setdefault(name, [])
        for at in range(0, len(records), record_size):
            offset, type_, access_at, kind = _RECORD.unpack_from(records, at)
            found.append(CoreRelocation(offset, type_, strings[access_at], kind))
    return core


def _lines(part: bytes, strings: Strings) -> dict[str, list[LineInfo]]:
    lines: dict[str, list[LineInfo]] = {}
    for name, record_size, records in _per_section(part, strings):
        rows = lines.setdefault(name, [])
        for at in range(0, len(records), record_size):
            offset, file_at, text_at, line_col = _RECORD.unpack_from(records, at)
            rows.append(LineInfo(offset, strings[file_at], line_col >> 10, line_col & 0x3FF, strings[text_at]))
    return lines


def _per_section(data: bytes, strings: Strings) -> list[tuple[str, int, bytes]]:
    """(section, bytes per record, records) of one part of .BTF.ext."""
    if not data:
        return []
    reader = Reader(data, "BTF.ext")
    (record_size,) = reader.take(_RECORD_SIZE)
    if not _RECORD.size <= record_size <= 256 or record_size % 4:
        raise BpfFormatError(f"BTF.ext: records of {record_size} bytes; at least {_RECORD.size} are expected")
    out = []
    while reader.at < len(data):
        name_at, count = reader.take(_SECTION_HEAD)
        end = reader.at + count * record_size
        if end > len(data):
            raise BpfFormatError(f"BTF.ext: section {strings[name_at]} claims {count} records, which end past the data")
        out.append((strings[name_at], record_size, data[reader.at : end]))
        reader.at = end
    return out
