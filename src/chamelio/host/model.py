"""What the daemon knows, as records. They are also the labels that it leaves with the engine for its successor."""

from __future__ import annotations

import msgspec

from chamelio.jit.layout import Layout


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


class Tenant(msgspec.Struct):
    """A tenant; `uid` and `token` are what it proves itself by. `index` is the engine's."""

    name: str
    weight: int
    addresses: list[str]
    token: str
    uid: int | None = None
    network: int = 0
    frame_quota: int = 1024
    memory_quota: int = 512 << 20
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
