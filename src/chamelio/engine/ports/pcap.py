"""The pcapng tap: a wrapper that copies what passes into a byte ring, and the thread that writes it to a file.

The data plane never waits for the file. Records that find the ring full are lost and counted; so are those that the disk
has no room for, and the file is cut back to its last whole block. Format: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.ports.port import Port, PortError, Wrapper
from chamelio.engine.ports.spec import PortSpec

RING_BYTES = 1 << 22
DRAIN_INTERVAL_S = 0.02
SNAPLEN_ALL = 65535
_RECORD = struct.Struct("<IIQII")  # struct pcap_record
_SECTION_HEADER, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_LINKTYPE_ETHERNET = 1


def block(kind: int, body: bytes) -> bytes:
    """A pcapng block: type, length, body padded to 32 bits, length again."""
    padded = body + bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(padded) + 12) + padded + struct.pack("<I", len(padded) + 12)


def option(code: int, value: bytes) -> bytes:
    """A pcapng option, padded to 32 bits."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


_END = option(0, b"")


def file_header(interface: str, snaplen: int) -> bytes:
    """Section header and the description of one Ethernet interface whose time stamps count nanoseconds."""
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + option(4, b"chamelio") + _END
    described = struct.pack("<HHI", _LINKTYPE_ETHERNET, 0, snaplen)
    described += option(2, interface.encode()) + option(9, b"\x09") + _END
    return block(_SECTION_HEADER, section) + block(_INTERFACE, described)


def packet_block(time_ns: int, direction: int, original: int, data: bytes) -> bytes:
    """An enhanced packet block; `direction` is 1 (inbound) or 2 (outbound)."""
    head = struct.pack("<IIIII", 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), original)
    return block(_PACKET, head + data + bytes(-len(data) % 4) + option(2, struct.pack("<I", direction)) + _END)


class PcapPort(Wrapper):
    """A recorded port. `time_offset_ns` is added to the engine's time to make the file's (0: as the engine counts)."""

    kind = "pcap"
    ops_symbol = "cham_pcap_ops"

    def __init__(self, spec: PortSpec, inner: Port, *, thread: bool = True) -> None:
        self.path = spec.target
        self.time_offset_ns = 0
        self.written = 0
        self.lost_on_disk = 0
        self.last_error: str | None = None
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PortError(f"port 'pcap({self.path})': cannot write the capture: {error.strerror}") from None
        snaplen = int(spec.options.get("snaplen", SNAPLEN_ALL))
        self._end = 0  # of the last whole block in the file
        self._header = file_header(inner.name, snaplen)
        self._ring = abi.aligned(RING_BYTES)
        state = abi.alloc("cham_pcap")
        state["ring"] = self._ring.ctypes.data
        state["size"] = RING_BYTES
        state["snaplen"] = snaplen
        self._state = state
        super().__init__(inner, state)
        self._draining = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._append(b"", 0)
        if thread:
            self._thread = threading.Thread(target=self._run, name=f"pcap {self.path}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(DRAIN_INTERVAL_S):
            self.drain()

    def drain(self) -> int:
        """Write what the core has recorded so far; the number of packets written. Called by the thread, or by hand."""
        with self._draining:
            cons, prod = int(self._state["cons"][0]), int(self._state["prod"][0])
            data = self._take(cons, (prod - cons) & 0xFFFFFFFF)
            blocks, at = [], 0
            while at < len(data):
                captured, original, now, direction, _ = _RECORD.unpack_from(data, at)
                at += _RECORD.size
                blocks.append(packet_block(now + self.time_offset_ns, direction, original, data[at : at + captured]))
                at += (captured + 7) & ~7
            self._state["cons"] = prod
            return self._append(b"".join(blocks), len(blocks)) if blocks else 0

    def _take(self, at: int, length: int) -> bytes:
        offset = at % RING_BYTES
        first = min(length, RING_BYTES - offset)
        return bytes(np.concatenate((self._ring[offset : offset + first], self._ring[: length - first])))

    def _append(self, blocks: bytes, packets: int) -> int:
        """All or nothing: a file that has no room stays readable up to what was whole."""
        data = memoryview(self._header + blocks)
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self.last_error = error.strerror
            self.lost_on_disk += packets
            with contextlib.suppress(OSError):  # a pipe, say: nothing to repair
                os.ftruncate(self._file, self._end)
            return 0
        self._end += len(self._header) + len(blocks)
        self._header = b""
        self.written += packets
        return packets

    def details(self) -> dict[str, Any]:
        """Where the capture goes and how complete it is."""
        return {
            "path": self.path,
            "recorded": int(self._state["recorded"][0]),
            "lost_in_ring": int(self._state["lost"][0]),
            "written": self.written,
            "lost_on_disk": self.lost_on_disk,
            "last_error": self.last_error,
        }

    def release(self) -> None:
        """Write the rest and how many packets are missing, and close the file."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        self.drain()
        lost = int(self._state["lost"][0]) + self.lost_on_disk
        seen = int(self._state["recorded"][0]) + int(self._state["lost"][0])
        counters = option(4, struct.pack("<Q", seen)) + option(5, struct.pack("<Q", lost)) + _END
        self._append(block(_STATISTICS, struct.pack("<III", 0, 0, 0) + counters), 0)
        os.close(self._file)
