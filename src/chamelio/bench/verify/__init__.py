"""`chamelio bench verify`: how long the verifier takes for programs of 50 to 5,000 instructions, and for the shipped handlers.

Time is the processor's, so that what else the machine does counts as little as it can.
"""

from __future__ import annotations

import json as json_
import statistics
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from chamelio import toolchain
from chamelio.bench import machine
from chamelio.bench.verify.generator import generate
from chamelio.bpf.object import Object, Program, load_object
from chamelio.verify import Limits, verify_program

SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
PROGRAMS = 5  # generated of each size
RUNS = 25  # of each size, and of each shipped handler
PATIENT = Limits(seconds=60)  # here time is what is measured
SHIPPED = ("echo", "ping", "udp", "rpc")
LIMITS = {200: 0.050, 2000: 1.0}  # seconds: the median of a size, or of a handler that is no longer

Subject = tuple[Object, Program]


def subjects(seed: int) -> Iterator[tuple[str, int, list[Subject]]]:
    """What is verified: a name, the size that its limit is for, the programs."""
    for size in SIZES:
        yield f"generated {size:,}", size, [generate(size, PROGRAMS * seed + n) for n in range(PROGRAMS)]
    for protocol in SHIPPED:
        obj = load_object(toolchain.bpf_object(toolchain.PACKAGE / "protocols" / protocol / f"{protocol}.bpf.c"))
        for program in obj.programs:
            yield f"{protocol} {program.section.rpartition('/')[2]}", len(program.insns), [(obj, program)]


def measure(name: str, size: int, programs: list[Subject], runs: int = RUNS) -> dict[str, Any]:
    """Processor seconds of at least so many verifications, as many of each program. `accepted`: of the programs."""
    seconds, steps, accepted = [], [], 0
    for obj, program in programs:
        for _ in range(-(-runs // len(programs))):
            started = time.process_time()
            verdict = verify_program(obj, program, limits=PATIENT)
            seconds.append(time.process_time() - started)
        accepted += verdict.verdict == "accept"
        steps.append(verdict.steps)
    seconds.sort()
    limit = next((limit for most, limit in LIMITS.items() if size <= most), None)
    median = statistics.median(seconds)
    return {
        "name": name,
        "instructions": round(statistics.median(len(program.insns) for _, program in programs)),
        "programs": len(programs),
        "accepted": accepted,
        "runs": len(seconds),
        "steps": round(statistics.median(steps)),
        "median": median,
        "p25": seconds[len(seconds) // 4],
        "p75": seconds[3 * len(seconds) // 4],
        "fastest": seconds[0],
        "slowest": seconds[-1],
        "limit": limit,
        "holds": limit is None or (median <= limit and accepted == len(programs)),
    }


def run(*, json: bool = False, runs: int = RUNS, seed: int = 1) -> int:
    """`chamelio bench verify`; the exit status: 1 if a median is above its limit."""
    console = Console(stderr=json)
    sizes = []
    with console.status("measuring") as status:
        for name, size, programs in subjects(seed):
            status.update(f"measuring {name}")
            sizes.append(measure(name, size, programs, runs))
    about = machine.describe()
    if json:
        print(json_.dumps({"machine": about, "seed": seed, "sizes": sizes}))
    else:
        console.print(table(sizes))
        console.print(machine.text(about))
    return 0 if all(one["holds"] for one in sizes) else 1


def table(sizes: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table(title="Verification, milliseconds of processor time")
    columns = ("programs", "instructions", "accepted", "steps", "runs", "median", "middle half", "fastest", "slowest", "limit")
    for column in columns:
        shown.add_column(column, justify="left" if column == "programs" else "right")
    for one in sizes:
        ms = {name: f"{1000 * one[name]:.1f}" for name in ("median", "fastest", "slowest", "p25", "p75")}
        limit = f"{1000 * one['limit']:.0f}" if one["limit"] else ""
        shown.add_row(
            one["name"], f"{one['instructions']:,}", f"{one['accepted']}/{one['programs']}", f"{one['steps']:,}", str(one["runs"]),
            ms["median"], f"{ms['p25']}..{ms['p75']}", ms["fastest"], ms["slowest"], limit if one["holds"] else f"{limit} missed",
        )  # fmt: skip
    return shown
