"""What ICMP says of our segments (RFC 792, 1191): bytes in, values out; no state."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

IP_ICMP, IP_TCP = 1, 6
UNREACHABLE, TIME_EXCEEDED = 3, 11
FRAGMENTATION_NEEDED = 4
# By code of "unreachable" (RFC 1122, 3.2.2.1), what applications are told.
UNREACHABLE_ERRORS = {
    0: errno.ENETUNREACH,
    1: errno.EHOSTUNREACH,
    2: errno.ECONNREFUSED,
    3: errno.ECONNREFUSED,
    5: errno.EHOSTUNREACH,
    6: errno.ENETUNREACH,
    7: errno.EHOSTUNREACH,
    8: errno.EHOSTUNREACH,
    9: errno.ENETUNREACH,
    10: errno.EHOSTUNREACH,
    11: errno.ENETUNREACH,
    12: errno.EHOSTUNREACH,
    13: errno.EHOSTUNREACH,
}
PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)  # RFC 1191, section 7.1


@dataclass(frozen=True)
class Quote:
    """A segment of ours as an error quotes it. Address and ports in packet byte order.

    `error`: an errno value; 0: it is about the size, and `mtu` is what would have fit. `seq`: the segment's first.
    """

    address: int
    port: int
    local_port: int
    seq: int
    error: int
    unreachable: bool
    mtu: int = 0

    @property
    def key(self) -> int:
        """Whose it is, as a number: see `flow_keys` in slowpath.py."""
        return self.address << 32 | self.port << 16 | self.local_port


def quoted(packet: bytes, local: int) -> Quote | None:
    """The quotation in an ICMP error about a segment from `local` (packet byte order). None: it is none, or makes no sense."""
    icmp = packet[(packet[0] & 15) * 4 :] if packet else b""
    if len(icmp) < 36 or icmp[0] not in (UNREACHABLE, TIME_EXCEEDED) or checksum(icmp):
        return None
    inner = icmp[8:]
    at = (inner[0] & 15) * 4
    total, fragment = struct.unpack_from(">H2xH", inner, 2)
    if inner[0] >> 4 != 4 or at < 20 or len(inner) < at + 8 or inner[9] != IP_TCP or fragment & 0x1FFF:
        return None
    if int.from_bytes(inner[12:16], "little") != local:
        return None
    local_port, port = struct.unpack_from("<HH", inner, at)
    (seq,) = struct.unpack_from(">I", inner, at + 4)
    address = int.from_bytes(inner[16:20], "little")
    if icmp[0] == UNREACHABLE and icmp[1] == FRAGMENTATION_NEEDED:
        (mtu,) = struct.unpack_from(">H", icmp, 6)
        mtu = mtu or next((p for p in PLATEAUS if p < total), 0)
        return Quote(address, port, local_port, seq, 0, False, mtu) if 0 < mtu < total else None
    error = UNREACHABLE_ERRORS.get(icmp[1], errno.EHOSTUNREACH) if icmp[0] == UNREACHABLE else errno.EHOSTUNREACH
    return Quote(address, port, local_port, seq, error, icmp[0] == UNREACHABLE)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
