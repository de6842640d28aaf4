"""A TAP interface: the kernel's end is an ordinary interface, made on opening unless it is there already."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from typing import Any

from chamelio.engine import abi
from chamelio.engine.ports.interface import Interface, Namespace
from chamelio.engine.ports.port import IP_MTU_MAX, Port, PortError
from chamelio.engine.ports.spec import PortSpec

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000


class TapPort(Port):
    """The engine's end of a TAP interface; the kernel's end is brought up."""

    kind = "tap"
    ops_symbol = "cham_tap_ops"

    def __init__(self, spec: PortSpec) -> None:
        self._tap = -1
        self._interface: Interface | None = None
        self._namespace = Namespace(spec.options.get("netns"))
        try:
            self._interface = self._namespace.call(Interface, spec.target)
            self._tap = self._namespace.call(_open, spec.target)
            mtu = int(spec.options.get("mtu", min(self._interface.mtu, IP_MTU_MAX)))
            if "mtu" in spec.options and self._interface.mtu != mtu:
                self._interface.mtu = mtu
            self._interface.set_up()
            state = abi.alloc("cham_tap")
            state["fd"] = self._tap
            state["link"] = 1
            super().__init__(
                f"tap:{spec.target}",
                mac=spec.options.get("mac", _far_end(self._interface)),
                mtu=mtu,
                network=int(spec.options.get("network", 0)),
                state=state,
                fd=self._tap,
            )
        except OSError as error:
            self._release_all()
            raise PortError(f"port 'tap:{spec.target}': {error.strerror}") from None
        except BaseException:
            self._release_all()
            raise

    def refresh(self) -> str:
        """Follow the kernel's end."""
        assert self.state is not None
        reason = self._trouble()
        self.state["link"] = int(reason == "up")
        return reason

    def _trouble(self) -> str:
        assert self._interface is not None and self.state is not None
        try:
            if self.state["failed"][0] or not self._interface.exists():
                return "down: the interface has gone; open the port again"
            if self._interface.mtu > IP_MTU_MAX:
                return f"down: the interface's MTU is {self._interface.mtu}, more than {IP_MTU_MAX}"
            if self._interface.mtu < self.mtu:
                return f"down: the interface's MTU is {self._interface.mtu}, the port's is {self.mtu}"
            return "up" if self._interface.up else "down: the interface is down"
        except OSError as error:
            return f"down: {error.strerror}"

    def details(self) -> dict[str, Any]:
        """Interface and errors."""
        assert self._interface is not None and self.state is not None
        return {
            "interface": self._interface.name,
            "link": bool(self.state["link"][0]),
            "failed": os.strerror(int(self.state["failed"][0])) if self.state["failed"][0] else None,
            "errors": int(self.state["errors"][0]),
        }

    def _release_all(self) -> None:
        if self._tap >= 0:
            os.close(self._tap)
        if self._interface:
            self._interface.close()
        self._namespace.close()

    def release(self) -> None:
        """Close the descriptor; an interface that opening made goes with it."""
        assert self.state is not None
        self.state["link"] = 0
        self._release_all()


def _open(name: str) -> int:
    """A non-blocking descriptor of the TAP interface `name` in this namespace. Raises PortError."""
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PortError(
            f"port 'tap:{name}': /dev/net/tun: {error.strerror}; TAP needs the tun module and permission on that device"
        ) from None
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        hints = {
            errno.EPERM: "TAP needs root or CAP_NET_ADMIN, or an interface made for this user (ip tuntap add)",
            errno.EBUSY: "another process has it",
            errno.EINVAL: "an interface of this name exists and is no TAP interface",
        }
        hint = hints.get(error.errno or 0, "")
        raise PortError(f"port 'tap:{name}': {error.strerror}; {hint}".rstrip("; ")) from None
    return fd


def _far_end(interface: Interface) -> bytes:
    """A locally administered MAC address that follows from the kernel's end and differs from it."""
    return b"\x02" + hashlib.sha256(b"tap" + interface.mac).digest()[:5]
