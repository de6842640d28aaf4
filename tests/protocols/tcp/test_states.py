"""TCP's state machine against RFC 9293: the table is complete, and says what a model of the two ends says that knows no states."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chamelio.protocols.tcp.states import STATES_H, machine, parse

MACHINE = machine()
INPUTS = list(MACHINE.inputs)

# RFC 9293, figure 5, in the order of its text (section 3.3.2). A listener is no connection: what leaves LISTEN begins in CLOSED.
FIGURE_5 = [
    ("CLOSED", "CONNECT", "SYN_SENT"),
    ("CLOSED", "SYN", "SYN_RCVD"),
    ("SYN_SENT", "SYN", "SYN_RCVD"),
    ("SYN_SENT", "SYN_ACKED", "ESTABLISHED"),
    ("SYN_SENT", "SHUT", "CLOSED"),
    ("SYN_RCVD", "SYN_ACKED", "ESTABLISHED"),
    ("SYN_RCVD", "SHUT", "FIN_WAIT_1"),
    ("SYN_RCVD", "RESET", "CLOSED"),
    ("ESTABLISHED", "SHUT", "FIN_WAIT_1"),
    ("ESTABLISHED", "FIN", "CLOSE_WAIT"),
    ("FIN_WAIT_1", "FIN_ACKED", "FIN_WAIT_2"),
    ("FIN_WAIT_1", "FIN", "CLOSING"),
    ("FIN_WAIT_2", "FIN", "TIME_WAIT"),
    ("CLOSING", "FIN_ACKED", "TIME_WAIT"),
    ("CLOSE_WAIT", "SHUT", "LAST_ACK"),
    ("LAST_ACK", "FIN_ACKED", "CLOSED"),
    ("TIME_WAIT", "EXPIRED", "CLOSED"),
]
# What we add: an orphan does not wait for the peer's FIN for ever.
OURS = [("FIN_WAIT_2", "EXPIRED", "CLOSED")]
# Note 3 of the figure.
RESETS = [(state, "RESET", "CLOSED") for state in MACHINE.states if state != "CLOSED"]


def table() -> set[tuple[str, str, str]]:
    return {(t.source, t.input, t.target) for t in MACHINE.transitions}


def test_the_table_is_figure_5_and_what_we_add() -> None:
    assert table() == set(FIGURE_5) | set(OURS) | set(RESETS)


def test_every_state_is_reached_and_left() -> None:
    assert MACHINE.states[0] == "CLOSED" and MACHINE.reachable("CLOSED") == set(MACHINE.states)
    for state in MACHINE.states:
        assert "CLOSED" in MACHINE.reachable(state)


def test_every_input_is_used_and_explained() -> None:
    assert {t.input for t in MACHINE.transitions} == set(INPUTS)
    assert all(MACHINE.inputs.values())


def test_a_state_leads_elsewhere() -> None:
    assert all(t.source != t.target for t in MACHINE.transitions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T(CLOSED, CONNECT, NOWHERE)", "CLOSED, CONNECT, NOWHERE is not made of"),
        ("T(CLOSED, WISH, SYN_SENT)", "CLOSED, WISH, SYN_SENT is not made of"),
        ("T(CLOSED, CONNECT, SYN_RCVD)", "more than one transition for"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(line: str, message: str) -> None:
    text = STATES_H.read_text()
    with pytest.raises(ValueError, match=message):
        parse(text.replace("TCP_TRANSITIONS(T)", f"TCP_TRANSITIONS(T) {line}", 1))
    with pytest.raises(ValueError, match="there is no"):
        parse(text.replace("TCP_INPUTS(I)", "TCP_IMPUTS(I)"))


def test_the_page_has_the_diagram() -> None:
    assert f"```mermaid\n{MACHINE.mermaid()}```" in STATES_H.with_name("README.md").read_text()


def test_the_diagram_has_every_transition_once() -> None:
    found = set()
    for source, target, inputs in re.findall(r"^    (\w+) --> (\w+): (.*)$", MACHINE.mermaid(), re.MULTILINE):
        found |= {(source, input, target) for input in inputs.split(", ")}
    assert found == table()


class Ends:
    """A connection as what each side has said and the other has acknowledged (RFC 9293, sections 3.3.2, 3.5 and 3.6)."""

    our_syn = syn_acked = their_syn = our_fin = fin_acked = their_fin = over = False
    first_to_close = ""

    @property
    def state(self) -> str:
        """What the RFC calls that."""
        if self.over or not (self.our_syn or self.their_syn):
            return "CLOSED"
        if not self.their_syn:
            return "SYN_SENT"
        if self.our_fin and self.their_fin:
            if self.first_to_close == "peer":
                return "LAST_ACK"
            return "TIME_WAIT" if self.fin_acked else "CLOSING"
        if self.our_fin:
            return "FIN_WAIT_2" if self.fin_acked else "FIN_WAIT_1"
        if not self.syn_acked:
            return "SYN_RCVD"
        return "CLOSE_WAIT" if self.their_fin else "ESTABLISHED"

    def happens(self, input: str) -> bool:
        """Do it if it can happen; False if it cannot."""
        fresh = not (self.our_syn or self.their_syn or self.over)
        if input == "CONNECT" or (input == "SYN" and not self.our_syn):
            if not fresh:
                return False
            self.our_syn = True
            self.their_syn = input == "SYN"
            return True
        if fresh or self.over:
            return False
        if input == "SYN":
            if self.their_syn:
                return False
            self.their_syn = True
        elif input == "SYN_ACKED":
            if self.syn_acked or self.our_fin:  # after SHUT in SYN_RCVD it tells nothing new
                return False
            self.their_syn = self.syn_acked = True
        elif input == "SHUT":
            if self.our_fin:
                return False
            self.over = not self.their_syn
            self.our_fin = True
            self.first_to_close = self.first_to_close or "us"
        elif input == "FIN":
            if self.their_fin or not (self.syn_acked or self.our_fin):
                return False
            self.their_fin = True
            self.first_to_close = self.first_to_close or "peer"
        elif input == "FIN_ACKED":
            if self.fin_acked or not self.our_fin:
                return False
            self.fin_acked = True
            self.over = self.first_to_close == "peer"
        elif input == "EXPIRED":
            if not (self.our_fin and self.fin_acked):
                return False
            self.over = True
        elif input == "RESET":
            self.over = True
        return True


def walk(inputs: Iterable[str]) -> set[tuple[str, str, str]]:
    """Follow the table and the model; returns the transitions that were taken."""
    state, ends, taken = "CLOSED", Ends(), set()
    for input in inputs:
        follows = MACHINE.next(state, input)
        assert ends.happens(input) == (follows is not None), (state, input)
        if follows is not None:
            taken.add((state, input, follows))
            state = follows
        assert state == ends.state, (state, input)
        if state == "CLOSED":
            ends = Ends()  # the number is free for the next one
    return taken


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(INPUTS), max_size=40))
def test_a_walk_ends_where_the_rfc_says(inputs: list[str]) -> None:
    walk(inputs)


def test_a_long_walk_takes_every_transition() -> None:
    assert walk(random.Random(1).choices(INPUTS, k=20_000)) == table()
