"""The object loader: what it makes of a real object, and what it refuses by name."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf import elf
from chamelio.bpf.insn import LDDW, PSEUDO_CALL, PSEUDO_FUNC, PSEUDO_MAP, PSEUDO_MAP_VALUE, TRAP, jump_target
from chamelio.bpf.interp import Fault, Interpreter, Memory
from chamelio.bpf.object import MAP_KIND_DATA, MapDef, Object, Program, load_object
from chamelio.jit.layout import LayoutError, make_layout
from chamelio.verify.codes import CODES
from verify.objects import EXIT, MOV, make_object

ARRAY, HASH, RING_OUT, RING_IN, BYTES, TX, TIMER = range(1, 8)


def program(obj: Object, name: str) -> Program:
    return next(p for p in obj.programs if p.name == name)


def maps(obj: Object) -> dict[str, MapDef]:
    return {m.name: m for m in obj.maps}


# ---- a real object ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "key_size", "value_size", "max_entries", "attrs"),
    [
        ("conns", ARRAY, 4, 40, 1024, {"flags": 1}),
        ("flows", HASH, 12, 4, 4096, {"flags": 0}),
        ("out", RING_OUT, 0, 16, 256, {}),
        ("in", RING_IN, 0, 16, 128, {}),
        ("payload", BYTES, 0, 65536, 16, {}),
        ("due", TX, 0, 0, 1024, {}),
        ("timers", TIMER, 0, 0, 512, {}),
    ],
)
def test_every_kind_of_map_is_read(
    sample: Object, name: str, kind: int, key_size: int, value_size: int, max_entries: int, attrs: dict[str, int]
) -> None:
    found = maps(sample)[name]
    assert (found.kind, found.key_size, found.value_size) == (kind, key_size, value_size)
    assert (found.max_entries, found.attrs, found.data) == (max_entries, attrs, None)


def test_key_and_value_types_are_type_ids(sample: Object) -> None:
    assert sample.btf is not None
    flows = maps(sample)["flows"]
    assert flows.key_type == sample.btf.find("key", "struct")
    assert maps(sample)["conns"].value_type == sample.btf.find("conn", "struct")
    assert maps(sample)["due"].key_type is None


def test_global_data_becomes_maps_behind_the_declared_ones(sample: Object) -> None:
    data = {m.name: m for m in sample.maps[7:]}
    assert {m.kind for m in data.values()} == {MAP_KIND_DATA}
    assert data[".data"].data == (17).to_bytes(4, "little") and not data[".data"].read_only
    assert data[".bss"].data == bytes(8) and not data[".bss"].read_only
    assert data[".rodata"].read_only and (data[".rodata"].data or b"")[:4] == (5).to_bytes(4, "little")


def test_programs_are_the_functions_outside_text(sample: Object) -> None:
    assert [(p.name, p.section) for p in sample.programs] == [("rx", "chamelio/rx"), ("ring", "chamelio/ring")]


def test_called_functions_are_appended_and_calls_relocated(sample: Object) -> None:
    rx = program(sample, "rx")
    assert list(rx.subprogs.values()) == ["rx", "twice", "sum"]
    starts = {name: slot for slot, name in rx.subprogs.items()}
    calls = [
        (rx.subprogs[rx.subprog_at(pc)], rx.subprogs[jump_target(pc, insn)])
        for pc, insn in enumerate(rx.insns)
        if insn.is_call and insn.src == PSEUDO_CALL
    ]
    assert calls == [("rx", "twice"), ("twice", "sum")]
    assert starts["rx"] == 0 and all(rx.insns[start - 1].is_exit for start in sorted(starts.values())[1:])
    assert list(program(sample, "ring").subprogs.values()) == ["ring", "sum"]


def test_references_to_maps_and_data_name_their_map(sample: Object) -> None:
    loads = [insn for insn in program(sample, "rx").insns if insn.op == LDDW]
    declared = [sample.maps[insn.imm].name for insn in loads if insn.src == PSEUDO_MAP]
    assert declared == ["flows", "conns", "out", "due", "timers", "payload"]
    data = {sample.maps[insn.imm & 0xFFFFFFFF].name for insn in loads if insn.src == PSEUDO_MAP_VALUE}
    assert data == {".bss", ".rodata", ".data"}
    assert [insn.imm for insn in loads if insn.src == 0 and insn.imm == 0x1234567890]


def test_every_instruction_knows_its_source_line(sample: Object) -> None:
    rx = program(sample, "rx")
    lines = [rx.line_at(pc) for pc in range(len(rx.insns))]
    assert all(line is not None and line.file.endswith("sample.bpf.c") for line in lines)
    call = next(pc for pc, insn in enumerate(rx.insns) if insn.is_call and insn.imm == 0x101)
    line = rx.line_at(call)
    assert line is not None and line.text.strip() == "cham_push(&out, 0, &e);" and line.col == 5
    last = rx.line_at(len(rx.insns) - 1)
    assert last is not None and last.text.strip() == "return a * 3 + b + limit;"


def test_license_and_content_hash(sample: Object, sample_bytes: bytes) -> None:
    assert sample.license == "Apache-2.0"
    assert sample.sha256 == hashlib.sha256(sample_bytes).hexdigest()


def test_a_loaded_program_runs(sample: Object) -> None:
    """The ring handler, interpreted: it cancels the entry's id and computes sum(arg, 1) from global data."""
    memory = Memory()
    memory.map(0x1000, bytearray(56), name="context")
    memory.map(0x2000, bytearray((1).to_bytes(4, "little") + (7).to_bytes(4, "little") + bytes(8)), name="entry")
    memory.write(0x1010, 8, 0x2000)
    memory.write(0x1018, 8, 0x2010)
    for index, found in enumerate(sample.maps):
        if found.data is not None:
            memory.map(0x10000 * (index + 1), bytearray(found.data), writable=not found.read_only, name=found.name)
    cancelled: list[int] = []

    def cancel(_: Interpreter, ids: int, id_: int, *rest: int) -> int:
        cancelled.append(id_)
        return 0

    interpreter = Interpreter(
        program(sample, "ring").insns,
        memory=memory,
        helpers={0x107: cancel},
        map_address=lambda index: index,
        map_value_address=lambda index, offset: 0x10000 * (index + 1) + offset,
    )
    assert interpreter.run(0x1000) == 0
    assert cancelled == [7]
    memory.write(0x1018, 8, 0x2000)
    assert interpreter.run(0x1000) == 3 | 2 << 8


