"""How fast connections are set up and closed again, and what memory they take: C programs at both ends of a shared-memory wire.

Two hosts, each with an engine, an agent and an application, all real processes of this machine (bench/stage.py).
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chamelio.bench.stage import C_SOURCES, Stage, build_program
from chamelio.jit.layout import ARRAY, BYTES, HASH, LINE, NODE_BYTES, PLACE_BYTES, POOL_NODE_BYTES, TIMER, TX, Layout
from chamelio.messages import Refusal
from chamelio.tenant.folder import SHIPPED

LIBRARY = SHIPPED / "tcp" / "c"
SERVER, CLIENT = "10.0.0.1", "10.0.0.2"
PORT, PORTS = 7000, 8  # a client has some 16,000 ports towards each port of a server
SECONDS, OUTSTANDING = 3.0, 64
SETTLE_S, PATIENCE_S = 0.5, 60.0


def program(name: str) -> str:
    """One of TCP's C programs, compiled."""
    return str(build_program(LIBRARY / f"{name}.c", LIBRARY / "tcp_app.c", C_SOURCES / "chamelio_context.c"))


def per_connection(layout: Layout) -> dict[str, float]:
    """Bytes that a connection takes with empty buffers: in engine memory, and in the region."""
    most = max(m.max_entries for m in layout.maps if m.kind == ARRAY)
    engine = region = 0.0
    for m in layout.maps:
        if m.max_entries != most:
            continue
        if m.kind == ARRAY and m.shared is None:
            engine += m.stride
        elif m.kind == ARRAY:
            region += m.stride
        elif m.kind == HASH:
            engine += (m.mask + 1) * LINE / most + m.key_size + m.stride + 4
        elif m.kind in (TX, TIMER):
            engine += NODE_BYTES
        elif m.kind == BYTES and m.per_core:
            engine += PLACE_BYTES + POOL_NODE_BYTES
            region += PLACE_BYTES + (1 << m.key_size)
    return {"engine": round(engine, 1), "region": round(region, 1)}


def _memory(runs: Sequence[Path]) -> int:
    """Bytes that the processes of some hosts have in memory, shared ones counted once (PSS)."""
    marks = [f"CHAMELIO_RUN={run}".encode() for run in runs]
    total = 0
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and any(mark in (process / "environ").read_bytes().split(b"\0") for mark in marks):
                found = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
    return total


class Pair:
    """Two hosts with a wire between them, a server on one."""

    def __init__(self, stack: contextlib.ExitStack, *, server_options: Sequence[str] = ()) -> None:
        wire = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chamelio-rpc-"))) / "wire"
        self.stages = []
        for end, tenant, address in (("a", "red", SERVER), ("b", "blue", CLIENT)):
            stage = stack.enter_context(Stage(f"--port=w=wire:{wire}:{end}", "--route=10.0.0.0/24=w"))
            stage.tenant(tenant, address)
            stage.load(tenant, "tcp")
            stage.agent(tenant, "tcp")
            self.stages.append(stage)
        self.server, self.client = self.stages
        self.server.start(program("tcp_echo"), self.server.socket("red", "tcp"), str(PORT), str(PORTS), *server_options)

    def load(self, *options: str, seconds: float) -> dict[str, Any]:
        """Run the load generator: its last report, and `held_bytes`, by what all processes had grown with its connections open."""
        runs = [stage.run for stage in self.stages]
        before = _memory(runs)
        target = (self.client.socket("blue", "tcp"), SERVER, str(PORT))
        load = self.client.start(program("tcp_load"), *target, *options, ready=False)
        held = None
        deadline = time.monotonic() + PATIENCE_S
        while "--connections" in options and load.running and held is None and time.monotonic() < deadline:
            if load.reports:
                time.sleep(SETTLE_S)
                held = _memory(runs) - before
            time.sleep(0.01)
        report = load.final(seconds + PATIENCE_S)
        if report is None:
            raise Refusal("failed", f"the load generator does not report: {load.errors() or 'it says nothing'}")
        return {**report, "opening_seconds": load.reports[0].get("opening_seconds"), "held_bytes": held}


def measure(connections: int, *, seconds: float = SECONDS, close: str = "fin") -> dict[str, Any]:
    """Set-ups per second, each with a request of 64 bytes, its answer and the end; memory of so many idle connections.

    `close`: how a client ends a connection, `fin`, `reset` or `wait` (the server is first). Raises Refusal.
    """
    with contextlib.ExitStack() as stack:
        pair = Pair(stack, server_options=["--first"] if close == "wait" else [])
        options = ["--connect-rate", "--ports", str(PORTS), "--outstanding", str(OUTSTANDING), "--close", close]
        setups = pair.load(*options, "--seconds", str(seconds), seconds=seconds)
    with contextlib.ExitStack() as stack:
        pair = Pair(stack)
        one = pair.load("--connections", "1", "--outstanding", "1", "--seconds", "1.5", seconds=2)
        many = pair.load("--connections", str(connections), "--outstanding", "1", "--seconds", "1.5", seconds=2)
    return {
        "setups_per_second": setups["per_second"],
        "setups": {name: setups[name] for name in ("asked", "opened", "closed", "refused", "seconds")},
        "connections": connections,
        "opening_seconds": many["opening_seconds"],
        "bytes_per_connection": round((many["held_bytes"] - one["held_bytes"]) / (connections - 1)),
    }
