"""Quotas: what a tenant may have of everything that is finite, what it has, and the refusal with the numbers beyond that.

All are checked when something is asked for (a protocol, an instance, a context, a compilation), never on the way of a packet:
what was admitted fits. A quota that is lowered below what is used takes nothing away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from chamelio.host.limits import Limits, Quotas
from chamelio.host.model import Protocol, Tenant, memory
from chamelio.host.state import State
from chamelio.jit.layout import ARRAY, HASH, RING_IN, RING_OUT, TIMER, TX, Layout
from chamelio.messages import Refusal

RAW_RINGS = 2  # of an instance on a core: to and from the slow path


class Kind(NamedTuple):
    """One thing that is limited: how much of it is said (`unit`), what it is, and what to do when there is not enough."""

    unit: str
    text: str
    remedy: str


KINDS = {
    "memory": Kind("bytes", "memory of all instances, on all cores", "declare smaller maps, or remove a protocol"),
    "protocols": Kind("protocols", "protocols", "remove one first"),
    "flows": Kind("map entries", "entries of hash and array maps, as declared", "declare smaller maps, or remove a protocol"),
    "timers": Kind("ids", "ids of tx and timer maps, as declared", "declare smaller maps, or remove a protocol"),
    "rings": Kind("rings", "rings of all instances: of ring maps, for each context and core", "declare fewer ring maps"),
    "contexts": Kind("contexts", "contexts that applications have open", "close one"),
    "frames": Kind("frames", "packets that wait in backlogs", "they are dropped and counted"),
    "compiler": Kind("s", "processor time of the compiler, in a sliding window", "load known code, or wait"),
}
OF_INSTANCES = ("memory", "flows", "timers", "rings")


class Changes(msgspec.Struct, forbid_unknown_fields=True):
    """Quotas to be set; None leaves one as it is."""

    memory: int | None = None
    protocols: int | None = None
    flows: int | None = None
    timers: int | None = None
    rings: int | None = None
    contexts: int | None = None
    frames: int | None = None
    compiler: int | None = None

    def applied(self, to: Quotas) -> Quotas:
        """The quotas with what is to be set. Raises Refusal."""
        wanted = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        for name, value in wanted.items():
            if not 0 <= value < 1 << 48:
                raise Refusal("usage", f"a quota of {value} {KINDS[name].unit} makes no sense", "give a number from 0 on")
        return msgspec.structs.replace(to, **wanted)


def needs(layout: Layout, cores: int) -> dict[str, int]:
    """What an instance of a protocol takes, by quota."""

    def entries(*kinds: int) -> int:
        return sum(m.max_entries for m in layout.maps if m.kind in kinds)

    ring_maps = sum(m.kind in (RING_IN, RING_OUT) for m in layout.maps)
    return {
        "memory": memory(layout, cores),
        "flows": entries(HASH, ARRAY),
        "timers": entries(TX, TIMER),
        "rings": cores * (ring_maps * layout.contexts + RAW_RINGS),
    }


class CompilerTime:
    """Processor seconds that each tenant's compilations took within the last `window` seconds."""

    def __init__(self, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.window, self._clock = window, clock
        self._spent: dict[str, deque[tuple[float, float]]] = {}

    def add(self, owner: str, seconds: float) -> None:
        """A compilation has ended."""
        if seconds > 0:
            self._spent.setdefault(owner, deque()).append((self._clock(), seconds))

    def _recent(self, owner: str) -> deque[tuple[float, float]]:
        spent = self._spent.get(owner, deque())
        while spent and spent[0][0] <= self._clock() - self.window:
            spent.popleft()
        if not spent:
            self._spent.pop(owner, None)
        return spent

    def used(self, owner: str) -> float:
        """Seconds in the window."""
        return sum(seconds for _, seconds in self._recent(owner))

    def wait(self, owner: str, quota: float) -> float:
        """Seconds until there is something left of a quota; 0: there is now."""
        left = self.used(owner)
        for when, seconds in self._recent(owner):
            if left < quota:
                break
            left -= seconds
            if left < quota:
                return max(0.0, when + self.window - self._clock())
        return 0.0 if left < quota else self.window

    def forget(self, owner: str) -> None:
        """The tenant is gone."""
        self._spent.pop(owner, None)


class Accounts:
    """What every tenant has of everything, and whether it may have more."""

    def __init__(self, state: State, limits: Limits) -> None:
        self._state = state
        self.compiler = CompilerTime(limits.compiler_window_seconds)

    def used(self, owner: Tenant, *, without: Protocol | None = None) -> dict[str, float]:
        """What a tenant has now, by quota, but for one protocol; `frames` are the engine's to tell."""
        units = self._state.units
        used: dict[str, float] = dict.fromkeys(OF_INSTANCES, 0)
        for protocol in owner.protocols.values():
            if protocol is not without and protocol.instance is not None and protocol.unit in units:
                for name, amount in needs(units[protocol.unit].layout, self._state.cores).items():
                    used[name] += amount
        used["protocols"] = len(owner.protocols)
        used["contexts"] = sum(len(p.contexts) for p in owner.protocols.values())
        used["compiler"] = round(self.compiler.used(owner.name), 3)
        return used

    def describe(self, owner: Tenant, frames: int | None = None) -> dict[str, Any]:
        """Used and limit of every quota."""
        used = {**self.used(owner), "frames": frames}
        return {name: {"used": used[name], "limit": getattr(owner.quotas, name)} for name in KINDS}

    def admit_instance(self, owner: Tenant, name: str, layout: Layout, *, replaced: Protocol | None = None) -> None:
        """Whether a tenant may have another instance. Raises Refusal."""
        used = self.used(owner, without=replaced)
        for kind, need in needs(layout, self._state.cores).items():
            self._check(owner, kind, used[kind], need, f"protocol {name} needs {need} {KINDS[kind].unit}")

    def admit_protocol(self, owner: Tenant) -> None:
        """Whether a tenant may have another protocol. Raises Refusal."""
        self._check(owner, "protocols", len(owner.protocols), 1, "this is another protocol")

    def admit_context(self, owner: Tenant) -> None:
        """Whether another application may connect. Raises Refusal."""
        self._check(owner, "contexts", self.used(owner)["contexts"], 1, "this is another context")

    def _check(self, owner: Tenant, kind: str, used: float, need: int, what: str) -> None:
        limit = getattr(owner.quotas, kind)
        if used + need > limit:
            about = {"quota": kind, "used": used, "limit": limit, "needed": need}
            message = f"{what}; tenant {owner.name} has used {used} of {limit} {KINDS[kind].unit}"
            raise Refusal("quota", message, KINDS[kind].remedy, **about)

    def may_compile(self, owner: Tenant) -> Refusal | None:
        """None, or why nothing new is compiled for a tenant now, and when to come back."""
        quota, used = owner.quotas.compiler, self.compiler.used(owner.name)
        if used < quota:
            return None
        seconds = self.compiler.wait(owner.name, quota)
        return Refusal(
            "quota",
            f"tenant {owner.name} has used {used:.1f} of {quota} s of the compiler's time in the last {self.compiler.window:g} s",
            f"come back in {seconds:.0f} s; code that was compiled before can be loaded at any time",
            quota="compiler", used=used, limit=quota, retry_seconds=seconds,
        )  # fmt: skip
