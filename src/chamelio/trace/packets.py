"""Packets for a trace: from hexadecimal digits or a capture, in words, and what the provider's checks say of them."""

from __future__ import annotations

import ipaddress
import re
import struct
from pathlib import Path
from typing import NamedTuple

from chamelio import toolchain
from chamelio.messages import Refusal
from chamelio.trace.turn import internet_sum
from chamelio.verify.catalogue import PACKET_MAX

MAX_CAPTURE = 256 << 20
ETHERNET, RAW = 1, 101  # link types
ETHERNET_BYTES, IPV4_MIN = 14, 20
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ARP, _IPV4 = b"\x08\x06", b"\x08\x00"
_ETHERTYPES = {0x0806: "ARP", 0x8100: "a VLAN tag", 0x86DD: "IPv6"}
_DROP = re.compile(r'X\(\w+, "(\w+)", "([^"]*)"\)')


class Check(NamedTuple):
    """One look of the provider at a packet. `drop`: the reason (fastpath/catalogue.h) with which the packet ends here, or None."""

    name: str
    drop: str | None
    text: str


def drop_texts() -> dict[str, str]:
    """What each reason for a drop means."""
    catalogue = (toolchain.FASTPATH / "catalogue.h").read_text()
    drops = catalogue[catalogue.index("#define CHAM_DROPS") : catalogue.index("#define CHAM_EVENTS")]
    return dict(_DROP.findall(drops))


# ---- where they come from ---------------------------------------------------------------------------------------------


def read_packet(text: str) -> tuple[bytes | None, bytes]:
    """Ethernet header (None: there was none) and what is behind it, from HEX or FILE.pcapng[:N]. Raises Refusal."""
    digits = re.sub(r"[\s:]", "", text)
    if re.fullmatch(r"(0x)?[0-9A-Fa-f]+", digits):
        digits = digits.removeprefix("0x")
        if len(digits) % 2:
            raise Refusal("usage", f"--packet: {len(digits)} digits are half a byte too many", "write two digits for each byte")
        return _split(bytes.fromhex(digits), None)
    name, colon, number = text.rpartition(":")
    if not (colon and number.isdecimal()):
        name, number = text, "1"
    path = Path(name)
    try:
        if path.stat().st_size > MAX_CAPTURE:
            raise Refusal(
                "usage", f"--packet {name}: the file has more than {MAX_CAPTURE >> 20} MiB", "cut out the packets you need"
            )
        packets = read_pcapng(path.read_bytes(), name)
    except OSError as error:
        raise Refusal(
            "usage",
            f"--packet {text}: {error.strerror or error}",
            "give hexadecimal digits, or FILE.pcapng with :N for its Nth packet",
        ) from None
    wanted = int(number)
    if not 1 <= wanted <= len(packets):
        raise Refusal("usage", f"--packet {text}: there is no packet {wanted}", f"{name} has {len(packets)}; the first is :1")
    link, content = packets[wanted - 1]
    if link == ETHERNET and content[12:14] == _ARP:
        others = [str(n) for n, (_, p) in enumerate(packets, start=1) if p[12:14] == _IPV4]
        hint = (
            f"IPv4 packets of {name} are {', '.join(others[:20])}{', ...' if len(others) > 20 else ''}"
            if others
            else "there is no IPv4"
        )
        raise Refusal("usage", f"--packet {text}: packet {wanted} is ARP, which the provider answers by itself", hint)
    return _split(content, link)


def _split(content: bytes, link: int | None) -> tuple[bytes | None, bytes]:
    """Header and packet; what begins with 4 is an IP packet, unless a capture says otherwise."""
    ethernet = link == ETHERNET or (link is None and len(content) >= ETHERNET_BYTES and content[:1].hex()[0] != "4")
    if link not in (None, ETHERNET, RAW):
        raise Refusal("usage", f"the capture has link type {link}", "only Ethernet (1) and raw IP (101) are understood")
    head, packet = (content[:ETHERNET_BYTES], content[ETHERNET_BYTES:]) if ethernet else (None, content)
    if ethernet and len(content) < ETHERNET_BYTES:
        raise Refusal("usage", f"the frame has {len(content)} bytes", "an Ethernet header takes 14")
    if len(packet) > PACKET_MAX:
        raise Refusal("usage", f"the packet has {len(packet)} bytes", f"the engine's longest is {PACKET_MAX}")
    return head, packet


def read_pcapng(data: bytes, name: str) -> list[tuple[int, bytes]]:
    """(link type, bytes) of the packets of a capture, up to where it ends or is damaged. Raises Refusal: not a pcapng file."""
    if data[:4] != struct.pack("<I", _SECTION):
        hint = "write it as pcapng: `tcpdump` and `tshark` can, and so does a port pcap(FILE):..."
        raise Refusal("usage", f"{name} is not a pcapng file", hint)
    order, at = "<", 0
    links: list[int] = []
    packets: list[tuple[int, bytes]] = []
    while at + 12 <= len(data):
        if data[at : at + 4] == struct.pack("<I", _SECTION):
            order = "<" if data[at + 8 : at + 12] == struct.pack("<I", 0x1A2B3C4D) else ">"
            links = []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or length % 4 or at + length > len(data):
            break
        body = data[at + 8 : at + length - 4]
        if kind == _INTERFACE and len(body) >= 8:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == _PACKET and len(body) >= 20:
            interface, _, _, captured, _ = struct.unpack_from(order + "IIIII", body)
            if interface < len(links) and captured <= len(body) - 20:
                packets.append((links[interface], body[20 : 20 + captured]))
        at += length
    return packets


