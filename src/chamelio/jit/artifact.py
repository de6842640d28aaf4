"""What the compiler is asked for, and what it returns: plain data that crosses processes and lies in caches."""

from __future__ import annotations

import msgspec

from chamelio.jit.layout import Layout


class Options(msgspec.Struct, frozen=True):
    """How to compile: mode, virtual clock (blocks count their cost), hardening, contexts per instance (0: slow path).

    `budgets`: by hook, most cycles (cold) that a handler may cost; hooks that are not there have none.
    """

    mode: str = "joint"
    virtual: bool = False
    hardening: bool = True
    contexts: int = 17
    budgets: dict[str, int] = {}


class UnitImage(msgspec.Struct, frozen=True):
    """A compiled unit: relocatable objects, the layout it was compiled for, and its contract.

    `cold` and `warm` are the proven worst cases in cycles by hook (rx, ring, tx, timer), 0 for hooks without a handler;
    `seconds` holds what verification and compilation took.
    """

    key: str
    mode: str
    objects: list[bytes]
    layout: Layout
    cold: list[int]
    warm: list[int]
    protocol_sha: str
    seconds: dict[str, float]
    instructions: int
