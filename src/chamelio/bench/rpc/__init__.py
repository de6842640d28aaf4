"""`chamelio bench rpc`: what a request of 64 bytes and its answer cost a core that speaks TCP, and where its instructions go.

A peer asks over the shared-memory wire, on as many connections as are wanted, so many requests at a time; a C application answers
(tcp_driver.c). Cycles are measured on this machine, in runs that alternate between all that is compared; instructions are counted
exactly by callgrind, where valgrind exists, inside the core's rounds and inside the application.
"""

from __future__ import annotations

import json as json_
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from chamelio.bench import machine
from chamelio.bench.rpc import callgrind
from chamelio.messages import Refusal

RUNS, REQUESTS = 11, 32_000  # requests that a run measures
COUNTED = 8_000  # requests that callgrind counts
BYTES = 64
PORTABLE_CPU = "x86-64-v3"  # valgrind does not know every instruction of every host
FLOWS, BATCHES, MODES = (1024,), (16,), ("joint",)
# TAS (Kaufmann et al., 2019), measured on the same kind of machine: instructions per request
REFERENCE = {"batch 16, offload": 1510, "batch 16, checksums in software": 1811, "batch 1": 3686}


class Scene(NamedTuple):
    """What one measurement is of."""

    mode: str
    flows: int
    batch: int
    offload: bool

    def command(self, programs: dict[str, str], requests: int) -> list[str]:
        """Run the driver for about so many requests."""
        numbers = (self.flows, self.batch, max(requests // self.batch, 1), int(self.offload))
        return [programs[self.mode], programs["setup"], programs["patches"], *map(str, numbers)]


class Run(NamedTuple):
    """What one run of the driver says: cycles per request of each batch, segments and pure acknowledgements per request."""

    core: list[float]
    application: list[float]
    segments: float
    acks: float


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal("failed", f"{Path(command[0]).name} ends with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def _export(directory: Path, modes: Sequence[str], *options: str) -> dict[str, str]:
    command = [sys.executable, "-m", "chamelio.bench.rpc.export", str(directory), "--modes", ",".join(modes), *options]
    programs: dict[str, str] = json_.loads(_run(command))
    return programs


def _read(out: str) -> Run:
    *lines, last = out.splitlines()
    pairs = [tuple(map(float, line.split())) for line in lines]
    _, segments, _, acks = last.split()
    return Run([core for core, _ in pairs], [application for _, application in pairs], float(segments), float(acks))


def _spread(samples: Sequence[Sequence[float]]) -> dict[str, float]:
    """p10 and median over all batches, and the spread of the runs' medians."""
    everything = sorted(x for run in samples for x in run)
    medians = sorted(statistics.median(run) for run in samples)
    figures = {
        "p10": everything[len(everything) // 10],
        "median": statistics.median(everything),
        "best_run_median": medians[0],
        "worst_run_median": medians[-1],
    }
    return {name: round(value, 1) for name, value in figures.items()}


def measure_cycles(programs: dict[str, str], scenes: Sequence[Scene], runs: int, requests: int) -> Iterator[dict[str, Any]]:
    """Per scene cycles per request, of the core and of the application, and what was on the wire."""
    found: dict[Scene, list[Run]] = {scene: [] for scene in scenes}
    for turn in range(runs):
        for scene in scenes if turn % 2 else reversed(scenes):
            found[scene].append(_read(_run(scene.command(programs, requests))))
    for of_scene in found.values():
        yield {
            "cycles_per_request": _spread([run.core for run in of_scene]),
            "application_cycles_per_request": _spread([run.application for run in of_scene]),
            "packets_per_request": of_scene[-1].segments,
            "pure_acks_per_request": of_scene[-1].acks,
        }


def count_instructions(programs: dict[str, str], scene: Scene, requests: int) -> dict[str, Any]:
    """Instructions per request: in the core's rounds, also by phase, and in the application."""
    with tempfile.TemporaryDirectory(prefix="chamelio-rpc-") as scratch:
        out = Path(scratch) / "callgrind.out"
        toggles = [f"--toggle-collect={name}" for name in ("measured_round", "measured_application")]
        _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *toggles, *scene.command(programs, requests)])
        phases = callgrind.by_phase(*callgrind.read(out.read_text()))
    asked = max(requests // scene.batch, 1) * scene.batch
    by_phase = {phase: round(count / asked, 1) for phase, count in phases.items()}
    application = by_phase.pop("application")
    return {
        "instructions_per_request": round(sum(by_phase.values()), 1),
        "instructions_by_phase": by_phase,
        "application_instructions_per_request": application,
    }


def measure(
    *,
    flows: Sequence[int] = FLOWS,
    batches: Sequence[int] = BATCHES,
    modes: Sequence[str] = MODES,
    offloads: Sequence[bool] = (True, False),
    runs: int = RUNS,
    requests: int = REQUESTS,
    counted: int = COUNTED,
) -> dict[str, Any]:
    """Everything that is asked for, scene by scene in `results`, and how it was measured.

    `flows` connections, `batches` requests at a time; `offloads`: whether ports take care of checksums. Raises Refusal.
    """
    scenes = [Scene(m, f, b, o) for m in modes for f in flows for b in batches for o in offloads if b <= f]
    counting = shutil.which("valgrind") is not None and counted > 0
    with tempfile.TemporaryDirectory(prefix="chamelio-rpc-") as scratch:
        programs = _export(Path(scratch) / "host", modes)
        results = [
            {**scene._asdict(), **figures}
            for scene, figures in zip(scenes, measure_cycles(programs, scenes, runs, requests), strict=True)
        ]
        if counting:
            portable = _export(Path(scratch) / "portable", modes, "--cpu", PORTABLE_CPU)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for result, figures in zip(
                    results, pool.map(lambda s: count_instructions(portable, s, counted), scenes), strict=True
                ):
                    result.update(figures)
    about = machine.describe()
    for result in results:
        result["requests_per_second"] = round(about["tsc_ghz"] * 1e9 / result["cycles_per_request"]["median"])
    return {
        "protocol": "tcp",
        "bytes": BYTES,
        "machine": about,
        "runs": runs,
        "requests": requests,
        "reference_instructions": REFERENCE,
        "results": results,
    }


def run(
    *,
    json: bool = False,
    flows: Sequence[int] = FLOWS,
    batches: Sequence[int] = BATCHES,
    modes: Sequence[str] = MODES,
    offloads: Sequence[bool] = (True, False),
    runs: int = RUNS,
) -> int:
    """`chamelio bench rpc`; the exit status."""
    console = Console(stderr=json)
    with console.status("measuring"):
        result = measure(flows=flows, batches=batches, modes=modes, offloads=offloads, runs=runs)
    if json:
        print(json_.dumps(result))
        return 0
    table = Table(title=f"TCP, a request of {BYTES} bytes and its answer: what the core spends")
    columns = (
        "mode",
        "connections",
        "batch",
        "checksums",
        "requests/s",
        "cycles p10",
        "median",
        "of runs",
        "instructions",
        "app",
        "packets",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("mode", "checksums") else "right")
    for one in result["results"]:
        c = one["cycles_per_request"]
        counted = (one.get("instructions_per_request"), one.get("application_instructions_per_request"))
        table.add_row(
            one["mode"],
            f"{one['flows']:,}",
            str(one["batch"]),
            "port" if one["offload"] else "software",
            f"{one['requests_per_second']:,}",
            f"{c['p10']:.0f}",
            f"{c['median']:.0f}",
            f"{c['best_run_median']:.0f}..{c['worst_run_median']:.0f}",
            *(f"{n:.0f}" if n is not None else "no valgrind" for n in counted),
            f"{one['packets_per_request']:.2f}",
        )
    console.print(table)
    for one in result["results"]:
        if "instructions_by_phase" in one:
            where = ", ".join(f"{phase.replace('_', ' ')} {n:.0f}" for phase, n in one["instructions_by_phase"].items())
            console.print(f"{one['mode']}, {one['flows']:,} x {one['batch']}, {'port' if one['offload'] else 'software'}: {where}")
    console.print(machine.text(result["machine"]))
    return 0


def run_connections(connections: int, *, json: bool = False) -> int:
    """`chamelio bench rpc --connections N`; the exit status."""
    from chamelio.bench.rpc.connections import measure

    console = Console(stderr=json)
    with console.status("measuring"):
        result = {"protocol": "tcp", **measure(connections), "machine": machine.describe()}
    if json:
        print(json_.dumps(result))
        return 0
    ways = {"fin": "the client closes first", "reset": "the client resets", "wait": "the server closes first"}
    for close, report in result["setups"].items():
        console.print(f"connections set up, used for one request and closed ({ways[close]}): {report['per_second']:,.0f} a second")
    memory = result["bytes_per_connection"]
    console.print(f"{connections:,} connections are open after {result['opening_seconds']:.2f} s")
    engine, region = memory["by_layout"]["engine"], memory["by_layout"]["region"]
    console.print(
        f"a connection with the smallest buffers: {engine:.0f} bytes of engine memory (reserved), {region:.0f} of the region"
    )
    console.print(f"all processes of a host have grown by {memory['measured']:,} bytes for each")
    console.print(machine.text(result["machine"]))
    return 0
