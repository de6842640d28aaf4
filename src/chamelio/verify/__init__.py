"""The contract: what a handler is proven never to do, and what it can cost at most.

`verify_object(obj)` gives a verdict per program; an accepted one carries a `Proof`, which the compiler relies on.
"""

from __future__ import annotations

from chamelio.verify.proof import Access, Limits, Proof, Verdict
from chamelio.verify.render import render
from chamelio.verify.verifier import verify_object, verify_program

__all__ = ["Access", "Limits", "Proof", "Verdict", "render", "verify_object", "verify_program"]
