"""What a request over TCP costs: counted exactly where valgrind exists, and the driver checks every segment."""

from __future__ import annotations

import shutil

import pytest

from chamelio.bench import rpc
from chamelio.bench.rpc import callgrind

OUTPUT = """\
version: 1
events: Ir
fn=(1) cham_round
16 100
cfn=(2) unit_rx
calls=2 0
16 70
cfn=(3) memcpy
calls=1 0
+2 5
fn=(2)
20 40
* 10
cfn=(3)
calls=4 0
20 20
fn=(3)
1 25
fn=(4) wire_rx'2
3 7
"""


def test_instructions_are_added_up_by_phase_and_what_is_called_counts_for_its_caller() -> None:
    costs, calls = callgrind.read(OUTPUT)
    assert costs == {"cham_round": 100, "unit_rx": 50, "memcpy": 25, "wire_rx'2": 7}
    assert calls == {("cham_round", "unit_rx"): 70, ("cham_round", "memcpy"): 5, ("unit_rx", "memcpy"): 20}
    found = {phase: n for phase, n in callgrind.by_phase(costs, calls).items() if n}
    assert found == {"round": 105, "rx_handler": 70, "port_rx": 7}
    assert sum(found.values()) == sum(costs.values())


def test_a_request_and_its_answer_are_two_packets_and_cost_no_more_than_they_should() -> None:
    result = rpc.measure(flows=[64], batches=[1, 16], runs=1, requests=800, counted=800)
    assert [(one["batch"], one["offload"]) for one in result["results"]] == [(1, True), (1, False), (16, True), (16, False)]
    for one in result["results"]:
        assert one["packets_per_request"] == 2
        assert one["pure_acks_per_request"] == 0
        assert one["cycles_per_request"]["p10"] > 0
    _, _, fast, in_software = result["results"]
    if shutil.which("valgrind") is None:
        pytest.skip("there is no valgrind to count instructions")
    assert fast["instructions_per_request"] < in_software["instructions_per_request"]
    assert fast["instructions_per_request"] == pytest.approx(sum(fast["instructions_by_phase"].values()), abs=0.2)
    assert 0 < fast["application_instructions_per_request"] < 300
