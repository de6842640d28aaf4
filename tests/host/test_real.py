"""The real engine and the real compiler behind the daemon: packets flow whatever happens to the control plane."""

from __future__ import annotations

import os
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chamelio import toolchain
from chamelio.engine.ports import WireMemory, WirePeer
from chamelio.host.link import ENGINE_COMMAND
from chamelio.jit.pool import COMPILER_COMMAND
from chamelio.messages import Refusal, close_all, memfd
from host.rig import Host, wait_until

SOURCE = Path(__file__).parent / "echo.bpf.c"
PEER_MAC, PEER, TENANT = b"\x02\0\0\0\0\x99", "10.0.0.99", "10.0.0.2"


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Peer:
    """A station at the other end of the wire: answers ARP, sends datagrams, counts what comes back."""

    def __init__(self, path: Path) -> None:
        self._memory = WireMemory(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        self._wire = WirePeer(self._memory, "b")
        self._mac = bytes(6)

    def close(self) -> None:
        del self._wire
        self._memory.close()

    def resolve(self, address: str) -> None:
        """Learn the host's MAC address by ARP, for a tenant that echoes."""
        ends = socket.inet_aton(PEER), socket.inet_aton(address)
        self._wire.send(b"\xff" * 6 + PEER_MAC + bytes.fromhex("0806000108000604 0001") + PEER_MAC + ends[0] + bytes(6) + ends[1])
        frames: list[bytes] = []
        assert wait_until(lambda: frames.extend(self._wire.receive()) or frames)
        self._mac = frames[0][22:28]
        assert self.echo(1, address) == 1  # and let the host learn ours: few packets may wait for that

    def echo(self, count: int, address: str = TENANT, *, patience: float = 2.0) -> int:
        """Send datagrams, all different; how many came back as they were sent, the other way round."""
        waiting = set()
        for i in range(count):
            udp = struct.pack(">HHHHI", 1000, 7, 12, 0, i)
            header = struct.pack(
                ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), i & 0xFFFF, 0, 64, 17, 0, *map(socket.inet_aton, (PEER, address))
            )
            header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
            assert self._wire.send(self._mac + PEER_MAC + b"\x08\0" + header + udp)
            waiting.add(struct.pack(">HHHHI", 7, 1000, 12, 0, i))
        end = time.monotonic() + patience
        while waiting and time.monotonic() < end:
            for frame in self._wire.receive():
                if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1":  # who has: we have
                    answer = PEER_MAC + frame[38:42] + frame[22:32]
                    self._wire.send(frame[6:12] + PEER_MAC + frame[12:20] + b"\0\2" + answer)
                else:
                    waiting.discard(frame[34:46])
        return count - len(waiting)


class Real(Host):
    """A host with the real processes and one wire."""

    def __init__(self, run: Path, **limits: Any) -> None:
        self.wire = run.parent / "wire"
        super().__init__(
            run,
            engine_command=ENGINE_COMMAND,
            compiler_command=COMPILER_COMMAND,
            ports=[["w0", f"wire:{self.wire}:a"]],
            routes=[{"prefix": "10.0.0.0/24", "port": "w0"}],
            limits={"grace_seconds": 0.3, **limits},
        )

    def load_echo(self, tenant: str, version: int = 1, mode: str = "joint") -> Any:
        fd = memfd("object", toolchain.bpf_object(SOURCE, defines=[f"VERSION={version}"]))
        try:
            with self.connect() as channel:
                arguments = {"tenant": tenant, "name": "echo", "ip_protocol": 17, "options": {"mode": mode}}
                return channel.call("protocol.load", [fd], **arguments)[0]
        finally:
            os.close(fd)


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        host = Real(Path(directory) / "run")
        host.start()
        host.call("tenant.add", name="a", addresses=[TENANT])
        host.load_echo("a")
        yield host
        host.stop()


@pytest.fixture
def peer(real: Real) -> Iterator[Peer]:
    peer = Peer(real.wire)
    peer.resolve(TENANT)
    yield peer
    peer.close()


def test_a_loaded_protocol_answers_and_is_counted(real: Real, peer: Peer) -> None:
    assert peer.echo(200) == 200
    one = real.call("stats")["tenants"]["a"]["protocols"]["echo"]
    assert (one["rx_packets"], one["tx_packets"], one["drops"]) == (201, 201, {})
    assert one["hooks"]["rx"]["runs"] == 201


@pytest.mark.fault(17)
def test_swaps_and_modes_while_packets_flow_lose_nothing(real: Real, peer: Peer) -> None:
    for version in (2, 3, 1):
        assert real.load_echo("a", version)["action"] == "swapped"
        assert peer.echo(100) == 100
    assert real.load_echo("a", mode="separate")["action"] == "swapped"
    assert peer.echo(100) == 100
    assert real.load_echo("a")["cached"]


def test_a_second_tenant_of_a_known_protocol_compiles_nothing_and_is_fast(real: Real, peer: Peer) -> None:
    real.call("tenant.add", name="b", addresses=["10.0.0.3"])
    started = time.monotonic()
    loaded = real.load_echo("b")
    assert loaded["cached"] and loaded["unit_shared"]
    assert time.monotonic() - started < 0.05
    peer.resolve("10.0.0.3")
    assert peer.echo(10, "10.0.0.3") == 10
    real.call("tenant.rm", tenant="b")