# ---- smaller objects ----------------------------------------------------------------------------------------------


def test_several_programs_in_one_section_are_told_apart(build: Callable[[str], bytes]) -> None:
    attribute = '__attribute__((section("chamelio/rx"), used))'
    obj = load_object(build(f"{attribute} u64 a(void *c) {{ return 1; }}\n{attribute} u64 b(void *c) {{ return 2; }}"))
    assert [(p.name, Interpreter(p.insns).run()) for p in obj.programs] == [("a", 1), ("b", 2)]


def test_static_maps_are_found_by_their_offset(build: Callable[[str], bytes]) -> None:
    obj = load_object(
        build(
            "static CHAM_ARRAY(first, 4, u32, 0);\nstatic CHAM_ARRAY(second, 4, u32, 0);\n"
            "CHAM_HANDLER(rx) { u32 k = 0; return !cham_lookup(&second, &k) + 2 * !cham_lookup(&first, &k); }"
        )
    )
    loads = [insn for insn in obj.programs[0].insns if insn.op == LDDW]
    assert sorted(obj.maps[insn.imm].name for insn in loads) == ["first", "second"]


def test_recursion_is_linked_once(build: Callable[[str], bytes]) -> None:
    obj = load_object(
        build(
            "__attribute__((noinline)) u64 fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }\n"
            "CHAM_HANDLER(rx) { return fib(6); }"
        )
    )
    assert list(obj.programs[0].subprogs.values()) == ["rx", "fib"]
    assert Interpreter(obj.programs[0].insns).run(0) == 8


