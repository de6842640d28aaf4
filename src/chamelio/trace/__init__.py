"""One packet through a handler, on the reference interpreter: what each line did, what each helper said, what it cost."""

from __future__ import annotations

from chamelio.trace.record import Trace, trace
from chamelio.trace.render import render
from chamelio.trace.scene import Scene, Start

__all__ = ["Scene", "Start", "Trace", "render", "trace"]
