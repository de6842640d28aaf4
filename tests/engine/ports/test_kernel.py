"""AF_XDP and TAP with Linux at the other end, in network namespaces of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from rig import Plug, Rig, library, numbered
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from chamelio.bench.netns import NetNs, Veth
from chamelio.engine.ports import AfXdpPort, Port, PortError, TapPort, kernel_bpf, open_port, xdp_program

pytestmark = pytest.mark.root

TENANT = "10.77.0.10"
PEER = "10.77.0.1"


@dataclass
class Link:
    """A port and the Linux host at the other end of it, which knows the tenant's address."""

    port: Port
    plug: Plug
    peer: NetNs
    peer_mac: bytes

    def udp(self, payload: bytes, to_port: int = 5000) -> bytes:
        """A frame from the tenant to the peer."""
        packet = Ether(dst=self.peer_mac, src=self.port.mac) / IP(src=TENANT, dst=PEER, id=0)
        return bytes(packet / UDP(sport=7, dport=to_port) / payload)


@pytest.fixture(params=["afxdp drv", "afxdp skb", "tap"])
def link(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Link]:
    if request.param == "tap":
        peer: NetNs = request.getfixturevalue("ns")
        port = open_port(f"tap:tap0,netns={peer.name}")
        assert isinstance(port, TapPort)
        peer.address("tap0", PEER)
        interface = "tap0"
        assert port._interface is not None
        peer_mac = port._interface.mac
    else:
        veth: Veth = request.getfixturevalue("veth")
        port = open_port(f"afxdp:veth0,netns={veth.host.name},mode={request.param[-3:]}")
        peer, peer_mac, interface = veth.peer, veth.peer_mac, veth.interface
    port.claim_address(TENANT)
    peer.neighbour(interface, TENANT, port.mac.hex(":"))
    with port:
        yield Link(port, rig.plug(port), peer, peer_mac)
    assert rig.n_free == rig.total


