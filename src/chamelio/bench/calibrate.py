"""`chamelio calibrate`: what instructions, misses and helpers cost on this machine, beside the table of costs in force.

Instructions are measured in chains in which each waits for the one before; a miss, by following addresses through memory much
larger than the caches; a helper, by calling it alone on its dearest way, at several lengths, with its data in the nearest cache and
in none. Margins are the table's figure over the measured one: at least 1, or the table is not for this machine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from chamelio.bench import machine
from chamelio.bench.bounds.probes import Bench, Measured, measure_all
from chamelio.bench.bounds.rig import library
from chamelio.cli.output import print_json
from chamelio.messages import Refusal
from chamelio.verify import cost
from chamelio.verify.catalogue import Cost
from chamelio.verify.cost import Cold, CostTable, Instructions

SAFETY = 1.5
CHAIN = 64  # instructions of one turn, CHAIN of rig.c
TURNS = 200
TRIES = 30
FAR_BYTES = 256 << 20
# `enum bounds_class` of rig.c
CLASSES = ("simple", "multiply", "divide", "load", "atomic", "branch", "call", "copy", "mispredict", "miss", "store")


def chain(name: str) -> float:
    """Cycles of one instruction of a class."""
    turns = TURNS
    memory = np.zeros(1 << 12, np.uint64)
    if name == "load":
        memory[0] = memory.ctypes.data
    elif name == "mispredict":
        memory[:] = np.random.default_rng(1).integers(0, 1 << 63, len(memory), dtype=np.uint64)
        turns = len(memory)
    elif name == "miss":
        return _miss()
    number = CLASSES.index(name)
    empty = min(library().bounds_chain(number, 0, memory.ctypes.data) for _ in range(TRIES))
    best = min(library().bounds_chain(number, turns, memory.ctypes.data) for _ in range(TRIES))
    cycles = float(best - empty) / turns / CHAIN
    return 2 * cycles if name == "mispredict" else cycles  # one in two of random ones


def _miss() -> float:
    """A line from memory: addresses lead through all lines of a large area, in random order."""
    memory = np.zeros(FAR_BYTES // 8, np.uint64)
    order = np.random.default_rng(1).permutation(len(memory) // 8).astype(np.uint64) * np.uint64(8)
    base = memory.ctypes.data
    memory[order] = np.roll(order, -1) * np.uint64(8) + np.uint64(base)
    number = CLASSES.index("miss")
    starts = order[:: len(order) // TRIES][:TRIES]
    return float(min(library().bounds_chain(number, TURNS, base + 8 * int(start)) for start in starts)) / TURNS / CHAIN


def measure(*, repetitions: int = 40) -> dict[str, Any]:
    """`{"instructions": {class: {measured, table, margin}}, "helpers": [...]}`."""
    in_force = cost.table()
    figures = {**vars(in_force.instructions), **{name: getattr(in_force.cold, name) for name in ("miss", "mispredict")}}
    instructions = {}
    for name in CLASSES:
        measured = chain(name)
        instructions[name] = {"measured": round(measured, 2), "table": figures[name], "margin": round(figures[name] / measured, 2)}
    bench = Bench()
    try:
        helpers = list(measure_all(bench, repetitions=repetitions))
    finally:
        bench.close()
    shown = [_plain(one) for one in helpers]
    return {"machine": machine.describe(), "instructions": instructions, "helpers": shown, "measured": helpers}


def _plain(one: Measured) -> dict[str, Any]:
    warm, cold = one.line(one.warm), one.line(one.cold)
    return {
        "helper": one.name, "map": one.kind, "lengths": one.lengths, "warm": one.warm, "cold": one.cold,
        "table_warm": one.priced_warm, "table_cold": one.priced_cold,
        "warm_line": [round(warm[0], 1), round(warm[1], 2)], "cold_line": [round(cold[0], 1), round(cold[1], 2)],
        "margin_warm": round(one.margin_warm, 2), "margin_cold": round(one.margin_cold, 2),
    }  # fmt: skip


def table_of(result: dict[str, Any], safety: float = SAFETY) -> CostTable:
    """A table of this machine's figures times a safety factor; what was not measured is the table's in force."""
    in_force = cost.table()

    def safe(cycles: float) -> int:
        return math.ceil(safety * cycles)

    measured = {name: safe(about["measured"]) for name, about in result["instructions"].items()}
    classes = {name: max(1, measured[name]) for name in vars(in_force.instructions)}
    miss = max(1, measured["miss"])
    cold = Cold(miss=miss, stream=in_force.cold.stream, mispredict=measured["mispredict"], start=2 * miss, code=in_force.cold.code)
    helpers: dict[str, dict[str, Cost]] = {name: dict(prices) for name, prices in in_force.helpers.items()}
    for one in result["measured"]:
        warm, cold_line = one.line(one.warm), one.line(one.cold)
        price = Cost(
            safe(max(0.0, warm[0])),
            safe(warm[1]),
            math.ceil(safety * max(0.0, cold_line[0] - warm[0]) / miss),
            safe(max(0.0, cold_line[1] - warm[1])),
        )
        helpers[one.name][one.kind] = price
    for name, prices in helpers.items():  # without a kind: as dear as the dearest
        found = [price for kind, price in prices.items() if kind]
        if found and any(one.name == name for one in result["measured"]):
            prices[""] = Cost(*(max(getattr(p, f) for p in found) for f in ("fixed", "per_line", "lines", "per_line_cold")))
    return CostTable(Instructions(**classes), cold, helpers)


def run(*, json: bool = False, write: Path | None = None, safety: float = SAFETY) -> int:
    """`chamelio calibrate`; the exit status: 1 if a price in the table in force is below what was measured."""
    if not 1 <= safety <= 100:
        raise Refusal("usage", f"a safety factor of {safety:g} is not within 1..100")
    console = Console(stderr=json)
    with console.status("measuring"):
        result = measure()
    if write is not None:
        heading = f"Measured by `chamelio calibrate`, times {safety:g}.\n{machine.text(result['machine'])}."
        try:
            write.write_text(cost.text(table_of(result, safety), heading))
        except OSError as error:
            raise Refusal("failed", f"{write} cannot be written: {error.strerror}") from None
    low = short_of(result)
    if json:
        shown = {name: value for name, value in result.items() if name != "measured"}
        print_json({**shown, "too_low": low, "written": str(write) if write else None})
    else:
        for one in tables(result):
            console.print(one)
        console.print(machine.text(result["machine"]))
        console.print(f"too low in the table in force: {', '.join(low) or 'nothing'}")
        if write is not None:
            console.print(f"written to {write}; in force where {cost.VARIABLE}={write}")
    return 1 if low else 0


def short_of(result: dict[str, Any]) -> list[str]:
    """What the table in force prices below what was measured."""
    low = [name for name, about in result["instructions"].items() if about["margin"] < 1]
    for one in result["helpers"]:
        if min(one["margin_warm"], one["margin_cold"]) < 1:
            low.append(f"{one['helper']}.{one['map']}".rstrip("."))
    return low


def tables(result: dict[str, Any]) -> list[Table]:
    """For people."""
    classes = Table(title="Cycles of an instruction, of a miss")
    for column in ("class", "measured", "table", "margin"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, about in result["instructions"].items():
        classes.add_row(name, f"{about['measured']:.2f}", str(about["table"]), f"{about['margin']:.1f}")
    helpers = Table(title="Cycles of a helper: a + b for every 64 bytes; an empty call is taken off")
    for column in ("helper", "map", "warm", "margin", "cold", "margin"):
        helpers.add_column(column, justify="left" if column in ("helper", "map") else "right")
    for one in result["helpers"]:
        warm, cold = ("{:.0f} + {:.1f}".format(*one[which]) for which in ("warm_line", "cold_line"))
        helpers.add_row(one["helper"], one["map"], warm, f"{one['margin_warm']:.1f}", cold, f"{one['margin_cold']:.1f}")
    return [classes, helpers]
