"""TCP segments, and ICMP messages about them, as bytes and as values: IPv4 (RFC 791), TCP (RFC 9293), ICMP (RFC 792)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

IP_ICMP, IP_TCP = 1, 6

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << i for i in range(8))
FLAGS = {"SYN": SYN, "FIN": FIN, "RST": RST, "ECE": ECE, "CWR": CWR, "URG": URG, "PSH": PSH, "ACK": ACK}

EOL, NOP, MSS, WSCALE, SACKOK, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8

ECN = {"none": 0, "ect1": 1, "ect0": 2, "ce": 3}  # RFC 3168 5

U32 = 0xFFFFFFFF


class Malformed(ValueError):
    """Bytes that are no IPv4 packet with a TCP segment; the message says why not."""


def checksum(data: bytes) -> int:
    """RFC 1071: the ones' complement of the ones' complement sum; 0 for data that contain a right one."""
    total = int(np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").sum(dtype=np.uint64))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address_bytes(text: str) -> bytes:
    """Four bytes, as in a packet."""
    return ipaddress.IPv4Address(text).packed


def ip_packet(source: str, destination: str, protocol: int, payload: bytes, *, ecn: int = 0, ttl: int = 64) -> bytes:
    """An IPv4 packet that must not be fragmented."""
    header = bytearray(struct.pack(">BBHHHBBH", 0x45, ecn, 20 + len(payload), 0, 0x4000, ttl, protocol, 0))
    header += address_bytes(source) + address_bytes(destination)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + payload


@dataclass(frozen=True)
class Segment:
    """One segment. `options`: (kind, value) in order, without the lengths; numbers are those of the header, not relative."""

    source: str
    destination: str
    source_port: int
    destination_port: int
    seq: int
    ack: int = 0
    flags: int = 0
    window: int = 0
    urgent: int = 0
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = field(default=b"", repr=False)
    ecn: int = 0
    ttl: int = 64
    option_bytes: int = 0  # of the header, padding included; only `decode` sets it

    def option(self, kind: int) -> bytes | None:
        """The value of the first option of a kind."""
        return next((value for k, value in self.options if k == kind), None)

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """TSval and TSecr (RFC 7323 3.2)."""
        value = self.option(TIMESTAMPS)
        return struct.unpack(">II", value) if value is not None and len(value) == 8 else None

    @property
    def sack_blocks(self) -> list[tuple[int, int]]:
        """Left and right edges (RFC 2018 3)."""
        value = self.option(SACK) or b""
        return [struct.unpack_from(">II", value, i) for i in range(0, len(value) - 7, 8)]

    @property
    def length(self) -> int:
        """What it takes of the sequence space."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def encode_options(options: Iterable[tuple[int, bytes]], raw: bytes = b"") -> bytes:
    """Options as in a header, `raw` bytes behind them, padded with EOL to whole words."""
    parts = [bytes([kind]) if kind in (EOL, NOP) else bytes([kind, 2 + len(value)]) + value for kind, value in options]
    encoded = b"".join(parts) + raw
    return encoded + bytes(-len(encoded) % 4)


def encode(segment: Segment, *, raw_options: bytes = b"", data_offset: int | None = None, bad_checksum: bool = False) -> bytes:
    """The IPv4 packet of a segment. `data_offset` (words) and `bad_checksum` make it a lie."""
    s = segment
    options = encode_options(s.options, raw_options)
    words = 5 + len(options) // 4
    if words > 15:
        raise ValueError(f"{len(options)} bytes of options do not fit into a header (40 do)")
    offset = words if data_offset is None else data_offset
    ports = s.source_port, s.destination_port
    header = struct.pack(">HHIIBBHHH", *ports, s.seq & U32, s.ack & U32, offset << 4, s.flags, s.window, 0, s.urgent)
    body = bytearray(header + options + s.payload)
    total = checksum(_pseudo(s.source, s.destination, len(body)) + bytes(body))
    body[16:18] = (total ^ (0x5555 if bad_checksum else 0)).to_bytes(2, "big")
    return ip_packet(s.source, s.destination, IP_TCP, bytes(body), ecn=s.ecn, ttl=s.ttl)


