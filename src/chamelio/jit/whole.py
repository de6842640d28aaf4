"""Whole images: the provider and a fixed set of units in one module, entered by direct calls and optimised as one program.

What co-residence can bring, and what it costs: such an image cannot swap a unit, and compiles everything anew when one changes.
`chamelio bench tax` measures it beside units; the engine runs units (docs/architecture.md says why).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from chamelio.bpf.object import Object
from chamelio.engine import abi
from chamelio.engine.image import CATALOGUES, ENTRIES, PORT_OPS, provider_sources
from chamelio.jit import modules
from chamelio.jit.layout import Layout
from chamelio.jit.unit import INIT, joint_module, live_hooks
from chamelio.verify import Proof

_HOOKS = {"rx": "ptr %frames, i32 %n", "ring": "i32 %n", "tx": "i32 %n", "timer": "i32 %n"}
_LOOPS = ("unit_rx", "unit_no_rx", "unit_ring", "unit_tx", "unit_timer")


class Resident(NamedTuple):
    """A verified protocol that is part of an image."""

    proofs: list[Proof]
    obj: Object
    layout: Layout


def _unit_text(number: int, one: Resident, *, hardening: bool) -> str:
    """A unit's module, its batch loops and its table under names of their own."""
    text = str(joint_module(one.proofs, one.obj, one.layout, virtual=False, hardening=hardening, keep=_LOOPS))
    return re.sub(rf"@({'|'.join((INIT, *_LOOPS))})\b", rf"@\1_{number}", text)


def _entrances(residents: Sequence[Resident]) -> str:
    """IR of the functions of fastpath/enter.c for just these units, by their numbers."""
    at = abi.dtype("cham_instance").fields["unit"][1]  # type: ignore[index]
    parts = [f"define void @{INIT}(ptr %unit) {{\n  call void @{INIT}_0(ptr %unit)\n  ret void\n}}\n"]
    parts += [f"declare void @{INIT}_0(ptr)\n"]
    for hook, parameters in _HOOKS.items():
        kinds = ", ".join(["ptr", "ptr", *(p.split()[0] for p in parameters.split(", "))])
        cases, blocks = "", ""
        for number, one in enumerate(residents):
            loop = f"unit_{hook}"
            if hook not in live_hooks(one.layout, [p.hook for p in one.proofs]):
                loop = "unit_no_rx" if hook == "rx" else ""
            if loop:
                cases += f" i32 {number}, label %u{number}"
                call = f"%r{number} = call i32 @{loop}_{number}(ptr %core, ptr %inst, {parameters})"
                blocks += f"u{number}:\n  {call}\n  ret i32 %r{number}\n"
                parts.append(f"declare i32 @{loop}_{number}({kinds})\n")
        parts.append(
            f"define i32 @cham_enter_{hook}(ptr %core, ptr %inst, {parameters}) {{\n"
            f"  %at = getelementptr i8, ptr %inst, i64 {at}\n  %unit = load i32, ptr %at\n"
            f"  switch i32 %unit, label %none [{cases} ]\n{blocks}none:\n  ret i32 0\n}}\n"
        )
    return "".join(parts)


def image(residents: Sequence[Resident], *, hardening: bool) -> bytes:
    """Relocatable object code of everything; unit k is `residents[k]`, and `cham_unit_init` fills the table of unit 0."""
    texts = [modules.provider_text(source) for source in provider_sources() if source != "enter.c"]
    texts.append(modules.constants({"cham_cfg_virtual": 0, "cham_cfg_hardening": int(hardening), "cham_cfg_policy": 0}))
    texts.append(_entrances(residents))
    texts += [_unit_text(number, one, hardening=hardening) for number, one in enumerate(residents)]
    module = modules.link(texts)
    modules.internalise(module, [*ENTRIES, *PORT_OPS, *CATALOGUES, INIT])
    modules.optimise(module)
    return modules.emit(module)
