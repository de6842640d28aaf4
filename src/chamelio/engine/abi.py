"""The fast path's C structures as NumPy dtypes, from the BTF of its own headers: layouts are declared once, in C."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.bpf.btf import Btf
from chamelio.bpf.object import load_object

CACHE_LINE = 64


@functools.cache
def types() -> Btf:
    """The type information of every header of the fast path."""
    btf = load_object(toolchain.bpf_object(toolchain.FASTPATH / "abi.c"), "abi.c").btf
    assert btf is not None
    return btf


@functools.cache
def dtype(struct: str) -> np.dtype[Any]:
    """The dtype of `struct NAME`: field offsets and item size as the C compiler lays them out. KeyError if unknown."""
    return types().dtype(types().find(struct, "struct"))


@functools.cache
def enum(name: str) -> dict[str, int]:
    """The enumerators of `enum NAME`, in C's spelling."""
    return types().enum(name)


def aligned(nbytes: int, alignment: int = CACHE_LINE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`nbytes` zeroed bytes whose address is a multiple of `alignment`; the array keeps them alive."""
    raw = np.zeros(nbytes + alignment, np.uint8)
    skip = -raw.ctypes.data % alignment
    return raw[skip : skip + nbytes]


def alloc(struct: str, count: int = 1) -> np.ndarray[Any, np.dtype[Any]]:
    """`count` zeroed structures, aligned to a cache line; `.ctypes.data` is their address for the C side."""
    layout = dtype(struct)
    return aligned(layout.itemsize * count).view(layout)
