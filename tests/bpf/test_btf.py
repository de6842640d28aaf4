"""Type information: queries, dtypes, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from bpf.btf_builder import Builder
from chamelio.bpf.btf import Array, Btf, Int, Struct
from chamelio.bpf.btf_ext import parse_btf_ext
from chamelio.bpf.insn import BpfFormatError
from chamelio.bpf.object import Object
from chamelio.bpf.strings import Strings


def parsed(build: Callable[[Builder], int]) -> tuple[Btf, int]:
    builder = Builder()
    id_ = build(builder)
    return Btf.parse(builder.bytes()), id_


# ---- what the compiler writes -------------------------------------------------------------------------------------


def test_a_structure_becomes_a_dtype_laid_out_as_in_c(sample: Object) -> None:
    assert sample.btf is not None
    dtype = sample.btf.dtype(sample.btf.find("conn", "struct"))
    assert dtype.itemsize == 40
    assert dtype.fields is not None
    assert {name: (field[0], field[1]) for name, field in dtype.fields.items()} == {
        "snd_una": (np.dtype("<u4"), 0),
        "cwnd": (np.dtype("<u4"), 4),
        "in": (np.dtype({"names": ["a", "b"], "formats": ["<u2", ("u1", 3)], "offsets": [0, 2], "itemsize": 6}), 8),
        "whole": (np.dtype("<u8"), 16),
        "halves": (np.dtype(("<u4", (2,))), 16),
        "pointer": (np.dtype("<u8"), 24),
        "mood": (np.dtype("<i4"), 32),
    }


def test_fields_of_a_union_share_their_bytes(sample: Object) -> None:
    assert sample.btf is not None
    values = np.zeros(3, sample.btf.dtype(sample.btf.find("conn", "struct")))
    values["whole"][1] = 0x1_0000_0002
    assert values["halves"][1].tolist() == [2, 1]


def test_enumerators_keep_their_sign(sample: Object) -> None:
    assert sample.btf is not None
    assert sample.btf.enum("mood") == {"CALM": 1, "TENSE": -2}


def test_tags_are_found_by_field(sample: Object) -> None:
    assert sample.btf is not None
    assert sample.btf.decl_tags(sample.btf.find("conn", "struct")) == {"snd_una": ["fast"], "cwnd": ["slow"]}


def test_types_are_found_by_name_and_kind(sample: Object) -> None:
    btf = sample.btf
    assert btf is not None
    assert isinstance(btf[btf.find("conn", "struct")], Struct)
    assert isinstance(btf.resolve(btf.find("u16", "typedef")), Int)
    assert btf.sizeof(btf.find("key", "struct")) == 12
    with pytest.raises(KeyError, match="no struct nothing"):
        btf.find("nothing", "struct")
    with pytest.raises(KeyError, match="no enum conn"):
        btf.enum("conn")


# ---- corner cases ---------------------------------------------------------------------------------------------------


def test_an_unnamed_structure_is_found_by_its_typedef() -> None:
    btf, id_ = parsed(lambda b: b.add(8, "pair_t", size=b.struct("", 4, [("x", b.int("int", 4), 0)])))
    assert btf.find("pair_t", "struct") == btf.resolve_id(id_)


def test_64_bit_enumerations() -> None:
    btf, id_ = parsed(lambda b: b.enum64("big", [("LOW", -1), ("HIGH", 1 << 40)], signed=True))
    assert btf.enum("big") == {"LOW": -1, "HIGH": 1 << 40}
    assert btf.dtype(id_) == np.dtype("<i8")
    btf, _ = parsed(lambda b: b.enum64("big", [("ALL", (1 << 64) - 1)], signed=False))
    assert btf.enum("big") == {"ALL": (1 << 64) - 1}


def test_unsigned_enumerators_are_not_negative() -> None:
    btf, _ = parsed(lambda b: b.enum("flags", 4, [("TOP", 0x80000000)], signed=False))
    assert btf.enum("flags") == {"TOP": 0x80000000}


def test_arrays_of_arrays_and_of_nothing() -> None:
    btf, id_ = parsed(lambda b: b.array(b.array(b.int("int", 4, True), 3), 2))
    assert btf.dtype(id_) == np.dtype(("<i4", (2, 3))) and btf.sizeof(id_) == 24
    btf, id_ = parsed(lambda b: b.array(b.int("int", 4), 0))
    assert btf.dtype(id_).itemsize == 0


def test_numbers_that_numpy_does_not_have_are_opaque_bytes() -> None:
    btf, id_ = parsed(lambda b: b.int("__int128", 16))
    assert btf.dtype(id_) == np.dtype("V16")


def test_a_tag_on_the_structure_itself_has_no_field_name() -> None:
    def build(b: Builder) -> int:
        id_ = b.struct("s", 4, [("x", b.int("int", 4), 0)])
        b.tag("version2", id_, -1)
        return id_

    btf, id_ = parsed(build)
    assert btf.decl_tags(id_) == {"": ["version2"]}


def test_anonymous_members_are_lifted_at_their_offset() -> None:
    def build(b: Builder) -> int:
        u32 = b.int("u32", 4)
        inner = b.struct("", 8, [("x", u32, 0), ("y", u32, 32)], kind=5)
        return b.struct("s", 16, [("a", u32, 0), ("", inner, 64)])

    btf, id_ = parsed(build)
    fields = btf.dtype(id_).fields
    assert fields is not None
    assert [(name, field[1]) for name, field in fields.items()] == [("a", 0), ("x", 8), ("y", 12)]


def _bit_field(b: Builder) -> int:
    return b.struct("flags", 4, [("ready", b.int("u32", 4), 1 << 24)], flag=True)


def _self_containing(b: Builder) -> int:
    return b.struct("s", 8, [("again", 1, 0)])


def _anonymously_self_containing(b: Builder) -> int:
    return b.struct("s", 8, [("", 1, 0), ("", 1, 0)])


def _array_of_itself(b: Builder) -> int:
    return b.array(1, 2)


def _exploding(b: Builder) -> int:
    empty = b.struct("", 0, [])
    for _ in range(6):
        empty = b.struct("", 0, [("", empty, 0)] * 4000)
    return empty


def _variable_of_an_array_of_itself(b: Builder) -> int:
    b.add(14, "v", size=2, extra=bytes(4))
    b.array(1, 2)
    return 1


def _expanding_side_by_side(b: Builder) -> int:
    u8 = b.int("u8", 1)
    wide = b.struct("wide", 1, [(f"f{i}", u8, 0) for i in range(1000)], kind=5)
    copies = [b.struct(f"s{i}", 1, [("", wide, 0)]) for i in range(1000)]
    return b.struct("all", 1000, [(f"m{i}", copy, 8 * i) for i, copy in enumerate(copies)])


NO_DTYPE = [
    ("bit field", _bit_field, "field ready is a bit field"),
    ("structure that contains itself", _self_containing, "cyclic"),
    ("structure that contains itself without a name", _anonymously_self_containing, "cyclic"),
    ("typedef of itself", lambda b: b.add(8, "t", size=1), "cyclic"),
    ("typedefs in a circle", lambda b: b.add(8, "t", size=b.count + 2) and b.add(8, "u", size=1), "cyclic"),
    ("array of itself", _array_of_itself, "cyclic"),
    ("exponential anonymous members", _exploding, "expand to over 131072 fields"),
    ("fields that expand side by side", _expanding_side_by_side, "expand to over 131072 fields"),
    ("variable of an array of itself", _variable_of_an_array_of_itself, "has no size"),
    ("huge array", lambda b: b.array(b.int("u64", 8), 1 << 30), "takes 8589934592 bytes"),
    ("huge array of arrays", lambda b: b.array(b.array(b.int("u8", 1), 1 << 31), 1 << 31), "takes"),
    ("void", lambda b: b.add(9, size=0), "has no size"),
    ("function", lambda b: b.add(13, size=0), "has no size"),
    ("declared only", lambda b: b.add(7, "later"), "fwd later has no size"),
    ("field of no size", lambda b: b.struct("s", 8, [("x", 0, 0)]), "has no size"),
    ("field past the end", lambda b: b.struct("s", 4, [("x", b.int("u64", 8), 0)]), "field x ends past the 4 bytes"),
    (
        "two fields of one name",
        lambda b: b.struct("s", 8, [("x", b.int("u32", 4), 0), ("x", 1, 32)]),
        "one that another field has",
    ),
    ("number without a name", lambda b: b.struct("s", 8, [("", b.int("u32", 4), 0)]), "has no name"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in NO_DTYPE], ids=[case[0] for case in NO_DTYPE])
def test_what_has_no_dtype_is_refused(make: Callable[[Builder], int], message: str) -> None:
    btf, id_ = parsed(make)
    with pytest.raises(BpfFormatError) as error:
        btf.dtype(id_)
    assert message in str(error.value)


def test_a_tag_on_a_field_that_is_not_there_is_refused() -> None:
    def build(b: Builder) -> int:
        id_ = b.struct("s", 4, [("x", b.int("int", 4), 0)])
        b.tag("fast", id_, 1)
        return id_

    btf, id_ = parsed(build)
    with pytest.raises(BpfFormatError, match="on field 1 of struct s"):
        btf.decl_tags(id_)


@pytest.mark.parametrize("id_", [-1, 2, 1 << 31])
def test_an_id_out_of_range_is_refused(id_: int) -> None:
    btf, _ = parsed(lambda b: b.int("int", 4))
    for ask in (btf.resolve, btf.sizeof, btf.dtype, btf.decl_tags, btf.__getitem__):
        with pytest.raises(BpfFormatError, match=f"no type {id_}"):
            ask(id_)


# ---- malformed sections ---------------------------------------------------------------------------------------------

GOOD = Builder()
GOOD.array(GOOD.int("int", 4), 3)
GOOD_BYTES = GOOD.bytes()


def patched(at: int, layout: str, value: int) -> bytes:
    out = bytearray(GOOD_BYTES)
    struct.pack_into(layout, out, at, value)
    return bytes(out)


def with_type(kind: int, size: int = 0, count: int = 0, extra: bytes = b"") -> bytes:
    builder = Builder()
    builder.add(kind, "t", count, size, extra)
    return builder.bytes()


MALFORMED = [
    ("empty", b"", "ends at byte 0"),
    ("big-endian", b"\xeb\x9f" + GOOD_BYTES[2:], "big-endian"),
    ("magic", patched(0, "<H", 0x1234), "magic 0x1234"),
    ("version", patched(2, "<B", 2), "version 2"),
    ("header too long", patched(4, "<I", 1 << 31), "claims a header of 2147483648 bytes"),
    ("header too short", patched(4, "<I", 8), "claims a header of 8 bytes"),
    ("types past the end", patched(12, "<I", 0xFFFFFFFF), "past the end"),
    ("strings past the end", patched(16, "<I", 0xFFFFFFFF), "past the end"),
    ("name past the end", patched(24, "<I", 1 << 20), "no string at 1048576"),
    ("type cut in two", patched(12, "<I", 14), "in the middle of a record"),
    ("element past the last type", patched(40 + 12, "<I", 99), "type 2 (array) refers to type 99 of 3"),
    ("unknown kind", with_type(25), "unknown kind 25"),
    ("integer of 3 bytes", with_type(1, 3, extra=struct.pack("<I", 24)), "integer of 24 bits in 3 bytes"),
    ("integer of 65 bits in 8 bytes", with_type(1, 8, extra=struct.pack("<I", 65)), "integer of 65 bits in 8 bytes"),
    ("float of 3 bytes", with_type(16, 3), "floating-point number of 3 bytes"),
    ("enumeration of 3 bytes", with_type(6, 3), "enumeration of 3 bytes"),
    ("more members than bytes", with_type(4, 8, 0xFFFF), "claims 65535 entries"),
    ("member outside", with_type(4, 8, 1, struct.pack("<III", 0, 0, 65)), "at bit 65 of 64"),
]


@pytest.mark.fault(15)
@pytest.mark.parametrize(("data", "message"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_malformed_type_information_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BpfFormatError) as error:
        Btf.parse(data)
    assert message in str(error.value)


@pytest.mark.fault(15)
def test_more_types_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chamelio.bpf.btf.MAX_TYPES", 1)
    with pytest.raises(BpfFormatError, match="more than 1 types"):
        Btf.parse(GOOD_BYTES)


@pytest.mark.fault(15)
def test_overlapping_strings_cannot_multiply() -> None:
    strings = Strings(b"\0" + b"a" * 10_000 + b"\0", "names")
    with pytest.raises(BpfFormatError, match="overlap"):
        for offset in range(1, 10_000):
            strings[offset]


def test_nesting_below_the_limit_works() -> None:
    def build(b: Builder) -> int:
        id_ = b.int("u8", 1)
        for _ in range(20):
            id_ = b.struct("s", 1, [("inner", id_, 0)])
        return id_

    btf, id_ = parsed(build)
    assert btf.dtype(id_).itemsize == 1
    assert not isinstance(btf.resolve(id_), Array)


def _ext(lines: bytes, core: bytes = b"") -> bytes:
    head = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, len(lines), len(lines), len(core))
    return head + lines + core


EXT_STRINGS = Strings(b"\0sec\0file.c\0return 0;\0", ".BTF")


def test_line_information_is_read_by_section() -> None:
    ext = parse_btf_ext(_ext(struct.pack("<III4I", 16, 1, 1, 8, 5, 12, 7 << 10 | 3)), EXT_STRINGS)
    (info,) = ext.lines["sec"]
    assert (info.offset, info.file, info.line, info.col, info.text) == (8, "file.c", 7, 3, "return 0;")


def test_core_relocations_are_read_by_section() -> None:
    ext = parse_btf_ext(_ext(b"", struct.pack("<III8I", 16, 1, 2, 8, 1, 5, 0, 16, 1, 5, 99)), EXT_STRINGS)
    first, second = ext.core_relocations["sec"]
    assert (first.offset, first.type, first.access, first.kind) == (8, 1, "file.c", 0)
    builder = Builder()
    builder.struct("sock", 8, [])
    btf = Btf.parse(builder.bytes())
    assert first.describe(btf) == "the offset of a field of struct sock"
    assert second.describe(None) == "kind 99 of 1"


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    "part",
    [
        struct.pack("<III", 16, 1, 1 << 31),
        struct.pack("<III", 0, 1, 1 << 31),
        struct.pack("<III", 4, 1, 0),
        struct.pack("<II", 16, 1),
        struct.pack("<III4I", 16, 1, 1, 8, 999, 12, 0),
    ],
)
def test_a_damaged_part_of_the_line_information_counts_as_empty(part: bytes) -> None:
    lines = struct.pack("<III4I", 16, 1, 1, 8, 5, 12, 7 << 10 | 3)
    assert parse_btf_ext(_ext(part), EXT_STRINGS).lines == {}
    assert list(parse_btf_ext(_ext(lines, part), EXT_STRINGS).lines) == ["sec"]


@pytest.mark.fault(15)
def test_half_a_header_of_line_information_is_refused() -> None:
    with pytest.raises(BpfFormatError, match="ends at byte 3"):
        parse_btf_ext(b"\x9f\xeb\x01", EXT_STRINGS)
