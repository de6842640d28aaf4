"""Commands that measure this machine: `chamelio calibrate`, `chamelio bench bounds`, `chamelio bench verify`."""

from __future__ import annotations

from pathlib import Path

import click

from chamelio.cli.common import Settings, common


@click.command()
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False), help="Write a table of costs for this machine (TOML).")
@click.option("--safety", type=float, default=1.5, show_default=True, help="What measured cycles are multiplied by in it.")
@common()
def calibrate(settings: Settings, write: Path | None, safety: float) -> int:
    """Measure what instructions, cache misses and helpers cost here, beside the table of costs in force.

    The written table is in force for every process that starts with CHAMELIO_COSTS=FILE. Exit code 1: the table in force
    prices something below what was measured.
    """
    from chamelio.bench import calibrate

    return calibrate.run(json=settings.json, write=write, safety=safety)


@click.command("bounds")
@click.option("--inputs", type=click.IntRange(1), default=600, show_default=True, help="Inputs per handler and kind of caches.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the search for dear inputs.")
@common()
def bounds(settings: Settings, inputs: int, seed: int) -> int:
    """The shipped handlers' worst cases: proven, and measured on the dearest inputs that a search finds."""
    from chamelio.bench import bounds

    return bounds.run(json=settings.json, inputs=inputs, seed=seed)


@click.command("verify")
@click.option("--runs", type=click.IntRange(1), default=25, show_default=True, help="Of each size, and of each handler.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the programs that are generated.")
@common()
def verify(settings: Settings, runs: int, seed: int) -> int:
    """How long verification takes: generated programs of 50 to 5,000 instructions, and the shipped handlers."""
    from chamelio.bench import verify

    return verify.run(json=settings.json, runs=runs, seed=seed)
