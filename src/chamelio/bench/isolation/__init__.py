"""`chamelio bench isolation`: what a victim notices of hostile neighbours, with accounting and without, in virtual time.

Every case (case.py) is a function of its inputs: the same everywhere, under any load. With `cycles` the engine does as always.
`packets` (round robin) and `off` (order of arrival) are its policies for comparison; units, ports and loads are the same.
"""

from __future__ import annotations

import dataclasses
import json as json_
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from chamelio.bench.adversaries import ADVERSARIES, NEIGHBOUR
from chamelio.bench.isolation import show
from chamelio.bench.isolation.case import MEASURED_NS, Case, measure
from chamelio.engine.image import POLICIES
from chamelio.messages import Refusal

WEIGHTS, TENANTS, LOADS = ((1, 1), (4, 1)), (2, 8, 64), ("open", "closed")
BESIDE, WITHOUT = 1.3, 0.25  # victim's p99 against that beside a well-behaved neighbour, and against that without accounting


def cases(
    *,
    names: Iterable[str] = ADVERSARIES,
    weights: Iterable[tuple[int, int]] = WEIGHTS[:1],
    tenants: Sequence[int] = TENANTS[:1],
    policies: Sequence[str] = POLICIES,
    loads: Sequence[str] = LOADS[:1],
    ports: Sequence[str] = ("shared",),
    measured_ns: int = MEASURED_NS,
) -> Iterator[Case]:
    """Everything with everything, and beside a well-behaved neighbour."""
    names = list(names)
    for w in weights:
        for n in tenants:
            for load in loads:
                for port in ports:
                    for adversary in [NEIGHBOUR, *(ADVERSARIES[name] for name in names)]:
                        for intensity in adversary.intensities:
                            for policy in policies:
                                yield Case(adversary.name, intensity, w, n, policy, load, port, measured_ns)


def compare(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per scene (all but the policy) the victim's p99 under each policy, and with accounting against what it should be held.

    `beside`: its ratio to that beside a well-behaved neighbour; `without`: to that without accounting ("off"). None: not measured.
    """
    scenes: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for r in results:
        scene = tuple(r["weights"]), r["tenants"], r["load"], r["port"], r["adversary"], r["intensity"]
        scenes.setdefault(scene, {})[r["policy"]] = r
    rows = []
    for (weights, tenants, load, port, adversary, intensity), found in scenes.items():
        good = scenes.get((weights, tenants, load, port, NEIGHBOUR.name, *NEIGHBOUR.intensities), {})
        on, off, calm = found.get("cycles"), found.get("off"), good.get("cycles")
        rows.append(
            {
                "adversary": adversary, "intensity": intensity, "weights": weights, "tenants": tenants, "load": load, "port": port,
                "p99": {policy: r["latency"]["p99"] for policy, r in found.items()},
                "lost": {policy: r["lost_at_port"] for policy, r in found.items()},
                "max_delay": on["delay"]["max"] if on else None,
                "max_head": on["head"]["max"] if on else None,
                "bound": on["bound"] if on else None,
                "beside": _ratio(on, calm),
                "without": _ratio(on, off),
            }
        )  # fmt: skip
    return rows


def _ratio(a: dict[str, Any] | None, b: dict[str, Any] | None) -> float | None:
    if a is None or b is None or a["latency"]["p99"] is None or not b["latency"]["p99"]:
        return None
    return float(a["latency"]["p99"] / b["latency"]["p99"])


def run_cases(wanted: Sequence[Case], *, jobs: int = 1, console: Console | None = None) -> list[dict[str, Any]]:
    """Their results, in order; `jobs` at a time."""
    if jobs == 1:
        return [measure(case) for case in track(wanted, "measuring", console=console, disable=console is None)]
    with ProcessPoolExecutor(jobs) as pool:
        return list(track(pool.map(measure, wanted), "measuring", total=len(wanted), console=console, disable=console is None))


def run(
    *,
    json: bool = False,
    names: Sequence[str] = (),
    full: bool = False,
    tenants: Sequence[int] = (),
    weights: Sequence[tuple[int, int]] = (),
    loads: Sequence[str] = (),
    ports: Sequence[str] = ("shared",),
    policies: Sequence[str] = POLICIES,
    milliseconds: float = MEASURED_NS / 1e6,
    jobs: int = 0,
    plot: Path | None = None,
) -> int:
    """`chamelio bench isolation`; the exit status. `full`: the whole matrix, where nothing else is said. Raises Refusal."""
    unknown = [name for name in names if name not in ADVERSARIES]
    if unknown:
        raise Refusal("usage", f"there is no adversary {unknown[0]!r}", f"adversaries are {', '.join(ADVERSARIES)}")
    wanted = list(
        cases(
            names=names or ADVERSARIES,
            weights=weights or WEIGHTS[: None if full else 1],
            tenants=tenants or TENANTS[: None if full else 1],
            loads=loads or LOADS[: None if full else 1],
            ports=ports,
            policies=policies,
            measured_ns=round(milliseconds * 1e6),
        )
    )
    console = Console(stderr=json)
    results = run_cases(wanted, jobs=jobs or os.cpu_count() or 1, console=console)
    rows = compare(results)
    if plot is not None:
        show.plot(rows, plot)
    if json:
        about = {name: dataclasses.asdict(a) for name, a in ADVERSARIES.items()}
        for one in about.values():
            del one["join"]
        print(json_.dumps({"virtual": True, "adversaries": about, "cases": results, "compared": rows}))
    else:
        for table in show.tables(rows):
            console.print(table)
    return 0