# ---- in words ---------------------------------------------------------------------------------------------------------


def _address(data: bytes) -> str:
    return str(ipaddress.IPv4Address(data))


def describe(packet: bytes | None) -> str:
    """A packet in one line."""
    if packet is None:
        return "no packet"
    if len(packet) < IPV4_MIN or packet[0] >> 4 != 4:
        return f"{len(packet)} bytes, no IPv4 header" + (f": {packet[:32].hex(' ', 4)}" if packet else "")
    header, protocol = (packet[0] & 15) * 4, packet[9]
    text = f"IPv4 {_address(packet[12:16])} -> {_address(packet[16:20])}, protocol {protocol}, ttl {packet[8]}, {len(packet)} bytes"
    behind = packet[header:]
    if protocol in (6, 17) and len(behind) >= 4:
        source, destination = struct.unpack_from(">HH", behind)
        text += f", ports {source} -> {destination}"
    if behind:
        text += f"; behind the header: {behind[:24].hex(' ', 4)}{'...' if len(behind) > 24 else ''}"
    return text


def destination(packet: bytes | None) -> str | None:
    """Whom a packet is for."""
    return _address(packet[16:20]) if packet is not None and len(packet) >= IPV4_MIN and packet[0] >> 4 == 4 else None


# ---- the provider's checks --------------------------------------------------------------------------------------------


def unicast(address: bytes) -> bool:
    """As `ipv4_unicast` in fastpath/net.h."""
    return address[0] not in (0, 127) and address[0] < 224


def check_input(ethernet: bytes | None, packet: bytes, address: str | None, protocol: int, ports: tuple[int, int]) -> list[Check]:
    """What the provider checks before the rx hook, as fastpath/input.c does; it ends at the first that fails.

    `address`: the tenant's, if it is known; `protocol` 0: not known.
    """
    checks: list[Check] = []

    def check(name: str, drop: str, holds: bool, text: str) -> bool:
        checks.append(Check(name, None if holds else drop, text))
        return holds

    if ethernet is not None:
        kind = int.from_bytes(ethernet[12:14], "big")
        drop = "vlan" if kind in (0x8100, 0x88A8) else "unknown_ethertype"
        if not check("Ethernet", drop, kind == 0x0800, "IPv4" if kind == 0x0800 else _ETHERTYPES.get(kind, f"type {kind:#06x}")):
            return checks
    if not check("length", "short_frame", len(packet) >= IPV4_MIN, f"{len(packet)} bytes"):
        return checks
    if not check("version", "bad_ip_version", packet[0] >> 4 == 4, str(packet[0] >> 4)):
        return checks
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    fits = header >= IPV4_MIN and header <= total <= len(packet)
    if not check("lengths", "bad_ip_header", fits, f"header {header}, total {total}, frame {len(packet)}"):
        return checks
    if not check("checksum", "bad_ip_checksum", internet_sum(packet[:header]) == 0xFFFF, packet[10:12].hex()):
        return checks
    whole = not int.from_bytes(packet[6:8], "big") & 0x3FFF
    if not check("fragment", "ip_fragment", whole, "whole" if whole else "a fragment"):
        return checks
    good = unicast(packet[12:16]) and _address(packet[12:16]) != address
    if not check("source", "bad_ip_source", good, _address(packet[12:16])):
        return checks
    destination = _address(packet[16:20])
    if address is not None and not check("destination", "unknown_address", destination == address, destination):
        return checks
    port = int.from_bytes(packet[header + 2 : header + 4], "big") if total >= header + 4 else 0
    if protocol:
        right = packet[9] == protocol and ports[0] <= port <= ports[1]
        span = "" if ports == (0, 65535) else f", port {port} of {ports[0]}-{ports[1]}"
        check("demux", "no_protocol", right, f"IP protocol {packet[9]}, this one is {protocol}{span}")
    return checks


def trimmed(packet: bytes) -> bytes:
    """The packet without the padding of its link, where its header says how long it is."""
    total = int.from_bytes(packet[2:4], "big")
    return packet[:total] if len(packet) >= IPV4_MIN and packet[0] >> 4 == 4 and IPV4_MIN <= total <= len(packet) else packet


def check_output(packet: bytes, address: str | None, protocol: int) -> Check:
    """What the provider checks before it sends a tenant's packet, as `refuse` in fastpath/output.c."""
    header = (packet[0] & 15) * 4 if packet else 0
    if (
        len(packet) < IPV4_MIN or packet[0] >> 4 != 4 or not IPV4_MIN <= header <= len(packet)
        or int.from_bytes(packet[2:4], "big") != len(packet)
    ):  # fmt: skip
        return Check("header", "tx_bad_header", f"{len(packet)} bytes")
    if address is not None and _address(packet[12:16]) != address:
        return Check("source", "tx_spoofed_source", f"{_address(packet[12:16])}, the tenant has {address}")
    if protocol and packet[9] not in (protocol, 1):
        return Check("protocol", "tx_protocol", f"IP protocol {packet[9]}, this one is {protocol}")
    if not unicast(packet[16:20]):
        return Check("destination", "tx_destination", _address(packet[16:20]))
    return Check("output", None, "header, source, protocol and destination are right")
