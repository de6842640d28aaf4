"""A verdict as text for people: code, place with a caret, reason, the path that leads there, a suggestion."""

from __future__ import annotations

from chamelio.verify.codes import CODES
from chamelio.verify.proof import Verdict


def render(verdict: Verdict) -> str:
    """One verdict; an accepted program in one line."""
    if verdict.verdict == "accept":
        worst = f"worst case {verdict.cost_cold:,} cycles cold, {verdict.cost_warm:,} warm"
        explored = f"{verdict.steps:,} steps in {verdict.seconds * 1e3:.0f} ms"
        return f"accept  {verdict.program} ({verdict.section}): {worst}; {explored}"
    title = CODES[verdict.code].title if verdict.code else verdict.verdict
    detail = verdict.message.removeprefix(f"{title}: ")
    where = f"{verdict.file.rpartition('/')[2]}:{verdict.line}:{verdict.col}" if verdict.line else "(no line information)"
    lines = [
        f"error[{verdict.code}] {title}",
        f"  --> {where}  in {verdict.program} ({verdict.section}, instruction {verdict.insn})",
    ]
    if verdict.text:
        number = str(verdict.line).rjust(4)
        indent = " " * max(0, verdict.col - 1 - (len(verdict.text) - len(verdict.text.lstrip())) + 0)
        lines += [f"{number} |   {verdict.text.strip()}", f"     |   {indent}^ {detail}"]
    else:
        lines.append(f"  {detail}")
    lines.append(f"  Reason:      {verdict.reason}")
    if verdict.path:
        lines.append(f"  Causal path: {'  ->  '.join(verdict.path)}")
    lines.append(f"  Suggestion:  {verdict.suggestion}")
    return "\n".join(lines)
