"""TCP's state machine as handlers have it: the table of states.h, and the diagram that is drawn from it (RFC 9293, section 3.3.2).

`python -m chamelio.protocols.tcp.states` prints the diagram.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STATES_H = Path(__file__).parent / "states.h"
_NOTE = r"(?:\s*/\*\s*(.*?)\s*\*/)?"


@dataclass(frozen=True)
class Transition:
    """From `source` an `input` leads to `target`; `note` says why where the RFC's figure does not."""

    source: str
    input: str
    target: str
    note: str = ""


@dataclass(frozen=True)
class Machine:
    """States in the order of their numbers (0: CLOSED), inputs with what they mean, and what each does where it matters."""

    states: tuple[str, ...]
    inputs: dict[str, str]
    transitions: tuple[Transition, ...]

    def next(self, state: str, input: str) -> str | None:
        """The state that follows, or None: the input changes nothing there."""
        return next((t.target for t in self.transitions if (t.source, t.input) == (state, input)), None)

    def number(self, state: str) -> int:
        """The state's number in `about`. ValueError if there is none."""
        return self.states.index(state)

    def reachable(self, start: str) -> set[str]:
        """States that can follow, `start` included."""
        found = {start}
        while more := {t.target for t in self.transitions if t.source in found} - found:
            found |= more
        return found

    def mermaid(self) -> str:
        """The diagram, in Mermaid's language: an arrow for each pair of states, labelled with the inputs that lead there."""
        arrows: dict[tuple[str, str], list[str]] = {}
        for t in self.transitions:
            arrows.setdefault((t.source, t.target), []).append(t.input)
        lines = [f"    {source} --> {target}: {', '.join(inputs)}" for (source, target), inputs in arrows.items()]
        return "\n".join(["stateDiagram-v2", "    [*] --> CLOSED", *lines]) + "\n"


def parse(text: str) -> Machine:
    """The machine of a states.h. ValueError if its table contradicts itself."""
    states = tuple(re.findall(r"\bS\((\w+)\)", _macro(text, "TCP_STATES(S)")))
    inputs = dict(re.findall(rf"\bI\((\w+)\){_NOTE}", _macro(text, "TCP_INPUTS(I)")))
    found = re.findall(rf"\bT\((\w+),\s*(\w+),\s*(\w+)\){_NOTE}", _macro(text, "TCP_TRANSITIONS(T)"))
    transitions = tuple(Transition(*fields) for fields in found)
    for t in transitions:
        if t.source not in states or t.target not in states or t.input not in inputs:
            raise ValueError(f"{t.source}, {t.input}, {t.target} is not made of states and inputs that there are")
    pairs = [(t.source, t.input) for t in transitions]
    if twice := {pair for pair in pairs if pairs.count(pair) > 1}:
        raise ValueError(f"more than one transition for {', '.join(map(str, sorted(twice)))}")
    return Machine(states, inputs, transitions)


def _macro(text: str, head: str) -> str:
    """What a macro stands for, without the backslashes that continue its lines."""
    match = re.search(rf"#define {re.escape(head)}((?:.*\\\n)*.*)", text)
    if match is None:
        raise ValueError(f"there is no {head}")
    return match[1].replace("\\\n", "\n")


@cache
def machine() -> Machine:
    """The machine that handlers are compiled with."""
    return parse(STATES_H.read_text())


if __name__ == "__main__":
    print(machine().mermaid(), end="")
