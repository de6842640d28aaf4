"""What the demo shows: a table of tenants from two samples of counters, and the summary."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table


def _packets(tenant: dict[str, Any]) -> int:
    return sum(p["rx_packets"] + p["tx_packets"] for p in tenant["protocols"].values())


def _drops(tenant: dict[str, Any]) -> dict[str, int]:
    sums: dict[str, int] = dict(tenant["drops"])
    for protocol in tenant["protocols"].values():
        for reason, n in protocol["drops"].items():
            sums[reason] = sums.get(reason, 0) + n
    return sums


def shares(before: dict[str, Any], now: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Per tenant between two samples: packets per second, cycles per packet, share of the core, drops by reason."""
    elapsed = now["engine"]["cycles_elapsed"] - before["engine"]["cycles_elapsed"]
    seconds = (now["time_ns"] - before["time_ns"]) / 1e9
    out: dict[str, dict[str, Any]] = {}
    for name, tenant in now["tenants"].items():
        old = before["tenants"].get(name)
        packets = _packets(tenant) - (_packets(old) if old else 0)
        cycles = tenant["cycles"] - (old["cycles"] if old else 0)
        out[name] = {
            "packets_per_second": packets / seconds if seconds else 0.0,
            "cycles_per_packet": cycles / packets if packets else 0.0,
            "share_of_core": cycles / elapsed if elapsed else 0.0,
            "drops": _drops(tenant),
        }
    return out


def _reasons(drops: dict[str, int]) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in drops.items()) or "none"


def _requests(report: dict[str, Any] | None) -> list[str]:
    return [f"{report['per_second']:,.0f}", f"{report['p50_us']:.0f}", f"{report['p99_us']:.0f}"] if report else ["", "", ""]


def _tenants(before: dict[str, Any], now: dict[str, Any]) -> Table:
    table = Table(expand=True)
    for column in ("who", "requests/s", "p50 us", "p99 us", "packets/s", "cycles/packet", "share of core", "drops", "lost"):
        table.add_column(column, justify="left" if column in ("who", "drops") else "right")
    for name, one in shares(before, now).items():
        report = now["generators"].get(name)
        table.add_row(
            name,
            *_requests(report),
            f"{one['packets_per_second']:,.0f}",
            f"{one['cycles_per_packet']:,.0f}",
            f"{one['share_of_core']:.1%}",
            _reasons(one["drops"]),
            f"{report['lost']:,}" if report else "",
        )
    for name in now["generators"].keys() - now["tenants"].keys():
        report = now["generators"][name]
        table.add_row(name, *_requests(report), "", "", "", "", f"{report['lost']:,}")
    return table


def screen(lines: list[str], before: dict[str, Any] | None, now: dict[str, Any]) -> RenderableType:
    """What is seen while the demo runs."""
    parts: list[RenderableType] = ["\n".join(f"  {line}" for line in lines)]
    if before is not None:
        parts.insert(0, _tenants(before, now))
    return Panel(Group(*parts), title="chamelio: one core, several tenants, their own protocols")


def summary(result: dict[str, Any]) -> RenderableType:
    """The few lines that stay."""
    lines = []
    for name, r in result["requests"].items():
        if r:
            lines.append(
                f"{name:6} {r['answered']:>9,} answered, {r['per_second']:>9,.0f}/s, p50 {r['p50_us']:.0f} us, "
                f"p99 {r['p99_us']:.0f} us, lost {r['lost']}"
            )
    for name, one in result["tenants"].items():
        lines.append(
            f"{name:6} {one['cycles_per_packet']:>9,.0f} cycles per packet, {one['share_of_core']:.1%} of the core, "
            f"drops: {_reasons(one['drops'])}"
        )
    lines.append(f"host   drops: {_reasons(result['host_drops'])}")
    green, swaps = result.get("load_green"), result.get("swaps")
    if green:
        lines.append(f"a third tenant was ready in {green['wall_ms']:.0f} ms: its protocol's code was there already")
    if swaps:
        s = swaps[0]["seconds"]
        lines.append(
            f"a new version of udp: verify {s['verify'] * 1e3:.0f} ms, compile {s['compile'] * 1e3:.0f} ms, "
            f"swap {max(x['seconds']['swap'] for x in swaps) * 1e6:.0f} us; packets lost by it: {result['lost']}"
        )
    return Panel("\n".join(lines), title="summary")
