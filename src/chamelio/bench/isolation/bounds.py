"""The computed bound of a host in virtual time, to be held against what was measured there."""

from __future__ import annotations

from chamelio.engine.core import QUANTUM, VIRTUAL_HZ
from chamelio.engine.engine import Engine
from chamelio.host.bound import Contract, Share, delay


def bound_ns(host: Engine, victim: int) -> int:
    """Of the scheduling delay of a tenant (its index), with accounting on; how it would be on a core that has it all."""
    about = host.describe()
    units = {unit["index"]: unit for unit in about["units"]}
    contracts: dict[int, list[Contract]] = {tenant["index"]: [] for tenant in about["tenants"]}
    for instance in about["instances"]:
        unit, contexts = units[instance["unit"]], instance["contexts"]
        contracts[instance["tenant"]].append(Contract(tuple(unit["warm"]), tuple(unit["cold"]), contexts))
    shares = [Share(str(t["index"]), t["weight"], tuple(contracts[t["index"]])) for t in about["tenants"]]
    ports = max(1, len(about["ports"]))
    return round(delay(str(victim), shares, ports=ports, quantum=QUANTUM, clock="virtual").cycles * 1e9 / VIRTUAL_HZ)
