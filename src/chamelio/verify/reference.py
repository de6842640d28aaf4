"""The reference as Markdown, made from the catalogue, the cost model, the codes and the examples.

python -m chamelio.verify.reference docs/reference.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from chamelio.verify import cost, examples
from chamelio.verify.catalogue import (
    CHAMELIO,
    DATA,
    EMITS,
    HELPERS,
    MAP_KINDS,
    PACKET_MAX,
    VERDICTS,
    Context,
    CtxField,
    Helper,
    MapKind,
)
from chamelio.verify.codes import CODES

_C_TYPES = {8: "u64", 4: "u32", 2: "u16", 1: "u8"}
_INTRODUCTION = f"""# Reference

Written by `python -m chamelio.verify.reference docs/reference.md` from the catalogue that the verifier and the compiler work with
(`verify/catalogue.py`); do not edit it. A test compiles and verifies every example; each begins with `#include "chamelio.h"`.

Costs are cycles of the cost model. *Warm*: all data in the first-level cache. *Cold*: each cache line that may miss costs
{cost.DEFAULT.cold.miss} more; [bounds.md](bounds.md) tells more. A worst case is that of the dearest path of a handler, and is what
`chamelio verify` prints; a turn is charged what was measured, at most the cold bound. A packet has at most {PACKET_MAX} bytes
from its IP header on.
"""


def _example(text: str) -> str:
    return f"```c\n{text.strip()}\n```\n"


def _heading(text: str) -> str:
    return f"## {text}\n"


def c_type(f: CtxField) -> str:
    """A context field's type in C."""
    return "void *" if f.kind != "scalar" else f"{_C_TYPES[f.size]} "


def context(c: Context) -> Iterator[str]:
    """Hooks and context fields."""
    yield _heading("Hooks and context")
    yield (
        "A handler is a function at a hook, `CHAM_HANDLER(rx)`: `rx` runs for a packet that has arrived, `ring` for an entry of\n"
        "the inbound ring, `tx` for an id that is due to send, `timer` for an id whose deadline has passed. Only `rx` starts with\n"
        f"a packet. Its argument is `struct chamelio_ctx *ctx`, {c.size} bytes, read-only. A load of a field costs\n"
        f"{cost.DEFAULT.instructions.load} cycles and never misses.\n"
    )
    yield "| field | offset | meaning |\n|---|---|---|"
    for f in c.fields:
        yield f"| `{c_type(f)}{f.name}` | {f.offset} | {f.doc} |"
    yield ""
    for f in c.fields:
        yield f"### ctx->{f.name}\n"
        yield _example(examples.FIELDS[f.name])


def verdicts() -> Iterator[str]:
    """What handlers return."""
    yield _heading("Verdicts")
    yield "| verdict | what happens |\n|---|---|"
    for v in VERDICTS:
        yield f"| `{v.name}` | {v.doc} |"
    yield "\nAnything else, or CHAM_TX and CHAM_PUNT without a packet, is counted as `bad_verdict`.\n"


def map_kind(m: MapKind) -> Iterator[str]:
    """One kind of map."""
    number = "" if m.kind == DATA else f" (CHAM_MAP_{m.name.upper()}, {m.kind})"
    yield f"### {m.name}{number}\n"
    yield f"`{m.declaration}`\n"
    yield f"{m.doc}\n"
    takers = [h.name for h in HELPERS.values() if any(m.kind in a.maps for a in h.args)]
    yield f"* Limits: {m.limits}.\n* Memory: {m.memory}."
    yield f"* Helpers: {', '.join(f'[{name}](#{name})' for name in takers) or 'none; plain loads and stores'}.\n"
    yield _example(examples.MAPS[m.name])


