"""Which context a program has: our hooks, and the kernel's program types that can be verified."""

from __future__ import annotations

from chamelio.verify import kernel
from chamelio.verify.catalogue import CHAMELIO, HOOKS, Context

CONTEXTS: dict[str, Context] = {"chamelio": CHAMELIO, **kernel.CONTEXTS}


def context_of(section: str) -> tuple[Context, str] | None:
    """The context and hook that a section's name stands for."""
    kind, _, hook = section.partition("/")
    if kind == "chamelio":
        return (CHAMELIO, hook) if hook in HOOKS else None
    found = kernel.context_of(section)
    return (found, found.hooks[0]) if found is not None else None
