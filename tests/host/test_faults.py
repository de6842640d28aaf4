"""Processes that are killed: agents, the daemon, the engine, the compiler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chamelio.messages import Refusal, close_all
from host.rig import GRACE_S, Host, alive, descriptors, wait_until

AGENT = """
import sys
from pathlib import Path
from chamelio.messages import connect
channel = connect(Path(sys.argv[1]))
about, fds = channel.call("attach", tenant="a", protocol="udp")
for context in about["contexts"]:
    channel.call("context.close", instance=about["instance"], context=context)
channel.call("context.open", instance=about["instance"])
print("attached", flush=True)
channel.receive()
"""


def agent(host: Host) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(host.run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "attached\n"
    return process


def state(host: Host) -> Any:
    return host.call("protocol.show", tenant="a", protocol="udp")["state"]


@pytest.fixture(scope="module")
def survivor() -> Iterator[Host]:
    """One daemon for all tests that do not end it: whatever they kill, it goes on."""
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        Path(directory).chmod(0o711)
        host = Host(Path(directory) / "run", ports=[["w0", "wire:w0:a"]], routes=[{"prefix": "10.0.0.0/24", "port": "w0"}])
        host.start()
        yield host
        host.stop()


@pytest.fixture
def loaded(survivor: Host) -> Iterator[Host]:
    """A host whose tenant `a` has the protocol `udp`."""
    survivor.call("tenant.add", name="a", addresses=["10.0.0.2"], weight=3)
    survivor.load("a")
    yield survivor
    for tenant in survivor.call("tenant.list"):
        survivor.call("tenant.rm", tenant=tenant["name"])


def kill_agent(host: Host) -> None:
    """An agent comes, is killed, is noticed within 100 ms and reclaimed after the grace time."""
    process = agent(host)
    process.kill()
    killed = time.monotonic()
    process.communicate()
    assert wait_until(lambda: state(host) == "grace")
    assert time.monotonic() - killed < 0.1
    assert wait_until(lambda: state(host) == "dormant", GRACE_S * 10)
    assert host.engine()["engine"]["instances"] == []


@pytest.mark.fault(9)
def test_a_killed_agent_is_noticed_at_once_and_leaks_nothing(loaded: Host) -> None:
    kill_agent(loaded)
    status = loaded.call("status")
    pids = status["engine"]["pid"], status["pid"]
    clean = [descriptors(pid) for pid in pids]
    for _ in range(3):
        kill_agent(loaded)
    assert wait_until(lambda: all(descriptors(pid) <= n for pid, n in zip(pids, clean, strict=True)), 1.0)


@pytest.mark.fault(9)
def test_an_agent_killed_again_and_again_resumes_and_leaks_nothing(loaded: Host) -> None:
    status = loaded.call("status")
    pids = status["engine"]["pid"], status["pid"]
    first: list[int] = []
    for _ in range(16):
        process = agent(loaded)
        process.kill()
        process.communicate()
        assert wait_until(lambda: state(loaded) == "grace", 0.1)
        first = first or [descriptors(pid) for pid in pids]
    assert [i["index"] for i in loaded.engine()["engine"]["instances"]] == [0]
    assert wait_until(lambda: all(descriptors(pid) <= n for pid, n in zip(pids, first, strict=True)), 1.0)


@pytest.mark.fault(10)
def test_a_stopped_agent_keeps_its_instance(loaded: Host) -> None:
    process = agent(loaded)
    process.send_signal(signal.SIGSTOP)
    time.sleep(GRACE_S * 2)
    assert state(loaded) == "attached"
    process.kill()
    process.communicate()


@pytest.mark.fault(18)
def test_the_engine_outlives_the_daemon_and_a_new_daemon_knows_everything(make_host: Any) -> None:
    host: Host = make_host(
        ports=[["w0", "wire:w0:a"]], routes=[{"prefix": "10.0.0.0/24", "port": "w0"}], limits={"grace_seconds": 1.0}
    )
    host.call("tenant.add", name="a", addresses=["10.0.0.2"], weight=3, uid=12345)
    host.call("tenant.add", name="b", addresses=["10.0.0.3"])
    host.load("a")
    host.load("b")
    with host.connect() as attached:
        about, fds = attached.call("attach", tenant="a", protocol="udp")
        inode = os.fstat(fds[0]).st_ino
        close_all(fds)
        token = (host.run / "tenants" / "a" / "token").read_text().strip()
        shown = host.call("tenant.list")
        engine, compiler = host.engine(), host.call("status")["compiler"]["pid"]
        host.kill()
        assert attached.receive() is None  # the agent learns it at once
    assert host.engine() == engine
    assert wait_until(lambda: not alive(compiler))

    host.start()
    status = host.call("status")
    assert (status["engine"]["pid"], status["engine"]["restarts"]) == (engine["pid"], 0)
    assert host.engine()["engine"] == engine["engine"]
    again = host.call("tenant.list")
    for tenant in (*shown, *again):
        for protocol in tenant["protocols"]:
            del protocol["state"], protocol["agent"]
    assert again == shown
    assert (state(host), host.call("protocol.show", tenant="b", protocol="udp")["state"]) == ("grace", "loaded")
    with host.connect() as attached:
        about, fds = attached.call("attach", tenant="a", protocol="udp", resume=True, token=token)
        assert about["resumed"] and os.fstat(fds[0]).st_ino == inode
        close_all(fds)
        assert host.engine()["engine"]["attached"].count([about["instance"], 0]) == 1  # its rings were left alone
    assert host.load("b", version=2)["action"] == "swapped"


@pytest.mark.fault(18)
def test_a_new_daemon_undoes_what_its_predecessor_left_half_done(loaded: Host) -> None:
    loaded.kill()
    before = loaded.engine()
    with loaded.engine_channel() as engine:
        engine.call(
            "instance.add",
            tenant=0,
            unit=0,
            address="10.0.0.2",
            ip_protocol=99,
            network=0,
            ports=[0, 65535],
            steer="flow",
            label={"tenant": "a", "protocol": "never-saved"},
        )
    loaded.start()
    assert loaded.engine()["engine"]["instances"] == before["engine"]["instances"]


@pytest.mark.fault(19)
def test_a_dead_engine_is_an_error_for_clients_and_is_replaced_with_all_that_was_in_it(loaded: Host) -> None:
    loaded.call("tenant.add", name="b", addresses=["10.0.0.3"])
    old, restarts = loaded.engine(), loaded.call("status")["engine"]["restarts"]
    with loaded.connect() as attached:
        _, fds = attached.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        killed = time.monotonic()
        os.kill(old["pid"], signal.SIGKILL)
        assert attached.receive() is None
        assert time.monotonic() - killed < 1.0
    assert wait_until(lambda: loaded.call("status")["engine"]["restarts"] > restarts, 10.0)
    new = loaded.engine()
    assert new["pid"] != old["pid"]
    for part in ("routes", "tenants", "instances"):
        assert new["engine"][part] == old["engine"][part], part
    assert [p["label"] for p in new["engine"]["ports"]] == ["w0"]
    assert loaded.call("status")["troubles"] == {}
    with loaded.connect() as attached:
        _, fds = attached.call("attach", tenant="a", protocol="udp")
        close_all(fds)


@pytest.mark.fault(19)
def test_verbs_answer_within_a_second_while_there_is_no_engine(loaded: Host) -> None:
    pid = loaded.engine()["pid"]
    os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    codes = set()
    while time.monotonic() - started < 0.4:
        try:
            loaded.call("tenant.weight", tenant="a", weight=2)
        except Refusal as error:
            codes.add(error.code)
    assert codes and codes <= {"engine_down", "engine", "gone"}
    assert wait_until(lambda: loaded.call("status")["engine"]["up"], 10.0)


def test_a_killed_compiler_is_replaced_by_the_next_load(loaded: Host) -> None:
    os.kill(loaded.call("status")["compiler"]["pid"], signal.SIGKILL)
    assert wait_until(lambda: loaded.call("status")["compiler"]["pid"] is None)
    assert loaded.load("a", version=2)["action"] == "swapped"


def test_a_second_daemon_is_refused(loaded: Host, make_host: Any) -> None:
    second: Host = make_host(start=False)
    second.config["run"] = str(loaded.run)
    with pytest.raises(AssertionError, match=r"runs in .* already"):
        second.start()
    assert loaded.call("ping")["engine"]


def test_nothing_is_left_after_the_end_even_of_an_engine_that_was_stopped(make_host: Any) -> None:
    host: Host = make_host()
    pids = [host.engine()["pid"], host.call("status")["compiler"]["pid"]]
    os.kill(pids[0], signal.SIGSTOP)
    host.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
    time.sleep(0.05)
    os.kill(pids[0], signal.SIGCONT)
    host.stop()
    assert not any(map(alive, pids))
    left = {p.name for p in host.run.iterdir()}
    assert not left & {"api.sock", "engine.sock", "counters"}


def test_an_engine_that_cannot_start_says_why(make_host: Any) -> None:
    host: Host = make_host(start=False, engine_command=[sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(AssertionError, match="no such luck"):
        host.start()


def test_a_port_that_cannot_be_opened_ends_the_start_and_leaves_no_engine(make_host: Any, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("taken")
    host: Host = make_host(start=False, ports=[["w0", f"wire:{tmp_path}/w:a"]])
    with pytest.raises(AssertionError, match="is no wire"):
        host.start()
    assert wait_until(lambda: not (host.run / "engine.sock").exists())


@pytest.mark.fault(27)
def test_operations_at_once_end_as_some_order_of_them_would(host: Host) -> None:
    outcomes: list[str] = []

    def add(i: int) -> None:
        try:
            host.call("tenant.add", name=f"t{i % 4}", addresses=[f"10.0.1.{i % 3}"])
            outcomes.append(f"t{i % 4}")
        except Refusal as error:
            assert error.code in ("exists", "engine")

    threads = [threading.Thread(target=add, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tenants = host.call("tenant.list")
    assert sorted(t["name"] for t in tenants) == sorted(outcomes)
    addresses = [a for t in tenants for a in t["addresses"]]
    assert len(addresses) == len(set(addresses)) == 3
    engine = host.engine()
    assert sorted(a for t in engine["engine"]["tenants"] for a, _ in t["addresses"]) == sorted(addresses)


def test_removing_a_tenant_cuts_its_agents_off(loaded: Host) -> None:
    with loaded.connect() as attached:
        _, fds = attached.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        loaded.call("tenant.rm", tenant="a")
        assert attached.receive() is None


def test_an_agent_may_remove_its_own_protocol(loaded: Host) -> None:
    with loaded.connect() as attached:
        _, fds = attached.call("attach", tenant="a", protocol="udp")
        close_all(fds)
        assert attached.call("protocol.rm", tenant="a", protocol="udp")[0]["removed"] == "udp"
        assert attached.call("ping")[0]["engine"]


@pytest.mark.fault(26)
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_another_user_is_the_tenant_of_its_uid_and_nothing_else(loaded: Host) -> None:
    loaded.call("tenant.add", name="b", addresses=["10.0.0.3"], uid=64321)
    assert (loaded.run / "tenants" / "b").stat().st_uid == 64321
    loaded.load("b")
    script = """
