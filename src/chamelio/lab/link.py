"""The far end of a wire in Python: frames, ARP, and the IPv4 packets that come and go."""

from __future__ import annotations

from chamelio.engine.engine import Engine
from chamelio.engine.ports import WirePeer
from chamelio.lab.segments import address_bytes

PEER_MAC = bytes.fromhex("020000000099")
ARP, IPV4 = b"\x08\x06", b"\x08\x00"


def port_mac(host: Engine, port: int) -> bytes:
    """The hardware address of a host's port."""
    return bytes.fromhex(str(host.describe()["ports"][port]["mac"]).replace(":", ""))


def _arp(op: int, sender_mac: bytes, sender: str, target_mac: bytes, target: bytes, to: bytes) -> bytes:
    body = b"\0\1" + IPV4 + b"\6\4" + op.to_bytes(2, "big") + sender_mac + address_bytes(sender) + target_mac + target
    return to + sender_mac + ARP + body


def arp_request(mac: bytes, sender: str, target: str) -> bytes:
    """A frame in which somebody asks for an address. Whose address it is knows then where the asker is."""
    return _arp(1, mac, sender, bytes(6), address_bytes(target), b"\xff" * 6)


class End:
    """One end of a wire to a host's port, at an address of its own, which answers ARP for it."""

    def __init__(self, host: Engine, port: int, wire: WirePeer, address: str) -> None:
        self._wire, self.address = wire, address
        self.mac = port_mac(host, port)

    def greet(self, address: str) -> None:
        """Ask for an address of the host: it knows then where we are."""
        self._wire.send(arp_request(PEER_MAC, self.address, address))

    def send(self, packet: bytes, *, checked: bool = False) -> bool:
        """Put an IPv4 packet on the wire; False if that is full. `checked`: vouch for its transport checksum."""
        return self._wire.send(self.mac + PEER_MAC + IPV4 + packet, checked=checked)

    def receive(self) -> list[bytes]:
        """The IPv4 packets that have come; questions for our address are answered."""
        packets = []
        for frame in self._wire.receive():
            if frame[12:14] == IPV4:
                packets.append(frame[14:])
            elif frame[12:14] == ARP and frame[20:22] == b"\0\1" and frame[38:42] == address_bytes(self.address):
                self._wire.send(_arp(2, PEER_MAC, self.address, frame[22:28], frame[28:32], frame[22:28]))
        return packets
