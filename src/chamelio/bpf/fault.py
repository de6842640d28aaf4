"""What an object asks for and cannot have: a fault of one instruction, so that all other programs keep their verdicts."""

from __future__ import annotations

from dataclasses import dataclass

from chamelio.bpf.insn import BpfFormatError

INSTRUCTION = "V140"  # codes of verify/codes.py
CALL_TARGET = "V133"
REFERENCE = "V144"
BUDGET = "V160"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an instruction cannot run: `code` is one of verify/codes.py, `message` names what it asks for, `reason` says why not."""

    code: str
    message: str
    reason: str


class Unsupported(BpfFormatError):
    """Raised where a fault is found; the loader notes it for the instruction that asks."""

    def __init__(self, code: str, message: str, reason: str) -> None:
        super().__init__(f"{message}: {reason}")
        self.fault = Fault(code, message, reason)
