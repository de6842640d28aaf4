"""The object loader: what it makes of a real object, and what it refuses by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from chamelio.bpf.insn import LDDW, PSEUDO_CALL, PSEUDO_FUNC, PSEUDO_MAP, PSEUDO_MAP_VALUE, jump_target
from chamelio.bpf.interp import Interpreter, Memory
from chamelio.bpf.object import MAP_KIND_DATA, MapDef, Object, ObjectError, Program, load_object

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


LOOKUP = "CHAM_HANDLER(rx) { u32 k = 0; return !cham_lookup(&m, &k); }"
MAP = '__attribute__((section(".maps"), used))'
REFUSED = {
    "C library": (
        "extern void *memset(void *, int, unsigned long);\n"
        "struct page { u8 bytes[4096]; };\nCHAM_ARRAY(m, 1, struct page, 0);\n"
        "CHAM_HANDLER(rx) { u32 k = 0; void *v = cham_lookup(&m, &k); if (v) memset(v, 0, 4096); return 0; }",
        "needs memset, which this object does not define",
    ),
    "kernel function": (
        'extern u64 kernel_function(u64) __attribute__((section(".ksyms")));\nCHAM_HANDLER(rx) { return kernel_function(1); }',
        "needs kernel_function, which this object does not define",
    ),
    "CO-RE": (
        "struct sock { int a, b; } __attribute__((preserve_access_index));\n"
        "CHAM_HANDLER(rx) { struct sock *s = ctx->data; return s->b; }",
        "section chamelio/rx: CO-RE relocations are not supported",
    ),
    "legacy maps": (
        'struct { u32 a, b; } m __attribute__((section("maps"), used)) = {1, 2};\n' + LOOKUP,
        "section maps: legacy map definitions are not supported",
    ),
    "addresses in data": (
        "static int x;\nint *volatile pointer = &x;\nCHAM_HANDLER(rx) { return *pointer; }",
        "section .data: global data that holds addresses is not supported",
    ),
    "call through a pointer": (
        "CHAM_HANDLER(rx) { u64 (*f)(u64) = ctx->data; return f(1); }",
        "section chamelio/rx: instruction 2: indirect calls (callx) are not supported",
    ),
    "legacy packet access": (
        'CHAM_HANDLER(rx) { asm volatile("r6 = r1; r0 = *(u32 *)skb[4]" ::: "r0", "r6"); return 0; }',
        "section chamelio/rx: instruction 1 (opcode 0x20): legacy packet access (LD_ABS) is not supported",
    ),
    "map of maps": (
        f"struct {{ int (*type)[2]; u32 *key; struct inner {{ int (*type)[1]; }} *values[]; }} m {MAP};\n{LOOKUP}",
        "map m: field values is not supported",
    ),
    "map field that is a plain number": (
        f"struct {{ int (*type)[1]; int max_entries; }} m {MAP};\n{LOOKUP}",
        "map m: field max_entries is not a pointer",
    ),
    "map field that is no array": (
        f"struct {{ int (*type)[1]; int *max_entries; }} m {MAP};\n{LOOKUP}",
        "map m: field max_entries is not supported; numbers are `int (*max_entries)[N]`",
    ),
    "map without a type": (f"struct {{ int (*max_entries)[4]; }} m {MAP};\n{LOOKUP}", "map m: has no field `type`"),
    "map whose key size lies": (
        f"struct {{ int (*type)[1]; u32 *key; int (*key_size)[8]; }} m {MAP};\n{LOOKUP}",
        "map m: key_size is 8, but its type takes 4 bytes",
    ),
    "map whose value has no size": (
        f"struct later;\nstruct {{ int (*type)[1]; struct later *value; }} m {MAP};\n{LOOKUP}",
        "fwd later has no size",
    ),
    "map that is a number": (f"int m {MAP};\n{LOOKUP}", "map m: is declared as int int; a structure is expected"),
    "too many maps": (
        "".join(f"CHAM_TX_IDS(m{i}, 1);\n" for i in range(65)),
        "section .maps: 65 maps; an object has at most 64",
    ),
    "too much data": (
        "volatile char big[(16 << 20) + 1];\nCHAM_HANDLER(rx) { return big[0]; }",
        "section .bss: over 16777216 bytes of global data",
    ),
}


@pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_supported_is_refused_by_name(build: Callable[[str], bytes], source: str, message: str) -> None:
    data = build(source)
    with pytest.raises(ObjectError) as error:
        load_object(data, "case.bpf.o")
    assert str(error.value).startswith("case.bpf.o: ") and message in str(error.value)


def test_linking_the_same_function_into_many_programs_is_bounded(
    build: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = "".join(
        f'__attribute__((section("chamelio/h{i}"), used)) u64 h{i}(void *c) {{ return f({i}); }}\n' for i in range(4)
    )
    data = build("__attribute__((noinline)) u64 f(u64 a) { return a * a + 1; }\n" + handlers)
    whole = sum(len(p.insns) for p in load_object(data).programs)
    monkeypatch.setattr("chamelio.bpf.object.MAX_INSNS", whole - 1)
    with pytest.raises(ObjectError, match="brings the object over"):
        load_object(data)
