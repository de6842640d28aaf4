"""`chamelio stats`: what every packet's fate was, and who used the core."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from chamelio.cli.common import Settings, common
from chamelio.cli.output import amount, print_json_line, table


@click.command()
@click.argument("tenant", required=False)
@click.option("--watch", is_flag=True, help="Show rates again and again, until ^C.")
@click.option("--interval", type=click.FloatRange(0.05), default=1.0, help="Seconds between two looks.")
@click.option("--count", type=click.IntRange(1), help="End after this many looks.")
@common()
def stats(settings: Settings, tenant: str | None, watch: bool, interval: float, count: int | None) -> None:
    """Show counters since the engine started; with --watch, rates."""
    before = settings.call("stats", tenant=tenant)
    if not watch:
        settings.show(before, lambda: totals(before))
        return
    looks = 0
    while count is None or looks < count:
        time.sleep(interval)
        now = settings.call("stats", tenant=tenant)
        view = rates(before, now)
        if settings.json:
            print_json_line(view)
        else:
            clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() else ""
            print(clear + text_of_rates(view), flush=True)
        before, looks = now, looks + 1


def drops_of(tenant: dict[str, Any]) -> dict[str, int]:
    """All drops of a tenant by reason, before and after a protocol was known."""
    sums = dict(tenant["drops"])
    for one in tenant["protocols"].values():
        for reason, n in one["drops"].items():
            sums[reason] = sums.get(reason, 0) + n
    return sums


def totals(now: dict[str, Any]) -> str:
    """Counters as text."""
    parts = []
    if "engine" in now:
        engine = now["engine"]
        parts.append("engine  " + "  ".join(f"{name}={amount(value)}" for name, value in engine.items()))
    rows = []
    for name, tenant in now["tenants"].items():
        for protocol, one in tenant["protocols"].items() or [("-", {})]:
            counts = [one.get(c, 0) for c in ("rx_packets", "tx_packets", "done", "punted", "injected")]
            rows.append([name, protocol, *counts, sum(one.get("drops", {}).values()), tenant["cycles"]])
    parts.append(table(("tenant", "protocol", "rx", "tx", "done", "punted", "injected", "drops", "tenant cycles"), rows))
    lost = [["(host)", reason, n] for reason, n in now.get("drops", {}).items()]
    lost += [[name, reason, n] for name, tenant in now["tenants"].items() for reason, n in drops_of(tenant).items()]
    events = [
        [name, f"{protocol}: {event}", n]
        for name, tenant in now["tenants"].items()
        for protocol, one in tenant["protocols"].items()
        for event, n in one["events"].items()
    ]
    errors = [
        [name, f"{protocol}: reason {reason}", n]
        for name, tenant in now["tenants"].items()
        for protocol, one in tenant["protocols"].items()
        for reason, n in one.get("reasons", {}).items()
    ]
    if lost:
        parts.append(table(("tenant", "dropped because", "packets"), lost))
    if errors:
        parts.append(table(("tenant", "handlers' errors", "times"), errors))
    if events:
        parts.append(table(("tenant", "event", "times"), events))
    if now.get("ports"):
        parts.append(table(("port", "counters"), [[name, counters] for name, counters in now["ports"].items()]))
    return "\n\n".join(parts)


def rates(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Per second, between two looks: packets, cycles per packet, share of the core, drops by reason."""
    seconds = max(1e-9, (now["time_ns"] - before["time_ns"]) / 1e9)
    elapsed = _delta(before, now, "engine", "cycles_elapsed") or 1
    tenants = {}
    for name, tenant in now["tenants"].items():
        old = before["tenants"].get(name, {"cycles": 0, "protocols": {}, "drops": {}})
        cycles = max(0, tenant["cycles"] - old["cycles"])
        packets = {
            direction: sum(
                max(0, one[f"{direction}_packets"] - old["protocols"].get(p, {}).get(f"{direction}_packets", 0))
                for p, one in tenant["protocols"].items()
            )
            for direction in ("rx", "tx")
        }
        old_drops = drops_of(old)
        drops = {r: (n - old_drops.get(r, 0)) / seconds for r, n in drops_of(tenant).items() if n > old_drops.get(r, 0)}
        tenants[name] = {
            "rx_per_s": packets["rx"] / seconds,
            "tx_per_s": packets["tx"] / seconds,
            "cycles_per_packet": cycles / max(1, packets["rx"] + packets["tx"]),
            "share": cycles / elapsed if "engine" in now else None,
            "drops_per_s": drops,
        }
    view: dict[str, Any] = {"seconds": seconds, "tenants": tenants}
    if "engine" in now:
        view["engine"] = {
            "rx_per_s": _delta(before, now, "engine", "rx_packets") / seconds,
            "tx_per_s": _delta(before, now, "engine", "tx_packets") / seconds,
            "idle": _delta(before, now, "engine", "cycles_idle") / elapsed,
        }
        old_drops = before.get("drops", {})
        view["drops_per_s"] = {r: (n - old_drops.get(r, 0)) / seconds for r, n in now["drops"].items() if n > old_drops.get(r, 0)}
    return view


def _delta(before: dict[str, Any], now: dict[str, Any], part: str, name: str) -> int:
    return max(0, int(now.get(part, {}).get(name, 0)) - int(before.get(part, {}).get(name, 0)))


def text_of_rates(view: dict[str, Any]) -> str:
    """Rates as text."""
    lines = []
    if "engine" in view:
        engine = view["engine"]
        lines.append(
            f"engine  rx {amount(engine['rx_per_s'])}/s  tx {amount(engine['tx_per_s'])}/s  idle {100 * engine['idle']:.0f} %"
        )
    rows = []
    for name, tenant in view["tenants"].items():
        share = "-" if tenant["share"] is None else f"{100 * tenant['share']:.1f} %"
        drops = " ".join(f"{reason}={amount(n)}/s" for reason, n in tenant["drops_per_s"].items())
        numbers = [amount(tenant["rx_per_s"]), amount(tenant["tx_per_s"]), f"{tenant['cycles_per_packet']:.0f}"]
        rows.append([name, *numbers, share, drops or "-"])
    lines.append(table(("tenant", "rx/s", "tx/s", "cycles/packet", "core", "drops"), rows))
    return "\n".join(lines)
