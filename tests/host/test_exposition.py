"""The OpenMetrics endpoint: what it says is what is counted, under the names of one table, and no reader delays anybody."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chamelio.engine import abi, delays
from chamelio.engine.metrics import DERIVED, FAMILIES, of_scope
from chamelio.files import listen
from chamelio.host import exposition
from chamelio.host.exposition import EXCHANGE_SECONDS, READERS, REQUEST_BYTES, render
from chamelio.messages import close_all
from host.rig import Host, descriptors, wait_until
from metrics_rig import as_exposed, connect, fill, get, snapshot_of, write_counters

DOCS = Path(__file__).parent.parent.parent / "docs" / "observability.md"


@pytest.fixture
def counted(host: Host) -> Iterator[Any]:
    """Two tenants, one with two protocols, and a number in every counter."""
    for name, address in (("a", "10.0.0.2"), ("b", "10.0.0.3")):
        host.call("tenant.add", name=name, addresses=[address], weight=3 if name == "a" else 1)
    with host.connect() as agent:
        for tenant, protocol, number in (("a", "udp", 17), ("a", "rpc", 18), ("b", "udp", 17)):
            host.load(tenant, protocol, ip_protocol=number)
            close_all(agent.call("attach", tenant=tenant, protocol=protocol)[1])
        counters = write_counters(host.run)
        fill(counters, 1)
        yield counters
        counters.view(np.uint8)[:] = 0


def test_every_counter_has_a_name_and_every_name_a_counter() -> None:
    structures = {
        "engine": "cham_counters",
        "tenant": "cham_tenant_counters",
        "protocol": "cham_instance_counters",
        "hook": "cham_hook_counters",
        "port": "cham_port_counters",
    }
    for scope, name in structures.items():
        fields = set(abi.dtype(name).names or ()) - {"tenants", "instances", "hooks"}
        assert {f.field for f in of_scope(scope)} == fields, f"engine/metrics.py and struct {name} differ"
    assert len({f.name for f in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.text and (not family.unit or family.name.endswith("_" + family.unit)), "OpenMetrics: the unit ends the name"


def test_the_endpoint_says_what_the_api_says(host: Host, counted: Any) -> None:
    head, body = get(connect(host.run))
    assert head.startswith("HTTP/1.1 200 OK\r\n") and "application/openmetrics-text; version=1.0.0" in head
    asked = host.call("metrics")["metrics"]
    assert snapshot_of(body) == as_exposed(asked)
    assert {f.name for f in FAMILIES if f.scope != "port"} <= set(asked), "ports of a fake engine count nothing"


def test_what_is_said_is_what_is_counted(host: Host, counted: Any) -> None:
    said = host.call("metrics")["metrics"]
    one, counters = host.call("stats")["tenants"]["a"], counted[0]
    assert said["engine_rounds"] == counters["rounds"]
    assert said["tenant_cycles"]["a"] == one["cycles"] and said["tenant_dropped_packets"]["a"] == one["drops"]
    assert said["protocol_rx_packets"]["a"]["udp"] == one["protocols"]["udp"]["rx_packets"]
    assert said["protocol_handler_errors"]["a"]["udp"] == one["protocols"]["udp"]["reasons"]
    assert said["hook_cycles"]["a"]["udp"]["ring"] == one["protocols"]["udp"]["hooks"]["ring"]["cycles"]
    assert said["tenant_guaranteed_ratio"] == {"a": 0.75, "b": 0.25}
    assert len(said["protocol_queueing_delay_seconds"]["a"]["rpc"]["buckets"]) == delays.BUCKETS


def test_a_tenant_sees_its_own_and_the_time(host: Host, counted: Any) -> None:
    token = (host.run / "tenants" / "b" / "token").read_text().strip()
    said = host.call("metrics", token=token)["metrics"]
    assert {name for name in said if name.startswith(("engine", "port"))} == {"engine_elapsed_cycles"}
    assert all(set(values) == {"b"} for name, values in said.items() if name != "engine_elapsed_cycles")


def test_help_texts_and_labels_are_escaped() -> None:
    text = render({"port_rx_packets": {'a"b\\c\nd': 1}})
    assert snapshot_of(text)["port_rx_packets"] == {'a"b\\c\nd': 1.0}


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 200), ("/metrics?x=1", "GET", 200), ("/metrics", "HEAD", 200), ("/x", "GET", 404)]
)
def test_requests(host: Host, path: str, method: str, status: int) -> None:
    head, body = get(connect(host.run), path, method)
    assert head.startswith(f"HTTP/1.1 {status} ") and (body == "") == (method == "HEAD")


def test_no_other_methods_and_no_long_requests(host: Host) -> None:
    assert get(connect(host.run), method="POST")[0].startswith("HTTP/1.1 405 ")
    with connect(host.run) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nX: " + bytes(2 * REQUEST_BYTES))
        assert sock.recv(1) == b""


def test_the_sockets_are_the_providers(host: Host) -> None:
    assert (host.run / "metrics.sock").stat().st_mode & 0o777 == 0o600


def slowest(host: Host, calls: int) -> float:
    """Seconds of the slowest of so many requests to the daemon."""
    worst = 0.0
    for _ in range(calls):
        begin = time.monotonic()
        host.call("status")
        worst = max(worst, time.monotonic() - begin)
    return worst


@pytest.mark.fault(28)
def test_readers_that_stall_delay_nobody_and_cost_a_bounded_amount(host: Host, counted: Any) -> None:
    """Some say nothing, some half of a request, some take no reply; more of them than are served at once."""
    get(connect(host.run))
    assert host.process is not None
    before = descriptors(host.process.pid)
    stalled = [connect(host.run) for _ in range(3 * READERS)]
    try:
        for i, sock in enumerate(stalled):
            sock.setblocking(False)
            try:
                if i % 3:
                    sock.send(b"GET /metrics HTTP/1.1\r\n" + b"\r\n" * (i % 3 - 1))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the oldest are hung up on
        begin = time.monotonic()
        for _ in range(3):
            assert get(connect(host.run))[1].endswith("# EOF\n")
        assert time.monotonic() - begin < EXCHANGE_SECONDS / 2, "nobody waited for those who stall"
        assert slowest(host, 50) < 1
        assert descriptors(host.process.pid) <= before + READERS + 1
    finally:
        for sock in stalled:
            sock.close()


@pytest.mark.fault(28)
def test_a_reader_that_takes_no_reply_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply is longer than what the kernel keeps for a reader; meanwhile others have theirs, from one text."""
    monkeypatch.setattr(exposition, "EXCHANGE_SECONDS", 0.3)
    long = {"port_rx_packets": {f"p{i}": i for i in range(50_000)}}
    made = 0

    async def snapshot() -> Any:
        nonlocal made
        made += 1
        return long

    async def scenario() -> None:
        served = exposition.Exposition(snapshot)
        await served.start(listen(tmp_path / "metrics.sock", 0o600, 16))
        stalled = [connect(tmp_path) for _ in range(4)]
        for sock in stalled:
            sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        begin = time.monotonic()
        bodies = await asyncio.gather(*(asyncio.to_thread(lambda: get(connect(tmp_path))[1]) for _ in range(4)))
        assert all(body.endswith("# EOF\n") and len(body) > 1 << 20 for body in bodies)
        assert made <= 1 + (time.monotonic() - begin) / exposition.FRESH_SECONDS
        while served.readers:
            await asyncio.sleep(0.01)
        assert time.monotonic() - begin < 5
        for sock in stalled:
            with sock:
                assert len(await asyncio.to_thread(read_all, sock)) < len(bodies[0])
        await served.stop()

    asyncio.run(scenario())


