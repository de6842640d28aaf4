"""The timing wheel: nothing early, late or lost, though the core sleeps as long as the wheel allows; and who pays for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chamelio import toolchain
from virtual import Net, Tenant

HERE = Path(__file__).parent
A = "10.0.0.1"
MS = 1_000_000
STEPS = 200_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("wheel") / "wheel"
    program.write_bytes(toolchain.executable([HERE / "wheel.c"]))
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_core_that_sleeps_until_the_wheel_is_due_misses_nothing(wheel: Path, seed: int) -> None:
    done = subprocess.run([wheel, str(seed), str(STEPS)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > STEPS // 10, "it slept often enough"


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as net:
        yield net


def test_a_time_that_never_comes_keeps_nobody_awake(net: Net) -> None:
    tenant = Tenant(net.host, A, handlers="toolbox")
    orders = tenant.ring("orders", 0)
    for id_, when in enumerate([(1 << 64) - 1, (1 << 64) - 8192, 1 << 63]):
        orders.put(ord("s"), id_, when)
    before = int(net.host.counters()["rounds"])
    net.run(100 * MS)
    assert int(net.host.counters()["rounds"]) - before < 1000
    assert [chr(r[0]) for r in tenant.ring("results", 0).take()] == ["s"] * 3


def test_timers_of_an_instance_out_of_service_keep_nobody_awake(net: Net) -> None:
    tenant = Tenant(net.host, A, handlers="toolbox")
    orders = tenant.ring("orders", 0)
    orders.put(ord("s"), 1, net.world.now + MS)
    net.run(10_000)
    orders.prod += 1000
    net.run(10_000)
    assert tenant.events()["quarantined"] == 1
    before = int(net.host.counters()["rounds"])
    net.run(100 * MS)
    assert int(net.host.counters()["rounds"]) - before < 1000


def test_ids_that_are_far_away_are_paid_for_when_they_move(net: Net) -> None:
    """All ids beyond the second level, in the same slot of it: they move at once, and none comes due."""
    tenant = Tenant(net.host, A, handlers="toolbox")
    orders = tenant.ring("orders", 0)
    when = net.world.now + 60_000 * MS
    for id_ in range(64):
        orders.put(ord("s"), id_, when)
    net.run(100 * MS)
    charged = int(net.host.counters()["tenants"][tenant.index]["cycles"])
    assert charged > 0 and len(tenant.ring("results", 0).take()) == 64
    for _ in range(1000):  # time jumps to the next deadline, which is far away
        net.world.run(for_ns=10 * MS)
    moved = int(net.host.counters()["tenants"][tenant.index]["cycles"]) - charged
    assert moved >= 64 * 40
