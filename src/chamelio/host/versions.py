"""The versions of a protocol that a tenant has loaded: what they were, what became of them, which one to go back to."""

from __future__ import annotations

import time
from typing import Any

from chamelio.host.model import Protocol, Unit, Version
from chamelio.messages import Refusal

MAX_RESULT = 300  # characters


def note(protocol: Protocol, limit: int, *, sha: str, mode: str, who: str, result: str, unit: Unit | None = None) -> Version:
    """Remember what was done with a version; `unit` if it runs now. At most `limit` are kept: the running one, then the newest."""
    known = next((v for v in protocol.versions if (v.sha, v.mode) == (sha, mode)), None)
    if known is None:
        number = 1 + max((v.number for v in protocol.versions), default=0)
        known = Version(number, sha, mode, 0.0, "", "")
        protocol.versions.append(known)
    known.when, known.who, known.result = time.time(), who, result[:MAX_RESULT]
    if unit is not None:
        known.unit, known.cold, known.warm, known.instructions = unit.key, unit.cold, unit.warm, unit.instructions
    while len(protocol.versions) > max(2, limit):
        spare = [v for v in protocol.versions if v is not known and (not v.unit or v.unit != protocol.unit)]
        spare.sort(key=lambda v: (bool(v.unit), v.number))  # those that never ran go first
        protocol.versions.remove(spare[0])
    return known


def running(protocol: Protocol) -> Version | None:
    """The version that runs."""
    return next((v for v in protocol.versions if v.unit and v.unit == protocol.unit), None)


def earlier(protocol: Protocol, number: int | None) -> Version:
    """A version by number, or the last one before the running one that has run. Raises Refusal."""
    now = running(protocol)
    if number is None:
        before = [v for v in protocol.versions if v.unit and now is not None and v.number < now.number]
        if not before:
            raise Refusal("not_found", f"there is no version of {protocol.name} before the running one", _known(protocol))
        return before[-1]
    found = next((v for v in protocol.versions if v.number == number), None)
    if found is None:
        raise Refusal("not_found", f"there is no version {number} of {protocol.name}", _known(protocol))
    if not found.unit:
        raise Refusal("unfit", f"version {number} of {protocol.name} has never run: {found.result}", _known(protocol))
    return found


def _known(protocol: Protocol) -> str:
    numbers = ", ".join(str(v.number) for v in protocol.versions if v.unit)
    return f"versions that have run: {numbers or 'none'}"


def describe(protocol: Protocol) -> list[dict[str, Any]]:
    """All that is remembered, oldest first."""
    hooks = ("rx", "ring", "tx", "timer")
    now = running(protocol)
    return [
        {
            "version": v.number,
            "state": "running" if v is now else "earlier" if v.unit else "refused",
            "protocol_sha": v.sha,
            "mode": v.mode,
            "when": v.when,
            "who": v.who,
            "result": v.result,
            "instructions": v.instructions,
            "cold_cycles": dict(zip(hooks, v.cold, strict=False)),
            "warm_cycles": dict(zip(hooks, v.warm, strict=False)),
        }
        for v in protocol.versions
    ]
