"""An instance's memory: engine memory and, right behind it in the address space, the region that the tenant maps too.

    mapping -> colour | head | private parts | guard page | shared values | this core's rings | guard page
               base = mapping + colour                      (memfd, sealed: the region)

There is one such mapping for each core (jit/layout.py); the memfd holds the shared values and the rings of all cores.
Everything is shifted by the instance's colour, so that the same map of many tenants does not fall into the same sets of
the first-level cache. In the memfd the content begins at byte `origin`, which is the colour.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.jit.layout import DATA, PAGE, Layout

COLOUR_STEP = 2112  # a multiple of the cache line that shares no large factor with a page
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PROT_NONE, _PROT_RW = 0, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE, _MAP_POPULATE = 1, 2, 0x10, 0x20, 0x4000, 0x8000
_FAILED = ctypes.c_void_p(-1).value
POPULATE_LIMIT = 64 << 20  # larger regions take their page faults when they are used

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _map(address: int, size: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    result = _libc.mmap(address or None, size, protection, flags, fd, offset)
    if result == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


class CoreMemory:
    """An instance's memory as one core sees it. `head` is its `struct cham_instance`. Raises OSError."""

    def __init__(self, layout: Layout, fd: int, colour: int, core: int) -> None:
        self._size = layout.private_bytes + layout.region_bytes() + PAGE
        self._mapping = _map(0, self._size, _PROT_NONE, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE)
        try:
            private = layout.private_bytes - PAGE
            _map(self._mapping, private, _PROT_RW, _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_FIXED | _MAP_POPULATE)
            at = self._mapping + layout.private_bytes
            ours = layout.shared_bytes + core * layout.core_bytes
            for size, offset in ((layout.shared_bytes, 0), (layout.core_bytes, ours)):
                populate = _MAP_POPULATE if size <= POPULATE_LIMIT else 0
                if size:
                    _map(at, size, _PROT_RW, _MAP_SHARED | _MAP_FIXED | populate, fd, offset)
                at += size
        except BaseException:
            self.close()
            raise
        self.base = self._mapping + colour
        self.head = self._view(self.base, abi.dtype("cham_instance"))
        for m in layout.maps:
            if m.kind == DATA and m.initial:
                ctypes.memmove(self.base + m.values, m.initial, len(m.initial))

    @staticmethod
    def _view(address: int, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
        buffer = (ctypes.c_uint8 * dtype.itemsize).from_address(address)
        return np.frombuffer(memoryview(buffer), dtype, 1)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of some of it, by offset from the base."""
        return ctypes.string_at(self.base + offset, size)

    def close(self) -> None:
        """Unmap. Nobody may use it any more."""
        if self._mapping:
            _libc.munmap(self._mapping, self._size)
            self._mapping = 0


class InstanceMemory:
    """Memory of one instance, laid out as the protocol says: `cores[k]` as core k sees it. Raises OSError."""

    def __init__(self, layout: Layout, index: int, cores: int = 1) -> None:
        self.origin = index * COLOUR_STEP % PAGE
        self.fd = os.memfd_create(f"chamelio-region-{index}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.cores: list[CoreMemory] = []
        try:
            os.ftruncate(self.fd, layout.region_bytes(cores))
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            for core in range(cores):
                self.cores.append(CoreMemory(layout, self.fd, self.origin, core))
        except BaseException:
            self.close()
            raise
        self.descriptors = abi.aligned(64 * max(1, len(layout.maps)))
        packed = b"".join(m.descriptor() for m in layout.maps)
        self.descriptors[: len(packed)] = np.frombuffer(packed, np.uint8)

    def close(self) -> None:
        """Unmap and close; the tenant's own mapping lives on."""
        for core in self.cores:
            core.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Bell:
    """A doorbell: the engine writes, whoever sleeps polls `fd`.

    A pipe and not an eventfd: an eventfd is one open file description for all who hold it, so its holder could clear
    O_NONBLOCK and fill it, and the engine's next ring would block. The two ends of a pipe have descriptions of their own.
    """

    def __init__(self) -> None:
        self.fd, self.ring_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.fd)
        os.close(self.ring_fd)


def map_file(path: str | os.PathLike[str], size: int) -> mmap.mmap:
    """A new file of `size` zero bytes, mapped shared: what readers of counters map. Replaces an old file of that name."""
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(fd, 0, size)  # a full disk shows now, not as a fault in the datapath
        mapping = mmap.mmap(fd, size)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    finally:
        os.close(fd)
    return mapping
