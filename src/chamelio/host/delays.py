"""What tenants were promised about their delay, and whether it can be kept: bound.py for a host as it is or would be."""

from __future__ import annotations

from typing import Any

from chamelio.engine.core import QUANTUM
from chamelio.host import versions
from chamelio.host.bound import Bound, Clock, Contract, Share, delay
from chamelio.host.model import Protocol, Tenant, Unit
from chamelio.host.state import State
from chamelio.messages import Refusal

CONTEXTS = 32  # CHAM_MAX_CONTEXTS


class Delays:
    """Bounds of all tenants, and admission by them. Every core has all tenants, so there is one bound for each."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def describe(self, names: list[str], clock: Clock) -> dict[str, Any]:
        """The bounds of tenants, in cycles and microseconds; `tap`: ports for which there is none."""
        hz, shares = await self._hz(), self._shares(clock)
        bounds = [self._bound(name, shares, clock) for name in names]
        promised = {t.name: t.delay_us for t in self._state.tenants.values() if t.delay_us}
        tap = [name for name, spec in self._state.ports.items() if "tap:" in spec]
        described = [b.describe(hz) | {"promised_us": promised.get(b.name)} for b in bounds]
        return {"clock": clock, "hz": hz, "quantum": QUANTUM, "tap": tap, "tenants": described}

    async def admit(self, owner: Tenant, *, unit: Unit | None = None, instead: str | None = None) -> None:
        """Whether all promises can be kept when a tenant is as given, with a unit more, in place of the protocol `instead`.

        The caller holds the lock. Raises Refusal, with the numbers.
        """
        tenants = {**self._state.tenants, owner.name: owner}
        promised = {name: t.delay_us for name, t in tenants.items() if t.delay_us}
        if not promised:
            return
        hz, shares = await self._hz(), self._shares("cold", tenants, {owner.name: (instead, unit)} if unit else {})
        for name, most in promised.items():
            bound = self._bound(name, shares, "cold")
            us = bound.cycles / hz * 1e6
            if us > most:
                about = {"tenant": name, "promised_us": most, "bound_us": round(us, 1), **bound.describe(hz)}
                raise Refusal(
                    "quota",
                    f"tenant {name} was promised a delay of at most {most} us, and it would be {us:.0f} us",
                    "`chamelio bound` shows what it is made of: lighter handlers, a smaller weight, fewer tenants, or another host",
                    **about,
                )

    def _bound(self, name: str, shares: list[Share], clock: Clock) -> Bound:
        ports = max(1, len(self._state.ports))
        return delay(name, shares, ports=ports, quantum=QUANTUM, clock=clock)

    async def _hz(self) -> float:
        """Cycles per second of the engine's clock."""
        return float((await self._state.engine.call("clock"))["hz"])

    def _shares(
        self, clock: Clock, tenants: dict[str, Tenant] | None = None, more: dict[str, tuple[str | None, Unit]] | None = None
    ) -> list[Share]:
        shares = []
        for tenant in (self._state.tenants if tenants is None else tenants).values():
            instead, unit = (more or {}).get(tenant.name, (None, None))
            contracts = [self._contract(p, clock) for p in tenant.protocols.values() if p.name != instead]
            if unit is not None:
                contracts.append(_contract(unit.cold, unit.warm, unit.layout.contexts, clock))
            shares.append(Share(tenant.name, tenant.weight, tuple(c for c in contracts if c is not None)))
        return shares

    def _contract(self, protocol: Protocol, clock: Clock) -> Contract | None:
        """Of a protocol, also of one that waits for its agent; None: nothing of it ever ran."""
        unit = self._state.units.get(protocol.unit)
        if unit is not None:
            return _contract(unit.cold, unit.warm, unit.layout.contexts, clock)
        version = versions.running(protocol)
        return None if version is None else _contract(version.cold, version.warm, CONTEXTS, clock)


def _contract(cold: list[int], warm: list[int], contexts: int, clock: Clock) -> Contract:
    return Contract(tuple(cold if clock == "cold" else warm), tuple(cold), contexts)
