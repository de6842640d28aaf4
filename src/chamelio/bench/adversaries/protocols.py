"""The adversaries' protocols, verified and compiled as any tenant's: handlers that do what a packet says, generated arithmetic."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.jit.artifact import UnitImage
from chamelio.world.residents import compile_virtual

CONTEXTS = 4
HOSTILE = toolchain.PACKAGE / "bench" / "adversaries" / "hostile.bpf.c"
ECHO = toolchain.PACKAGE / "protocols" / "echo" / "echo.bpf.c"

_HEAD = """/* {blocks} blocks of arithmetic, each needs the one before: every packet takes nearly the dearest way. */
#include "chamelio.h"

CHAM_HANDLER(rx)
{{
    u8 *p = ctx->data, *end = ctx->data_end;
    if (p + 36 > end)
        return CHAM_ERROR(1);
    u64 x = *(u32 *)(p + 32) | 1;
"""


def arithmetic(blocks: int) -> str:
    """Handlers in C with so many basic blocks in a row: a multiplication, a shift and an unlikely way out."""
    body = "".join(
        f"    x = x * {0x9E3779B1 + 2 * i}u; x ^= x >> 29;\n    if (x == {7919 * i + 3}u) return CHAM_ERROR({i % 200 + 2});\n"
        for i in range(blocks)
    )
    return _HEAD.format(blocks=blocks) + body + "    return x == 1 ? CHAM_ERROR(1) : CHAM_DONE;\n}\n"


@functools.cache
def arithmetic_unit(blocks: int) -> UnitImage:
    """Its unit for virtual time."""
    directory = toolchain.cache_dir() / "adversaries"
    directory.mkdir(exist_ok=True)
    path = directory / f"arithmetic-{blocks}.bpf.c"
    text = arithmetic(blocks)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return compile_virtual(toolchain.bpf_object(path), CONTEXTS, True)


@functools.cache
def hostile_unit() -> UnitImage:
    """Of hostile.bpf.c, for virtual time."""
    return compile_virtual(toolchain.bpf_object(HOSTILE), CONTEXTS, True)


@functools.cache
def echo_unit() -> UnitImage:
    """Of the shipped `echo`, for virtual time."""
    return compile_virtual(toolchain.bpf_object(ECHO), CONTEXTS, True)


@functools.cache
def hostile_types() -> dict[str, np.dtype[Any]]:
    """Value types of its rings."""
    obj = load_object(toolchain.bpf_object(HOSTILE))
    assert obj.btf is not None
    return {m.name: obj.btf.dtype(m.value_type) for m in obj.maps if m.name in ("requests", "answers") and m.value_type is not None}