def _pseudo(source: str, destination: str, length: int) -> bytes:
    return address_bytes(source) + address_bytes(destination) + struct.pack(">HH", IP_TCP, length)


def decode(packet: bytes) -> Segment:
    """The segment in an IPv4 packet. Raises Malformed: also for a wrong checksum or options that cannot be read."""
    if len(packet) < 20 or packet[0] != 0x45:
        raise Malformed("no IPv4 header of 20 bytes")
    total = int.from_bytes(packet[2:4], "big")
    if total != len(packet):
        raise Malformed(f"IP says {total} bytes, and there are {len(packet)}")
    if checksum(packet[:20]):
        raise Malformed("wrong checksum of the IP header")
    if packet[9] != IP_TCP:
        raise Malformed(f"IP protocol {packet[9]}, not TCP")
    if int.from_bytes(packet[6:8], "big") & 0x3FFF:
        raise Malformed("a fragment")
    source, destination = (str(ipaddress.IPv4Address(packet[i : i + 4])) for i in (12, 16))
    body = packet[20:]
    if len(body) < 20:
        raise Malformed(f"{len(body)} bytes are no TCP header")
    header = 4 * (body[12] >> 4)
    if not 20 <= header <= len(body):
        raise Malformed(f"a data offset of {header} bytes in a segment of {len(body)}")
    if checksum(_pseudo(source, destination, len(body)) + body):
        raise Malformed("wrong checksum of the segment")
    if body[12] & 15:
        raise Malformed("reserved bits of the header are set")
    sport, dport, seq, ack, _, flags, window, _, urgent = struct.unpack(">HHIIBBHHH", body[:20])
    options = tuple(decode_options(body[20:header]))
    return Segment(source, destination, sport, dport, seq, ack, flags, window, urgent, options,
                   body[header:], packet[1] & 3, packet[8], header - 20)  # fmt: skip


def decode_options(data: bytes) -> Iterable[tuple[int, bytes]]:
    """(kind, value) of each option but padding. Raises Malformed."""
    at = 0
    while at < len(data) and data[at] != EOL:
        if data[at] == NOP:
            at += 1
            continue
        if at + 1 >= len(data) or not 2 <= data[at + 1] <= len(data) - at:
            raise Malformed(f"options {data.hex()}: the length of the one at byte {at} cannot be true")
        yield data[at], data[at + 2 : at + data[at + 1]]
        at += data[at + 1]


# ---- ICMP -----------------------------------------------------------------------------------------------------------------------

ICMP = {
    "net-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "prohibited": (3, 13),
    "source-quench": (4, 0),
    "time-exceeded": (11, 0),
}


def icmp_about(packet: bytes, source: str, kind: str, *, mtu: int = 0) -> bytes:
    """An ICMP message of a kind (a key of ICMP) from `source` to the sender of a packet, which it quotes: header and 8 bytes."""
    type_, code = ICMP[kind]
    message = bytearray(struct.pack(">BBHHH", type_, code, 0, 0, mtu) + packet[:28])
    message[2:4] = checksum(bytes(message)).to_bytes(2, "big")
    return ip_packet(source, str(ipaddress.IPv4Address(packet[12:16])), IP_ICMP, bytes(message))


def sack_option(blocks: Sequence[tuple[int, int]]) -> tuple[int, bytes]:
    """The option that reports blocks."""
    return SACK, b"".join(struct.pack(">II", left & U32, right & U32) for left, right in blocks)


def timestamps_option(value: int, echo: int) -> tuple[int, bytes]:
    """The option with TSval and TSecr."""
    return TIMESTAMPS, struct.pack(">II", value & U32, echo & U32)


def flag_names(flags: int) -> str:
    """`SYN,ACK`; `NONE` for none."""
    return ",".join(name for name, bit in FLAGS.items() if flags & bit) or "NONE"