def price(h: Helper) -> str:
    """A helper's cost in words."""
    warm = f"{h.cost.fixed} cycles warm"
    lines = f"up to {h.cost.lines} cache lines when cold" if h.cost.lines else "no cache line beyond what was read"
    if h.length_arg:
        warm += f" + {h.cost.per_line} for every {cost.LINE} bytes of length"
        lines += f", and {h.cost.per_line_cold} cycles for every {cost.LINE} bytes"
    if any(a.kind in ("value", "entry") for a in h.args):
        warm += f" + {cost.DEFAULT.instructions.copy} for every {cost.LINE} bytes that are copied beyond the first"
    return f"{warm}; {lines}"


def helper(h: Helper) -> Iterator[str]:
    """One helper."""
    yield f"### {h.name}\n"
    yield f"`{h.signature}` (number {h.id:#x})\n"
    yield f"{h.doc[0].upper()}{h.doc[1:]}.\n"
    yield f"* Cost: {price(h)}."
    yield (
        f"* Errors: {h.errors}."
        if h.errors
        else f"* Errors: none{', NULL where there is no such value' if h.result == 'void *' else ''}."
    )
    kinds = [MAP_KINDS[k].name for a in h.args for k in a.maps]
    if kinds:
        yield f"* Maps: {', '.join(f'`{k}`' for k in kinds)}."
    if any(a.kind in ("key", "value", "entry") for a in h.args):
        yield "* Keys, values and entries lie on the stack, in the packet or in private memory, and are initialised."
    if h.invalidates_packet:
        yield "* Packet addresses end here: load `ctx->data` and `ctx->data_end` again, and compare again."
    if h.name == "cham_emit":
        yield f"* One run emits at most {EMITS} packets besides the one that it ends with."
    yield ""
    yield _example(examples.HELPERS[h.name])


def instructions() -> Iterator[str]:
    """The cost model."""
    yield _heading("Cost of instructions")
    yield "| instruction | cycles |\n|---|---|"
    costs, cold = cost.DEFAULT.instructions, cost.DEFAULT.cold
    for what, cycles in (
        ("arithmetic, moves, wide constants", costs.simple),
        ("branch", f"{costs.branch}, and {cold.mispredict} for a conditional one that was not foreseen"),
        ("load", f"{costs.load}, and {cold.miss} if it misses (see above)"),
        ("store", f"{costs.store}, and the same"),
        ("multiplication", costs.multiply),
        ("division, modulo", costs.divide),
        ("atomic operation", costs.atomic),
        ("call of a helper", f"{costs.call}, and the helper"),
        ("code that is in no cache", f"{cold.start}, and {cold.code} for each instruction, once"),
    ):
        yield f"| {what} | {cycles} |"
    yield ""


def codes() -> Iterator[str]:
    """The verifier's error codes."""
    yield _heading("Error codes of the verifier")
    yield "`chamelio explain CODE` prints one; [debugging.md](debugging.md) reads a whole message.\n"
    yield "| code | verdict | what it says | what usually helps |\n|---|---|---|---|"
    for c in CODES.values():
        yield f"| {c.code} | {c.kind} | {c.title} | {c.suggestion} |"


def reference() -> str:
    """The page."""
    lines = [_INTRODUCTION, *context(CHAMELIO), *verdicts(), _heading("Maps")]
    lines.append(
        "A map is declared at file level. Names, kinds, sizes and value types are part of a protocol: a version that changes them\n"
        "does not take over a running instance.\n"
    )
    for m in MAP_KINDS.values():
        lines += map_kind(m)
    lines.append(_heading("Helpers"))
    lines.append("`CHAM_SPAN(off, len)` is a part of the packet, in bytes from the IP header, checked by the helper at run time.\n")
    for h in HELPERS.values():
        lines += helper(h)
    lines += [*instructions(), *codes()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page to a file, or print it."""
    parser = argparse.ArgumentParser(prog="chamelio.verify.reference", description="Write docs/reference.md.")
    parser.add_argument("file", type=Path, nargs="?")
    file: Path | None = parser.parse_args().file
    if file is None:
        sys.stdout.write(reference())
    else:
        file.write_text(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main())
