"""AF_XDP on an interface that the kernel goes on using: tenants' addresses come here, everything else goes there.

The kernel's own end of a veth pair must compute transport checksums (`ethtool -K PEER tx off`): XDP sees packets before
the kernel would complete them.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from chamelio.engine import abi
from chamelio.engine.ports.interface import Interface, Namespace
from chamelio.engine.ports.port import Port, PortError
from chamelio.engine.ports.spec import PortSpec
from chamelio.engine.ports.xdp_program import XdpProgram
from chamelio.engine.ports.xsk import XskSocket

MTU_MAX = 1778  # XDP_MTU_MAX
BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
QUIET_S = 0.5  # how long the core may take to see that the link is down, generously


class AfXdpPort(Port):
    """A socket on one queue, and the XDP program that feeds it."""

    kind = "afxdp"
    ops_symbol = "cham_xdp_ops"

    def __init__(self, spec: PortSpec) -> None:
        name, colon, number = spec.target.partition(":")
        if colon and not (number.isdecimal() and int(number) < 64):
            raise PortError(f"port 'afxdp:{spec.target}': the queue must be a number below 64, as in 'afxdp:{name}:0'")
        self.queue = int(number or 0)
        self.mode = str(spec.options.get("mode", "auto"))
        self._claimed: set[ipaddress.IPv4Address] = set()
        self._socket: XskSocket | None = None
        self._program: XdpProgram | None = None
        self._interface: Interface | None = None
        self._namespace = Namespace(spec.options.get("netns"))
        self._reopened = 0
        self._attempts = 0
        self._next_attempt = 0.0
        try:
            self._interface = self._namespace.call(Interface, name)
            if not self._interface.exists():
                raise PortError(f"port 'afxdp:{spec.target}': there is no interface '{name}'; `ip link` shows those that there are")
            mtu = int(spec.options.get("mtu", min(self._interface.mtu, MTU_MAX)))
            if mtu > min(self._interface.mtu, MTU_MAX):
                raise PortError(
                    f"port 'afxdp:{spec.target}': mtu={mtu} is more than the interface's {self._interface.mtu} or "
                    f"AF_XDP's {MTU_MAX}"
                )
            state = abi.alloc("cham_xdp")
            super().__init__(
                f"afxdp:{spec.target}",
                mac=self._interface.mac,
                mtu=mtu,
                network=int(spec.options.get("network", 0)),
                state=state,
            )
            self._namespace.call(self._attach)
        except BaseException:
            self._release_all()
            raise

    def _attach(self) -> None:
        """Socket first: whoever gets the queue is the only one alive on it, so what else hangs there was left behind."""
        assert self._interface is not None and self.state is not None
        index = self._interface.index
        self._socket = XskSocket(self._interface.name, index, self.queue)
        self.fd = self._socket.fd
        self._program = XdpProgram(self._interface.name, index, self.mode)
        self._program.listen(self.queue, self._socket.fd)
        for address in self._claimed:
            self._program.claim(address)
        self._index = index
        self._socket.install(self.state)
        self.state["link"] = int(self._interface.up)

    def claim_address(self, address: str) -> None:
        """Packets for this address, and ARP for it, come here from now on."""
        parsed = _ipv4(address)
        if self._program:
            self._program.claim(parsed)
        self._claimed.add(parsed)

    def release_address(self, address: str) -> None:
        """Packets for this address go to the kernel again."""
        parsed = _ipv4(address)
        if self._program:
            self._program.release(parsed)
        self._claimed.discard(parsed)

    def refresh(self) -> str:
        """Follow the interface: down, too small an MTU, gone; one that comes back is opened again, with back-off."""
        assert self._interface is not None and self.state is not None
        reason = self._trouble(self._interface)
        if reason == "gone":
            self.state["link"] = 0
            return self._come_back(self._interface)
        self.state["link"] = int(reason == "up")
        return reason

    def _trouble(self, interface: Interface) -> str:
        try:
            if interface.index != self._index or self._socket is None:
                return "gone"
            if interface.mtu < self.mtu:
                return f"down: the interface's MTU is {interface.mtu}, the port's is {self.mtu}"
            if self.state is not None and self.state["damaged"][0]:
                return "down: a ring is damaged; open the port again"
            return "up" if interface.up else "down: the interface is down"
        except OSError:
            return "gone"

    def _come_back(self, interface: Interface) -> str:
        now = time.monotonic()
        if not self._attempts:
            self._attempts, self._next_attempt = 1, now + QUIET_S
        if now < self._next_attempt or not interface.exists():
            return "down: the interface has gone"
        self._next_attempt = now + BACKOFF_S[min(self._attempts - 1, len(BACKOFF_S) - 1)]
        self._attempts += 1
        self._detach()
        try:
            self._namespace.call(self._attach)
        except (PortError, OSError) as error:
            self._detach()
            return f"down: {error}"
        self._attempts = 0
        self._reopened += 1
        return self._trouble(interface)

    def details(self) -> dict[str, Any]:
        """Interface, attachment, claimed addresses and counters."""
        assert self._interface is not None and self.state is not None
        state = self.state[0]
        return {
            "interface": self._interface.name,
            "queue": self.queue,
            "mode": self._program.mode if self._program else None,
            "link": bool(state["link"]),
            "damaged": bool(state["damaged"]),
            "addresses": sorted(map(str, self._claimed)),
            "kicks": int(state["kicks"]),
            "kick_errors": int(state["kick_errors"]),
            "reopened": self._reopened,
            "kernel": self._socket.statistics() if self._socket else {},
        }

    def _detach(self) -> None:
        for part in (self._program, self._socket):
            if part is not None:
                part.close()
        self._program = self._socket = None

    def _release_all(self) -> None:
        self._detach()
        if self._interface:
            self._interface.close()
        self._namespace.close()

    def release(self) -> None:
        """Detach the program, close the socket, unmap the rings."""
        if self.state is not None:
            self.state["link"] = 0
        self._release_all()


def _ipv4(text: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise PortError(f"'{text}' is not an IPv4 address") from None
