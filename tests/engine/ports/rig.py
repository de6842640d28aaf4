"""The ports' C in a shared library, driven from Python as the round would: a pool, ports, bursts in and out."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.engine import abi
from chamelio.engine.ports import Port

SOURCES = [toolchain.FASTPATH / f"port_{kind}.c" for kind in ("wire", "xdp", "tap", "fault", "pcap")]
IP_OFFSET, ETH_LEN = 64, 14
NONE = 0xFFFFFFFF

_RX = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64)
_TX = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64)
_FLUSH = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64)


class Ops(ctypes.Structure):
    """struct cham_port_ops"""

    _fields_ = (("rx", _RX), ("tx", _TX), ("flush", _FLUSH))


@functools.cache
def library() -> ctypes.CDLL:
    """All ports, compiled to trap on undefined behaviour."""
    flags = ("-fsanitize=undefined", "-fsanitize-trap=undefined")
    with tempfile.NamedTemporaryFile(suffix=".so") as f:
        f.write(toolchain.shared_library(SOURCES, flags=flags))
        f.flush()
        lib = ctypes.CDLL(f.name)
    for function in (lib.cham_xdp_check, lib.cham_fault_due, lib.cham_fault_drain):
        function.argtypes = [ctypes.c_void_p]
    lib.cham_fault_due.restype = ctypes.c_uint64
    return lib


class Rig:
    """A pool of frames and the C side of ports; keeps track that no frame is lost."""

    def __init__(self, total: int = 256) -> None:
        self.total = total
        self.frames = abi.alloc("cham_frame", total)
        self.frames["index"] = np.arange(total)
        self.frames["bytes"] = 0xEE
        self.free = np.arange(total, dtype=np.uint32)
        self.pool = abi.alloc("cham_pool")
        self.pool["frames"] = self.frames.ctypes.data
        self.pool["free"] = self.free.ctypes.data
        self.pool["n_free"] = self.pool["total"] = total
        self._keep: list[Any] = []

    @property
    def n_free(self) -> int:
        return int(self.pool["n_free"][0])

    def plug(self, port: Port) -> Plug:
        """The C side of a port and of those that it wraps."""
        inner = self.plug(port.inner) if port.inner else None
        c = abi.alloc("cham_port")
        ops = Ops.in_dll(library(), port.ops_symbol)
        c["ops"], c["pool"], c["state"] = ctypes.addressof(ops), self.pool.ctypes.data, port.state_address
        c["inner"] = inner.c.ctypes.data if inner else 0
        c["mtu"], c["network"] = port.mtu, port.network
        c["mac"] = np.frombuffer(port.mac, np.uint8)
        return Plug(self, c, ops, inner, port)

    def get(self, frame: bytes, flags: int = 0) -> int:
        """A frame from the pool with these Ethernet bytes; its index."""
        self.pool["n_free"] -= 1
        index = int(self.free[self.n_free])
        f = self.frames[index]
        f["bytes"][IP_OFFSET - ETH_LEN : IP_OFFSET - ETH_LEN + len(frame)] = np.frombuffer(frame, np.uint8)
        f["len"], f["flags"], f["next"] = len(frame) - ETH_LEN, flags, NONE
        return index

    def put(self, index: int) -> None:
        self.free[self.n_free] = index
        self.pool["n_free"] += 1

    def address(self, index: int) -> int:
        return int(self.frames.ctypes.data) + index * self.frames.dtype.itemsize

    def content(self, index: int) -> bytes:
        f = self.frames[index]
        return bytes(f["bytes"][IP_OFFSET - ETH_LEN : IP_OFFSET + int(f["len"])])

    def conserved(self) -> bool:
        """No frame is free twice."""
        free = self.free[: self.n_free]
        return len(np.unique(free)) == len(free)


class Plug:
    """One port as the round sees it."""

    def __init__(self, rig: Rig, c: np.ndarray[Any, Any], ops: Ops, inner: Plug | None, port: Port) -> None:
        self.rig, self.c, self.ops, self.inner, self.port = rig, c, ops, inner, port
        self.address = int(c.ctypes.data)
        self.last_flags: list[int] = []

    def rx(self, now: int = 0, maximum: int = 64) -> list[bytes]:
        """A burst, its frames given back to the pool at once."""
        burst = (ctypes.c_void_p * maximum)()
        n = self.ops.rx(self.address, ctypes.addressof(burst), maximum, now)
        indices = [(burst[i] - int(self.rig.frames.ctypes.data)) // self.rig.frames.dtype.itemsize for i in range(n)]
        contents = [self.rig.content(i) for i in indices]
        self.last_flags = [int(self.rig.frames["flags"][i]) for i in indices]
        for index in indices:
            self.rig.put(index)
        return contents

    def tx(self, frames: Sequence[bytes], now: int = 0, flags: int = 0) -> None:
        """A burst of frames from the pool, at most 64."""
        burst = (ctypes.c_void_p * len(frames))(*[self.rig.address(self.rig.get(frame, flags)) for frame in frames])
        self.ops.tx(self.address, ctypes.addressof(burst), len(frames), now)

    def flush(self, now: int = 0) -> None:
        self.ops.flush(self.address, now)

    @property
    def down(self) -> bool:
        return bool(self.c["status"][0] == abi.enum("cham_port_state")["CHAM_PORT_DOWN"])

    def counter(self, name: str) -> int:
        return int(self.c["counters"][name][0])


def numbered(count: int, size: int = 64) -> list[bytes]:
    """Distinct frames: their number stands in the first four bytes of the payload."""
    return [bytes(12) + b"\x08\x00" + i.to_bytes(4, "big") + bytes(size - 18) for i in range(count)]


def number(frame: bytes) -> int:
    """Of a frame made by `numbered`."""
    return int.from_bytes(frame[14:18], "big")
