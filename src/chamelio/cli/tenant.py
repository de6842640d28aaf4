"""`chamelio tenant`: customers of the host."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import Any

import click

from chamelio.cli.common import Group, Settings, common
from chamelio.cli.output import cell, fields, table
from chamelio.cli.protocol import slow_path
from chamelio.host.quotas import KINDS
from chamelio.messages import Refusal


@click.group(cls=Group)
def tenant() -> None:
    """Tenants: isolated customers with a weight, quotas, addresses and protocols."""


def _uid(text: str | None) -> int | None:
    """A user's number by number or name. Raises Refusal."""
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise Refusal("usage", f"--uid {text}: there is no such user", "give a user's name or number") from None


def _quota_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for every quota, e.g. --memory-quota."""
    for name, kind in reversed(KINDS.items()):
        help_ = f"At most so much {kind.text}." if kind.unit in ("bytes", "s") else f"At most so many {kind.text}."
        command = click.option(f"--{name}-quota", type=click.IntRange(0), metavar=kind.unit.upper().replace(" ", "-"), help=help_)(
            command
        )
    return command


def _quotas(options: dict[str, int | None]) -> dict[str, int]:
    """What was said of quotas, by name."""
    return {name.removesuffix("_quota"): value for name, value in options.items() if value is not None}


def _used(quotas: dict[str, Any]) -> dict[str, str]:
    """Used and limit of every quota, to be read."""
    texts = {}
    for name, quota in quotas.items():
        used = "" if quota["used"] is None else f"{cell(quota['used'])} of "
        texts[name] = f"{used}{quota['limit']} {KINDS[name].unit}"
    return texts


@tenant.command("add")
@click.argument("name")
@click.option("--address", "addresses", multiple=True, required=True, help="An IPv4 address of the tenant. May be repeated.")
@click.option("--weight", type=click.IntRange(1, 1000), default=1, help="Share of the core, relative to other tenants.")
@click.option("--uid", help="The user (number or name) that proves to be the tenant by being that user.")
@click.option("--network", type=click.IntRange(0), default=0, help="Virtual network of the addresses; 0 is the plain one.")
@click.option("--delay", type=click.IntRange(0), default=0, metavar="US", help="Promise that its turn comes within so many us.")
@_quota_options
@common()
def add(
    settings: Settings,
    name: str,
    addresses: tuple[str, ...],
    weight: int,
    uid: str | None,
    network: int,
    delay: int,
    **quotas: int | None,
) -> None:
    """Add a tenant. It proves to be itself by its user or by the token that is written to its directory."""
    result = settings.call(
        "tenant.add",
        name=name,
        addresses=list(addresses),
        weight=weight,
        uid=_uid(uid),
        network=network,
        delay_us=delay,
        quotas=_quotas(quotas),
    )
    settings.show(result, lambda: f"tenant {name} has {', '.join(addresses)}; its token is in {os.fspath(result['token_file'])}")


@tenant.command("list")
@common()
def list_(settings: Settings) -> None:
    """List tenants."""
    tenants = settings.call("tenant.list")
    columns = ("name", "addresses", "network", "weight", "uid", "protocols")

    def text() -> str:
        rows = [[*(t[c] for c in columns[:-1]), [p["name"] for p in t["protocols"]]] for t in tenants]
        return table(columns, rows)

    settings.show(tenants, text)


@tenant.command("show")
@click.argument("name")
@common()
def show(settings: Settings, name: str) -> None:
    """Show a tenant, its protocols and what is counted of them."""
    about = settings.call("tenant.show", tenant=name)

    def text() -> str:
        flat = {k: v for k, v in about.items() if k not in ("protocols", "counters", "quotas")}
        apart = ("tenant", "name", "slow_path", "memory")
        protocols = {p["name"]: {k: v for k, v in p.items() if k not in apart} for p in about["protocols"]}
        text = fields(flat) + "\nquotas:\n" + fields(_used(about["quotas"]), "  ")
        troubles = [f"\n{p['name']}: {slow_path(p['slow_path'])}" for p in about["protocols"] if p["slow_path"]["state"] != "ok"]
        return text + "\n" + fields({"protocols": protocols, "counters": about["counters"]}) + "".join(troubles)

    settings.show(about, text)


@tenant.command("set")
@click.argument("name")
@click.option("--weight", type=click.IntRange(1, 1000), help="Share of the core, relative to other tenants.")
@click.option("--delay", type=click.IntRange(0), metavar="US", help="Promise that its turn comes within so many us; 0: nothing.")
@_quota_options
@common()
def set_(settings: Settings, name: str, weight: int | None, delay: int | None, **quotas: int | None) -> None:
    """Change a tenant's share and quotas. What it has already it keeps; it gets no more beyond a quota."""
    about = settings.call("tenant.set", tenant=name, weight=weight, delay_us=delay, quotas=_quotas(quotas))
    share = fields({"weight": about["weight"], "delay_us": about["delay_us"]})
    settings.show(about, lambda: share + "\nquotas:\n" + fields(_used(about["quotas"]), "  "))


@tenant.command("weight")
@click.argument("name")
@click.argument("weight", type=click.IntRange(1, 1000))
@common()
def weight(settings: Settings, name: str, weight: int) -> None:
    """Change a tenant's share of the core."""
    result = settings.call("tenant.weight", tenant=name, weight=weight)
    settings.show(result, lambda: f"tenant {name} has weight {weight}")


@tenant.command("rm")
@click.argument("name")
@common()
def rm(settings: Settings, name: str) -> None:
    """Remove a tenant with its protocols; its agents are cut off."""
    result = settings.call("tenant.rm", tenant=name)
    settings.show(result, lambda: f"tenant {name} is removed")
