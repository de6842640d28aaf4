"""A network interface of the kernel, asked and set by ioctl, in whatever network namespace it is."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from chamelio.engine.ports.port import PortError

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
SIOCGIFMTU = 0x8921
SIOCSIFMTU = 0x8922
SIOCGIFHWADDR = 0x8927
SIOCGIFINDEX = 0x8933
SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
IFF_UP = 0x1
IFF_RUNNING = 0x40
IFNAMSIZ = 16
CLONE_NEWNET = 0x40000000
GONE = (errno.ENODEV, errno.ENXIO)

T = TypeVar("T")
libc = ctypes.CDLL(None, use_errno=True)


class Interface:
    """An interface by name. The socket that it keeps stays in the namespace in which it was made."""

    def __init__(self, name: str) -> None:
        encoded = name.encode()
        if not 0 < len(encoded) < IFNAMSIZ or b"/" in encoded or b" " in encoded:
            raise PortError(f"'{name}' cannot be an interface: names have 1 to {IFNAMSIZ - 1} bytes, no blank and no slash")
        self.name = name
        self._encoded = encoded
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def _ioctl(self, request: int, payload: bytes = b"") -> bytes:
        """The union of struct ifreq after the call. Raises OSError."""
        answer = fcntl.ioctl(self._socket, request, struct.pack("16s24s", self._encoded, payload))
        return bytes(answer[IFNAMSIZ:])

    def exists(self) -> bool:
        """Whether there is an interface of this name now."""
        try:
            self._ioctl(SIOCGIFINDEX)
        except OSError as error:
            if error.errno in GONE:
                return False
            raise
        return True

    @property
    def index(self) -> int:
        """The kernel's number of it."""
        return int.from_bytes(self._ioctl(SIOCGIFINDEX)[:4], "little")

    @property
    def mac(self) -> bytes:
        """Six bytes."""
        return self._ioctl(SIOCGIFHWADDR)[2:8]

    @property
    def mtu(self) -> int:
        """Longest IP packet, in bytes."""
        return int.from_bytes(self._ioctl(SIOCGIFMTU)[:4], "little")

    @mtu.setter
    def mtu(self, value: int) -> None:
        self._ioctl(SIOCSIFMTU, struct.pack("i", value))

    @property
    def up(self) -> bool:
        """Administratively up; False also when it does not exist any more."""
        try:
            return bool(self._flags() & IFF_UP)
        except OSError as error:
            if error.errno in GONE:
                return False
            raise

    def _flags(self) -> int:
        return int.from_bytes(self._ioctl(SIOCGIFFLAGS)[:2], "little")

    def set_up(self) -> None:
        """Bring it up."""
        self._ioctl(SIOCSIFFLAGS, struct.pack("H", self._flags() | IFF_UP))

    def set_transmit_checksums(self, on: bool) -> None:
        """`ethtool -K NAME tx on|off`. Off on the kernel's end of a veth pair, or packets arrive with partial checksums."""
        value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_STXCSUM, int(on)))
        self._ioctl(SIOCETHTOOL, struct.pack("Q", ctypes.addressof(value)))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Namespace:
    """A network namespace, held open: the one of the calling thread, or one by name or path."""

    def __init__(self, name: str | None = None) -> None:
        path = Path("/proc/thread-self/ns/net") if name is None else Path("/run/netns") / name  # an absolute name wins
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PortError(
                f"network namespace '{name}' ({path}): {error.strerror}; `ip netns list` shows those that there are"
            ) from None

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in this namespace, in a thread of its own, and return what it returns or raise what it raises."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                if libc.setns(self._fd, CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise PortError(f"cannot enter the network namespace: {os.strerror(code)}; this needs CAP_SYS_ADMIN")
                outcome.append(function(*args))
            except BaseException as error:
                failure.append(error)

        if os.fstat(self._fd).st_ino == Path("/proc/thread-self/ns/net").stat().st_ino:
            return function(*args)
        thread = threading.Thread(target=run, name="netns")
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self._fd)
