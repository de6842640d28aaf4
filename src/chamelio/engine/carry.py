"""Carrying maps over from one instance to another, when a version with other maps takes its place.

Maps that both have in the same form are copied as they are, with the engine's part of them: keys, free lists, wheels. What is keyed
by a secret stays so, because the secret is carried, too. Rings begin empty, and global variables are the new version's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from chamelio.engine.instance import Instance
from chamelio.jit.layout import (
    ARRAY,
    BYTES,
    HASH,
    LINE,
    NODE_BYTES,
    PLACE_BYTES,
    POOL_BYTES,
    POOL_NODE_BYTES,
    TIMER,
    TX,
    WHEEL_BYTES,
    MapLayout,
)

CARRIED = (ARRAY, HASH, BYTES, TX, TIMER)
_FORM = ("kind", "key_size", "value_size", "max_entries", "stride", "mask", "per_core")


def same_form(a: MapLayout, b: MapLayout) -> bool:
    """Whether the bytes of one map mean in the other what they meant."""
    return a.kind in CARRIED and all(getattr(a, f) == getattr(b, f) for f in _FORM) and (a.shared is None) == (b.shared is None)


def _parts(m: MapLayout) -> list[tuple[str, int]]:
    """The parts of a map on one core: which offset, and how many bytes."""
    if m.kind == HASH:
        sizes = {"index": LINE * (m.mask + 1), "keys": m.key_size * m.max_entries, "free": 4 * (m.max_entries + 1)}
        return [*sizes.items(), ("values", m.stride * m.max_entries)]
    if m.kind in (TX, TIMER):
        return [("index", WHEEL_BYTES), ("keys", NODE_BYTES * m.max_entries)]
    if m.kind == BYTES and m.key_size:  # a pool
        places = PLACE_BYTES * m.max_entries
        nodes = POOL_BYTES + POOL_NODE_BYTES * m.stride
        return [("values", m.stride << m.key_size), ("free", places), ("index", places), ("keys", nodes)]
    return [("values", m.stride * m.max_entries)]


def carry(old: Instance, new: Instance, names: Iterable[str]) -> None:
    """Copy maps and secrets; neither instance may run. Raises ValueError for a map that is not the same in both."""
    before = {m.name: m for m in old.layout.maps}
    after = {m.name: m for m in new.layout.maps}
    for core, (source, target) in enumerate(zip(old.memory.cores, new.memory.cores, strict=True)):
        for field in ("secret", "cookie_secret", "random"):
            target.head[field] = source.head[field]
        for name in names:
            a, b = before[name], after[name]
            if not same_form(a, b):
                raise ValueError(f"map {name} is not the same in both versions")
            if core and a.shared is not None and not a.per_core:
                continue  # it is there once, and has been copied
            for part, size in _parts(a):
                ctypes.memmove(target.base + getattr(b, part), source.base + getattr(a, part), size)
