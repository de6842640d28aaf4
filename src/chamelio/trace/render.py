"""A trace as text."""

from __future__ import annotations

from chamelio.trace.packets import Check, check_output, describe, drop_texts
from chamelio.trace.record import LineOf, Trace

SHOWN = 160  # source lines of a long run: the first and the last ones


def render_checks(checks: list[Check]) -> list[str]:
    """The provider's checks of a packet, and how they end."""
    lines = ["provider  " + ", ".join(f"{c.name} {c.text}" for c in checks if c.drop is None)] if checks else []
    for c in checks:
        if c.drop is not None:
            lines.append(f"          {c.name} {c.text}: the packet ends here as {c.drop} ({drop_texts().get(c.drop, '')})")
            lines.append("          the handler would not see it; here it runs all the same")
    return lines


def render_line(line: LineOf) -> list[str]:
    """A source line and what it did."""
    number = f"{line.line}" if line.line else "-"
    out = [f"{number:>5} | {line.text}" + (f"   ({line.file})" if line.file.endswith(".h") else "")]
    out += [f"      |     {event.text}" for event in line.events]
    return out


def render(trace: Trace, *, bound: int | None, address: str | None = None, protocol: int = 0) -> str:
    """A run: source lines with what they did, then verdict, what leaves, and the cost against the proven bound."""
    parts = [render_line(line) for line in trace.lines if line.events]
    if len(parts) > SHOWN:
        left = len(parts) - SHOWN
        parts = [*parts[: SHOWN // 2], [f"      ... {left} lines are left out; `-o json` has them"], *parts[-SHOWN // 2 :]]
    lines = [text for part in parts for text in part]
    lines.append("")
    lines.append(f"{'fault' if trace.verdict == 'fault' else 'verdict'}   {trace.verdict_text}")
    leaving = [*trace.emitted, *([trace.packet] if trace.verdict == "transmit" and trace.packet is not None else [])]
    for packet in leaving:
        lines.append(f"sends     {describe(packet)}")
        check = check_output(packet, address, protocol)
        ends = f"it ends there as {check.drop} ({drop_texts().get(check.drop or '', '')}): {check.text}"
        lines.append(f"provider  {check.text if check.drop is None else ends}")
    lines += [f"pushed    {p['ring']}, context {p['context']}: {p['entry']}" for p in trace.pushed]
    lines += [f"due       id {d['id']} of {d['map']} in {d['in_ns'] / 1e3:.1f} us" for d in trace.due]
    limit = f"the proven bound is {bound:,}" if bound is not None else "there is no proven bound"
    lines.append(f"cost      {trace.cycles:,} cycles (warm); {limit}; {trace.steps} instructions")
    return "\n".join(lines)
