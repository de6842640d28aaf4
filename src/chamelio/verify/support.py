"""The support matrix as Markdown, made from the tables that the verifier works with.

python -m chamelio.verify.support docs/support.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from chamelio.verify import kernel
from chamelio.verify.catalogue import MAP_KINDS, Context
from chamelio.verify.contexts import CONTEXTS
from chamelio.verify.explore import MAX_FRAMES
from chamelio.verify.proof import Limits
from chamelio.verify.values import STACK_BYTES

RUNS, VERIFIES, REFUSED = "runs", "verifies", "refused"

_INTRODUCTION = """# What is supported

Written by `python -m chamelio.verify.support docs/support.md` from the tables that the verifier works with; do not edit it. A test
keeps it true. *runs*: verified, compiled and run at a hook. *verifies*: `chamelio verify` proves or refuses it, nothing here runs
it. *refused*: a verdict names it; it is never skipped or guessed.
"""

#: Instructions by conformance group (RFC 9669, section 2.4), and what goes beyond: name, status, remark.
INSTRUCTIONS = (
    ("base32: ALU, JMP32, loads, stores", RUNS, "32-bit results are zero-extended; shifts are masked"),
    ("base64: ALU64, JMP, LDDW", RUNS, "maps and global data by pseudo sources; addresses of functions as callbacks only"),
    ("divmul32, divmul64, signed too", RUNS, "x / 0 is 0, x % 0 is x, INT_MIN / -1 is INT_MIN"),
    ("atomic32, atomic64: add, or, and, xor, exchange, compare and exchange, with and without fetch", RUNS,
     "proven to be aligned; on maps, global data and the stack"),
    ("v4: MOVSX, LDXSX, BSWAP, 32-bit jump offsets (gotol)", RUNS, ""),
    ("local calls", RUNS, f"{MAX_FRAMES} frames of {STACK_BYTES} bytes, no recursion; analysed at each call site"),
    ("calls of helpers by number", RUNS, "of the context's helpers, below"),
    ("packet: LD_ABS, LD_IND", REFUSED, "V140; `ctx->data` is there instead"),
    ("calls of kernel functions (kfunc)", REFUSED, "V140, by name"),
    ("calls through a register (callx)", REFUSED, "V140"),
    ("helper calls by BTF id", REFUSED, "V121"),
    ("load-acquire, store-release, addr_space_cast, may_goto", REFUSED, "V140"),
)  # fmt: skip

#: What else an object can hold.
OBJECTS = (
    ("maps in `.maps` with BTF", RUNS, "of our kinds at our hooks, of the kernel's kinds in its programs"),
    ("`.rodata*`, `.data*`, `.bss*`, string sections without BTF", RUNS, "constant data is known to the verifier"),
    ("several programs in a section, static functions", RUNS, "one handler per hook"),
    ("line information (`.BTF.ext`)", RUNS, "errors point at source lines"),
    ("legacy `maps` section, maps of maps, program arrays with content", VERIFIES, "in kernel programs"),
    ("tail calls", VERIFIES, "both outcomes: the call fails and nothing changes, or the function ends with any number"),
    ("`bpf_loop`, `bpf_for_each_map_elem`", VERIFIES, "every turn; numbers that change from turn to turn are taken to be anything"),
    ("sockets and ring buffer records that must be given back", VERIFIES, "on every path"),
    ("CO-RE relocations", REFUSED, "V140: a handler has no kernel's types to fit to"),
    ("externs (`__ksym`, `__kconfig`), undefined functions", REFUSED, "V144, by name"),
    ("global data that holds addresses", REFUSED, "V144"),
    ("arenas, user ring buffers, timers, spin locks, kptrs, dynptrs, storage of tasks and the like", REFUSED, "V121 or V140"),
    ("big-endian objects", REFUSED, "V143"),
)  # fmt: skip


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |\n|" + "---|" * len(head)
    yield "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _context(c: Context) -> Iterator[str]:
    yield f"### {c.name}\n"
    sections = "`chamelio/HOOK`" if c.runs else ", ".join(f"`{section}`" for section in c.sections)
    yield f"{RUNS if c.runs else VERIFIES}; sections {sections}; {c.size} bytes; packets of at most {c.packet_max:,} bytes.\n"
    rows = []
    for f in sorted(c.fields, key=lambda f: f.offset):
        access = "write" if f.writable else "read"
        rows.append((f"`{f.name}`", str(f.offset), str(f.size), f.kind.replace("_", " "), access))
    yield from _table(("field", "offset", "bytes", "what it is", "access"), rows)
    names = ", ".join(f"`{h.name}`" for h in sorted(c.helpers.values(), key=lambda h: h.id))
    yield f"Helpers ({len(c.helpers)}): {names}.\n"


def support() -> str:
    """The whole page."""
    limits = Limits()
    out = [_INTRODUCTION, "## Instructions (RFC 9669)\n"]
    out += _table(("what", "status", "remark"), [(*row,) for row in INSTRUCTIONS])
    out += ["## Objects\n", *_table(("what", "status", "remark"), [(*row,) for row in OBJECTS])]
    out.append(
        f"Limits, beyond which the verdict is `budget`: {limits.instructions:,} instructions of a program with all that it calls,\n"
        f"{limits.steps:,} instructions explored, {limits.states:,} states remembered, {limits.seconds:g} s.\n"
    )
    out.append("## Maps\n")
    rows = [(m.name, str(m.kind), RUNS, "at our hooks") for m in MAP_KINDS.values()]
    found = {"value": "values by address", "map": "inner maps", "sock": "sockets", "xsk": "AF_XDP sockets", "": "no lookup"}
    for k in kernel.MAPS.values():
        rows.append((f"kernel: {k.name}", str(k.kind), REFUSED if k.unsupported else VERIFIES, k.unsupported or found[k.lookup]))
    out += _table(("kind", "number", "status", "remark"), rows)
    out.append("## Contexts\n")
    for c in CONTEXTS.values():
        out += _context(c)
    out.append("## Helpers of the kernel that are refused by name\n")
    names = [(f"`bpf_{kernel.helper_names[number]}`", what) for number, what in sorted(kernel.UNSUPPORTED.items())]
    out += _table(("helper", "it is about"), names)
    known = {number for c in CONTEXTS.values() if not c.runs for number in c.helpers} - set(kernel.UNSUPPORTED)
    out.append(
        f"Of the kernel's {len(kernel.helper_names)} helpers these contexts have {len(known)}; the others belong to\n"
        "program types that are not known here, and are refused with the helper's name (V121).\n"
    )
    return "\n".join(out)


def main(arguments: list[str]) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=support.__doc__)
    parser.add_argument("page", type=Path)
    parser.parse_args(arguments).page.write_text(support())


if __name__ == "__main__":
    main(sys.argv[1:])