def test_strings_are_read_only_data(build: Callable[[str], bytes]) -> None:
    obj = load_object(build('CHAM_HELPER(6, u64, print, const void *, u64);\nCHAM_HANDLER(rx) { return print("hello", 6); }'))
    (text,) = obj.maps
    assert (text.name, text.data, text.read_only, text.value_type) == (".rodata.str1.1", b"hello\0", True, None)


def test_a_function_pointer_refers_to_an_appended_function(build: Callable[[str], bytes]) -> None:
    obj = load_object(
        build(
            "CHAM_HELPER(181, u64, loop, u64, const void *);\n"
            "__attribute__((noinline)) static u64 body(u64 i) { return i + 1; }\n"
            "CHAM_HANDLER(rx) { return loop(4, body); }"
        )
    )
    (rx,) = obj.programs
    pc, insn = next((pc, insn) for pc, insn in enumerate(rx.insns) if insn.op == LDDW)
    assert insn.src == PSEUDO_FUNC and rx.subprogs[pc + 1 + insn.imm] == "body"


def test_an_object_of_types_alone_has_no_programs(build: Callable[[str], bytes]) -> None:
    obj = load_object(build("struct only { u32 x; } only;"))
    assert obj.programs == [] and obj.maps == [] and obj.license == ""
    assert obj.btf is not None and obj.btf.sizeof(obj.btf.find("only", "struct")) == 4


# ---- what is not supported ------------------------------------------------------------------------------------------

LOOKUP = "CHAM_HANDLER(rx) { u32 k = 0; return !cham_lookup(&m, &k); }"
MAP = '__attribute__((section(".maps"), used))'
FAULTS = {
    "C library": (
        "extern void *memset(void *, int, unsigned long);\n"
        "struct page { u8 bytes[4096]; };\nCHAM_ARRAY(m, 1, struct page, 0);\n"
        "CHAM_HANDLER(rx) { u32 k = 0; void *v = cham_lookup(&m, &k); if (v) memset(v, 0, 4096); return 0; }",
        "function memset, which this object does not define",
    ),
    "kernel function": (
        'extern u64 kernel_function(u64) __attribute__((section(".ksyms")));\nCHAM_HANDLER(rx) { return kernel_function(1); }',
        "kernel function (kfunc) kernel_function",
    ),
    "extern": (
        'extern int CONFIG_HZ __attribute__((section(".kconfig")));\nCHAM_HANDLER(rx) { return CONFIG_HZ; }',
        "extern CONFIG_HZ, which this object does not define",
    ),
    "CO-RE": (
        "struct sock { int a, b; } __attribute__((preserve_access_index));\n"
        "CHAM_HANDLER(rx) { struct sock *s = ctx->data; return s->b; }",
        "a CO-RE relocation (the offset of a field of struct sock)",
    ),
    "addresses in data": (
        "static int x;\nint *volatile pointer = &x;\nCHAM_HANDLER(rx) { return *pointer; }",
        "global data that holds addresses (.data)",
    ),
    "other sections": (
        'int x __attribute__((section("elsewhere"))) = 1;\nCHAM_HANDLER(rx) { return *(volatile int *)&x; }',
        "section elsewhere (x)",
    ),
    "data in an arena": (
        "u64 __attribute__((address_space(1))) x = 1;\nCHAM_HANDLER(rx) { return x; }",
        "arena",
    ),
    "call through a pointer": ("CHAM_HANDLER(rx) { u64 (*f)(u64) = ctx->data; return f(1); }", "an indirect call (callx)"),
    "legacy packet access": (
        'CHAM_HANDLER(rx) { asm volatile("r6 = r1; r0 = *(u32 *)skb[4]" ::: "r0", "r6"); return 0; }',
        "legacy packet access (LD_ABS)",
    ),
    "may_goto": ('CHAM_HANDLER(rx) { asm volatile(".byte 0xe5; .byte 0; .short 0; .long 0"); return 0; }', "may_goto"),
    "arena": ('CHAM_HANDLER(rx) { asm volatile(".byte 0xbf; .byte 0x11; .short 1; .long 1"); return 0; }', "addr_space_cast"),
    "map field that is a plain number": (
        f"struct {{ int (*type)[1]; int max_entries; }} m {MAP};\n{LOOKUP}",
        "map m: field max_entries is not a pointer",
    ),
    "map field that is no array": (
        f"struct {{ int (*type)[1]; int *max_entries; }} m {MAP};\n{LOOKUP}",
        "map m: field max_entries is not supported; numbers are `int (*max_entries)[N]`",
    ),
    "map without a type": (f"struct {{ int (*max_entries)[4]; }} m {MAP};\n{LOOKUP}", "map m: it has no field `type`"),
    "map whose key size lies": (
        f"struct {{ int (*type)[1]; u32 *key; int (*key_size)[8]; }} m {MAP};\n{LOOKUP}",
        "map m: key_size is 8, but its type takes 4 bytes",
    ),
    "map whose value has no size": (
        f"struct later;\nstruct {{ int (*type)[1]; struct later *value; }} m {MAP};\n{LOOKUP}",
        "fwd later has no size",
    ),
    "map that is a number": (f"int m {MAP};\n{LOOKUP}", "map m: it is declared as int int; a structure is expected"),
    "map of maps of maps": (
        f"struct deep {{ int (*type)[12]; "
        f"struct {{ int (*type)[12]; struct {{ int (*type)[2]; }} *values[]; }} *values[]; }} m {MAP};\n" + LOOKUP,
        "maps of maps of maps",
    ),
    "too much data": ("volatile char big[(16 << 20) + 1];\nCHAM_HANDLER(rx) { return big[0]; }", "at most 16,777,216 bytes"),
}


