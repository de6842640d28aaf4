"""The slow path of UDP: who has which port, and ICMP for ports that nobody has, sent and received (RFC 768, 792, 1122)."""

from __future__ import annotations

import errno
import ipaddress
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chamelio.tenant.runtime import RequestError, Services, SlowPath

OPEN, CLOSE, ERROR = 2, 3, 4  # UDP_OPEN, UDP_CLOSE, UDP_ERROR
IP_ICMP, IP_UDP = 1, 17
UNREACHABLE = 3
# By code of ICMP unreachable, what a connected socket is told, as by kernels. The others may be gone in a moment.
HARD_ERRORS = {
    2: errno.ENOPROTOOPT,
    3: errno.ECONNREFUSED,
    9: errno.ENETUNREACH,
    10: errno.EHOSTUNREACH,
    13: errno.EHOSTUNREACH,
}
SOCKETS = 128  # UDP_SOCKETS
EPHEMERAL = range(49152, 65536)  # RFC 6335
ICMP_PER_SECOND = 200  # RFC 1812, section 4.3.2.8: errors are rate-limited
ICMP_BURST = 50
ICMP_QUOTE = 548  # RFC 1812, section 4.3.2.3: as much of the packet as fits 576 bytes


@dataclass(frozen=True)
class Socket:
    """A socket: whose it is, its port, and the peer if it is connected (packet byte order)."""

    context: int
    port: int
    remote: tuple[int, int] | None
    core: int  # which has all of its flows: they are steered by our port


class UdpSlowPath(SlowPath):
    """Binds sockets for applications."""

    def __init__(self, services: Services, seed: int | None = None) -> None:
        super().__init__(services)
        self._local = _number(services.address)
        self._sockets: dict[int, Socket] = {}
        self._random = random.Random(seed)
        self._tokens, self._tokens_at = float(ICMP_BURST), 0
        self.suppressed = 0

    def on_start(self, *, resumed: bool) -> None:
        """Sockets of applications of a former agent are gone with it."""
        if resumed:
            for socket in range(SOCKETS):
                for core in range(self.services.cores):
                    self._close(socket, core)

    # ---- requests of applications --------------------------------------------------------------------------------

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """`bind {port, remote: [address, port]?}` gives `{socket, port, core}`; `close {socket}`."""
        if verb == "bind":
            return self._bind(context, arguments.get("port", 0), arguments.get("remote"))
        if verb == "close":
            socket = arguments.get("socket")
            if not isinstance(socket, int) or socket not in self._sockets or self._sockets[socket].context != context:
                raise RequestError("EBADF", f"socket {socket} is not one of yours")
            self._close(socket, self._sockets[socket].core)
            return {}
        return super().on_request(context, verb, arguments)

    def _bind(self, context: int, port: Any, remote: Any) -> dict[str, int]:
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise RequestError("EINVAL", f"{port!r} is not a port")
        peer = _endpoint(remote) if remote is not None else None
        socket = next((i for i in range(SOCKETS) if i not in self._sockets), None)
        if socket is None:
            raise RequestError("ENOBUFS", f"all {SOCKETS} sockets are in use")
        port = port or self._ephemeral(peer)
        low, high = self.services.ports
        if not low <= port <= high:
            raise RequestError("EACCES", f"port {port} is not within {low}..{high}, which is what this tenant has")
        if any(s.port == port and s.remote == peer for s in self._sockets.values()):
            raise RequestError("EADDRINUSE", f"port {port} is in use")
        core = port % self.services.cores
        self._sockets[socket] = Socket(context, port, peer, core)
        address, remote_port = peer or (0, 0)
        self.services.request(OPEN, socket, address, remote_port, _swap(port), 0, 0, context, self._local, core=core)
        return {"socket": socket, "port": port, "core": core}

    def _ephemeral(self, peer: tuple[int, int] | None) -> int:
        used = {s.port for s in self._sockets.values()}
        low, high = self.services.ports
        candidates = [p for p in EPHEMERAL if low <= p <= high] or list(range(max(low, 1), high + 1))
        start = self._random.randrange(len(candidates)) if candidates else 0
        for i in range(len(candidates)):
            port = candidates[(start + i) % len(candidates)]
            if port not in used:
                return port
        raise RequestError("EADDRNOTAVAIL", "every ephemeral port is in use")

    def _close(self, socket: int, core: int) -> None:
        self._sockets.pop(socket, None)
        self.services.request(CLOSE, socket, 0, 0, 0, 0, 0, 0, 0, core=core)

    def on_application_gone(self, context: int) -> None:
        """Its sockets are closed."""
        for socket, one in list(self._sockets.items()):
            if one.context == context:
                self._close(socket, one.core)

    # ---- packets for nobody, and words about our own -------------------------------------------------------------

    def on_packets(self, packets: Sequence[bytes], now: int) -> None:
        """A datagram for a port that nobody has is answered by ICMP port unreachable; what ICMP says of ours, its socket hears."""
        for packet in packets:
            if packet[9] == IP_ICMP:
                self._on_icmp(packet)
            elif packet[9] == IP_UDP and self._may_answer(now):
                self.services.send_packet(port_unreachable(packet))
            else:
                self.suppressed += 1

    def _on_icmp(self, packet: bytes) -> None:
        """An error about a datagram of a connected socket: both ends must be its own, or anybody could break it."""
        icmp = packet[(packet[0] & 15) * 4 :]
        quoted = icmp[8:]
        at = (quoted[0] & 15) * 4 if quoted else 0
        if len(quoted) < max(at, 20) + 4 or icmp[0] != UNREACHABLE or icmp[1] not in HARD_ERRORS or quoted[9] != IP_UDP:
            return
        local_port, port = struct.unpack_from(">HH", quoted, at)
        peer = (int.from_bytes(quoted[16:20], "little"), _swap(port))
        for socket, one in self._sockets.items():
            if (one.port, one.remote) == (local_port, peer):
                self.services.request(ERROR, socket, 0, 0, 0, 0, HARD_ERRORS[icmp[1]], 0, 0, core=one.core)

    def _may_answer(self, now: int) -> bool:
        """A token bucket."""
        gained = (now - self._tokens_at) * ICMP_PER_SECOND / 1e9 if self._tokens_at else 0.0
        self._tokens, self._tokens_at = min(ICMP_BURST, self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def port_unreachable(packet: bytes) -> bytes:
    """The ICMP message (type 3, code 3) that answers an IPv4 packet."""
    quote = packet[:ICMP_QUOTE]
    icmp = bytearray(struct.pack(">BBHI", 3, 3, 0, 0) + quote)
    icmp[2:4] = _checksum(icmp).to_bytes(2, "big")
    header = bytearray(struct.pack(">BBHHHBBH", 0x45, 0xC0, 20 + len(icmp), 0, 0, 64, 1, 0) + packet[16:20] + packet[12:16])
    header[10:12] = _checksum(header).to_bytes(2, "big")
    return bytes(header + icmp)


def _checksum(data: bytes | bytearray) -> int:
    """RFC 1071."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _number(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


def _swap(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def _endpoint(remote: Any) -> tuple[int, int]:
    try:
        address, port = remote
        number = _number(address)
        if not (isinstance(port, int) and 0 < port <= 65535) or not number:
            raise ValueError
    except (TypeError, ValueError):
        raise RequestError("EINVAL", f"{remote!r} is not [address, port]") from None
    return number, _swap(port)
