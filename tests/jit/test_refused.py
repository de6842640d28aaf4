"""Objects that can be verified, or read, but never run: the compiler refuses them by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.jit.work import build
from chamelio.messages import Refusal

INCLUDE = "#include <chamelio.h>\n"
FINE = "CHAM_HANDLER(rx) { return CHAM_DONE; }\n"
REFUSED = {
    "a program of the kernel": (
        FINE + '__attribute__((section("xdp"), used)) int f(u32 *c) { return c[3] == 1 ? 1 : 2; }',
        "rejected",
        "section xdp",
    ),
    "what is in no section": ("u64 f(u64 *c) { return c[4]; }", "rejected", "section .text"),
    "an extern": ("extern u64 jiffies;\nCHAM_HANDLER(rx) { return jiffies; }", "rejected", "extern jiffies"),
    "a kernel function": (
        'extern u64 f(u64) __attribute__((section(".ksyms")));\nCHAM_HANDLER(rx) { return f(1); }',
        "rejected",
        "kernel function (kfunc) f",
    ),
    "a CO-RE relocation": (
        "struct s { int a, b; } __attribute__((preserve_access_index));\nCHAM_HANDLER(rx) { return ((struct s *)ctx->data)->b; }",
        "rejected",
        "a CO-RE relocation",
    ),
    "an indirect call": ("CHAM_HANDLER(rx) { u64 (*f)(u64) = ctx->data; return f(1); }", "rejected", "an indirect call (callx)"),
    "legacy maps": (
        'u32 m[5] __attribute__((section("maps"), used)) = {1, 4, 4, 1, 0};\n' + FINE,
        "malformed",
        "it is declared in section maps",
    ),
}


@pytest.mark.parametrize(("source", "code", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_refused_by_name(tmp_path: Path, source: str, code: str, message: str) -> None:
    path = tmp_path / "x.bpf.c"
    path.write_text(INCLUDE + source + "\n")
    with pytest.raises(Refusal) as refused:
        build(toolchain.bpf_object(path), {})
    assert refused.value.code == code and message in refused.value.message


def test_what_is_not_supported_may_stand_where_control_never_comes(tmp_path: Path) -> None:
    path = tmp_path / "x.bpf.c"
    path.write_text(
        INCLUDE + "extern u64 jiffies;\n"
        'CHAM_HANDLER(rx) { u64 r = 1; asm volatile("if %0 == 1 goto +3; %0 = jiffies ll; %0 += 1" : "+r"(r)); return r; }\n'
    )
    content = toolchain.bpf_object(path)
    assert load_object(content).programs[0].faults
    assert build(content, {}).cold[0] > 0
