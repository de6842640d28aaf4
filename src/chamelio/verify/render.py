"""A verdict as text for people: code, place with a caret, reason, the path that leads there, a suggestion."""

from __future__ import annotations

import re

from chamelio.verify.attribution import spent_mostly
from chamelio.verify.codes import CODES
from chamelio.verify.proof import Verdict

_NAME = re.compile(r"\w+")
_STATEMENTS = ("return", "if", "while", "for", "do", "switch", "else", "goto", "break", "continue")
_CLOSING = {"(": ")", "[": "]"}


def extent(text: str) -> int:
    """How many characters to underline: the operand that begins here, as far as brackets tell without parsing C."""
    at = len(text) - len(text.lstrip("*&!~"))
    name = _NAME.match(text, at)
    if name[0] in _STATEMENTS if name else not text.startswith("(", at):
        return 1
    while at < len(text):
        name = _NAME.match(text, at)
        if name is not None:
            at = name.end()
        elif text[at] in _CLOSING:
            depth, opening, start = 0, text[at], at
            for at in range(start, len(text)):
                depth += (text[at] == opening) - (text[at] == _CLOSING[opening])
                if depth == 0:
                    break
            else:
                return start
            at += 1
        elif text.startswith("->", at):
            at += 2
        elif text[at] == ".":
            at += 1
        else:
            break
    return max(at, 1)


def _marked(line: int, col: int, text: str, mark: str, words: str) -> list[str]:
    """A source line, and under it what is said of a place in it."""
    shown = text.strip()
    column = max(0, col - 1 - (len(text) - len(text.lstrip())))
    indent = re.sub(r"[^\t]", " ", shown[:column])  # tabs stay tabs, so that the mark stands under its word
    return [f"{str(line).rjust(4)} |   {shown}", f"     |   {indent}{mark * extent(shown[column:])} {words}"]


def render(verdict: Verdict) -> str:
    """One verdict; an accepted program in one line."""
    if verdict.verdict == "accept":
        worst = f"worst case {verdict.cost_cold:,} cycles cold, {verdict.cost_warm:,} warm"
        mostly = spent_mostly(verdict.shares, verdict.cost_cold)
        explored = f"{verdict.steps:,} steps in {verdict.seconds * 1e3:.0f} ms"
        return f"accept  {verdict.program} ({verdict.section}): {'; '.join(filter(None, (worst, mostly, explored)))}"
    title = CODES[verdict.code].title if verdict.code else verdict.verdict
    detail = verdict.message.removeprefix(f"{title}: ")
    lines = [f"error[{verdict.code}] {title}"]
    if verdict.program or verdict.section:  # else it is about the whole object
        where = f"{verdict.file.rpartition('/')[2]}:{verdict.line}:{verdict.col}" if verdict.line else "(no line information)"
        lines.append(f"  --> {where}  in {verdict.program} ({verdict.section}, instruction {verdict.insn})")
    if verdict.text:
        notes = [n for n in verdict.notes if n.file == verdict.file and n.line != verdict.line]
        marked = [(n.line, n.col, n.text, "-", n.words) for n in notes]
        for line, col, text, mark, words in sorted([*marked, (verdict.line, verdict.col, verdict.text, "^", detail)]):
            lines += _marked(line, col, text, mark, words)
    else:
        lines.append(f"  {detail}")
    lines.append(f"  Reason:      {verdict.reason}")
    if verdict.path:
        lines.append(f"  Causal path: {'  ->  '.join(verdict.path)}")
    lines.append(f"  Suggestion:  {verdict.suggestion}")
    return "\n".join(lines)
