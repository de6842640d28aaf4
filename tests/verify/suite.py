"""Small programs for the verifier, as text: what each must be told stands at the line where it must be told.

A file holds many programs. In assembler each begins with `-- name` (and a hook in brackets, if it is not rx), in C with
`PROGRAM(name)` or `PROGRAM_OF(hook, name)`; hooks `xdp`, `tc` and `socket` are the kernel's (in C: header kernel.h). A
comment `V102: some words` on a line says that the program is refused with that code, at that line, and that message or
reason contain the words; a program without one must be accepted.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from chamelio import toolchain
from chamelio.bpf import insn as bpf
from chamelio.bpf.asm import assemble
from chamelio.bpf.object import Line, MapDef, Object, Program, load_object
from chamelio.jit.layout import ARRAY, BYTES, DATA, HASH, RING_IN, RING_OUT, SHARED, TIMER, TX

PROGRAMS = Path(__file__).parent / "programs"
KERNEL = ("xdp", "tc", "socket")

#: The maps that assembler programs refer to, by index.
MAPS = [
    MapDef("table", ARRAY, 4, 16, 8),
    MapDef("flows", HASH, 8, 32, 8),
    MapDef("shared", ARRAY, 4, 16, 8, {"flags": SHARED}),
    MapDef("ring", RING_OUT, 0, 16, 8),
    MapDef("requests", RING_IN, 0, 16, 8),
    MapDef("buffers", BYTES, 0, 64, 8),
    MapDef("due", TX, 0, 0, 8),
    MapDef("deadlines", TIMER, 0, 0, 8),
    MapDef(".data", DATA, 4, 16, 1, data=bytes(range(16))),
    MapDef(".rodata", DATA, 4, 16, 1, data=bytes(range(16)), read_only=True),
]

_MARK = re.compile(r"(?:#|//|/\*)\s*(V\d{3}): (.*?)\s*(?:\*/)?$")
_HEAD = re.compile(r"-- (\w+)(?: \((\w+)\))?$")
_C_HEAD = re.compile(r"^PROGRAM(?:_OF\((\w+), (\w+)\)|\((\w+)\))")


@dataclass
class Case:
    """One program and what the verifier must say of it: `code` None is accept."""

    name: str
    file: Path
    hook: str = "rx"
    start: int = 0  # line of the file at which its text begins
    text: list[str] = field(default_factory=list)
    code: str | None = None
    line: int = 0
    words: str = ""

    def note(self, number: int, line: str) -> None:
        mark = _MARK.search(line)
        if mark:
            assert self.code is None, f"{self.file.name}:{number}: a second expectation"
            self.code, self.line, self.words = mark[1], number, mark[2]

    def load(self) -> tuple[Object, Program]:
        """The object and the program in it."""
        if self.file.suffix == ".asm":
            return assembled("\n".join(self.text), self.hook, self.name, self.start)
        obj = _compiled(self.file)
        return obj, next(p for p in obj.programs if p.name == self.name)


def assembled(text: str, hook: str = "rx", name: str = "test", first_line: int = 1) -> tuple[Object, Program]:
    """A program from assembler text, its functions found by its calls, its lines those of the text."""
    insns = assemble(text)
    functions = {0: name}
    for pc, insn in enumerate(insns):
        if insn.is_call and insn.src == bpf.PSEUDO_CALL:
            functions.setdefault(bpf.jump_target(pc, insn), f"function_{bpf.jump_target(pc, insn)}")
        elif insn.op == bpf.LDDW and insn.src == bpf.PSEUDO_FUNC:
            functions.setdefault(pc + 1 + insn.imm, f"function_{pc + 1 + insn.imm}")
    lines, slot = {}, 0
    for number, raw in enumerate(text.splitlines(), start=first_line):
        statement = re.sub(r"^(\s*[A-Za-z_.][\w.]*:)+", "", raw.split("#")[0]).strip()
        if statement:
            lines[slot] = Line("test.asm", number, len(raw) - len(raw.lstrip()) + 1, raw)
            slot += 2 if statement.startswith("lddw") else 1
    assert slot == len(insns)
    program = Program(name, hook if hook in KERNEL else f"chamelio/{hook}", insns, functions, lines)
    return Object([program], MAPS, None, "", ""), program


@functools.cache
def _compiled(file: Path) -> Object:
    return load_object(toolchain.bpf_object(file), file.name)


def cases(pattern: str) -> list[Case]:
    """The programs of all files whose name matches."""
    out: list[Case] = []
    for file in sorted(PROGRAMS.glob(pattern)):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if file.suffix == ".asm":
                head = _HEAD.match(line)
                if head:
                    out.append(Case(head[1], file, head[2] or "rx", number + 1))
                    continue
            else:
                head = _C_HEAD.match(line)
                if head:
                    out.append(Case(head[3] or head[2], file, head[1] or "rx", number))
            if out and out[-1].file == file:
                out[-1].text.append(line)
                out[-1].note(number, line)
    names = [(case.file, case.name) for case in out]
    assert len(set(names)) == len(names)
    return out
