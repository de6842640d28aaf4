"""Shared memory is accessed as often as the handler says: what it has checked is what it uses, in the code that is emitted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.jit import modules, unit
from chamelio.jit.layout import make_layout
from chamelio.verify import verify_object

FIELDS = {"a": 4616, "b": 4624, "c": 4628, "d": 4630, "e": 4631, "f": 4632}  # offsets that nothing else has
ROW = "struct row { u64 fill[577]; u64 a; u32 b; u16 c; u8 d; u8 e; u64 f; };"
#: Field e is written once in each run, so it tells how many copies of the handler the loop over a batch was unrolled to.
#: Handlers that a compiler would like to read twice, or write twice, or not at all.
BODIES = {
    "checked, then used three times": ("u64 a = r->a; if (a > 100) return CHAM_ERROR(1); r->f = a * a + a; return a & 3;", "af"),
    "a choice of two stores": ("u32 b = r->b; if (b > 7) r->c = b; else r->c = b * 3;", "bc"),
    "read and written": ("r->d += 1;", "d"),
    "read for nothing": ("(void)*(volatile u32 *)&r->b;", "b"),
    "written twice, one behind the other": ("r->f = 1; asm volatile(\"\" ::: \"memory\"); r->f = 2;", "ff"),
    "in a loop that is unrolled": ("u64 s = 0; for (int i = 0; i < 4; i++) s += r->a + i; r->f = s;", "af"),
}  # fmt: skip


@pytest.mark.parametrize("hardening", [True, False], ids=["hardened", "plain"])
@pytest.mark.parametrize(
    "map_", ["CHAM_ARRAY(rows, 4, struct row, CHAM_SHARED)", "CHAM_HASH(rows, 4, u32, struct row, CHAM_SHARED)"]
)
@pytest.mark.parametrize("body", BODIES)
def test_every_access_is_emitted_once(body: str, map_: str, hardening: bool, tmp_path: Path) -> None:
    code, accessed = BODIES[body]
    source = tmp_path / "shared.bpf.c"
    source.write_text(
        f'#include "chamelio.h"\n{ROW}\n{map_};\nCHAM_HANDLER(rx) {{ u32 key = ctx->hash & 3; '
        f"struct row *r = cham_lookup(&rows, &key); if (!r) return CHAM_DONE; r->e = 77; {code} return CHAM_DONE; }}\n"
    )
    obj = load_object(toolchain.bpf_object(source))
    (verdict,) = verify_object(obj)
    assert verdict.proof is not None, verdict.message
    layout = make_layout(obj.maps, 4)
    module = unit.joint_module([verdict.proof], obj, layout, virtual=False, hardening=hardening)
    assembly = modules.machine().emit_assembly(module)
    values = layout.maps[0].values
    found = {
        field: sum(int(n) in (offset, values + offset) for n in re.findall(r"(?<![\w$])(\d+)\(%", assembly))
        for field, offset in FIELDS.items()  # from the value's address, or from the instance's
    }
    copies = found.pop("e")
    assert copies > 0
    assert found == {field: copies * accessed.count(field) for field in found}