import socket, sys
from pathlib import Path
from chamelio.messages import Refusal, connect
channel = connect(Path(sys.argv[1]))
print(channel.call("ping")[0]["tenants"], channel.call("ping")[0]["provider"])
print([t["name"] for t in channel.call("tenant.list")[0]])
for verb, arguments in (("tenant.show", {"tenant": "a"}), ("status", {}), ("attach", {"tenant": "a", "protocol": "udp"})):
    try:
        channel.call(verb, **arguments)
    except Refusal as error:
        print(error.code)
print(channel.call("attach", tenant="b", protocol="udp")[0]["tenant"])
"""

    code = f"import os; import chamelio.messages; os.setgroups([]); os.setgid(64321); os.setuid(64321)\n{script}"
    done = subprocess.run([sys.executable, "-c", code, str(loaded.run)], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:6] == ["['b'] False", "['b']", "denied", "denied", "denied", "b"], done.stderr


def test_a_port_that_does_not_come_back_is_shown_and_tried_with_the_next_engine(make_host: Any) -> None:
    host: Host = make_host(start=False)
    wire = host.run.parent / "wire"
    host.config["ports"] = [["w0", f"wire:{wire}:a"]]
    host.start()

    def kill_engine() -> None:
        before = host.call("status")["engine"]["restarts"]
        os.kill(host.engine()["pid"], signal.SIGKILL)
        assert wait_until(lambda: host.call("status")["engine"]["restarts"] > before, 10.0)

    wire.unlink()
    wire.write_text("something else")
    kill_engine()
    status = host.call("status")
    assert status["ports"] == [] and "is no wire" in status["troubles"]["port w0"]
    wire.unlink()
    kill_engine()
    status = host.call("status")
    assert (status["ports"], status["troubles"]) == (["w0"], {})
