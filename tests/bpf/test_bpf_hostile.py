"""Malformed and hostile objects: whatever is done to a real one, the answer is a clean error, soon."""

from __future__ import annotations

import random
import struct
import time

import pytest

from bpf.btf_builder import Builder
from chamelio.bpf import elf
from chamelio.bpf.btf import Btf
from chamelio.bpf.fault import Fault
from chamelio.bpf.insn import TRAP, BpfFormatError
from chamelio.bpf.maps import MAX_MAPS, declared_maps
from chamelio.bpf.object import ObjectError, load_object
from chamelio.verify import Limits
from chamelio.verify.verifier import verify_every

DEADLINE = 2.0  # seconds for one object of a few kilobytes; they take milliseconds
SECTION_BYTES = 64
INTERESTING = (0, 1, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)


def exercise(data: bytes) -> str:
    """Load, verify, and ask for all that can be asked; the error's message, or nothing. Anything but ObjectError escapes."""
    begin = time.monotonic()
    try:
        obj = load_object(data, "hostile.o")
    except ObjectError as error:
        assert time.monotonic() - begin < DEADLINE
        return str(error)
    for program in obj.programs:
        assert all(program.subprog_at(pc) <= pc for pc in range(len(program.insns)))
        _ = [program.line_at(pc) for pc in range(len(program.insns))]
        assert all(v.verdict for v in verify_every(obj, program, limits=Limits(steps=2_000, seconds=DEADLINE / 4)))
    if obj.btf is not None:
        ask_everything(obj.btf)
    assert time.monotonic() - begin < DEADLINE
    return ""


def ask_everything(btf: Btf) -> None:
    """Put every question about every type; the answer may be BpfFormatError."""
    for id_ in range(len(btf)):
        for ask in (btf.dtype, btf.sizeof, btf.decl_tags, btf.describe):
            try:
                ask(id_)
            except BpfFormatError as error:
                assert str(error)


@pytest.fixture(scope="module")
def places(sample_bytes: bytes) -> list[int]:
    """Where a change can matter: the headers and every section but debugging information."""
    (table,) = struct.unpack_from("<Q", sample_bytes, 40)
    out = [*range(64), *range(table, len(sample_bytes))]
    for section in elf.read(sample_bytes).sections:
        if section.data and ".debug" not in section.name:
            at = sample_bytes.index(section.data)
            out += range(at, at + section.size)
    return out


def test_the_untouched_object_loads(sample_bytes: bytes) -> None:
    assert exercise(sample_bytes) == ""


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(4))
def test_truncations_are_clean_errors(sample_bytes: bytes, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        assert exercise(sample_bytes[: rng.randrange(len(sample_bytes))])


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_give_an_object_or_a_clean_error(sample_bytes: bytes, places: list[int], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        data = bytearray(sample_bytes)
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            data[rng.choice(places)] ^= 1 << rng.randrange(8)
        exercise(bytes(data))


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(8))
def test_overwritten_words_give_an_object_or_a_clean_error(sample_bytes: bytes, places: list[int], seed: int) -> None:
    rng = random.Random(1000 + seed)
    for _ in range(100):
        data = bytearray(sample_bytes)
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.choice(places) & ~3
            value = rng.choice((*INTERESTING, rng.getrandbits(8), rng.getrandbits(32)))
            data[at : at + 4] = value.to_bytes(4, "little")
        exercise(bytes(data))


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(4))
def test_moved_blocks_give_an_object_or_a_clean_error(sample_bytes: bytes, places: list[int], seed: int) -> None:
    rng = random.Random(2000 + seed)
    for _ in range(50):
        data = bytearray(sample_bytes)
        source, target, length = rng.choice(places), rng.choice(places), 4 * rng.randrange(1, 32)
        data[target : target + length] = data[source : source + length]
        exercise(bytes(data))