def test_sixty_four_tenants_of_one_protocol_share_one_unit(real: Real, peer: Peer) -> None:
    names = {f"t{i}": f"10.0.0.{10 + i}" for i in range(64)}
    for name, address in names.items():
        real.call("tenant.add", name=name, addresses=[address])
        loaded = real.load_echo(name)
        assert loaded["cached"] and loaded["unit_shared"]
    about = real.engine()["engine"]
    assert len(about["instances"]) == 65 and len(about["units"]) == 1
    memories = {real.call("protocol.show", tenant=name, protocol="echo")["memory_bytes"] for name in names}
    assert memories == {real.call("tenant.show", tenant="t0")["quotas"]["memory"]["used"]}
    for name in ("t0", "t31", "t63"):
        peer.resolve(names[name])
        assert peer.echo(20, names[name]) == 20
    for name in names:
        real.call("tenant.rm", tenant=name)


@pytest.mark.fault(17)
def test_an_earlier_version_comes_back_while_packets_flow(real: Real, peer: Peer) -> None:
    real.load_echo("a", 5)
    assert peer.echo(50) == 50
    for _ in range(3):
        back = real.call("protocol.rollback", tenant="a", protocol="echo", version=1)
        assert (back["action"], back["version"]) == ("rolled back", 1)
        assert peer.echo(50) == 50
        assert real.load_echo("a", 5)["action"] == "swapped"
    shown = real.call("protocol.show", tenant="a", protocol="echo")
    assert all(v["cold_cycles"]["rx"] >= v["warm_cycles"]["rx"] > 0 for v in shown["versions"] if v["state"] != "refused")
    assert real.call("protocol.rollback", tenant="a", protocol="echo", version=1)["version"] == 1


def test_compiling_is_charged_to_who_asked(real: Real) -> None:
    before = real.call("tenant.show", tenant="a")["quotas"]["compiler"]["used"]
    fd = memfd("object", toolchain.bpf_object(SOURCE, defines=[f"VERSION={os.getpid()}{time.monotonic_ns() % 1000}"]))
    with real.connect() as channel:
        channel.call("protocol.load", [fd], tenant="a", name="echo", ip_protocol=17)
    os.close(fd)
    used = real.call("tenant.show", tenant="a")["quotas"]["compiler"]["used"] - before
    assert 0.01 < used < 10
    real.load_echo("a")
    assert real.call("tenant.show", tenant="a")["quotas"]["compiler"]["used"] == before + used


def test_an_agent_sees_its_shared_values(real: Real, peer: Peer) -> None:
    import mmap

    with real.connect() as agent:
        about, fds = agent.call("attach", tenant="a", protocol="echo")
        (flows,) = about["layout"]["maps"]
        region = mmap.mmap(fds[0], os.fstat(fds[0]).st_size)
        before, _ = np.frombuffer(region, np.uint64, 2, about["origin"] + flows["shared"]).tolist()
        assert peer.echo(5) == 5
        after, _ = np.frombuffer(region, np.uint64, 2, about["origin"] + flows["shared"]).tolist()
        assert after - before == 5
        close_all(fds)
    assert wait_until(lambda: real.call("protocol.list")[0]["state"] == "dormant")
    assert peer.echo(3, patience=0.1) == 0
    real.load_echo("a")
    assert peer.echo(3) == 3


def test_a_handler_over_its_hooks_budget_is_refused_with_where_most_of_it_goes() -> None:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        host = Real(Path(directory) / "run", budgets={"rx": 50})
        host.start()
        try:
            host.call("tenant.add", name="a", addresses=[TENANT])
            with pytest.raises(Refusal) as refusal:
                host.load_echo("a")
        finally:
            host.stop()
    (verdict,) = refusal.value.details["verdicts"]
    assert (refusal.value.code, verdict["code"], verdict["verdict"]) == ("rejected", "V161", "budget")
    assert verdict["line"] > 0 and " % at echo.bpf.c:" in verdict["reason"] and "budget of this hook is 50" in verdict["reason"]


@pytest.mark.fault(13)
def test_a_rejected_version_has_code_and_line_and_the_old_one_runs_on(real: Real, peer: Peer, tmp_path: Path) -> None:
    bad = tmp_path / "bad.bpf.c"
    bad.write_text(SOURCE.read_text().replace("p + 28", "p + 14"))
    fd = memfd("object", toolchain.bpf_object(bad))
    with real.connect() as channel, pytest.raises(Refusal) as refusal:
        channel.call("protocol.load", [fd], tenant="a", name="echo", ip_protocol=17)
    os.close(fd)
    (verdict,) = refusal.value.details["verdicts"]
    assert (refusal.value.code, verdict["code"]) == ("rejected", "V102") and verdict["line"] > 0
    assert "bad.bpf.c" in verdict["rendered"]
    assert peer.echo(3) == 3


@pytest.mark.fault(18)
def test_packets_flow_while_there_is_no_daemon_and_under_its_successor(real: Real, peer: Peer) -> None:
    real.kill()
    assert peer.echo(100) == 100
    real.start()
    assert peer.echo(100) == 100
    assert real.load_echo("a", 2)["action"] == "swapped"
    assert peer.echo(100) == 100


@pytest.mark.fault(19)
def test_a_new_engine_forwards_after_the_old_one_was_killed(real: Real) -> None:
    os.kill(real.call("status")["engine"]["pid"], signal.SIGKILL)
    assert wait_until(lambda: real.call("status")["engine"]["restarts"] > 0, 20.0), real.log()
    assert real.call("status")["troubles"] == {}
    peer = Peer(real.wire)
    peer.resolve(TENANT)
    assert peer.echo(100) == 100
    peer.close()
