"""An AF_XDP socket with its UMEM and four rings, in copy mode, set up by plain system calls (<linux/if_xdp.h>)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import time
from typing import Any

import numpy as np

from chamelio.engine.ports.interface import libc
from chamelio.engine.ports.port import PortError

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, RX_RING, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING, STATISTICS = 1, 2, 3, 4, 5, 6, 7
MAX_TX_BUDGET = 9
BIND_COPY, BIND_NEED_WAKEUP = 1 << 1, 1 << 3
RINGS = 2048  # XDP_RING
CHUNK = 2048  # XDP_CHUNK
BUSY_S = 0.5  # the kernel gives the queue of a killed process back a little later
_PAGE_OFFSETS = {"rx": 0, "tx": 0x80000000, "fill": 0x100000000, "completion": 0x180000000}
_ENTRY = {"rx": 16, "tx": 16, "fill": 8, "completion": 8}
_STATISTICS = ("rx_dropped", "rx_invalid_descs", "tx_invalid_descs", "rx_ring_full", "rx_fill_ring_empty", "tx_ring_empty")


class XskSocket:
    """One socket on one queue of an interface of the calling thread's namespace.

    `install(state)` writes addresses and initial positions into a `struct cham_xdp`; the memory is unmapped by `close`.
    """

    def __init__(self, interface: str, ifindex: int, queue: int) -> None:
        self._maps: list[mmap.mmap] = []
        try:
            self._socket = socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        except OSError as error:
            raise PortError(f"interface '{interface}': no AF_XDP socket: {error.strerror}; {_permission(error)}") from None
        self.fd = self._socket.fileno()
        try:
            self.umem = self._map(2 * RINGS * CHUNK, None)
            self._socket.setsockopt(SOL_XDP, UMEM_REG, struct.pack("QQII", self.umem, 2 * RINGS * CHUNK, CHUNK, 0))
            for option in (FILL_RING, COMPLETION_RING, RX_RING, TX_RING):
                self._socket.setsockopt(SOL_XDP, option, RINGS)
            self.rings = self._map_rings()
            self._bind(ifindex, queue)
        except OSError as error:
            self.close()
            raise PortError(
                f"interface '{interface}', queue {queue}: AF_XDP is refused: {error.strerror}; {_permission(error)}"
            ) from None
        with contextlib.suppress(OSError):  # a kick may send more than the 32 frames that are usual; kernels before 6.17 cannot
            self._socket.setsockopt(SOL_XDP, MAX_TX_BUDGET, RINGS)

    def _map(self, size: int, offset: int | None) -> int:
        """Map memory of the socket, or anonymous memory; the address."""
        if offset is None:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        else:
            memory = mmap.mmap(self.fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset)
        self._maps.append(memory)
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def _map_rings(self) -> dict[str, dict[str, int]]:
        numbers = struct.unpack("16Q", self._socket.getsockopt(SOL_XDP, MMAP_OFFSETS, 128))
        rings = {}
        for i, name in enumerate(("rx", "tx", "fill", "completion")):
            producer, consumer, entries, flags = numbers[4 * i : 4 * i + 4]
            base = self._map(entries + RINGS * _ENTRY[name], _PAGE_OFFSETS[name])
            rings[name] = {
                "prod": base + producer,
                "cons": base + consumer,
                "entries": base + entries,
                "flags": base + flags,
            }
        return rings

    def _bind(self, ifindex: int, queue: int) -> None:
        address = struct.pack("HHIII", AF_XDP, BIND_COPY | BIND_NEED_WAKEUP, ifindex, queue, 0)
        patience = time.monotonic() + BUSY_S
        while libc.bind(self.fd, address, len(address)):
            code = ctypes.get_errno()
            if code != errno.EBUSY or time.monotonic() > patience:
                raise OSError(code, os.strerror(code))
            time.sleep(0.02)

    def install(self, state: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Fill a `struct cham_xdp`: all receive chunks with the kernel, all transmit chunks free."""
        one = state[0]
        one["umem"] = self.umem
        one["fd"] = self.fd
        for name, addresses in self.rings.items():
            for field, address in addresses.items():
                one[name][field] = address
            one[name]["ours"] = 0
        chunks = (ctypes.c_uint64 * RINGS).from_address(self.rings["fill"]["entries"])
        chunks[:] = [number * CHUNK for number in range(RINGS)]
        ctypes.c_uint32.from_address(self.rings["fill"]["prod"]).value = RINGS
        one["fill"]["ours"] = RINGS
        one["free"] = np.arange(RINGS, 2 * RINGS)
        one["n_free"] = RINGS
        one["busy"] = 0
        for field in ("damaged", "failed", "unsent"):
            one[field] = 0

    def statistics(self) -> dict[str, int]:
        """The kernel's own counters of the socket."""
        try:
            raw = self._socket.getsockopt(SOL_XDP, STATISTICS, 48)
        except OSError:  # the interface has gone
            return {}
        return dict(zip(_STATISTICS, struct.unpack(f"{len(raw) // 8}Q", raw), strict=False))

    def close(self) -> None:
        """Close the socket and unmap everything."""
        self._socket.close()
        for memory in self._maps:
            memory.close()
        self._maps.clear()


def _permission(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "AF_XDP needs root or CAP_NET_RAW"
    if error.errno == errno.EBUSY:
        return "another process receives from this queue: stop it or take another queue (INTERFACE:QUEUE)"
    if error.errno == errno.EINVAL:
        return "perhaps the interface has no such queue"
    if error.errno == errno.EAFNOSUPPORT:
        return "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS); use tap: or wire:"
    if error.errno == errno.ENOBUFS:
        return "the limit on locked memory is too low (ulimit -l)"
    return "see the kernel's log"
