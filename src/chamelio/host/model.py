"""What the daemon knows, as records. They are also the labels that it leaves with the engine for its successor."""

from __future__ import annotations

from typing import Any

import msgspec

from chamelio.host.limits import Quotas
from chamelio.jit.layout import ARRAY, BYTES, HASH, KIND_NAMES, LINE, NODE_BYTES, TIMER, TX, Layout, MapLayout


class Version(msgspec.Struct):
    """A version of a protocol that was loaded once: `sha` names its object's content, `unit` its code ("" if it never ran).

    `when` (Unix time), `who` and `result` are of what was done with it last.
    """

    number: int
    sha: str
    mode: str
    when: float
    who: str
    result: str
    unit: str = ""
    cold: list[int] = []
    warm: list[int] = []
    instructions: int = 0


class Protocol(msgspec.Struct):
    """A tenant's protocol. `unit` is the unit's key; `instance` is None while no agent needs one (see agents.py).

    `address`: one of the tenant's; empty in a request: its first. `steer`: what decides which core a flow lives on.
    """

    name: str
    ip_protocol: int
    address: str
    ports: tuple[int, int]
    unit: str = ""
    steer: str = "flow"
    instance: int | None = None
    had_agent: bool = False
    contexts: list[int] = []  # of applications, open now
    versions: list[Version] = []  # oldest first


class Tenant(msgspec.Struct):
    """A tenant; `uid` and `token` are what it proves itself by. `index` is the engine's."""

    name: str
    weight: int
    addresses: list[str]
    token: str
    uid: int | None = None
    network: int = 0
    quotas: Quotas = msgspec.field(default_factory=Quotas)
    delay_us: int = 0  # promised: at most so long until its turn comes (bound.py); 0: nothing is promised
    index: int = -1
    protocols: dict[str, Protocol] = {}


class Unit(msgspec.Struct):
    """A unit that the engine has loaded, shared by all instances of one protocol's version."""

    key: str
    protocol_sha: str
    mode: str
    layout: Layout
    types: list[str]
    cold: list[int]
    warm: list[int]
    instructions: int
    seconds: dict[str, float]
    index: int = -1


def memory(layout: Layout, cores: int = 1) -> int:
    """Bytes that an instance takes on an engine of so many cores."""
    return cores * layout.private_bytes + layout.region_bytes(cores)


def entry_bytes(m: MapLayout) -> float | None:
    """What one entry of a map takes, with its part of whatever leads to it; None: the map has no entries of flows."""
    if m.kind == HASH:
        return m.stride + m.key_size + 4 + LINE * (m.mask + 1) / m.max_entries
    if m.kind == BYTES and m.key_size:  # a pool: what it has, shared evenly
        return (m.stride << m.key_size) / m.max_entries
    return {ARRAY: m.stride, BYTES: m.stride, TX: NODE_BYTES, TIMER: NODE_BYTES}.get(m.kind)


def describe_memory(layout: Layout, cores: int) -> dict[str, Any]:
    """Where an instance's bytes are. `per_flow_bytes`: all of them by the flows that the largest map of flows holds."""
    flows = max((m.max_entries for m in layout.maps if m.kind == HASH), default=0)
    flows = flows or max((m.max_entries for m in layout.maps if m.kind == ARRAY), default=0)
    total = memory(layout, cores)
    return {
        "bytes": total,
        "cores": cores,
        "private_bytes_per_core": layout.private_bytes,
        "region_bytes": layout.shared_bytes,
        "region_bytes_per_core": layout.core_bytes,
        "flows": flows,
        "per_flow_bytes": round(total / flows) if flows else None,
        "maps": {
            m.name: {
                "kind": KIND_NAMES[m.kind],
                "entries": m.max_entries,
                "bytes_per_entry": None if entry_bytes(m) is None else round(entry_bytes(m) or 0, 1),
                "shared": m.shared is not None,
            }
            for m in layout.maps
        },
    }


def misfit(new: Unit, old: Unit) -> str | None:
    """Why a new version cannot take over an instance of the old one; None if it can.

    It fits when map names, kinds, sizes and value types are equal.
    """
    names = [m.name for m in new.layout.maps], [m.name for m in old.layout.maps]
    if names[0] != names[1]:
        added = [n for n in names[0] if n not in names[1]]
        removed = [n for n in names[1] if n not in names[0]]
        if not added and not removed:
            return f"its maps come in another order: {', '.join(names[0])} instead of {', '.join(names[1])}"
        parts = [f"it {verb} {', '.join(which)}" for verb, which in (("adds", added), ("lacks", removed)) if which]
        return " and ".join(parts) + " (maps must stay the same)"
    for a, b in zip(new.layout.maps, old.layout.maps, strict=True):
        for field in ("kind", "key_size", "value_size", "max_entries"):
            if getattr(a, field) != getattr(b, field):
                return f"{field} of map {a.name} is {getattr(a, field)}, not {getattr(b, field)}"
    for m, a_type, b_type in zip(new.layout.maps, new.types, old.types, strict=False):
        if a_type != b_type:
            return f"the value type of map {m.name} is {a_type}, not {b_type}"
    if not new.layout.fits(old.layout):
        return "its memory is laid out differently"
    return None
