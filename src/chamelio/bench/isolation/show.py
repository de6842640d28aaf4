"""What `chamelio bench isolation` shows: a table for each scene, and a plot of the victim's tail against intensity."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from chamelio.bench.adversaries import ADVERSARIES, NEIGHBOUR
from chamelio.engine.image import POLICIES
from chamelio.messages import Refusal

_UNITS = {a.name: a.unit for a in (NEIGHBOUR, *ADVERSARIES.values())}


def _scene(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["tenants"], tuple(row["weights"]), row["load"], row["port"]


def _us(ns: float | None) -> str:
    return "" if ns is None else f"{ns / 1e3:,.1f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _amount(row: dict[str, Any]) -> str:
    unit = _UNITS[row["adversary"]]
    return f"{row['intensity'] / 1e6:g} M/s" if unit == "packets/s" else f"{row['intensity']:,} {unit}"


def tables(rows: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """One for each number of tenants, weights, load and port."""
    for (tenants, weights, load, port), group in itertools.groupby(rows, _scene):
        title = f"Victim's p99 (us): {tenants} tenants, weights {weights[0]}:{weights[1]}, {load} loop, {port} port"
        table = Table(title=title)
        columns = ("adversary", "intensity", *POLICIES, "beside", "without", "delay", "head", "bound", "lost", "off lost")
        for column in columns:
            table.add_column(column, justify="left" if column == "adversary" else "right")
        for row in group:
            table.add_row(
                row["adversary"],
                _amount(row),
                *(_us(row["p99"].get(policy)) for policy in POLICIES),
                _times(row["beside"]),
                _times(row["without"]),
                *(_us(row[name]) for name in ("max_delay", "max_head", "bound")),
                *(f"{row['lost'].get(policy, 0):,}" for policy in ("cycles", "off")),
            )
        yield table


def plot(rows: Sequence[dict[str, Any]], to: Path) -> None:
    """The victim's p99 against intensity, a panel for each adversary, a colour for each policy, the bound. Raises Refusal."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Refusal("failed", "plots need matplotlib, which is not installed", "pip install matplotlib") from None
    names = [name for name in dict.fromkeys(row["adversary"] for row in rows) if name != NEIGHBOUR.name]
    scenes = list(dict.fromkeys(map(_scene, rows)))
    figure = Figure(figsize=(3 * len(names), 2.6 * len(scenes)), layout="constrained")
    axes = figure.subplots(len(scenes), len(names), squeeze=False)
    for scene, line in zip(scenes, axes, strict=True):
        for name, panel in zip(names, line, strict=True):
            mine = [row for row in rows if _scene(row) == scene and row["adversary"] == name]
            x = [row["intensity"] for row in mine]
            for policy in POLICIES:
                y = [row["p99"].get(policy) for row in mine]
                if all(v is not None for v in y):
                    panel.plot(x, [v / 1e3 for v in y], marker="o", label=policy)
            if all(row["bound"] is not None for row in mine):
                panel.plot(x, [row["bound"] / 1e3 for row in mine], "k--", label="bound of the delay")
            panel.set(
                xscale="log",
                yscale="log",
                title=f"{name}: {scene[0]} tenants, {scene[1][0]}:{scene[1][1]}, {scene[2]}",
                xlabel=_UNITS[name],
            )
    axes[0][0].set_ylabel("victim's p99, us")
    axes[0][0].legend(fontsize="small")
    figure.savefig(to)
