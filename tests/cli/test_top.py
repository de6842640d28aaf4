"""`chamelio top`: text, JSON and a terminal, from the counters of a fake engine that the test writes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chamelio.cli import top
from chamelio.engine import abi, delays
from chamelio.engine.catalogue import drops
from chamelio.engine.metrics import DERIVED, PERCENTILES, Values, put_instance
from chamelio.messages import close_all
from host.rig import Host
from metrics_rig import write_counters

Run = Callable[..., Any]
BACKLOG_FULL = [d.name for d in drops()].index("backlog_full")


@pytest.fixture
def run(cham: Run, host: Host) -> Run:
    return lambda *words: cham("--run", str(host.run), *words)


@pytest.fixture
def counters(host: Host) -> Iterator[Any]:
    """The counters of tenant a (index 0, weight 3, protocol udp) and b (weight 1, nothing)."""
    for tenant in host.call("tenant.list"):
        host.call("tenant.rm", tenant=tenant["name"])
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], weight=3)
    host.call("tenant.add", name="b", addresses=["10.0.0.3"])
    host.load("a", "udp")
    with host.connect() as agent:
        close_all(agent.call("attach", tenant="a", protocol="udp")[1])
        yield write_counters(host.run)[0]
    write_counters(host.run).view(np.uint8)[:] = 0


def work(counters: Any) -> None:
    """What an engine would have counted: half of the time is tenant a's, 4 packets a turn, delays of 1 and 100 us."""
    counters["cycles_elapsed"] += 1_000_000
    counters["cycles_idle"] += 400_000
    counters["rx_packets"] += 1000
    a, instance = counters["tenants"][0], counters["instances"][0]
    a["cycles"] += 500_000
    instance["rx_packets"] += 1000
    instance["tx_packets"] += 1000
    instance["drops"][BACKLOG_FULL] += 50
    rx = instance["hooks"][0]
    for name, n in (("runs", 1000), ("cycles", 300_000), ("errors", 10), ("turns", 250)):
        rx[name] += n
    instance["delays"]["buckets"][delays.bucket(1000)] += 980
    instance["delays"]["buckets"][delays.bucket(100_000)] += 20


def snapshot(counters: Any, second: float) -> dict[str, Any]:
    """What the daemon would say of them."""
    values: Values = {
        "engine_up": 1,
        "engine_elapsed_cycles": int(counters["cycles_elapsed"]),
        "engine_idle_cycles": int(counters["cycles_idle"]),
        "tenant_cycles": {"a": int(counters["tenants"][0]["cycles"])},
        "tenant_guaranteed_ratio": {"a": 0.75},
    }
    put_instance(values, ("a", "udp"), counters["instances"][0])
    return {"time_ns": int(second * 1e9), "metrics": values}


def test_a_view_is_what_happened_between_two_snapshots() -> None:
    counters = abi.alloc("cham_counters")[0]
    history = []
    for second in range(71):
        history.append(snapshot(counters, second))
        for _ in range(1 + second % 2):
            work(counters)
    views = top.views_of(history, (1, 10, 60))
    assert [v["seconds"] for v in views] == [1, 10, 60]
    for view, amount in zip(views, (2, 1.5, 1.5), strict=True):
        a = view["tenants"]["a"]
        udp = a["protocols"]["udp"]
        assert (a["core_share"], a["budget_used"], a["cycles_per_packet"]) == (0.5, pytest.approx(2 / 3), 250)
        assert view["engine"]["idle"] == 0.4
        assert udp["rx_packets_per_second"] == 1000 * amount and udp["dropped_packets_per_second"] == {"backlog_full": 50 * amount}
        assert udp["hooks"]["rx"] == {
            "runs_per_second": 1000 * amount, "errors_per_second": 10 * amount, "cycles_per_run": 300, "batch_size": 4,
        }  # fmt: skip
        waited = udp["queueing_delay_seconds"]
        assert 1e-6 < waited["p50"] <= 1.125e-6 and 1e-4 < waited["p99"] <= 1.125e-4
    names = {*views[0]["engine"], *a, *udp, *udp["hooks"]["rx"]} - {"protocols", "hooks"}
    assert names == set(DERIVED) and set(waited) == set(PERCENTILES)


