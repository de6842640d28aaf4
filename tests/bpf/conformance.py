"""Reads instruction vectors in the bpf_conformance format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chamelio.bpf.asm import assemble
from chamelio.bpf.insn import Insn, decode


@dataclass(frozen=True)
class Vector:
    """One program, the memory that r1 points to (r2 is its length), and what r0 must be."""

    name: str
    insns: list[Insn]
    mem: bytes
    result: int


def parse(name: str, text: str) -> Vector:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        line = line.split("#")[0].rstrip()
        if line.startswith("-- "):
            current = sections.setdefault(line[3:].strip(), [])
        elif line:
            current.append(line)
    if "asm" in sections and any(line.strip() for line in sections["asm"]):
        insns = assemble("\n".join(sections["asm"]))
    else:
        insns = decode(b"".join(int(word, 16).to_bytes(8, "little") for line in sections["raw"] for word in line.split()))
    mem = bytes.fromhex("".join(sections.get("mem", [])))
    return Vector(name, insns, mem, int(sections["result"][0], 0) & (1 << 64) - 1)


def load(folder: Path) -> list[Vector]:
    return [parse(path.stem, path.read_text()) for path in sorted(folder.glob("*.data"))]
