"""Header prediction changes nothing but the cost: TCP without it says the same on the wire, segment for segment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chamelio.lab import Laboratory
from chamelio.tenant.folder import copy_folder

# One way, then to and fro: where both sides send at once, which of two things comes first is a matter of cycles.
STREAMS = [
    (3_000, "loss=0%"),
    (500_000, "loss=0%"),
    (200_000, "loss=2%,seed=1"),
    (200_000, "loss=1%,reorder=5%,seed=2"),
    (60_000, "loss=5%,seed=3"),
]


@pytest.fixture(scope="module")
def unpredicting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_folder("tcp", tmp_path_factory.mktemp("unpredicting") / "tcp")
    source = (folder / "predict.h").read_text()
    first = "    if (c->state != TCP_ESTABLISHED ||"
    assert source.count(first) == 2
    (folder / "predict.h").write_text(source.replace(first, "    if (c->state || c->state != TCP_ESTABLISHED ||"))
    return folder


def exchange(protocol: str | Path, forth: int, fault: str) -> tuple[list[str], int]:
    """What is said on the line, and how many cycles the receiving handler of b takes for it."""
    with Laboratory(rate=50e6, delay=0.005, fault=fault, trace=True, protocol=protocol, peer=protocol) as lab:
        stream = lab.open(forth=forth)
        lab.until(lambda: stream.forth >= forth, 60)
        for turn in range(1, 51):  # requests and responses, as small as a segment and less
            stream.a.write(64)
            lab.until(lambda turn=turn: stream.forth >= forth + 64 * turn, 60)  # type: ignore[misc]
            stream.b.write(1448)
            lab.until(lambda turn=turn: stream.back >= 1448 * turn, 60)  # type: ignore[misc]
        stream.close()
        lab.run(1)
        said = [re.sub(r"^ *[0-9.]+ | ts=\S+", "", line) for line in lab.trace_lines()]  # cycles are time here
        return said, int(lab.b.resident.counters["hooks"]["rx"]["cycles"])


@pytest.mark.parametrize(("forth", "fault"), STREAMS)
def test_segments_are_the_same_without_prediction_and_cost_more(unpredicting: Path, forth: int, fault: str) -> None:
    predicted, cheap = exchange("tcp", forth, fault)
    general, dear = exchange(unpredicting, forth, fault)
    assert predicted == general
    assert cheap < dear, "without prediction it takes longer, or nothing was predicted"
