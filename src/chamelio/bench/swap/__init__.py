"""`chamelio bench swap`: a protocol is replaced again and again while a wire is busy; how long a swap takes, and what it loses.

A C load generator at the far end of a shared-memory wire keeps requests outstanding; every answer carries the number of the
version that gave it. Further tenants join with the protocol that runs, and compile nothing.
"""

from __future__ import annotations

import json as json_
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from chamelio import toolchain
from chamelio.bench.stage import Stage, build_program
from chamelio.messages import Refusal

HERE = Path(__file__).parent
SWAPS, PAUSE_S = 10, 0.2
WIRE, ADDRESS, PEER, PORT = "w0", "10.0.0.1", "10.0.0.9", 7
OTHERS = {"blue": "10.0.0.2", "green": "10.0.0.3", "grey": "10.0.0.4"}
OUTSTANDING = 64


def _version(number: int) -> bytes:
    return toolchain.bpf_object(HERE / "version.bpf.c", defines=(f"VERSION={number}",))


def measure(swaps: int = SWAPS) -> dict[str, Any]:
    """Plain values: packets/s on the wire (both directions), requests lost, microseconds of a swap, milliseconds of a join.

    Raises Refusal when a process does not start or the generator does not come to an end.
    """
    versions = [_version(number + 1) for number in range(swaps + 1)]
    program = str(build_program(HERE / "wire_load.c"))
    with Stage(f"--port={WIRE}=wire:{WIRE}:a", f"--route=10.0.0.0/24={WIRE}") as stage:
        stage.tenant("red", ADDRESS)
        stage.load("red", "echo", versions[0])
        seconds = (swaps + 2) * (PAUSE_S + 0.1)  # a version is verified and compiled in less than that
        wire = stage.run / "wires" / WIRE
        load = stage.start(
            program, str(wire), PEER, ADDRESS, str(PORT), "--seconds", f"{seconds:.1f}", "--outstanding", str(OUTSTANDING)
        )
        loaded = []
        for content in versions[1:]:
            time.sleep(PAUSE_S)
            loaded.append(stage.load("red", "echo", content))
        joined = []
        for name, address in OTHERS.items():
            stage.tenant(name, address)
            joined.append(stage.load(name, "echo", versions[-1]))
        report = load.final(seconds + 5)
    if report is None:
        raise Refusal("failed", f"the load generator does not report: {load.errors() or 'it says nothing'}")
    return {
        "swaps": len(loaded),
        "seen_by_the_peer": report["version_changes"],
        "packets_per_second": 2 * report["per_second"],
        "answered": report["answered"],
        "lost": report["lost"] + report["wrong"] + report["late"],
        "swap_us": [round(one["seconds"]["swap"] * 1e6, 1) for one in loaded],
        "compile_ms": [round(one["seconds"]["compile"] * 1e3, 1) for one in loaded if not one["cached"]],
        "p99_us": report["p99_us"],
        "all_under_load": report["version"] == swaps + 1,
        "join_ms": [round(one["wall_ms"], 1) for one in joined],
        "joins_that_compiled": sum(not one["unit_shared"] for one in joined),
    }


def run(*, json: bool = False) -> int:
    """`chamelio bench swap`; the exit status: 0 if nothing was lost."""
    console = Console(stderr=json)
    with console.status("swapping under load"):
        result = measure()
    if json:
        print(json_.dumps(result))
    else:
        us = result["swap_us"]
        console.print(
            f"{result['swaps']} swaps at {result['packets_per_second']:,.0f} packets/s: {result['lost']} of "
            f"{result['answered']:,} requests lost; a swap takes {statistics.median(us):.0f} us (longest {max(us):.0f})"
        )
        joins = ", ".join(f"{ms:.0f}" for ms in result["join_ms"])
        console.print(
            f"further tenants of the protocol join in {joins} ms; {result['joins_that_compiled']} of them compiled anything"
        )
    return 0 if not result["lost"] and result["all_under_load"] else 1