def random_types(rng: random.Random) -> bytes:
    """Types that refer to each other at random: cycles, wrong kinds, sizes that do not fit."""
    builder, total = Builder(), rng.randrange(1, 12)

    def other() -> int:
        return rng.randrange(total + 1)

    def small() -> int:
        return rng.choice((0, 1, 2, 4, 8, 64))

    for _ in range(total):
        name = rng.choice(("", "a", "b"))
        match rng.randrange(9):
            case 0:
                builder.int(name, rng.choice((1, 2, 4, 8, 16)))
            case 1:
                builder.array(other(), rng.choice((0, 1, 3, 1 << 16, 0xFFFFFFFF)))
            case 2 | 3:
                members = [(rng.choice(("", "x", "y", "z")), other(), small()) for _ in range(rng.randrange(4))]
                builder.struct(name, rng.choice((8, 16, 64)), members, rng.choice((4, 5)), rng.random() < 0.2)
            case 4:
                builder.enum(name, rng.choice((1, 4, 8)), [("e", small())], rng.random() < 0.5)
            case 5:
                builder.add(14, name, size=other(), extra=bytes(4))
            case 6:
                variables = b"".join(struct.pack("<III", other(), small(), small()) for _ in range(2))
                builder.add(15, name, 2, small(), variables)
            case 7:
                builder.tag(name, other(), rng.randrange(-1, 3))
            case _:
                builder.add(rng.choice((2, 7, 8, 9, 10, 11, 12, 18)), name, size=other())
    return builder.bytes()


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(4))
def test_types_that_refer_to_each_other_at_random_give_answers_or_clean_errors(seed: int) -> None:
    rng, parsed = random.Random(3000 + seed), 0
    for _ in range(300):
        try:
            btf = Btf.parse(random_types(rng))
        except BpfFormatError:
            continue
        parsed += 1
        ask_everything(btf)
    assert parsed > 200


# ---- crafted ------------------------------------------------------------------------------------------------------


def section_header(data: bytes, name: str) -> int:
    """Where the header of a section lies."""
    (table,) = struct.unpack_from("<Q", data, 40)
    section = elf.read(data).find(name)
    assert section is not None
    return table + section.index * SECTION_BYTES


def patch(data: bytes, at: int, layout: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(layout, out, at, value)
    return bytes(out)


HEADER_CASES = [
    ("no ELF", 0, "<I", 0, "is not an ELF file"),
    ("32 bits", 4, "<B", 1, "is not a 64-bit little-endian"),
    ("big-endian", 5, "<B", 2, "is big-endian"),
    ("executable", 16, "<H", 2, "of type 2, not relocatable"),
    ("machine x86-64", 18, "<H", 62, "is for machine 62, not BPF"),
    ("section table past the end", 40, "<Q", 1 << 60, "is truncated: the section table"),
    ("section table just past the end", 60, "<H", 4096, "is truncated: the section table"),
    ("no sections", 60, "<H", 0, "has 0 sections"),
    ("too many sections", 60, "<H", 0xFFFF, "has 65535 sections"),
    ("wrong entry size", 58, "<H", 40, "described by 40 bytes each"),
    ("section names elsewhere", 62, "<H", 0xFFF0, "section names is section 65520"),
]
SECTION_CASES = [
    ("offset past the end", "chamelio/rx", 24, "<Q", 1 << 62, "past the end of the file"),
    ("size past the end", "chamelio/rx", 32, "<Q", 1 << 62, "past the end of the file"),
    ("size not of whole instructions", "chamelio/rx", 32, "<Q", 515, "515 bytes of code are not a multiple of 8"),
    ("compressed", ".BTF", 8, "<Q", 0x800, "is compressed"),
    ("name past the end", "chamelio/rx", 0, "<I", 1 << 30, "section names: no string at"),
    ("symbols with no names", ".symtab", 40, "<I", 0xFFFF, "is linked to section 65535"),
    ("symbols not whole", ".symtab", 32, "<Q", 25, "25 bytes are not a multiple of 24"),
    ("relocations of nothing", ".relchamelio/rx", 44, "<I", 0xFFFF, "relocates section 65535"),
    ("relocations with addends", ".relchamelio/rx", 4, "<I", 4, "relocations with addends (RELA)"),
    ("relocations by no symbols", ".relchamelio/rx", 40, "<I", 2, "is not linked to the symbol table"),
]


@pytest.mark.fault(15)
@pytest.mark.parametrize(("at", "layout", "value", "message"), [c[1:] for c in HEADER_CASES], ids=[c[0] for c in HEADER_CASES])
def test_bad_file_headers_are_named(sample_bytes: bytes, at: int, layout: str, value: int, message: str) -> None:
    assert message in exercise(patch(sample_bytes, at, layout, value))


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("section", "at", "layout", "value", "message"), [c[1:] for c in SECTION_CASES], ids=[c[0] for c in SECTION_CASES]
)
def test_bad_sections_are_named(sample_bytes: bytes, section: str, at: int, layout: str, value: int, message: str) -> None:
    assert message in exercise(patch(sample_bytes, section_header(sample_bytes, section) + at, layout, value))


