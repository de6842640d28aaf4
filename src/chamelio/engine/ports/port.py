"""A port as the control plane holds it: the C state that the fast path works on, and what has to be done to set it up.

The engine fills a `struct cham_port` from these attributes, inner ports first. A port's state stays at its address until
`close`, which is called only when no core runs the port any more.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

IP_MTU_MIN = 68  # RFC 791
IP_MTU_MAX = 1920  # CHAM_IP_MAX: the longest IP packet that a frame takes


class PortError(ValueError):
    """A port that cannot be had: the message names the port, the reason and what to do."""


class Port:
    """Common attributes; each kind of port is a subclass.

    `name` is how messages and metrics call it, `kind` and `ops_symbol` ("cham_wire_ops") say which C implements it, `state`
    is its structure as a NumPy array of one element, `fd` becomes readable when there is something to receive (None: the
    port can only be polled); with `fd_is_bell` it is a pipe that whoever wakes up has to empty. Wrappers have an `inner`
    port, whose `network`, `mtu`, `mac` and `csum_offload` they share.
    """

    kind = "port"
    ops_symbol = ""
    fd_is_bell = False

    def __init__(
        self,
        name: str,
        *,
        mac: bytes,
        mtu: int,
        network: int,
        state: np.ndarray[Any, np.dtype[Any]] | None = None,
        inner: Port | None = None,
        csum_offload: bool = False,
        fd: int | None = None,
    ) -> None:
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.network = network
        self.state = state
        self.inner = inner
        self.csum_offload = csum_offload
        self.fd = fd
        self.closed = False

    @property
    def state_address(self) -> int:
        """Address of the C state, 0 if the port has none."""
        return 0 if self.state is None else int(self.state.ctypes.data)

    @property
    def chain(self) -> list[Port]:
        """This port and what it wraps, outermost first."""
        return [self, *(self.inner.chain if self.inner else [])]

    def refresh(self) -> str:
        """Look at the outside world and tell the C side: "up", or why the port is down. Called about once a second."""
        return self.inner.refresh() if self.inner else "up"

    @property
    def wakes(self) -> bool:
        """Whether a core that sleeps is woken for everything that comes by this port. May change at `refresh`."""
        return self.inner.wakes if self.inner else self.fd is not None

    def claim_address(self, address: str) -> None:
        """From now on packets for this IPv4 address come to the port, where it shares an interface with the kernel."""
        if self.inner:
            self.inner.claim_address(address)

    def release_address(self, address: str) -> None:
        """Undo `claim_address`; an address that is not claimed is ignored."""
        if self.inner:
            self.inner.release_address(address)

    def describe(self) -> dict[str, Any]:
        """What there is to know about the port, as plain values."""
        about: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "network": self.network,
            "mtu": self.mtu,
            "mac": format_mac(self.mac),
            **self.details(),
        }
        if self.inner:
            about["inner"] = self.inner.describe()
        return about

    def details(self) -> dict[str, Any]:
        """What a kind of port adds to `describe`."""
        return {}

    def close(self) -> None:
        """Give everything back, inner ports too. Closing twice is harmless."""
        if not self.closed:
            self.closed = True
            self.release()
        if self.inner:
            self.inner.close()

    def release(self) -> None:
        """What a kind of port has to give back; called once."""

    def __enter__(self) -> Port:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Wrapper(Port):
    """A port around another one, whose name, network, MTU and MAC address it shows."""

    def __init__(self, inner: Port, state: np.ndarray[Any, np.dtype[Any]]) -> None:
        super().__init__(
            f"{self.kind}:{inner.name}",
            mac=inner.mac,
            mtu=inner.mtu,
            network=inner.network,
            state=state,
            inner=inner,
            csum_offload=inner.csum_offload,
            fd=inner.fd,
        )
        self.fd_is_bell = inner.fd_is_bell


def format_mac(mac: bytes) -> str:
    """`02:00:00:00:00:01`"""
    return mac.hex(":")
