"""Where instructions go: callgrind's output, added up by function and by the phase of a packet's way that a function belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")
Costs = dict[str, int]
Calls = dict[tuple[str, str], int]

# What is not named here, memcpy for one, belongs to whoever calls it.
PHASES: dict[str, tuple[str, ...]] = {
    "application": ("measured_application", "answer_all", "tcp_app_*"),
    "port_rx": ("wire_rx",),
    "input": ("cham_input", "cham_deliver"),
    "round": ("cham_round",),
    "rx_handler": ("unit_rx", "cham_separate_rx"),
    "ring_handler": ("unit_ring", "cham_separate_ring"),
    "timers": ("unit_tx", "unit_timer", "unit_due*", "cham_separate_tx", "cham_separate_timer"),
    "output": ("cham_output", "cham_send", "find_and_send", "cham_neighbour_send", "cham_port_queue"),
    "port_tx": ("wire_tx", "wire_flush"),
}


def read(text: str) -> tuple[Costs, Calls]:
    """Instructions by function, its callees not counted; and by caller and callee, all below counted (callgrind's file format)."""
    names: dict[str, str] = {}

    def name(field: str) -> str:
        found = _NAME.fullmatch(field)
        if found is None:
            return field
        if found[2] is not None:
            names[found[1]] = found[2]
        return names[found[1]]

    costs: Costs = defaultdict(int)
    calls: Calls = defaultdict(int)
    function = callee = ""
    is_call = False
    for line in text.splitlines():
        if line.startswith("fn="):
            function = name(line[3:])
        elif line.startswith("cfn="):
            callee = name(line[4:])
        elif line.startswith("calls="):
            is_call = True
        elif line and (line[0].isdigit() or line[0] in "+-*"):
            cost = int(line.split()[1])
            if is_call:
                calls[function, callee] += cost
            else:
                costs[function] += cost
            is_call = False
    return dict(costs), dict(calls)


def _phase_of(function: str, phases: Mapping[str, Iterable[str]]) -> str | None:
    base = re.split(r"['.]", function)[0]
    for phase, patterns in phases.items():
        for pattern in patterns:
            if base == pattern or (pattern.endswith("*") and base.startswith(pattern[:-1])):
                return phase
    return None


def by_phase(costs: Costs, calls: Calls, phases: Mapping[str, Iterable[str]] = PHASES) -> Costs:
    """Instructions of each phase. A function that no phase names counts, with all that it calls, for the phases that call it."""
    found: Costs = dict.fromkeys(phases, 0)
    for function, cost in costs.items():
        phase = _phase_of(function, phases)
        if phase is not None:
            found[phase] += cost
    for (caller, callee), cost in calls.items():
        phase = _phase_of(caller, phases)
        if phase is not None and _phase_of(callee, phases) is None:
            found[phase] += cost
    return found
