"""Network namespaces: made by name, joined by veth pairs, always removed; the machine's own are never touched."""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

from chamelio.engine.ports.interface import Interface, Namespace

T = TypeVar("T")
_numbers = itertools.count()


class NetNs:
    """A namespace of our own, with loopback up and without IPv6 (whose chatter would disturb counts)."""

    def __init__(self, label: str) -> None:
        self.name = f"cham-{os.getpid()}-{next(_numbers)}-{label}"
        netns.create(self.name)
        self._handle = Namespace(self.name)
        self.call(Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text, "1")
        self.up("lo")

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function inside, in a thread. Sockets and child processes that it makes stay inside."""
        return self._handle.call(function, *args)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside and wait for it; raises when it fails."""
        return self.call(lambda: subprocess.run(command, check=True, capture_output=True, text=True))

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a command inside."""
        return self.call(lambda: subprocess.Popen(command, **options))

    def socket(self, kind: int = socket.SOCK_DGRAM, timeout: float = 5.0) -> socket.socket:
        """An IPv4 socket inside."""
        made = self.call(socket.socket, socket.AF_INET, kind)
        made.settimeout(timeout)
        return made

    def route(self, act: Callable[[IPRoute, int], Any], interface: str) -> None:
        """`act(iproute, interface number)` inside."""

        def inside() -> None:
            with IPRoute() as ipr:
                act(ipr, ipr.link_lookup(ifname=interface)[0])

        self.call(inside)

    def up(self, interface: str) -> None:
        """Bring an interface up."""
        self.route(lambda ipr, index: ipr.link("set", index=index, state="up"), interface)

    def down(self, interface: str) -> None:
        """Bring an interface down."""
        self.route(lambda ipr, index: ipr.link("set", index=index, state="down"), interface)

    def mtu(self, interface: str, size: int) -> None:
        """How long packets of an interface may be, in bytes."""
        self.route(lambda ipr, index: ipr.link("set", index=index, mtu=size), interface)

    def address(self, interface: str, address: str, prefix: int = 24) -> None:
        """Give an interface an address."""
        self.route(lambda ipr, index: ipr.addr("add", index=index, address=address, prefixlen=prefix), interface)

    def add_route(self, prefix: str, gateway: str) -> None:
        """A route by way of a gateway."""

        def add() -> None:
            with IPRoute() as ipr:
                ipr.route("add", dst=prefix, gateway=gateway)

        self.call(add)

    def sysctl(self, name: str, value: object = None) -> str:
        """What a setting is, as `net/ipv4/tcp_sack`; a value is set afterwards."""
        path = Path("/proc/sys") / name
        before = self.call(path.read_text).strip()
        if value is not None:
            self.call(path.write_text, str(value))
        return before

    def forward(self) -> None:
        """Be a router from now on."""
        self.sysctl("net/ipv4/ip_forward", 1)

    def neighbour(self, interface: str, address: str, mac: str) -> None:
        """A permanent entry in the neighbour table."""
        self.route(lambda ipr, index: ipr.neigh("replace", dst=address, lladdr=mac, ifindex=index, state=0x80), interface)

    def delete(self, interface: str) -> None:
        """Remove an interface."""
        self.route(lambda ipr, index: ipr.link("del", index=index), interface)

    def remove(self) -> None:
        """Remove the namespace and all in it."""
        self._handle.close()
        netns.remove(self.name)


@dataclass
class Veth:
    """Two namespaces joined by a pair: `peer` is an ordinary Linux host, `host` is where an engine's port lives.

    The interface is called `veth0` in both. Transmit checksum offload is off in both.
    """

    peer: NetNs
    host: NetNs
    peer_address: str = "10.77.0.1"
    host_address: str = "10.77.0.2"
    interface: str = "veth0"

    @property
    def peer_mac(self) -> bytes:
        """Of the peer's end."""
        return _interface(self.peer, self.interface, lambda i: i.mac)

    @property
    def host_mac(self) -> bytes:
        """Of the host's end."""
        return _interface(self.host, self.interface, lambda i: i.mac)

    def join(self) -> None:
        """Make the pair, addresses included; also again, after it was deleted."""

        def make() -> None:
            with IPRoute() as ipr:
                other = {"ifname": self.interface, "net_ns_fd": self.peer.name}
                ipr.link("add", ifname=self.interface, kind="veth", peer=other)

        self.host.call(make)
        for end, address in ((self.peer, self.peer_address), (self.host, self.host_address)):
            _interface(end, self.interface, lambda i: i.set_transmit_checksums(False))
            end.up(self.interface)
            end.address(self.interface, address)


def _interface(where: NetNs, name: str, ask: Callable[[Interface], T]) -> T:
    interface = where.call(Interface, name)
    try:
        return ask(interface)
    finally:
        interface.close()


ICMP_ECHO, ICMP_ECHO_REPLY = 8, 0


def ping(where: NetNs, address: str, count: int = 1, size: int = 56, timeout: float = 3.0) -> list[float]:
    """Send echo requests one after the other, as `ping` does; round trips in microseconds. TimeoutError without an answer."""
    trips = []
    with where.call(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.connect((address, 0))
        number = os.urandom(2)
        for sequence in range(count):
            head = number + struct.pack(">H", sequence)
            body = head + os.urandom(size)
            start = time.perf_counter()
            sock.send(struct.pack(">BBH", ICMP_ECHO, 0, checksum(bytes((ICMP_ECHO, 0, 0, 0)) + body)) + body)
            while True:
                left = start + timeout - time.perf_counter()
                if left <= 0 or not select.select([sock], [], [], left)[0]:
                    raise TimeoutError(f"{address} does not answer ping number {sequence}")
                packet = sock.recv(65536)
                icmp = packet[(packet[0] & 15) * 4 :]
                if icmp[:2] == bytes((ICMP_ECHO_REPLY, 0)) and icmp[4:] == body and checksum(icmp) == 0:
                    break
            trips.append((time.perf_counter() - start) * 1e6)
    return trips


def checksum(data: bytes) -> int:
    """RFC 1071; 0 over data that contain their right checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
