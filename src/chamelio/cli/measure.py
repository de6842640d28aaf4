"""Commands that measure: `chamelio calibrate`, and `chamelio bench` with `bounds`, `isolation`, `rpc` and `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from chamelio.cli.common import Settings, common
from chamelio.messages import Refusal


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


@click.command("rpc")
@click.option("--protocol", type=click.Choice(["tcp"]), default="tcp", show_default=True, help="What carries the requests.")
@click.option("--flows", type=click.IntRange(1, 60000), multiple=True, default=[1024], show_default=True, help="Connections.")
@click.option("--batch", type=click.IntRange(1, 64), multiple=True, default=[16], show_default=True, help="Requests at a time.")
@click.option("--mode", type=click.Choice(["joint", "separate", "fixed"]), multiple=True, default=["joint"], show_default=True)
@click.option(
    "--offload", type=click.Choice(["on", "off", "both"]), default="both", show_default=True, help="Of checksums, by the port."
)
@click.option("--runs", type=click.IntRange(1), default=11, show_default=True, help="Of each measurement of cycles.")
@click.option(
    "--connections", type=click.IntRange(1, 120000), help="Instead: how fast connections are set up, and what so many take."
)
@common()
def rpc(
    settings: Settings,
    protocol: str,
    flows: tuple[int, ...],
    batch: tuple[int, ...],
    mode: tuple[str, ...],
    offload: str,
    runs: int,
    connections: int | None,
) -> int:
    """What a request of 64 bytes and its answer cost a core: cycles, instructions and where they go, packets.

    --flows, --batch and --mode may be given several times: everything is measured with everything.
    """
    from chamelio.bench import rpc

    assert protocol == "tcp"
    if connections is not None:
        return rpc.run_connections(connections, json=settings.json)
    offloads = {"on": (True,), "off": (False,), "both": (True, False)}[offload]
    return rpc.run(json=settings.json, flows=flows, batches=batch, modes=mode, offloads=offloads, runs=runs)


def _weights(texts: tuple[str, ...]) -> list[tuple[int, int]]:
    try:
        return [(int(victim), int(other)) for victim, other in (text.split(":") for text in texts)]
    except ValueError:
        raise Refusal("usage", f"--weights {' '.join(texts)}: weights are VICTIM:OTHERS", "e.g. 4:1") from None


@click.command("isolation")
@click.option("--adversary", multiple=True, help="Only this one; may be given several times.")
@click.option("--tenants", type=click.IntRange(2, 64), multiple=True, help="With the victim. [default: 2]")
@click.option("--weights", multiple=True, metavar="VICTIM:OTHERS", help="Of the victim, and of each of the others. [default: 1:1]")
@click.option("--load", type=click.Choice(["open", "closed"]), multiple=True, help="The victim's: a fixed rate, or 64 outstanding.")
@click.option("--port", type=click.Choice(["shared", "own"]), multiple=True, default=["shared"], show_default=True)
@click.option("--policy", type=click.Choice(["cycles", "packets", "off"]), multiple=True, default=["cycles", "packets", "off"])
@click.option("--full", is_flag=True, help="The whole matrix: 2, 8, 64 tenants, weights 1:1 and 4:1, both loads.")
@click.option("--milliseconds", type=float, default=20.0, show_default=True, help="Of virtual time that each case is measured.")
@click.option("--jobs", type=click.IntRange(0), default=0, show_default=True, help="Cases at a time; 0: one for each core.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a plot (by its ending SVG, PNG or PDF).")
@common()
def isolation(
    settings: Settings,
    adversary: tuple[str, ...],
    tenants: tuple[int, ...],
    weights: tuple[str, ...],
    load: tuple[str, ...],
    port: tuple[str, ...],
    policy: tuple[str, ...],
    full: bool,
    milliseconds: float,
    jobs: int,
    plot: Path | None,
) -> int:
    """What a victim notices of hostile neighbours, with accounting in cycles, by packets, and without; in virtual time."""
    from chamelio.bench import isolation

    return isolation.run(
        json=settings.json, names=adversary, full=full, tenants=tenants, weights=_weights(weights), loads=load, ports=port,
        policies=policy, milliseconds=milliseconds, jobs=jobs, plot=plot,
    )  # fmt: skip
