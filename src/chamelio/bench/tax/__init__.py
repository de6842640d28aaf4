"""`chamelio bench tax`: what it costs that a protocol is a tenant's program and not part of the stack.

The same work in three modes: `fixed` (the handlers' C compiled natively into the provider's loops), `separate` (handlers
compiled alone and called through pointers, generic map helpers) and `joint`. Cycles are measured on this machine in runs that
alternate between the modes; instructions are counted exactly by callgrind, where valgrind exists. The work is a UDP echo, a
request received and answered; and a request of rpc with its answer between two tenants of the core, both ends counted.
"""

from __future__ import annotations

import json as json_
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from chamelio.messages import Refusal

# name: mode, hardening. `joint_unmasked` shows what hardening costs; `whole_N`: one image of the provider and N protocols.
VARIANTS = {
    "fixed": ("fixed", True),
    "separate": ("separate", True),
    "joint": ("joint", True),
    "joint_unmasked": ("joint", False),
    "fixed_unmasked": ("fixed", False),
    "whole_1": ("whole", True),
    "whole_2": ("whole", True),
    "whole_4": ("whole", True),
}
RUNS, BATCHES, BATCH = 21, 3000, 16
PROTOCOLS = ("udp", "rpc")
TITLES = {"udp": "UDP echo", "rpc": "rpc request and answer"}
COUNTED = (100, 300)  # batches of two counted runs; the difference is free of set-up and warm-up
PORTABLE_CPU = "x86-64-v3"  # valgrind does not know every instruction of every host
LIMIT = 1.038  # of fixed: what the paper's joint compilation costs


def _export(directory: Path, protocol: str, *options: str) -> dict[str, str]:
    command = [sys.executable, "-m", "chamelio.bench.tax.export", str(directory), protocol, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal("failed", f"the programs cannot be exported: {done.stderr.strip()[-2000:]}")
    programs: dict[str, str] = json_.loads(done.stdout)
    return programs


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal("failed", f"{command[0]} ends with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr


def measure_cycles(programs: dict[str, str], *, runs: int = RUNS, batches: int = BATCHES) -> dict[str, dict[str, float]]:
    """Cycles per request of each variant: p10 and median over all batches, and the spread of the runs' medians."""
    samples: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for turn in range(runs):
        names = list(VARIANTS) if turn % 2 else list(reversed(VARIANTS))
        for name in names:
            out = _run([programs[name], programs["setup"], str(batches), str(BATCH)])
            samples[name].append([float(line) for line in out.split()])
    result = {}
    for name, runs_ in samples.items():
        everything = sorted(x for run in runs_ for x in run)
        medians = sorted(statistics.median(run) for run in runs_)
        result[name] = {
            "p10": everything[len(everything) // 10],
            "median": statistics.median(everything),
            "best_run_median": medians[0],
            "worst_run_median": medians[-1],
        }
    return result


def count_instructions(programs: dict[str, str]) -> dict[str, float]:
    """Instructions per request inside the core's rounds, exactly, and so the runs may overlap."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {name: [pool.submit(_callgrind, programs[name], programs["setup"], n) for n in COUNTED] for name in VARIANTS}
        return {name: (b.result() - a.result()) / ((COUNTED[1] - COUNTED[0]) * BATCH) for name, (a, b) in runs.items()}


def _callgrind(program: str, setup: str, batches: int) -> int:
    options = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=cham_round"]
    out = _run(["valgrind", *options, program, setup, str(batches), str(BATCH)])
    line = next((line for line in out.splitlines() if "Collected :" in line), None)
    if line is None or not int(line.rpartition(":")[2]):
        raise Refusal("failed", f"callgrind does not say how much it collected: {out[-500:]}")
    return int(line.rpartition(":")[2])


def measure_protocol(protocol: str, *, runs: int = RUNS, batches: int = BATCHES) -> dict[str, Any]:
    """Per variant `{"cycles_per_request": ..., "instructions_per_request": ...}`."""
    counting = shutil.which("valgrind") is not None
    with tempfile.TemporaryDirectory(prefix="chamelio-tax-") as scratch:
        with ThreadPoolExecutor() as pool:
            host = pool.submit(_export, Path(scratch) / "host", protocol)
            portable = pool.submit(_export, Path(scratch) / "portable", protocol, "--cpu", PORTABLE_CPU) if counting else None
        cycles = measure_cycles(host.result(), runs=runs, batches=batches)
        instructions = count_instructions(portable.result()) if portable else None
    out: dict[str, Any] = {}
    for name in VARIANTS:
        out[name] = {"cycles_per_request": cycles[name]}
        if instructions is not None:
            out[name]["instructions_per_request"] = instructions[name]
    return out


def ratios(variants: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What is compared: joint and separate to fixed, masked to unmasked, whole images to joint."""

    def ratio(a: str, b: str) -> dict[str, float]:
        one, other = variants[a], variants[b]
        out = {k: one["cycles_per_request"][k] / other["cycles_per_request"][k] for k in ("p10", "median")}
        if "instructions_per_request" in one:
            out["instructions"] = one["instructions_per_request"] / other["instructions_per_request"]
        return out

    return {
        "joint_to_fixed": ratio("joint", "fixed"),
        "separate_to_fixed": ratio("separate", "fixed"),
        "hardening": ratio("joint", "joint_unmasked"),
        **{f"{name}_to_joint": ratio(name, "joint") for name in VARIANTS if name.startswith("whole")},
    }


def measure(*, protocols: Sequence[str] = PROTOCOLS, runs: int = RUNS, batches: int = BATCHES) -> dict[str, Any]:
    """`{"udp": {mode: ...}, "rpc": ..., "ratios": {"udp": ..., "rpc": ...}}` and how it was measured."""
    measured = {name: measure_protocol(name, runs=runs, batches=batches) for name in protocols}
    compared = {name: ratios(variants) for name, variants in measured.items()}
    return {**measured, "ratios": compared, "batch": BATCH, "runs": runs, "batches": batches, "limit": LIMIT}


def run(*, json: bool = False) -> int:
    """`chamelio bench tax`; the exit status."""
    console = Console(stderr=json)
    with console.status("measuring"):
        result = measure()
    if json:
        print(json_.dumps(result))
        return 0
    for protocol in PROTOCOLS:
        table = Table(title=f"{TITLES[protocol]}, 64 bytes, batches of {BATCH}: what the core spends per request")
        for column in ("mode", "cycles p10", "cycles median", "medians of runs", "instructions"):
            table.add_column(column, justify="left" if column == "mode" else "right")
        for name, one in result[protocol].items():
            c = one["cycles_per_request"]
            spread = f"{c['best_run_median']:.0f}..{c['worst_run_median']:.0f}"
            counted = one.get("instructions_per_request")
            table.add_row(name, f"{c['p10']:.0f}", f"{c['median']:.0f}", spread, f"{counted:.1f}" if counted else "no valgrind")
        console.print(table)
        for name, compared in result["ratios"][protocol].items():
            console.print(f"{name.replace('_', ' ')}: " + ", ".join(f"{k} x{v:.3f}" for k, v in compared.items()))
    return 0
