"""`chamelio bench bounds`: what the shipped handlers cost at worst, measured, beside what is proven of them.

Each handler is called alone, on inputs that a search makes as dear as it can; an input's cost is the least of many repetitions
from the same state. `everything`: data, code and address translations are in no cache; `data`: data alone; `warm`: all is in the
nearest cache. Cycles are those of the time stamp counter, an empty call included, which is told too.
"""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from rich.console import Console
from rich.table import Table

from chamelio.bench import machine
from chamelio.bench.bounds.rig import COLD, DATA, Rig
from chamelio.bench.bounds.scenes import SCENES, Scene
from chamelio.bench.bounds.search import Search

REPETITIONS = 20
INPUTS = 600  # per handler and kind of caches
LIMIT = 10.0  # a bound is at most so many times the worst that was measured
CACHES = {"warm": 0, "everything": COLD, "data": DATA}


def measure(scene: Scene, rig: Rig, *, inputs: int = INPUTS, repetitions: int = REPETITIONS, seed: int = 1) -> dict[str, Any]:
    """One handler: its bounds, the dearest inputs that were found and what they cost."""
    proof = rig.proofs[scene.hook]
    starts: list[dict[str, Any]] = []
    worst: dict[str, Any] = {}
    for name, cold in CACHES.items():
        found = Search(rig, scene, cold, inputs, seed, repetitions, starts).run()
        starts.append(found.choice)
        run = scene.run(rig, found.choice)
        empty = rig.cycles("", run, cold=cold, repetitions=repetitions)
        worst[name] = {"cycles": found.cycles, "empty_call": empty, "inputs": found.inputs, "input": found.choice}
    cold_worst = max(worst["everything"]["cycles"], worst["data"]["cycles"])
    return {
        "handler": f"{scene.protocol} {scene.hook}",
        "instructions": len(proof.program.insns),
        "cold_bound": proof.cost_cold,
        "warm_bound": proof.cost_warm,
        "worst": worst,
        "cold_ratio": proof.cost_cold / cold_worst,
        "warm_ratio": proof.cost_warm / worst["warm"]["cycles"],
        "holds": proof.cost_cold >= cold_worst and proof.cost_cold <= LIMIT * cold_worst
        and proof.cost_warm <= LIMIT * worst["warm"]["cycles"],
    }  # fmt: skip


def measure_all(*, inputs: int = INPUTS, repetitions: int = REPETITIONS, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Every shipped handler."""
    with ExitStack() as stack:
        rigs: dict[str, Rig] = {}
        for scene in SCENES:
            if scene.protocol not in rigs:
                rigs[scene.protocol] = stack.enter_context(Rig(scene.source, ip_protocol=scene.ip_protocol))
            yield measure(scene, rigs[scene.protocol], inputs=inputs, repetitions=repetitions, seed=seed)


def run(*, json: bool = False, inputs: int = INPUTS, seed: int = 1) -> int:
    """`chamelio bench bounds`; the exit status: 1 if a bound does not hold, or is of no use."""
    console = Console(stderr=json)
    handlers = []
    with console.status("measuring") as status:
        for one in measure_all(inputs=inputs, seed=seed):
            handlers.append(one)
            status.update(f"measured {one['handler']}")
    about = machine.describe()
    measured = {"repetitions": REPETITIONS, "inputs": inputs, "seed": seed, "limit": LIMIT}
    if json:
        print(json_.dumps({"machine": about, **measured, "handlers": handlers}))
    else:
        console.print(table(handlers))
        console.print(machine.text(about))
    return 0 if all(one["holds"] for one in handlers) else 1


def table(handlers: list[dict[str, Any]]) -> Table:
    """For people."""
    shown = Table(title="Worst case per run of a handler, cycles: proven, and measured at worst")
    columns = ("handler", "cold bound", "nothing cached", "data not cached", "ratio", "warm bound", "warm", "ratio", "holds")
    for column in columns:
        shown.add_column(column, justify="left" if column == "handler" else "right")
    for one in handlers:
        worst = {name: f"{about['cycles']:,}" for name, about in one["worst"].items()}
        shown.add_row(
            one["handler"], f"{one['cold_bound']:,}", worst["everything"], worst["data"], f"{one['cold_ratio']:.1f}",
            f"{one['warm_bound']:,}", worst["warm"], f"{one['warm_ratio']:.1f}", "yes" if one["holds"] else "NO",
        )  # fmt: skip
    return shown
