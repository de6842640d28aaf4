"""The computed bound of a case, to be held against what was measured. None as long as nothing computes it."""

from __future__ import annotations

from chamelio.bench.isolation.case import Case


def bound_ns(case: Case) -> int | None:
    """Of the victim's scheduling delay with accounting on."""
    return None
