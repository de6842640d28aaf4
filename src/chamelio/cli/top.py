"""`chamelio top`: who uses the cores, for what, against what is guaranteed, and how long packets wait, over windows.

The reader's work alone: it asks for counters once per interval and computes windows from what it remembers. Names and meaning of
all that is shown are those of engine/metrics.py.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from chamelio.cli.common import Settings, common
from chamelio.cli.output import amount, print_json_line, table
from chamelio.engine import delays
from chamelio.engine.metrics import PERCENTILES

WINDOWS = (1.0, 10.0, 60.0)
Snapshot = dict[str, Any]  # {"time_ns", "metrics"}: the verb `metrics`
View = dict[str, Any]


@click.command()
@click.argument("tenant", required=False)
@click.option("--window", "windows", type=click.FloatRange(0.05, 3600), multiple=True, help="Seconds. May be repeated [1, 10, 60].")
@click.option("--interval", type=click.FloatRange(0.05), default=1.0, help="Seconds between two looks.")
@click.option("--count", type=click.IntRange(1), help="End after this many looks [a terminal: none; else 1].")
@common()
def top(settings: Settings, tenant: str | None, windows: tuple[float, ...], interval: float, count: int | None) -> None:
    """Show cycles, shares, batches, queueing delays and drops, per tenant and hook, over windows.

    On a terminal it is shown again and again until ^C; elsewhere it is printed as text, or with -o json one document per line.
    """
    windows = tuple(sorted(windows or WINDOWS))
    live = not settings.json and sys.stdout.isatty()
    if count is None and not live:
        count = 1
    history: deque[Snapshot] = deque([settings.call("metrics", tenant=tenant)])
    if live:
        _on_terminal(settings, tenant, history, windows, interval, count)
        return
    for _ in range(count or 1):
        views = _look(settings, tenant, history, windows, interval)
        if settings.json:
            print_json_line({**history[-1], "windows": views})
        else:
            print("\n\n".join(text(view) for view in views), flush=True)


def _look(
    settings: Settings, tenant: str | None, history: deque[Snapshot], windows: Sequence[float], interval: float
) -> list[View]:
    time.sleep(interval)
    history.append(settings.call("metrics", tenant=tenant))
    oldest = history[-1]["time_ns"] - (windows[-1] + interval) * 1e9
    while len(history) > 2 and history[1]["time_ns"] < oldest:
        history.popleft()
    return views_of(history, windows)


def views_of(history: Sequence[Snapshot], windows: Sequence[float]) -> list[View]:
    """One view per window: from the snapshot that is nearest to so long ago. Windows that there is no history for are left out."""
    now = history[-1]
    views, begins = [], set()
    for window in windows:
        old = min(list(history)[:-1], key=lambda s: abs(now["time_ns"] - window * 1e9 - s["time_ns"]))
        if old["time_ns"] in begins:
            break  # the same as the window before
        begins.add(old["time_ns"])
        views.append(view_of(old, now))
    return views


# ---- from two snapshots to what happened between them ------------------------------------------------------------------


class Increase:
    """How much the counters have grown between two snapshots. One that has shrunk began anew: its instance or engine did."""

    def __init__(self, old: Snapshot, now: Snapshot) -> None:
        self._old, self._now = old["metrics"], now["metrics"]
        self.seconds = max(1e-9, (now["time_ns"] - old["time_ns"]) / 1e9)

    def labels(self, name: str, *where: str) -> list[str]:
        """What there is below some labels of a family."""
        return list(_at(self._now, name, *where) or {})

    def gauge(self, name: str, *where: str) -> float | None:
        """A value as it is now."""
        value: float | None = _at(self._now, name, *where)
        return value

    def of(self, name: str, *where: str) -> int | None:
        """Of a counter; None if it is not there."""
        now, old = _at(self._now, name, *where), _at(self._old, name, *where)
        return None if now is None else _grown(old, now)

    def each(self, name: str, *where: str) -> dict[str, int]:
        """Of an array of counters, those that have grown."""
        now, old = _at(self._now, name, *where) or {}, _at(self._old, name, *where) or {}
        return {key: n for key in now if (n := _grown(old.get(key), now[key]))}

    def delays(self, name: str, *where: str) -> delays.Counts:
        """Of a histogram."""
        counts = np.zeros(delays.BUCKETS, np.uint64)
        now, old = ((_at(s, name, *where) or {}).get("buckets", {}) for s in (self._now, self._old))
        begun = any(now.get(i, 0) < n for i, n in old.items())
        for i, n in now.items():
            counts[int(i)] = n - (0 if begun else old.get(i, 0))
        return counts


def _at(values: Any, *path: str) -> Any:
    for key in path:
        values = values.get(key) if values is not None else None
    return values


def _grown(old: int | None, now: int) -> int:
    return now if old is None or now < old else now - old


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def view_of(old: Snapshot, now: Snapshot) -> View:
    """What happened between two snapshots, by the names of DERIVED; None: nothing happened, or it is not for us to know."""
    grown = Increase(old, now)
    view: View = {"seconds": round(grown.seconds, 6)}
    elapsed = grown.of("engine_elapsed_cycles")
    if grown.gauge("engine_up"):
        view["engine"] = {
            "idle": _ratio(grown.of("engine_idle_cycles"), elapsed),
            "rx_packets_per_second": (grown.of("engine_rx_packets") or 0) / grown.seconds,
            "tx_packets_per_second": (grown.of("engine_tx_packets") or 0) / grown.seconds,
            "dropped_packets_per_second": _rates(grown.each("engine_dropped_packets"), grown),
        }
    view["tenants"] = {name: _tenant(grown, name, elapsed) for name in grown.labels("tenant_cycles")}
    return view


def _rates(counts: dict[str, int], grown: Increase) -> dict[str, float]:
    return {name: n / grown.seconds for name, n in counts.items()}


def _tenant(grown: Increase, name: str, elapsed: int | None) -> dict[str, Any]:
    cycles = grown.of("tenant_cycles", name) or 0
    share = _ratio(cycles, elapsed)
    protocols = grown.labels("protocol_rx_packets", name)
    packets = sum(grown.of(f"protocol_{way}_packets", name, p) or 0 for way in ("rx", "tx") for p in protocols)
    return {
        "core_share": share,
        "budget_used": _ratio(share, grown.gauge("tenant_guaranteed_ratio", name)),
        "cycles_per_packet": _ratio(cycles, packets),
        "dropped_packets_per_second": _rates(grown.each("tenant_dropped_packets", name), grown),
        "protocols": {p: _protocol(grown, name, p) for p in protocols},
    }


def _protocol(grown: Increase, *where: str) -> dict[str, Any]:
    waited = grown.delays("protocol_queueing_delay_seconds", *where)
    limits = {name: delays.percentile(waited, percent) for name, percent in PERCENTILES.items()}
    return {
        "rx_packets_per_second": (grown.of("protocol_rx_packets", *where) or 0) / grown.seconds,
        "tx_packets_per_second": (grown.of("protocol_tx_packets", *where) or 0) / grown.seconds,
        "queueing_delay_seconds": {name: None if ns is None else ns / 1e9 for name, ns in limits.items()},
        "dropped_packets_per_second": _rates(grown.each("protocol_dropped_packets", *where), grown),
        "hooks": {hook: _hook(grown, *where, hook) for hook in grown.labels("hook_runs", *where)},
    }


def _hook(grown: Increase, *where: str) -> dict[str, Any]:
    runs, cycles, errors, turns = (grown.of(f"hook_{what}", *where) or 0 for what in ("runs", "cycles", "errors", "turns"))
    return {
        "runs_per_second": runs / grown.seconds,
        "errors_per_second": errors / grown.seconds,
        "cycles_per_run": _ratio(cycles, runs),
        "batch_size": _ratio(runs, turns),
    }


# ---- views as text ---------------------------------------------------------------------------------------------------

TENANTS = ("tenant", "core", "budget", "cycles/packet", "protocol", "rx/s", "tx/s", "p50", "p99", "p99.9", "drops/s")
HOOKS = ("tenant", "protocol", "hook", "runs/s", "cycles/run", "batch", "errors/s")


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:,.2f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _drops(*parts: dict[str, float]) -> str:
    sums: dict[str, float] = {}
    for part in parts:
        for reason, n in part.items():
            sums[reason] = sums.get(reason, 0) + n
    return " ".join(f"{reason}={amount(n)}" for reason, n in sorted(sums.items(), key=lambda item: -item[1])) or "-"


def tenant_rows(view: View) -> list[list[str]]:
    """Rows of TENANTS, a protocol each; who uses most comes first."""
    rows = []
    for name, one in sorted(view["tenants"].items(), key=lambda item: -(item[1]["core_share"] or 0)):
        first = [name, _percent(one["core_share"]), _percent(one["budget_used"]), _number(one["cycles_per_packet"])]
        for protocol, p in one["protocols"].items():
            rates = [amount(p["rx_packets_per_second"]), amount(p["tx_packets_per_second"])]
            waited = [_time(p["queueing_delay_seconds"][name]) for name in PERCENTILES]
            lost = _drops(one["dropped_packets_per_second"] if first[0] else {}, p["dropped_packets_per_second"])
            rows.append([*first, protocol, *rates, *waited, lost])
            first = [""] * 4  # the tenant's own figures once
        if not one["protocols"]:
            rows.append([*first, *["-"] * 6, _drops(one["dropped_packets_per_second"])])
    return rows


def hook_rows(view: View) -> list[list[str]]:
    """Rows of HOOKS, those that ran."""
    return [
        [name, protocol, hook, amount(h["runs_per_second"]), _number(h["cycles_per_run"]), _number(h["batch_size"], 1),
         amount(h["errors_per_second"])]
        for name, one in view["tenants"].items()
        for protocol, p in one["protocols"].items()
        for hook, h in p["hooks"].items()
        if h["runs_per_second"]
    ]  # fmt: skip


def heading(view: View) -> str:
    """The window, and what all tenants do together."""
    parts = [f"{view['seconds']:.3g} s"]
    if "engine" in view:
        engine = view["engine"]
        parts += [f"idle {_percent(engine['idle'])}", f"rx {amount(engine['rx_packets_per_second'])}/s"]
        parts += [f"tx {amount(engine['tx_packets_per_second'])}/s", f"drops/s {_drops(engine['dropped_packets_per_second'])}"]
    return "  ".join(parts)


def text(view: View) -> str:
    """A view as plain text."""
    parts = [heading(view), table(TENANTS, tenant_rows(view))]
    hooks = hook_rows(view)
    return "\n".join([*parts, *([table(HOOKS, hooks)] if hooks else [])])


def _on_terminal(
    settings: Settings, tenant: str | None, history: deque[Snapshot], windows: Sequence[float], interval: float, count: int | None
) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]) -> Table:
        found = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            found.add_column(column.upper(), justify="left" if column in left else "right", no_wrap=column not in left)
        for row in rows:
            found.add_row(*row)
        return found

    def screen(views: Sequence[View]) -> Group:
        parts: list[Any] = []
        for view in views:
            parts += [
                Text(heading(view), style="bold cyan"),
                grid(TENANTS, tenant_rows(view), ("tenant", "protocol", "drops/s")),
                "",
            ]
        return Group(*parts, grid(HOOKS, hook_rows(views[0]), ("tenant", "protocol", "hook")))

    looks = 0
    with Live(Text(f"the first look takes {interval:g} s"), screen=count is None, auto_refresh=False) as live:
        try:
            while count is None or looks < count:
                live.update(screen(_look(settings, tenant, history, windows, interval)), refresh=True)
                looks += 1
        except KeyboardInterrupt:
            pass