def test_windows_without_history_are_left_out_and_counters_that_shrank_began_anew() -> None:
    counters = abi.alloc("cham_counters")[0]
    work(counters)
    work(counters)
    before = snapshot(counters, 1)
    counters.fill(0)
    work(counters)
    views = top.views_of([before, snapshot(counters, 2)], (1, 10, 60))
    assert len(views) == 1
    a = views[0]["tenants"]["a"]
    assert a["core_share"] == 0.5 and a["protocols"]["udp"]["rx_packets_per_second"] == 1000
    assert a["protocols"]["udp"]["queueing_delay_seconds"]["p50"] < 2e-6


def beside(counters: Any, done: Callable[[], Any]) -> Any:
    """Run a command while the counters go up."""
    ended = threading.Event()

    def engine() -> None:
        while not ended.wait(0.01):
            work(counters)

    thread = threading.Thread(target=engine)
    thread.start()
    try:
        return done()
    finally:
        ended.set()
        thread.join()


def test_plain_text(run: Run, counters: Any) -> None:
    done = beside(counters, lambda: run("top", "--interval", "0.2", "--window", "0.2"))
    assert done.exit == 0
    first, columns, *rows = done.out.splitlines()
    assert re.match(r"0\.\d+ s  idle 40\.0 %", first) and columns.split() == [c.upper() for c in top.TENANTS]
    assert re.match(r"a +50\.0 % +66\.7 % +250 +udp .* us +1\d\d\.\d\d us +1\d\d\.\d\d us +backlog_full=", rows[0]), rows[0]
    assert re.match(r"b +0\.0 % +0\.0 % +- ", rows[1]) and rows[2].split() == [c.upper() for c in top.HOOKS]
    assert re.match(r"a +udp +rx .* 300 +4\.0", rows[3])
    assert "\x1b" not in done.out


def test_json_is_one_document_per_look(run: Run, counters: Any) -> None:
    words = ("top", "a", "--interval", "0.1", "--window", "0.1", "--window", "0.3", "--count", "3", "-o", "json")
    done = beside(counters, lambda: run(*words))
    looks = [json.loads(line) for line in done.out.splitlines()]
    assert [len(look["windows"]) for look in looks] == [1, 2, 2]
    for look in looks:
        assert set(look["metrics"]["tenant_cycles"]) == {"a"}
        assert look["windows"][-1]["tenants"]["a"]["core_share"] == pytest.approx(0.5, abs=0.1)


def test_a_tenant_sees_its_own_share(run: Run, host: Host, counters: Any) -> None:
    token = str(host.run / "tenants" / "a" / "token")
    words = ("top", "--token-file", token, "--interval", "0.2", "-o", "json")
    view = beside(counters, lambda: run(*words)).json["windows"][0]
    assert set(view["tenants"]) == {"a"} and "engine" not in view
    assert view["tenants"]["a"]["budget_used"] == pytest.approx(2 / 3, abs=0.1)


def test_on_a_terminal(host: Host, counters: Any) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "chamelio", "top", "--run", str(host.run), "--interval", "0.1", "--count", "2"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    shown: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 4096):
                shown.append(data)
        except OSError:
            pass  # the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=Path("/"))
    os.close(theirs)
    assert beside(counters, lambda: process.wait(20)) == 0
    reader.join()
    os.close(ours)
    text = b"".join(shown).decode()
    assert "\x1b[" in text and "CYCLES/PACKET" in text and "backlog_full=" in text and "Traceback" not in text


def test_without_a_daemon(cham: Run, no_daemon: None) -> None:
    assert cham("top").exit == 4
    assert cham("top", "-o", "json").json["error"]["code"] == "no_daemon"
