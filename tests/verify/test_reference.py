"""docs/reference.md is what the catalogue says, chamelio.h declares the same, and every example is accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf.btf import Btf, Struct
from chamelio.bpf.object import load_object
from chamelio.jit.layout import KIND_NAMES, make_layout
from chamelio.verify import examples, render, verify_object
from chamelio.verify.catalogue import CHAMELIO, DATA, EMITS, HELPERS, MAP_KINDS, VERDICTS
from chamelio.verify.reference import c_type, reference

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference.md"
HEADER = (toolchain.INCLUDE / "chamelio.h").read_text()
DECLARED = re.compile(r"^CHAM_HELPER\((\w+), ([\w ]+\*?), (\w+), ([^;]*)\);$", re.MULTILINE)
EXAMPLES = {f"{of}-{name}": text for of, group in (("helper", examples.HELPERS), ("map", examples.MAPS), ("field", examples.FIELDS))
            for name, text in group.items()}  # fmt: skip


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == reference(), "run `python -m chamelio.verify.reference docs/reference.md`"


def test_the_header_declares_the_helpers_of_the_catalogue() -> None:
    declared = {int(number, 0): (result, name, arguments) for number, result, name, arguments in DECLARED.findall(HEADER)}
    assert declared.keys() == HELPERS.keys()
    for number, (result, name, arguments) in declared.items():
        h = HELPERS[number]
        assert name == h.name
        assert h.signature == f"{result}{'' if result.endswith('*') else ' '}{name}({arguments})"
        assert re.search(rf"^#define {name}\(\.\.\.\) cham_h_{name}\(ctx, __VA_ARGS__\)$", HEADER, re.MULTILINE), "natively too"


def test_the_header_numbers_the_maps_of_the_catalogue() -> None:
    numbers = {name.lower(): int(number) for name, number in re.findall(r"^#define CHAM_MAP_(\w+) (\d+)", HEADER, re.MULTILINE)}
    assert numbers == {m.name: m.kind for m in MAP_KINDS.values() if m.kind != DATA}
    assert {m.kind: m.name for m in MAP_KINDS.values()} == KIND_NAMES
    for m in MAP_KINDS.values():
        if m.kind != DATA:
            macro, arguments = m.declaration.split("(")
            found = re.search(rf"^#define {macro}\(([^)]*)\)", HEADER, re.MULTILINE)
            assert found and found[1].count(",") == arguments.count(",")
    macros = set(re.findall(r"^#define (CHAM_\w+)\(name", HEADER, re.MULTILINE)) - {"CHAM_MAP"}
    assert all(f"{macro}(name" in PAGE.read_text() for macro in macros)
    assert f"#define CHAM_EMITS {EMITS} " in HEADER


def test_the_header_lays_the_context_out_as_the_catalogue_does(tmp_path: Path) -> None:
    source = tmp_path / "x.bpf.c"
    source.write_text(examples.INCLUDE + examples.FIELDS["data"])
    btf: Btf | None = load_object(toolchain.bpf_object(source)).btf
    assert btf is not None
    struct = btf.resolve(btf.find("chamelio_ctx", "struct"))
    assert isinstance(struct, Struct) and struct.size == CHAMELIO.size
    laid_out = [(m.name, m.offset // 8, btf.sizeof(m.type)) for m in struct.members]
    assert laid_out == [(f.name, f.offset, f.size) for f in CHAMELIO.fields]
    for f in CHAMELIO.fields:
        assert re.search(rf"^    {re.escape(c_type(f))}{f.name};", HEADER, re.MULTILINE)


def test_the_header_defines_the_verdicts() -> None:
    for verdict in VERDICTS:
        assert re.search(rf"^#define {re.escape(verdict.name)} ", HEADER, re.MULTILINE)


def test_everything_has_an_example_that_uses_it() -> None:
    assert examples.HELPERS.keys() == {h.name for h in HELPERS.values()}
    assert examples.MAPS.keys() == {m.name for m in MAP_KINDS.values()}
    assert examples.FIELDS.keys() == {f.name for f in CHAMELIO.fields}
    assert all(f"{name}(" in text for name, text in examples.HELPERS.items())
    assert all(f"ctx->{name}" in text for name, text in examples.FIELDS.items())
    for m in MAP_KINDS.values():
        assert m.kind == DATA or m.declaration.split("(")[0] in examples.MAPS[m.name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_compiles_and_is_accepted(name: str, tmp_path: Path) -> None:
    source = tmp_path / "example.bpf.c"
    source.write_text(examples.INCLUDE + EXAMPLES[name].lstrip())
    obj = load_object(toolchain.bpf_object(source))
    make_layout(obj.maps, 17)
    verdicts = verify_object(obj)
    assert verdicts
    for verdict in verdicts:
        assert verdict.verdict == "accept", render(verdict)
