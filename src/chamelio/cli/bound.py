"""`chamelio bound`: how long a tenant waits for its turn at most, before anything is measured."""

from __future__ import annotations

from typing import Any

import click

from chamelio.cli.common import Settings, common
from chamelio.cli.output import fields, table


@click.command()
@click.argument("tenant", required=False)
@click.option("--clock", type=click.Choice(["cold", "virtual"]), default="cold", show_default=True,
              help="cold: nothing is cached, what holds on a machine; virtual: what the virtual clock counts.")  # fmt: skip
@common()
def bound(settings: Settings, tenant: str | None, clock: str) -> None:
    """Show how long a conforming tenant waits at most until its turn comes, and what that is made of (docs/contract.md)."""
    about = settings.call("bound", tenant=tenant, clock=clock)
    settings.show(about, lambda: _text(about))


def _text(about: dict[str, Any]) -> str:
    to_us = 1e6 / about["hz"]
    rows = [[t["name"], f"{t['us']:.1f}", t["promised_us"] or "-", t["cycles"], t["provider"]] for t in about["tenants"]]
    text = table(("tenant", "at most, us", "promised, us", "cycles", "provider"), rows)
    for one in about["tenants"]:
        if one["others"]:
            parts = [
                [name, o["credit"], o["overrun"], f"{(o['credit'] + o['overrun']) * to_us:.1f}"]
                for name, o in one["others"].items()
            ]
            text += f"\n\n{one['name']} waits for\n" + table(("tenant", "credit", "overrun", "us"), parts)
    text += "\n\n" + fields({"clock": about["clock"], "cycles_per_us": round(about["hz"] / 1e6), "quantum": about["quantum"]})
    if about["tap"]:
        text += f"\nno bound holds for packets of {', '.join(about['tap'])}: a TAP port's system calls are the kernel's"
    return text