@pytest.mark.parametrize(("source", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_not_supported_is_a_fault_of_the_program_that_asks_for_it(
    build: Callable[[str], bytes], source: str, message: str
) -> None:
    obj = load_object(build(source + "\nCHAM_HANDLER(tx) { return 7; }"), "case.bpf.o")
    rx, tx = program(obj, "rx"), program(obj, "tx")
    found = {slot: f"{fault.message}: {fault.reason}" for slot, fault in rx.faults.items()}
    assert found and all(message in text for text in found.values()), found
    assert all(fault.code in CODES for fault in rx.faults.values())
    assert all(rx.insns[slot] == TRAP for slot in found)
    assert tx.faults == {} and Interpreter(tx.insns).run() == 7


def test_a_fault_stops_the_interpreter(build: Callable[[str], bytes]) -> None:
    obj = load_object(build("extern u64 missing;\nCHAM_HANDLER(rx) { return missing; }"))
    with pytest.raises(Fault, match="opcode 0x00 is not an instruction"):
        Interpreter(obj.programs[0].insns).run()


def test_a_fault_of_a_function_is_one_of_all_that_call_it(build: Callable[[str], bytes]) -> None:
    obj = load_object(
        build(
            "extern u64 missing;\n__attribute__((noinline)) static u64 f(u64 a) { return a + missing; }\n"
            "CHAM_HANDLER(rx) { return f(1); }\nCHAM_HANDLER(tx) { return f(2); }\nCHAM_HANDLER(timer) { return 0; }"
        )
    )
    for name, faults in (("rx", True), ("tx", True), ("timer", False)):
        one = program(obj, name)
        assert bool(one.faults) == faults
        assert {one.subprogs[one.subprog_at(slot)] for slot in one.faults} == ({"f"} if faults else set())


LEGACY = """
struct bpf_map_def { u32 type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def __attribute__((section("maps"), used)) first = { 1, 4, 8, 100, 1 };
struct bpf_map_def __attribute__((section("maps"), used)) second = { 2, 4, 16, 50, 0 };
CHAM_HANDLER(rx) { u32 k = 0; return !cham_lookup(&second, &k) + 2 * !cham_lookup(&first, &k); }
"""


def test_legacy_maps_are_read_for_verification_and_refused_by_name_for_running(build: Callable[[str], bytes]) -> None:
    obj = load_object(build(LEGACY))
    assert obj.maps == [
        MapDef("first", 1, 4, 8, 100, {"map_flags": 1}, legacy=True),
        MapDef("second", 2, 4, 16, 50, {"map_flags": 0}, legacy=True),
    ]
    loads = [insn for insn in obj.programs[0].insns if insn.op == LDDW]
    assert sorted((insn.src, insn.imm) for insn in loads) == [(PSEUDO_MAP, 0), (PSEUDO_MAP, 1)] and not obj.programs[0].faults
    with pytest.raises(LayoutError, match="map first: it is declared in section maps"):
        make_layout(obj.maps, 2)


def test_legacy_maps_of_maps_are_known_by_number_and_by_id(build: Callable[[str], bytes]) -> None:
    for words, inner in (
        ("{ 12, 4, 4, 8, 0, 1, 0 }", "{ 2, 4, 8, 9 }"),
        ("{ 12, 4, 4, 8, 0, 0, 0, 33, 0 }", "{ 2, 4, 8, 9, 0, 33 }"),
    ):
        size = words.count(",") + 1
        build_source = (
            f'u32 __attribute__((section("maps"), used)) outer[{size}] = {words};\n'
            f'u32 __attribute__((section("maps"), used)) inner[{size}] = {inner};\n'
        )
        outer, model = load_object(build(build_source)).maps
        assert outer.inner == model and model.name == "inner" and model.value_size == 8


def test_maps_of_maps_keep_what_they_hold_and_program_arrays_are_maps(build: Callable[[str], bytes]) -> None:
    obj = load_object(
        build(
            f"struct inner {{ int (*type)[2]; u32 *key; u64 *value; int (*max_entries)[7]; }} one {MAP};\n"
            f"struct {{ int (*type)[12]; int (*max_entries)[3]; int (*key_size)[4]; struct inner *values[]; }} outer {MAP}"
            " = { .values = { &one } };\n"
            "struct { int (*type)[3]; int (*max_entries)[4]; int (*key_size)[4]; int (*value_size)[4]; int (*values[])(void *); } "
            f"jumps {MAP};\n"
            f"struct {{ int (*type)[9]; int (*map_flags)[8]; enum {{ extra = 1ull << 40 }} map_extra; }} odd {MAP};\n"
        )
    )
    found = maps(obj)
    assert found["outer"].inner == MapDef("outer.inner", 2, 4, 8, 7, {}, found["one"].key_type, found["one"].value_type)
    assert (found["outer"].value_size, found["outer"].initial, found["one"].initial) == (4, True, False)
    assert (found["jumps"].kind, found["jumps"].inner, found["jumps"].initial) == (3, None, False)
    assert found["odd"].attrs == {"map_flags": 8, "map_extra": 1 << 40}
    with pytest.raises(LayoutError, match="map outer: it holds maps or programs"):
        make_layout([found["outer"]], 2)


def test_a_protocol_has_fewer_maps_than_an_object_may_have(build: Callable[[str], bytes]) -> None:
    obj = load_object(build("".join(f"CHAM_ARRAY(m{i}, 1, u32, 0);\n" for i in range(65))))
    assert len(obj.maps) == 65
    with pytest.raises(LayoutError, match="there are 65 maps"):
        make_layout(obj.maps, 2)


def test_linking_the_same_function_into_many_programs_is_bounded(
    build: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = "".join(
        f'__attribute__((section("chamelio/h{i}"), used)) u64 h{i}(void *c) {{ return f({i}); }}\n' for i in range(4)
    )
    data = build("__attribute__((noinline)) u64 f(u64 a) { return a * a + 1; }\n" + handlers)
    whole = sum(len(p.insns) for p in load_object(data).programs)
    monkeypatch.setattr("chamelio.bpf.object.MAX_INSNS", whole - 1)
    *linked, last = load_object(data).programs
    assert not any(p.faults for p in linked)
    assert (last.insns, last.faults[0].code, last.faults[0].message) == ([TRAP], "V160", "the object is too long")


# ---- where programs begin -------------------------------------------------------------------------------------------

SECTION = '__attribute__((section("xdp"), used, noinline))'
BEGINNINGS = {
    "static functions that others call are parts of them": (
        f"{SECTION} static u64 part(u64 a) {{ return a * a + 3; }}\n{SECTION} u64 main(void *c) {{ return part((u64)c); }}",
        [("main", "xdp")],
    ),
    "static functions that nobody calls are programs": (
        f"{SECTION} static u64 a(void *c) {{ return 1; }}\n{SECTION} u64 b(void *c) {{ return 2; }}",
        [("a", "xdp"), ("b", "xdp")],
    ),
    "global functions are programs, called or not": (
        f"{SECTION} u64 part(u64 a) {{ return a * a + 3; }}\n{SECTION} u64 main(void *c) {{ return part((u64)c); }}",
        [("main", "xdp"), ("part", "xdp")],
    ),
    "an object with nothing but .text": (
        "__attribute__((noinline)) u64 part(u64 a) { return a * a + 3; }\nu64 main(void *c) { return part((u64)c); }",
        [("main", ".text")],
    ),
    "functions that call each other": (
        "u64 even(u64 n);\n__attribute__((noinline)) u64 odd(u64 n) { return n ? even(n - 1) * 3 : 0; }\n"
        "__attribute__((noinline)) u64 even(u64 n) { return n ? odd(n - 1) * 5 : 1; }",
        [("odd", ".text")],
    ),
}


@pytest.mark.parametrize(("source", "programs"), BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_where_programs_begin(build: Callable[[str], bytes], source: str, programs: list[tuple[str, str]]) -> None:
    assert sorted((p.name, p.section) for p in load_object(build(source)).programs) == programs


def test_functions_whose_symbols_have_no_type_are_found() -> None:
    data = bytearray(make_object({"xdp": [("a", MOV + EXIT), ("b", MOV + MOV + EXIT)]}))
    at = data.index(elf.read(bytes(data)).find(".symtab").data)  # type: ignore[union-attr]
    for symbol in (1, 2):  # as compilers before LLVM 7 wrote them: global, no type, no size
        data[at + 24 * symbol + 4] = elf.STB_GLOBAL << 4 | elf.STT_NOTYPE
        data[at + 24 * symbol + 16 : at + 24 * symbol + 24] = bytes(8)
    assert [(p.name, len(p.insns)) for p in load_object(bytes(data)).programs] == [("a", 2), ("b", 3)]


def test_code_without_a_symbol_is_a_program_of_its_sections_name() -> None:
    data = bytearray(make_object({"xdp": [("a", MOV + EXIT)]}))
    at = data.index(elf.read(bytes(data)).find(".symtab").data)  # type: ignore[union-attr]
    data[at + 24 + 4] = elf.STT_NOTYPE
    assert [(p.name, len(p.insns)) for p in load_object(bytes(data)).programs] == [("xdp", 2)]


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3", "v4"])
@pytest.mark.parametrize("debug", [True, False])
def test_objects_of_every_instruction_set_with_and_without_types_load(tmp_path: Path, cpu: str, debug: bool) -> None:
    source = tmp_path / "plain.bpf.c"
    source.write_text(
        '__attribute__((section("xdp"), used))\n'
        "int f(unsigned *c) { unsigned n = 0; for (int i = 0; i < 9; i++) n += c[i] / 3; return n; }"
    )
    data = toolchain.bpf_object(source, cpu=cpu)
    if not debug:
        data = without_types(data)
    (one,) = load_object(data).programs
    assert not one.faults and bool(one.lines) == debug


def without_types(data: bytes) -> bytes:
    """An object whose sections with type information have no names, so that nobody finds them."""
    out = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, 40)
    for section in elf.read(data).sections:
        if section.name.startswith(".BTF"):
            out[table + 64 * section.index : table + 64 * section.index + 4] = bytes(4)
    return bytes(out)


def test_maps_without_type_information_are_faults_of_those_who_use_them(build: Callable[[str], bytes]) -> None:
    obj = load_object(without_types(build("CHAM_ARRAY(m, 1, u32, 0);\n" + LOOKUP + "\nCHAM_HANDLER(tx) { return 0; }")))
    (fault,) = set(program(obj, "rx").faults.values())
    assert (fault.code, fault.message) == ("V144", "map m") and "compile with -g" in fault.reason
    assert not program(obj, "tx").faults
