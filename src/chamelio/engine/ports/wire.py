"""The shared-memory wire: two rings in a sealed memfd, one per direction, between an engine and whoever takes the other end.

A wire has a name; a symbolic link in a run directory leads to the memfd in /proc of a process that holds it, so any
process of the same user can take the free end. Each end is locked (an open-file-description lock on byte 0 or 1 of the
memfd), and an end whose holder died is free at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import re
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.ports.port import IP_MTU_MAX, Port, PortError
from chamelio.engine.ports.spec import PortSpec
from chamelio.tenant.rings import fence

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
F_OFD_GETLK, F_OFD_SETLK = 36, 37
ENDS = ("a", "b")


def run_directory() -> Path:
    """Where named wires are found: `$CHAMELIO_RUN`, /run/chamelio for root, else the user's runtime directory."""
    chosen = os.environ.get("CHAMELIO_RUN")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/chamelio")
    private = os.environ.get("XDG_RUNTIME_DIR")
    return Path(private) / "chamelio" if private else Path(tempfile.gettempdir()) / f"chamelio-{os.getuid()}"


def wire_bytes() -> int:
    """Size of a wire's memory: two rings."""
    return 2 * abi.dtype("wire_ring").itemsize


def create_memory(name: str) -> int:
    """A new wire's memfd, zeroed and sealed against shrinking and growing. Raises OSError."""
    fd = os.memfd_create(f"chamelio-wire:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, wire_bytes())
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_wire(fd: int) -> bool:
    """Whether a descriptor is memory of a wire: right size, and nobody can change that."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return seals & SEALS == SEALS and os.fstat(fd).st_size == wire_bytes()


class WireMemory:
    """A mapped wire: `rings` is an array of two `struct wire_ring`; `fd` is the memfd, to be passed on."""

    def __init__(self, fd: int, what: str = "wire") -> None:
        if not is_wire(fd):
            raise PortError(f"{what}: this is not a wire's memory (a memfd of {wire_bytes()} bytes, sealed against resizing)")
        self.fd = fd
        self._mapping = mmap.mmap(fd, wire_bytes())
        self.rings: np.ndarray[Any, np.dtype[Any]] = np.frombuffer(self._mapping, abi.dtype("wire_ring"), 2)

    @property
    def address(self) -> int:
        """Where ring 0 is mapped."""
        return int(self.rings.ctypes.data)

    def lock(self, end: str) -> bool:
        """Take an end; False if another process (or another port of this one) has it."""
        try:
            fcntl.fcntl(self.fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, ENDS.index(end), 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def taken(self, end: str) -> bool:
        """Whether another process holds an end."""
        about = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, ENDS.index(end), 1, 0)
        return bool(struct.unpack_from("h", fcntl.fcntl(self.fd, F_OFD_GETLK, about))[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Unmap and close; the lock goes with it."""
        self.rings = np.empty(0, self.rings.dtype)
        with contextlib.suppress(BufferError):  # somebody still looks at a slot: unmapped when they let go
            self._mapping.close()
        os.close(self.fd)


class WirePort(Port):
    """One end of a wire. `memory.fd` can be handed to another process for the other end."""

    kind = "wire"
    ops_symbol = "cham_wire_ops"

    def __init__(self, spec: PortSpec, memory_fd: int | None = None) -> None:
        """Attach to the wire of that name, or make it; with `memory_fd` (taken over), to that memory."""
        name, colon, end = spec.target.rpartition(":")
        if not colon or end not in ENDS:
            name, end = spec.target, "a"
        self.end = end
        what = f"port 'wire:{spec.target}'"
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", name):
            raise PortError(
                f"{what}: a wire's name has letters, digits, '_', '-' and '.'; a path has '/' as well; then ':a' or ':b'"
            )
        self.link = Path(name) if "/" in name else run_directory() / "wires" / name
        self._named = memory_fd is None
        self.memory = WireMemory(memory_fd, what) if memory_fd is not None else self._open(name, what)
        if not self.memory.lock(end):
            self.memory.close()
            raise PortError(f"{what}: end '{end}' is taken; end '{ENDS[1 - ENDS.index(end)]}' may be free")
        state = abi.alloc("cham_wire")
        ring_bytes = abi.dtype("wire_ring").itemsize
        out = ENDS.index(end)
        state["out"] = self.memory.address + out * ring_bytes
        state["in"] = self.memory.address + (1 - out) * ring_bytes
        # go on where a former holder of this end stopped; a lie in there shows at the first burst
        state["out_prod"] = self.memory.rings["prod"][out]
        state["in_cons"] = self.memory.rings["cons"][1 - out]
        state["bell"] = -1
        self._bell = self._make_bell(end) if self._named else None
        super().__init__(
            f"wire:{spec.target}",
            mac=spec.options.get("mac", b"\x02" + hashlib.sha256(f"wire:{name}:{end}".encode()).digest()[:5]),
            mtu=int(spec.options.get("mtu", 1500)),
            network=int(spec.options.get("network", 0)),
            state=state,
            csum_offload=bool(spec.options.get("offload", False)),
            fd=self._bell,
        )
        assert self.mtu <= IP_MTU_MAX

    def _open(self, name: str, what: str) -> WireMemory:
        try:
            fd = os.open(self.link, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            pass  # no such wire, or its last known holder has gone
        except OSError as error:
            raise PortError(f"{what}: {self.link}: {error.strerror}") from None
        else:
            if is_wire(fd):
                return WireMemory(fd, what)
            os.close(fd)
            if not self.link.is_symlink():
                raise PortError(f"{what}: {self.link} exists and is no wire; choose another name or remove it")
            # the process number was used again: the link leads nowhere useful
        try:
            memory = WireMemory(create_memory(name), what)
        except OSError as error:
            raise PortError(f"{what}: no shared memory of {wire_bytes()} bytes: {error.strerror}") from None
        try:
            self._publish(memory.fd)
        except OSError as error:
            memory.close()
            raise PortError(
                f"{what}: cannot make {self.link}: {error.strerror}; set CHAMELIO_RUN to a directory of yours"
            ) from None
        return memory

    def _publish(self, fd: int) -> None:
        """Make the name lead to our descriptor, in one step."""
        self.link.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.link.with_name(f".{self.link.name}.{os.getpid()}.{fd}")
        temporary.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        temporary.replace(self.link)

    # ---- waking the other end, and being woken by it -----------------------------------------------------------------

    fd_is_bell = True

    def _bell_path(self, end: str) -> Path:
        return self.link.with_name(f"{self.link.name}.{end}.bell")

    def _make_bell(self, end: str) -> int | None:
        """The named pipe by which the other end wakes us; None where there can be none."""
        path = self._bell_path(end)
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return None

    def _find_bell(self) -> None:
        """Let the C side ring for the other end, if that has a bell, and say so there."""
        assert self.state is not None
        if not self._named:
            return
        known, path = int(self.state["bell"][0]), self._bell_path(ENDS[1 - ENDS.index(self.end)])
        with contextlib.suppress(OSError):  # nobody is there, or it does not sleep
            if known >= 0 and os.fstat(known).st_ino == path.stat().st_ino:
                return
            found = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if known >= 0:  # under the same number: a core may be about to write to it
                os.dup2(found, known, inheritable=False)
                os.close(found)
            else:
                self.state["bell"] = found
            self.memory.rings[ENDS.index(self.end)]["rings"] = 1

    @property
    def wakes(self) -> bool:
        """The other end is not taken, or it says that it rings."""
        incoming = self.memory.rings[1 - ENDS.index(self.end)]
        return self._bell is not None and (bool(incoming["rings"]) or not self.memory.taken(ENDS[1 - ENDS.index(self.end)]))

    def refresh(self) -> str:
        """Keep the name alive when the process that made the wire has gone; look for the other end's bell."""
        assert self.state is not None
        self._find_bell()
        if self._named and not self.link.exists():
            with contextlib.suppress(OSError):
                self._publish(self.memory.fd)
        return "down: a ring index of the other end cannot be true; open the port again" if self.state["damaged"][0] else "up"

    def details(self) -> dict[str, Any]:
        """End, name and positions."""
        assert self.state is not None
        out = ENDS.index(self.end)
        rings = self.memory.rings
        return {
            "end": self.end,
            "path": str(self.link) if self._named else None,
            "damaged": bool(self.state["damaged"][0]),
            "sending": int(rings["prod"][out] - rings["cons"][out]) & 0xFFFFFFFF,
            "arriving": int(rings["prod"][1 - out] - rings["cons"][1 - out]) & 0xFFFFFFFF,
        }

    def release(self) -> None:
        """Leave the wire; remove its name if that leads to us."""
        assert self.state is not None
        self.memory.rings[ENDS.index(self.end)]["rings"] = 0
        for fd in (self._bell, int(self.state["bell"][0])):
            if fd is not None and fd >= 0:
                os.close(fd)
        if self._named:
            with contextlib.suppress(OSError):
                self._bell_path(self.end).unlink()
            with contextlib.suppress(OSError):
                mode = self.link.lstat().st_mode
                if stat.S_ISLNK(mode) and os.fspath(self.link.readlink()) == f"/proc/{os.getpid()}/fd/{self.memory.fd}":
                    self.link.unlink()
        self.memory.close()


class WirePeer:
    """The other end of a wire in Python, for tests and simulated peers: whole Ethernet frames as bytes."""

    def __init__(self, memory: WireMemory, end: str = "b", bell: int | None = None) -> None:
        """`bell` (taken over): what wakes the consumer of what we send."""
        self._memory, self._bell = memory, bell
        out = ENDS.index(end)
        self._out, self._in = memory.rings[out : out + 1], memory.rings[1 - out : 2 - out]
        self.slots = int(self._out["slots"].shape[1])
        self._prod, self._cons = int(self._out["prod"][0]), int(self._in["cons"][0])
        self._out["rings"] = bell is not None

    @classmethod
    def join(cls, link: Path) -> WirePeer:
        """Take end b of the wire that an engine has made under this name. Raises OSError, PortError."""
        memory = WireMemory(os.open(link, os.O_RDWR | os.O_CLOEXEC), str(link))
        if not memory.lock("b"):
            memory.close()
            raise PortError(f"wire {link}: end b is taken")
        bell = os.open(f"{link}.a.bell", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return cls(memory, "b", bell)

    def leave(self) -> None:
        """Give the end back."""
        self._out["rings"] = 0
        if self._bell is not None:
            os.close(self._bell)
        self._out = self._in = np.empty(0, self._out.dtype)
        self._memory.close()

    def send(self, frame: bytes, *, checked: bool = False) -> bool:
        """Put a frame on the wire; False if the ring is full. `checked`: vouch for its transport checksum."""
        if (self._prod - int(self._out["cons"][0])) & 0xFFFFFFFF >= self.slots:
            return False
        slot = self._out["slots"][0, self._prod % self.slots : self._prod % self.slots + 1]
        slot["bytes"][0, : len(frame)] = np.frombuffer(frame, np.uint8)
        slot["len"] = len(frame)
        slot["flags"] = int(checked)
        self._prod = (self._prod + 1) & 0xFFFFFFFF
        self._out["prod"] = self._prod
        if self._bell is not None:
            fence()
            if self._out["wait"][0]:
                with contextlib.suppress(OSError):  # it has been rung often enough, or is gone
                    os.write(self._bell, b"\0")
        return True

    def receive(self) -> list[bytes]:
        """All frames that have arrived."""
        frames = []
        while self._cons != int(self._in["prod"][0]):
            slot = self._in["slots"][0, self._cons % self.slots]
            frames.append(slot["bytes"][: int(slot["len"])].tobytes())
            self._cons = (self._cons + 1) & 0xFFFFFFFF
        self._in["cons"] = self._cons
        return frames
