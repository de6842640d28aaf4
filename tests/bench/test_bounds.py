"""Bounds are held against measurements: the rig puts back what a run has changed, and no cold run costs more than was proven.

Timings are the least of many repetitions, so they hold on a machine that does other things, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from chamelio.bench import bounds, calibrate
from chamelio.bench.bounds.probes import PROBES, Bench
from chamelio.bench.bounds.probes import measure as measure_probe
from chamelio.bench.bounds.rig import COLD, DATA, Rig
from chamelio.bench.bounds.scenes import SCENES, Scene
from chamelio.verify import cost
from chamelio.verify.catalogue import HELPERS
from chamelio.verify.cost import load

DONE, TRANSMIT = 0, 1
# what a handler answers to its first seed: that it went the long way
ANSWERS = {
    "echo rx": TRANSMIT, "ping rx": TRANSMIT, "ping ring": TRANSMIT, "udp rx": DONE, "udp ring": TRANSMIT, "rpc rx": TRANSMIT,
    "rpc tx": TRANSMIT, "rpc timer": TRANSMIT, "rpc ring": TRANSMIT,
}  # fmt: skip


@pytest.fixture(scope="module")
def rigs() -> Iterator[dict[str, Rig]]:
    with ExitStack() as stack:
        yield {s.protocol: stack.enter_context(Rig(s.source, ip_protocol=s.ip_protocol)) for s in SCENES if s.hook == "rx"}


def name_of(scene: Scene) -> str:
    return f"{scene.protocol} {scene.hook}"


def test_every_shipped_handler_has_a_scene(rigs: dict[str, Rig]) -> None:
    assert {name_of(s) for s in SCENES} == {f"{p} {hook}" for p, rig in rigs.items() for hook in rig.proofs} == set(ANSWERS)


@pytest.mark.parametrize("scene", SCENES, ids=name_of)
def test_a_dear_input_goes_the_long_way_and_every_run_begins_from_the_same_state(scene: Scene, rigs: dict[str, Rig]) -> None:
    rig = rigs[scene.protocol]
    run = scene.run(rig, {**scene.first, **scene.seeds[0]})
    for _ in range(3):
        rig.cycles(scene.hook, run, cold=0, repetitions=3)
        assert rig.last.verdict == ANSWERS[name_of(scene)]


@pytest.mark.parametrize("scene", SCENES, ids=name_of)
def test_bounds_hold_on_dear_inputs(scene: Scene, rigs: dict[str, Rig]) -> None:
    """A small budget of inputs: cold measurements stay within the bound, and the bounds are of the right size."""
    one = bounds.measure(scene, rigs[scene.protocol], inputs=40)
    worst = one["worst"]
    assert max(worst["everything"]["cycles"], worst["data"]["cycles"]) <= one["cold_bound"]
    assert one["cold_ratio"] <= 2 * bounds.LIMIT and one["warm_ratio"] <= 2 * bounds.LIMIT


def test_what_is_cold_costs_more(rigs: dict[str, Rig]) -> None:
    scene = next(s for s in SCENES if name_of(s) == "udp rx")
    run = scene.run(rigs["udp"], {**scene.first, **scene.seeds[0]})
    warm, data, everything = (rigs["udp"].cycles("rx", run, cold=cold) for cold in (0, DATA, COLD))
    assert warm < data and warm < everything


@pytest.mark.long
def test_every_bound_holds_and_is_at_most_ten_times_the_worst() -> None:
    for one in bounds.measure_all():
        assert one["holds"], one


# ---- calibration --------------------------------------------------------------------------------------------------------


def test_every_helper_is_probed_on_every_kind_of_map() -> None:
    probed = {(probe.helper.name, probe.kind) for probe in PROBES}
    for helper in HELPERS.values():
        kinds = set(cost.kinds_of(helper.name)) or {""}
        if helper.name in ("cham_bytes_open", "cham_bytes_close", "cham_bytes_size"):
            kinds = {"pool"}  # on others they have nothing to do
        assert {kind for name, kind in probed if name == helper.name} == kinds


def test_helpers_are_measured_and_a_table_of_them_can_be_read(tmp_path: Path) -> None:
    bench = Bench()
    try:
        picked = [probe for probe in PROBES if probe.helper.name in ("cham_csum", "cham_hash")]
        found = [measure_probe(probe, bench, repetitions=5) for probe in picked]
    finally:
        bench.close()
    csum = next(one for one in found if one.name == "cham_csum")
    assert csum.warm[-1] > csum.warm[0], "a long sum takes longer"
    classes = {name: {"measured": 1.5, "table": 1, "margin": 1.0} for name in calibrate.CLASSES}
    table = calibrate.table_of({"instructions": classes, "measured": found}, safety=2)
    path = tmp_path / "costs.toml"
    path.write_text(cost.text(table))
    assert load(path) == table
    assert table.instructions.load == 3 and table.cold.miss == 3
    assert table.helpers["cham_csum"][""].fixed >= 2 * csum.warm[0]
    assert table.helpers["cham_push"] == cost.DEFAULT.helpers["cham_push"], "what was not measured stays"


@pytest.mark.parametrize("name", [name for name in calibrate.CLASSES if name != "miss"])
def test_a_chain_of_instructions_takes_time(name: str) -> None:
    assert 0 < calibrate.chain(name) < 1000