def until(condition: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Look until it is so; the kernel needs its time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def collect(plug: Plug, count: int, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """Receive until `count` wanted frames are there."""
    frames: list[bytes] = []
    until(lambda: frames.extend(f for f in plug.rx() if wanted(f)) or len(frames) >= count)  # type: ignore[func-returns-value]
    return frames


def is_udp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 17


def test_what_linux_sends_arrives_byte_for_byte_with_right_checksums(link: Link) -> None:
    payloads = [os.urandom(size) for size in (1, 17, 64, 511, 1000, 1400, 1472)]
    with link.peer.socket() as sock:
        sock.bind((PEER, 5000))
        for payload in payloads:
            sock.sendto(payload, (TENANT, 7))
        frames = collect(link.plug, len(payloads), is_udp)
    assert len(frames) == len(payloads)
    for payload, frame in zip(payloads, frames, strict=True):
        packet = Ether(frame)
        assert packet.dst == link.port.mac.hex(":")
        assert (packet[IP].src, packet[IP].dst, packet[UDP].sport, packet[UDP].dport) == (PEER, TENANT, 5000, 7)
        assert bytes(packet[UDP].payload)[: len(payload)] == payload
        rebuilt = packet.copy()
        del rebuilt[UDP].chksum
        assert Ether(bytes(rebuilt))[UDP].chksum == packet[UDP].chksum


def test_what_the_port_sends_reaches_a_linux_socket(link: Link) -> None:
    payloads = [os.urandom(size) for size in range(1, 1400, 7)]
    with link.peer.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        sock.bind((PEER, 5000))
        for start in range(0, len(payloads), 40):
            link.plug.tx([link.udp(payload) for payload in payloads[start : start + 40]])
            link.plug.flush()
        received = [sock.recvfrom(2048) for _ in payloads]
    assert [data for data, _ in received] == payloads
    assert {address for _, address in received} == {(TENANT, 7)}
    assert link.plug.counter("tx_packets") == len(payloads)
    assert link.plug.counter("tx_full") == link.plug.counter("tx_down") == 0


@pytest.mark.fault(20)
def test_many_echoes_lose_nothing_and_conserve_chunks_and_frames(link: Link, rig: Rig) -> None:
    total, window = 2000, 32
    with link.peer.socket() as sock:
        sock.bind((PEER, 5000))
        sent = received = 0
        while received < total:
            while sent < total and sent - received < window:
                sock.sendto(sent.to_bytes(4, "big") * 16, (TENANT, 7))
                sent += 1
            echoes = [link.udp(frame[42:]) for frame in link.plug.rx() if is_udp(frame)]
            if echoes:
                link.plug.tx(echoes)
                link.plug.flush()
            for _ in echoes:
                assert sock.recv(2048) == received.to_bytes(4, "big") * 16
                received += 1
    assert rig.n_free == rig.total
    if isinstance(link.port, AfXdpPort):
        link.plug.flush()
        assert library().cham_xdp_check(link.plug.address)


def test_arp_for_a_tenant_arrives(link: Link) -> None:
    with link.peer.socket() as sock:
        link.port.claim_address("10.77.0.77")
        sock.sendto(b"x", ("10.77.0.77", 7))
        (frame,) = collect(link.plug, 1, lambda f: f[12:14] == b"\x08\x06" and Ether(f)[ARP].pdst == "10.77.0.77")
    assert Ether(frame)[ARP].psrc == PEER


@pytest.mark.fault(20)
def test_going_down_and_up_is_followed_and_counted(link: Link, rig: Rig) -> None:
    interface, where = ("tap0", link.peer) if isinstance(link.port, TapPort) else ("veth0", None)
    where = where or _host_of(link)
    where.down(interface)
    assert link.port.refresh() == "down: the interface is down"
    link.plug.rx()
    assert link.plug.down
    link.plug.tx(numbered(5))
    link.plug.flush()
    assert link.plug.counter("tx_down") == 5
    where.up(interface)
    assert link.port.refresh() == "up"
    link.plug.rx()
    assert not link.plug.down
    assert rig.n_free == rig.total


def test_a_change_unnoticed_by_the_control_plane_does_no_harm(link: Link, rig: Rig) -> None:
    where = link.peer if isinstance(link.port, TapPort) else _host_of(link)
    interface = "tap0" if isinstance(link.port, TapPort) else "veth0"
    where.down(interface)
    for i in range(3):
        link.plug.tx(numbered(5), now=i)
        link.plug.flush(i)
        link.plug.rx(i)
    assert link.plug.counter("tx_down") > 0
    where.up(interface)
    link.port.refresh()
    until(lambda: (link.plug.rx(10**12), link.plug.flush(10**12), not link.plug.down)[-1])
    assert not link.plug.down
    assert rig.n_free == rig.total


@pytest.mark.fault(20)
def test_too_small_an_mtu_takes_the_port_down(link: Link) -> None:
    assert isinstance(link.port, AfXdpPort | TapPort)
    assert link.port._interface is not None
    link.port._interface.mtu = 1200
    assert link.port.refresh() == "down: the interface's MTU is 1200, the port's is 1500"
    link.port._interface.mtu = 1500
    assert link.port.refresh() == "up"


@pytest.mark.fault(20)
def test_an_interface_that_vanishes_is_survived(link: Link, rig: Rig) -> None:
    where = link.peer if isinstance(link.port, TapPort) else _host_of(link)
    where.delete("tap0" if isinstance(link.port, TapPort) else "veth0")
    for i in range(3):
        link.plug.rx(i)
        link.plug.tx(numbered(5), now=i)
        link.plug.flush(i)
    assert link.port.refresh().startswith("down: the interface has gone")
    link.plug.rx()
    assert link.plug.down
    link.port.describe()
    assert rig.n_free == rig.total


def _host_of(link: Link) -> NetNs:
    """The namespace that the port's interface is in, as an object that can bring it up and down."""
    assert isinstance(link.port, AfXdpPort)
    found = NetNs.__new__(NetNs)
    found._handle = link.port._namespace
    return found


# ---- AF_XDP alone -----------------------------------------------------------------------------------------------------


@pytest.fixture
def xdp(veth: Veth) -> Iterator[AfXdpPort]:
    with open_port(f"afxdp:veth0,netns={veth.host.name}") as port:
        assert isinstance(port, AfXdpPort)
        yield port


def test_what_is_not_for_tenants_still_reaches_the_kernel(veth: Veth, xdp: AfXdpPort, rig: Rig) -> None:
    xdp.claim_address(TENANT)
    plug = rig.plug(xdp)
    with veth.host.socket() as server, veth.peer.socket() as client:
        server.bind((veth.host_address, 9))
        client.sendto(b"to the kernel", (veth.host_address, 9))
        assert server.recv(100) == b"to the kernel"
    with veth.host.socket(socket.SOCK_STREAM) as listener, veth.peer.socket(socket.SOCK_STREAM) as client:
        listener.bind((veth.host_address, 80))
        listener.listen()
        client.connect((veth.host_address, 80))
        accepted, _ = listener.accept()
        client.sendall(b"x" * 100_000)
        client.close()
        with accepted:
            accepted.settimeout(5)
            assert sum(len(part) for part in iter(lambda: accepted.recv(65536), b"")) == 100_000
    assert plug.rx() == []


def test_a_released_address_belongs_to_the_kernel_again(veth: Veth, xdp: AfXdpPort, rig: Rig) -> None:
    plug = rig.plug(xdp)
    with veth.host.socket() as server, veth.peer.socket() as client:
        server.bind((veth.host_address, 9))
        xdp.claim_address(veth.host_address)
        veth.peer.neighbour("veth0", veth.host_address, xdp.mac.hex(":"))
        client.sendto(b"one", (veth.host_address, 9))
        assert len(collect(plug, 1, is_udp)) == 1
        xdp.release_address(veth.host_address)
        xdp.release_address(veth.host_address)
        client.sendto(b"two", (veth.host_address, 9))
        assert server.recv(100) == b"two"
    assert plug.rx() == []


def test_the_program_is_gone_after_closing(veth: Veth) -> None:
    port = open_port(f"afxdp:veth0,netns={veth.host.name}")
    assert isinstance(port, AfXdpPort)
    number, name = veth.host.call(xdp_program.attached, port._index) or (0, "")
    assert number
    assert name == "chamelio_xdp"
    port.close()
    assert veth.host.call(xdp_program.attached, port._index) is None


@pytest.mark.fault(19)
def test_the_program_is_gone_after_a_kill_and_the_next_start_works(veth: Veth) -> None:
    script = (
        "import sys; from chamelio.engine.ports import open_port\n"
        f"p = open_port('afxdp:veth0,netns={veth.host.name}'); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "ready"
        with pytest.raises(PortError, match=r"another process receives from this queue"):
            open_port(f"afxdp:veth0,netns={veth.host.name}")
        other.send_signal(signal.SIGKILL)
        other.wait()
    open_port(f"afxdp:veth0,netns={veth.host.name}").close()


def _load_and_attach(name: str) -> int:
    """Attach a program without a link, as engines on old kernels do; it stays when its descriptor is closed."""
    maps = [kernel_bpf.Map.create(kind, 4, 4, 8, "m") for kind in (kernel_bpf.MAP_TYPE_HASH, kernel_bpf.MAP_TYPE_XSKMAP)]
    program = kernel_bpf.load_xdp(xdp_program.instructions(maps[0].fd, maps[1].fd), name)
    with IPRoute() as ipr:
        index = int(ipr.link_lookup(ifname="veth0")[0])
        ipr.link("set", index=index, xdp_fd=program)
    os.close(program)
    for one in maps:
        one.close()
    return index


@pytest.mark.fault(19)
def test_a_program_that_a_dead_engine_left_behind_is_removed(veth: Veth) -> None:
    index = veth.host.call(_load_and_attach, xdp_program.PROGRAM_NAME)
    assert veth.host.call(xdp_program.attached, index)
    with open_port(f"afxdp:veth0,netns={veth.host.name}") as port:
        assert port.refresh() == "up"
    assert veth.host.call(xdp_program.attached, index) is None


def test_somebody_elses_program_is_left_alone(veth: Veth) -> None:
    index = veth.host.call(_load_and_attach, "theirs")
    with pytest.raises(PortError, match=r"already has the XDP program 'theirs' \(number \d+\): stop its owner"):
        open_port(f"afxdp:veth0,netns={veth.host.name}")
    assert (veth.host.call(xdp_program.attached, index) or (0, ""))[1] == "theirs"


@pytest.mark.fault(20)
def test_an_interface_that_comes_back_is_used_again(veth: Veth, xdp: AfXdpPort, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chamelio.engine.ports.afxdp.QUIET_S", 0.0)
    monkeypatch.setattr("chamelio.engine.ports.afxdp.BACKOFF_S", (0.0,))
    plug = rig.plug(xdp)
    xdp.claim_address(TENANT)
    veth.host.delete("veth0")
    assert xdp.refresh().startswith("down: the interface has gone")
    veth.join()
    assert until(lambda: xdp.refresh() == "up")
    assert xdp.describe()["reopened"] == 1
    veth.peer.neighbour("veth0", TENANT, xdp.mac.hex(":"))
    with veth.peer.socket() as sock:
        sock.sendto(b"again", (TENANT, 7))
        assert len(collect(plug, 1, is_udp)) == 1
    assert library().cham_xdp_check(plug.address)


def test_nothing_stays_open_after_a_refusal(veth: Veth) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    refusals = {
        "afxdp:nope": "there is no interface 'nope'",
        "afxdp:veth0:1": "has no such queue|has 1 receive queue",
        "afxdp:veth0:x": "queue must be a number",
        "afxdp:veth0,mtu=1900": "more than",
        "afxdp:a-name-that-is-far-too-long": "cannot be an interface",
        "tap:veth0": "is no TAP interface",
    }
    for spec, message in refusals.items():
        with pytest.raises(PortError, match=message):
            open_port(f"{spec},netns={veth.host.name}")
    with pytest.raises(PortError, match="ip netns list"):
        open_port("tap:tap0,netns=no-such-namespace")
    assert sorted(Path("/proc/self/fd").iterdir()) == before
