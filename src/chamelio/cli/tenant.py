"""`chamelio tenant`: customers of the host."""

from __future__ import annotations

import os
import pwd

import click

from chamelio.cli.common import Group, Settings, common
from chamelio.cli.output import fields, table
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


@tenant.command("add")
@click.argument("name")
@click.option("--address", "addresses", multiple=True, required=True, help="An IPv4 address of the tenant. May be repeated.")
@click.option("--weight", type=click.IntRange(1, 1000), default=1, help="Share of the core, relative to other tenants.")
@click.option("--uid", help="The user (number or name) that proves to be the tenant by being that user.")
@click.option("--network", type=click.IntRange(0), default=0, help="Virtual network of the addresses; 0 is the plain one.")
@click.option("--memory", type=click.IntRange(1), help="Bytes that all its instances may take.")
@common()
def add(
    settings: Settings, name: str, addresses: tuple[str, ...], weight: int, uid: str | None, network: int, memory: int | None
) -> None:
    """Add a tenant. It proves to be itself by its user or by the token that is written to its directory."""
    result = settings.call(
        "tenant.add",
        name=name,
        addresses=list(addresses),
        weight=weight,
        uid=_uid(uid),
        network=network,
        memory_quota=memory,
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
        flat = {k: v for k, v in about.items() if k not in ("protocols", "counters")}
        protocols = {p["name"]: {k: v for k, v in p.items() if k not in ("tenant", "name")} for p in about["protocols"]}
        return fields({**flat, "protocols": protocols, "counters": about["counters"]})

    settings.show(about, text)


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