def read_all(sock: socket.socket) -> bytes:
    """What a reader that was hung up on still finds."""
    parts = []
    try:
        while data := sock.recv(1 << 16):
            parts.append(data)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_the_counters_file_can_be_read_as_the_page_says(host: Host, counted: Any) -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    size = (host.run / "counters").stat().st_size // 8
    found: dict[str, Any] = {"run": host.run, "n_cores": next(n for n in (1, 2) if size % n == 0)}
    exec(code[1], found)
    assert [found[name] for name in ("rounds", "idle_rounds", "elapsed", "idle")] == [
        counted[0][name] for name in ("rounds", "idle_rounds", "cycles_elapsed", "cycles_idle")
    ]


def test_names_and_expressions_are_documented() -> None:
    page = DOCS.read_text()
    for family in FAMILIES:
        assert f"| `{family.full}` |" in page and family.text in page, family.full
    for derived in DERIVED.values():
        assert f"| `{derived.name}` |" in page and derived.expression in page, derived.name


def test_without_an_engine_that_is_what_it_says(make_host: Any) -> None:
    host = make_host()
    pid = host.call("status")["engine"]["pid"]
    assert "chamelio_engine_up 1\n" in get(connect(host.run))[1]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: "chamelio_engine_up 0\n# EOF\n" in get(connect(host.run))[1])
    assert wait_until(lambda: "chamelio_engine_up 1\n" in get(connect(host.run))[1])
