"""`chamelio bpf`: bare BPF programs, without a protocol, a contract or a daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from chamelio.cli.common import Group, Settings, common
from chamelio.messages import Refusal

if TYPE_CHECKING:
    from chamelio.bpf.insn import Insn


@click.group(cls=Group)
def bpf() -> None:
    """Bare BPF programs: nothing is verified, nothing is loaded."""


def _bytes(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refusal("usage", f"{what} is not hex bytes", "two digits per byte, blanks between bytes as you like") from None


def _as_machine_code(insns: list[Insn], memory: bytes) -> int:
    from chamelio.jit.execute import ExecutionError, run_apart

    try:
        return run_apart(insns, memory)
    except ExecutionError as error:
        raise Refusal("failed", str(error)) from None


@bpf.command("exec")
@click.argument("mem", metavar="[MEM_HEX]", default="")
@click.option(
    "--engine", type=click.Choice(["interp", "jit"]), default="interp", help="The reference interpreter, or machine code."
)
@common()
def execute(settings: Settings, mem: str, engine: str) -> None:
    """Run the program whose bytes standard input gives in hex, and print r0 in hex.

    r1 points to the bytes of MEM_HEX and r2 is their number. This is what bpf_conformance expects of a plug-in.
    """
    from chamelio.bpf.insn import BpfFormatError, decode
    from chamelio.bpf.interp import Fault, run_bare

    memory = _bytes(mem, "MEM_HEX")
    try:
        insns = decode(_bytes(sys.stdin.buffer.read().decode("ascii", "replace"), "standard input"))
        result = run_bare(insns, bytearray(memory)) if engine == "interp" else _as_machine_code(insns, memory)
    except (BpfFormatError, Fault) as error:
        raise Refusal("failed", str(error)) from None
    settings.show({"r0": result, "engine": engine}, lambda: f"{result:x}")
