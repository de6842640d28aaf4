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

from chamelio.bench.stage import C_SOURCES, Process, Stage, build_program
from chamelio.bpf.object import load_object
from chamelio.jit.layout import ARRAY, BYTES, HASH, LINE, NODE_BYTES, PLACE_BYTES, POOL_NODE_BYTES, TIMER, TX, Layout, make_layout
from chamelio.messages import Refusal
from chamelio.tenant.folder import SHIPPED, read_protocol

LIBRARY = SHIPPED / "tcp" / "c"
SERVER, CLIENT = "10.0.0.1", "10.0.0.2"
PORT, PORTS = 7000, 8  # a client has some 16,000 ports towards each port of a server
SECONDS, OUTSTANDING = 3.0, 64
HOLD_S, PATIENCE_S = 5.0, 60.0


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
        obj = load_object(read_protocol("tcp")[1])
        self.layout = make_layout(obj.maps, 2)
        self.server.start(program("tcp_echo"), self.server.socket("red", "tcp"), str(PORT), str(PORTS), *server_options)

    def load(self, *options: str, seconds: float) -> dict[str, Any]:
        """Run the load generator for so long: its last report. Raises Refusal."""
        load = self._start(*options, "--seconds", str(seconds))
        return self._final(load, seconds)

    def hold(self, connections: int, seconds: float) -> tuple[float, int]:
        """Open connections and ask on each; how long opening takes (s), and what all processes grow by (bytes). Raises Refusal."""
        runs = [stage.run for stage in self.stages]
        before = _memory(runs)
        many = f"--connections {connections} --ports {PORTS} --outstanding {OUTSTANDING} --interval 0.1 --seconds {seconds}"
        load = self._start(*many.split())
        deadline = time.monotonic() + seconds + PATIENCE_S
        while sum(r.get("answered", 0) for r in load.reports) < connections and load.running and time.monotonic() < deadline:
            time.sleep(0.05)
        grown = _memory(runs) - before
        opening = float(load.reports[0]["opening_seconds"]) if load.reports else 0.0
        if self._final(load, seconds)["answered"] < connections:
            raise Refusal("failed", f"not all of {connections} connections were used in {seconds:g} s")
        return opening, grown

    def _start(self, *options: str) -> Process:
        target = (self.client.socket("blue", "tcp"), SERVER, str(PORT))
        return self.client.start(program("tcp_load"), *target, *options, ready=False)

    @staticmethod
    def _final(load: Process, seconds: float) -> dict[str, Any]:
        report = load.final(seconds + PATIENCE_S)
        if report is None:
            raise Refusal("failed", f"the load generator does not report: {load.errors() or 'it says nothing'}")
        return report


def measure(connections: int, *, seconds: float = SECONDS) -> dict[str, Any]:
    """Set-ups per second, each with a request of 64 bytes, its answer and the end; memory of connections that have asked and wait.

    A client ends a connection by a FIN (`fin`), by a reset (`reset`), or not before the server has (`wait`). Raises Refusal.
    """
    setups = {}
    for close in ("fin", "reset", "wait"):
        with contextlib.ExitStack() as stack:
            pair = Pair(stack, server_options=["--first"] if close == "wait" else [])
            report = pair.load(
                "--connect-rate", "--ports", str(PORTS), "--outstanding", str(OUTSTANDING), "--close", close, seconds=seconds
            )
            setups[close] = {name: report[name] for name in ("per_second", "asked", "opened", "closed", "refused")}
    with contextlib.ExitStack() as stack:
        pair = Pair(stack)
        pair.hold(OUTSTANDING, 1.0)
        opening, grown = pair.hold(connections, HOLD_S)
        layout = pair.layout
    return {
        "setups": setups,
        "connections": connections,
        "opening_seconds": opening,
        "bytes_per_connection": {"by_layout": per_connection(layout), "measured": round(grown / connections / len(pair.stages))},
    }
