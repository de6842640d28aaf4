"""Packets between slow paths: setting sessions up and down. Bytes in, values out; no state."""

from __future__ import annotations

import struct
from dataclasses import dataclass

IP_ICMP, IP_RPC = 1, 254
HELLO, WELCOME, REJECT, RESET, BYE, PING, PONG = range(16, 23)
CONTROL = HELLO  # kinds from here on are the slow paths'
VERSION = 1
_HEADER = struct.Struct(">HH4sBBBBIIHH")  # struct header of session.h; tokens are whatever their owner's memory has
_BODY = struct.Struct(">4sHH")
HEADER_BYTES, CHECKSUM_AT = _HEADER.size, 22


@dataclass(frozen=True)
class Control:
    """A packet of the slow paths; ports in host order, addresses in packet byte order.

    `token` names the receiver's session (0: it has none yet). `about` is the sender's own token in HELLO and WELCOME, in RESET the
    one that was not known. `value`: slots in HELLO and WELCOME, an errno value in REJECT.
    """

    kind: int
    local: int
    remote: int
    local_port: int
    remote_port: int
    token: int
    about: int = 0
    value: int = 0
    version: int = VERSION

    def encode(self) -> bytes:
        """The whole IPv4 packet, from `local` to `remote`."""
        tokens = self.token.to_bytes(4, "little"), self.about.to_bytes(4, "little")
        rpc = bytearray(_HEADER.pack(self.local_port, self.remote_port, tokens[0], self.kind, 0, 0, 0, 0, 0, 0, 0))
        rpc += _BODY.pack(tokens[1], self.value, self.version)
        ends = self.local.to_bytes(4, "little") + self.remote.to_bytes(4, "little")
        pseudo = ends + struct.pack(">HH", IP_RPC, len(rpc))
        rpc[CHECKSUM_AT : CHECKSUM_AT + 2] = checksum(pseudo + rpc).to_bytes(2, "big")
        header = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(rpc), 0, 0x4000, 64, IP_RPC, 0) + ends)
        header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
        return bytes(header + rpc)


def decode(packet: bytes) -> Control | None:
    """A packet that a handler has checked and punted; of other kinds than ours only the header counts. None: it is too short."""
    at = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < max(at, 20) + HEADER_BYTES:
        return None
    remote_port, local_port, token, kind, *_ = _HEADER.unpack_from(packet, at)
    about, value, version = bytes(4), 0, 0
    if kind >= CONTROL:
        if len(packet) < at + HEADER_BYTES + _BODY.size:
            return None
        about, value, version = _BODY.unpack_from(packet, at + HEADER_BYTES)
    ends = int.from_bytes(packet[16:20], "little"), int.from_bytes(packet[12:16], "little")
    tokens = int.from_bytes(token, "little"), int.from_bytes(about, "little")
    return Control(kind, *ends, local_port, remote_port, *tokens, value, version)


def quoted(packet: bytes) -> tuple[int, int, int, int] | None:
    """Of an ICMP destination unreachable about one of our packets: code, remote address, local port, remote port."""
    icmp = packet[(packet[0] & 15) * 4 :]
    inner = icmp[8:]
    at = (inner[0] & 15) * 4 if inner else 0
    if len(inner) < max(at, 20) + 4 or icmp[0] != 3 or inner[9] != IP_RPC:
        return None
    local_port, remote_port = struct.unpack_from(">HH", inner, at)
    return icmp[1], int.from_bytes(inner[16:20], "little"), local_port, remote_port


def checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
