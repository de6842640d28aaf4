"""What commands print: text for people, JSON for programs; errors on stderr, with what to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from chamelio.messages import Refusal


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, for errors that come before it is understood."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("-o", "--output", "--format"):
            value = value if equals else (words[i + 1] if i + 1 < len(words) else "")
            if value == "json":
                return True
        if word == "-ojson":
            return True
    return False


def print_json(value: Any) -> None:
    """One JSON document."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


def print_json_line(value: Any) -> None:
    """One JSON document on one line, for streams of them."""
    print(msgspec.json.encode(value).decode(), flush=True)


def print_error(error: Refusal, *, json: bool) -> int:
    """Say what went wrong; the exit code."""
    if json:
        print_json({"error": error.describe()})
        return error.exit
    rendered = [v["rendered"] for v in error.details.get("verdicts", []) if v.get("rendered") and v.get("verdict") != "accept"]
    for text in rendered[:1]:
        print(text, file=sys.stderr)
    print(f"error: {error.message}", file=sys.stderr)
    if error.remedy and not rendered:
        print(f"  {error.remedy}", file=sys.stderr)
    return error.exit


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ",".join(map(cell, value))
    if isinstance(value, dict):
        return " ".join(f"{k}={cell(v)}" for k, v in value.items()) or "-"
    return str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns with a heading; numbers to the right."""
    texts = [[cell(value) for value in row] for row in rows]
    widths = [max(len(column), *(len(text[i]) for text in texts)) if texts else len(column) for i, column in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        aligned = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line([c.upper() for c in columns]), *map(line, texts)])


def fields(values: dict[str, Any], indent: str = "") -> str:
    """Names and values, one per line; nested ones indented."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value and any(isinstance(v, dict) for v in value.values()):
            lines += [f"{indent}{name}:", fields(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {cell(value)}")
    return "\n".join(lines)


def amount(value: float) -> str:
    """A count with a unit prefix: 12.3k, 4.56M."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (limit if suffix != 'k' else 1e3):.3g}{suffix}"
    return f"{value:.0f}"