DAMAGED_PARTS = {
    "huge zeroed data": (".bss", 32, 1 << 62, ("V160", "section .bss"), "rx"),
    "big-endian types": (".BTF", 24, 0, ("V144", "map flows"), "rx"),
    "no types": (".BTF", 32, 0, ("V144", "map flows"), "rx"),
}


@pytest.mark.fault(15)
@pytest.mark.parametrize(("section", "at", "value", "fault", "name"), DAMAGED_PARTS.values(), ids=DAMAGED_PARTS.keys())
def test_what_damage_concerns_is_a_fault(
    sample_bytes: bytes, section: str, at: int, value: int, fault: tuple[str, str], name: str
) -> None:
    obj = load_object(patch(sample_bytes, section_header(sample_bytes, section) + at, "<Q", value))
    program = next(p for p in obj.programs if p.name == name)
    assert fault in {(f.code, f.message) for f in program.faults.values()}
    assert all(program.insns[slot] == TRAP for slot in program.faults)


@pytest.mark.fault(15)
def test_damaged_line_information_is_no_line_information(sample_bytes: bytes) -> None:
    obj = load_object(patch(sample_bytes, section_header(sample_bytes, ".BTF.ext") + 24, "<Q", 0))
    assert all(not p.lines and not p.faults for p in obj.programs)


@pytest.mark.fault(15)
def test_a_function_that_begins_outside_its_section_is_refused(sample_bytes: bytes) -> None:
    tables = elf.read(sample_bytes)
    symtab = next(s for s in tables.sections if s.type == elf.SHT_SYMTAB)
    at = sample_bytes.index(symtab.data)
    index = next(i for i, s in enumerate(tables.symbols) if s.name == "rx")
    assert "function rx begins at byte 4 of" in exercise(patch(sample_bytes, at + 24 * index + 8, "<Q", 4))
    assert "function rx begins at byte" in exercise(patch(sample_bytes, at + 24 * index + 8, "<Q", 1 << 40))


@pytest.mark.fault(15)
@pytest.mark.parametrize(("fields", "message"), [(60, "an object has at most 1024 maps"), (20_000, "it has 20001 fields")])
def test_many_maps_of_a_large_type_take_little(fields: int, message: str) -> None:
    builder = Builder()
    number = builder.ptr(builder.array(builder.int("int", 4), 2))
    members = [(name, number, 0) for name in ("type", *(f"f{i}" for i in range(fields)))]
    large = builder.struct("large", 8 * len(members), members)
    variables = [builder.add(14, f"m{i}", size=large, extra=struct.pack("<I", 1)) for i in range(2_000)]
    builder.add(15, ".maps", len(variables), 8, b"".join(struct.pack("<III", v, 0, 8) for v in variables))
    sections = [elf.Section(i, name, 1, 0, 1 << 20, 0, 0, b"") for i, name in enumerate(("", ".maps"))]
    symbols = [elf.Symbol(f"m{i}", elf.STT_OBJECT, 1, 1, 8 * i, 8) for i in range(2_000)]
    btf = Btf.parse(builder.bytes())
    begin = time.monotonic()
    maps, places = declared_maps(elf.Elf(sections, symbols, {}), btf)
    assert time.monotonic() - begin < DEADLINE
    assert len(maps) <= MAX_MAPS and len(places) == 2_000
    last = places[1, 8 * 1999]
    assert isinstance(last, Fault) and last.message == "map m1999" and message in last.reason


@pytest.mark.fault(15)
def test_sections_that_share_bytes_cannot_multiply_memory(sample_bytes: bytes) -> None:
    count = 4096
    table = b"".join(struct.pack("<2I4Q2I2Q", 0, 1, 0, 0, 0, len(sample_bytes), 0, 0, 0, 0) for _ in range(count))
    data = patch(sample_bytes, 40, "<Q", len(sample_bytes)) + table
    assert "overlaps another" in exercise(patch(data, 60, "<H", count))


@pytest.mark.fault(15)
def test_an_object_over_the_limit_is_refused_unread() -> None:
    assert "an object has at most 16777216" in exercise(bytes(elf.MAX_BYTES + 1))


@pytest.mark.fault(15)
@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 10, bytes(64)])
def test_other_files_are_refused(data: bytes) -> None:
    assert "is not an ELF file" in exercise(data)
