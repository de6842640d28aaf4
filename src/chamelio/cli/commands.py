"""The tree of commands."""

from __future__ import annotations

import importlib
from typing import Any

import click

from chamelio import __version__
from chamelio.cli import bound, bpf, daemon, lab, measure, protocol, stats, tenant, top, trace, verify
from chamelio.cli.common import Group, Settings, common
from chamelio.cli.output import fields
from chamelio.messages import Refusal


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="chamelio")
@common()
def chamelio(settings: Settings) -> None:
    """A fast shared network stack for tenant-defined protocols.

    Exit codes: 0 ok, 1 failed, 2 usage, 3 rejected by the verifier, 4 no daemon, 5 quota.
    """


def _part(module: str, what: str) -> Any:
    """A function that is imported when it is asked for. Raises Refusal when this installation lacks it."""
    try:
        return importlib.import_module(module).run
    except ImportError as error:
        raise Refusal("failed", f"{what} is not in this installation: {error}", "install chamelio[build]") from None


@click.command()
@click.option("--real", is_flag=True, help="In network namespaces against Linux; needs root.")
@common()
def demo(settings: Settings, real: bool) -> int:
    """Show it all: a host, tenants, applications, a swap while traffic flows."""
    result = _part("chamelio.bench.demo", "the demo")(real=real, json=settings.json)
    return result if isinstance(result, int) else 0


@click.group(cls=Group)
def bench() -> None:
    """Benchmarks."""


@bench.command("tax")
@common()
def tax(settings: Settings) -> int:
    """What programmability costs: UDP echo in the modes fixed, separate and joint."""
    result = _part("chamelio.bench.tax", "the benchmark")(json=settings.json)
    return result if isinstance(result, int) else 0


@bench.command("swap")
@common()
def swap(settings: Settings) -> int:
    """What replacing a protocol under load costs: time of a swap, requests lost."""
    result = _part("chamelio.bench.swap", "the benchmark")(json=settings.json)
    return result if isinstance(result, int) else 0


bench.add_command(measure.bounds)
bench.add_command(measure.isolation)
bench.add_command(measure.rpc)
bench.add_command(measure.verify)


@click.command()
@click.argument("code")
@common()
def explain(settings: Settings, code: str) -> None:
    """Explain a verifier's error code, e.g. V102."""
    from chamelio.verify import codes

    entry = codes.CODES.get(code.upper())
    if entry is None:
        raise Refusal("usage", f"there is no code {code!r}", f"codes are {', '.join(codes.CODES)}")
    about = {"code": entry.code, "verdict": entry.kind, "title": entry.title, "suggestion": entry.suggestion}
    settings.show(about, lambda: fields(about))


for command in (
    daemon.up,
    daemon.down,
    daemon.status,
    daemon.port,
    daemon.route,
    tenant.tenant,
    protocol.protocol,
    verify.verify,
    stats.stats,
    bound.bound,
    top.top,
    trace.trace,
    lab.lab,
    bpf.bpf,
    measure.calibrate,
    demo,
    bench,
    explain,
):
    chamelio.add_command(command)
