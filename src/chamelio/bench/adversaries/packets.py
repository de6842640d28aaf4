"""Packets as a peer writes them: IPv4 and UDP headers, checksums, frames."""

from __future__ import annotations

import numpy as np

PEER_MAC = bytes.fromhex("020000000099")
ETHERNET, IPV4, UDP = 14, 20, 8  # bytes of headers


def octets(address: str) -> bytes:
    """The four bytes of an IPv4 address."""
    return bytes(map(int, address.split(".")))


def checksum(data: bytes) -> int:
    """Of the Internet (RFC 1071)."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2").astype(np.uint64).sum()
    total = int(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: str, dst: str, payload: bytes, protocol: int = 17, **changes: int) -> bytes:
    """An IPv4 packet; `changes` replaces header fields by name: ihl, total, fragment, ttl, checksum."""
    header = bytearray(IPV4)
    header[0] = 0x40 | changes.get("ihl", 5)
    header[2:4] = changes.get("total", IPV4 + len(payload)).to_bytes(2, "big")
    header[6:8] = changes.get("fragment", 0).to_bytes(2, "big")
    header[8], header[9] = changes.get("ttl", 64), protocol
    header[12:16], header[16:20] = octets(src), octets(dst)
    header[10:12] = changes.get("checksum", checksum(bytes(header))).to_bytes(2, "big")
    return bytes(header) + payload


def udp(src: str, dst: str, payload: bytes, sport: int = 1000, dport: int = 7) -> bytes:
    """A UDP packet without a checksum."""
    return ipv4(src, dst, b"".join(v.to_bytes(2, "big") for v in (sport, dport, UDP + len(payload), 0)) + payload)


def arp(mac: bytes, ours: str, theirs: str, op: int = 1) -> bytes:
    """An ARP frame of the peer `ours` for the address `theirs`; `mac` is the receiver's (RFC 826)."""
    head = bytes.fromhex("000108000604") + op.to_bytes(2, "big")
    target = bytes(6) if op == 1 else mac
    return (b"\xff" * 6 if op == 1 else mac) + PEER_MAC + b"\x08\x06" + head + PEER_MAC + octets(ours) + target + octets(theirs)
