"""rpc's handlers and slow path against what strangers and peers send, and what a tenant's own applications write for each other."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from chamelio.protocols.rpc.packets import BYE, HELLO, IP_RPC, PING, PONG, REJECT, RESET, WELCOME, Control, decode
from chamelio.tenant.rings import Consumer, Producer
from chamelio.world import World
from virtual import PEER_MAC, address, checksum, ipv4

ADDRESS, PEER, PORT, PEER_PORT = "10.0.0.1", "10.0.0.9", 7, 5555
OWNER, OTHER = 1, 2  # contexts
REQUEST, RESPONSE, ACK = 0, 1, 2
ASK, PROBE, WORKING = 1, 2, 4
CALL, REPLY, OPEN, CLOSE = 1, 2, 16, 17
OPENED, CLOSED, ASKED, ANSWERED, FAILED = range(1, 6)
REASONS = (
    *("", "SHORT", "CHECKSUM", "BAD_SEGMENT", "BAD_SLOT", "STALE", "WRONG_WAY", "UNKNOWN_KIND", "NO_SESSION"),
    *("NOT_ALLOWED", "NOT_IDLE", "RING_FULL", "NO_ROOM"),
)
SEGMENT = 1440
THEIR_TOKEN = 0x01020304


class Rpc:
    """A tenant that serves port 7 for the first of its two applications, and a peer that knows the protocol."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, world.host()
        port, self.peer = world.peer(self.host)
        self.host.add_route("10.0.0.0/24", port)
        self.mac = bytes.fromhex(self.host.describe()["ports"][0]["mac"].replace(":", ""))
        self.tenant = world.tenant(self.host, "red", ADDRESS, "rpc")
        self.region, self.slow_path = self.tenant.agent.region, self.tenant.agent.slow_path
        for context in (OWNER, OTHER):
            self.host.attach(self.tenant.instance.index, context)
        head = bytes.fromhex("0001080006040001")
        self.peer.send(
            b"\xff" * 6 + PEER_MAC + b"\x08\x06" + head + PEER_MAC + bytes([10, 0, 0, 9]) + bytes(6) + bytes([10, 0, 0, 1])
        )
        self.events: Consumer = self.region.consumer("events", OWNER)
        self.slow_path.on_request(OWNER, "serve", {"port": PORT})
        self.token = 0
        self.run()

    def run(self, ns: int = 200_000) -> list[bytes]:
        """Let time pass, also for the slow path; rpc packets that arrived at the peer, from the IP header on."""
        for _ in range(3):
            self.world.run(for_ns=ns // 3)
            self.tenant.agent.runtime.poll(self.world.now)
        self.world.run(for_ns=ns // 3)
        return [f[14:] for f in self.peer.receive() if f[12:14] == b"\x08\x00"]

    def told(self) -> list[tuple[int, ...]]:
        """Events of the owner: kind, session, slot, number, length, generation, core, error."""
        return [tuple(e) for e in self.events.take(4096).tolist()]

    def send(self, packet: bytes) -> list[bytes]:
        """Send one packet to the tenant; what comes back."""
        self.peer.send(self.mac + PEER_MAC + b"\x08\x00" + packet)
        return self.run()

    def packet(self, kind: int, payload: bytes = b"", **fields: Any) -> bytes:
        """A packet of the established session; `fields` say what is different."""
        f = {"source": PEER_PORT, "destination": PORT, "token": self.token, "slot": 0, "flags": 0, "segment": 0, "number": 1}
        f |= {"length": len(payload), "credit": 16, "address": PEER} | fields
        rpc = bytearray(struct.pack(">HH", f["source"], f["destination"]) + struct.pack("<I", f["token"]))
        rpc += struct.pack(">BBBBIIHH", kind, f["slot"], f["flags"], f["segment"], f["number"], f["length"], f["credit"], 0)
        rpc += payload
        pseudo = bytes(map(int, f["address"].split("."))) + bytes([10, 0, 0, 1]) + struct.pack(">HH", IP_RPC, len(rpc))
        rpc[22:24] = f.get("checksum", checksum(pseudo + rpc)).to_bytes(2, "big")
        return ipv4(f["address"], ADDRESS, bytes(rpc), IP_RPC)

    def control(self, kind: int, **fields: int) -> list[bytes]:
        """Send a packet of the peer's slow path."""
        control = Control(kind, address(PEER), address(ADDRESS), PEER_PORT, PORT, self.token)
        return self.send(replace(control, **fields).encode())

    def establish(self) -> None:
        """The peer is a client with a session."""
        (welcome,) = [decode(p) for p in self.control(HELLO, token=0, about=THEIR_TOKEN, value=32)]
        assert welcome is not None and (welcome.kind, welcome.token) == (WELCOME, THEIR_TOKEN)
        self.token = welcome.about
        ((kind, self.session, *_),) = self.told()
        assert kind == OPENED
        self.generation = int(self.region.values("about")["generation"][self.session])

    def put(self, by: int, /, **fields: int) -> list[bytes]:
        """An entry in the ring of a context."""
        ring: Producer = self.region.producer("entries", by)
        entry = ring.entries[ring.pos % ring.slots : ring.pos % ring.slots + 1]
        known = {"session": self.session, "generation": self.generation} if self.token else {}
        for name in entry.dtype.names or ():
            entry[name] = (known | fields).get(name, 0)
        ring.publish()
        return self.run()

    def reasons(self) -> dict[str, int]:
        """Handlers' errors so far."""
        counts = self.host.counters()["instances"][self.tenant.instance.index]["reasons"]
        return {REASONS[i]: int(n) for i, n in enumerate(counts) if n}


def header(packet: bytes) -> dict[str, int]:
    """Fields of a packet that the tenant has sent."""
    names = ("kind", "slot", "flags", "segment", "number", "length", "credit")
    return dict(zip(names, struct.unpack(">BBBBIIH", packet[28:42]), strict=True))


@pytest.fixture
def idle(world: World) -> Iterator[Rpc]:
    yield Rpc(world)


@pytest.fixture
def session(idle: Rpc) -> Rpc:
    idle.establish()
    return idle


def test_a_request_is_told_once_and_its_answer_is_sent_as_often_as_it_is_asked_for(session: Rpc) -> None:
    request = session.packet(REQUEST, b"question")
    assert session.send(request) == [] and [e[0] for e in session.told()] == [ASKED]
    assert session.send(request) == [] == session.told(), "a duplicate is nothing new"
    (ack,) = session.send(session.packet(REQUEST, b"question", flags=ASK | PROBE))
    assert (header(ack)["kind"], header(ack)["flags"], ack[44:]) == (ACK, PROBE | WORKING, (1).to_bytes(8, "big"))
    (answer,) = session.put(OWNER, kind=REPLY, slot=0, number=1, len=6)
    assert (header(answer)["kind"], len(answer)) == (RESPONSE, 44 + 6)
    assert session.send(request) == []
    assert session.send(session.packet(REQUEST, b"question", flags=PROBE)) == [answer]
    assert session.told() == []
    assert session.put(OWNER, kind=REPLY, slot=0, number=1, len=6) == []
    assert session.reasons() == {"STALE": 1}, "a second answer is none"


def test_an_old_number_is_never_executed(session: Rpc) -> None:
    session.send(session.packet(REQUEST, b"five", number=5))
    session.put(OWNER, kind=REPLY, slot=0, number=5, len=1)
    session.told()
    for number in (4, 1, 0, 5 + 2**31, 2**32 - 1):
        assert session.send(session.packet(REQUEST, b"old!", number=number)) == []
    assert session.told() == [] and session.reasons() == {"STALE": 5}
    session.send(session.packet(REQUEST, b"six!", number=6))
    assert [(e[0], e[3]) for e in session.told()] == [(ASKED, 6)]


def test_a_slot_whose_request_is_executed_takes_no_other(session: Rpc) -> None:
    session.send(session.packet(REQUEST, b"first"))
    session.told()
    (ack,) = session.send(session.packet(REQUEST, b"second", number=2))
    assert (header(ack)["flags"], header(ack)["number"], ack[44:]) == (WORKING, 2, bytes(8))
    assert session.told() == []
    rx = session.region.buffers("rx_bytes")[session.session * 32]
    at = session.session * 32 * 320
    assert bytes(rx[at : at + 5]) == b"first"


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("BAD_SLOT", {"slot": 32}),
        ("BAD_SLOT", {"slot": 255}),
        ("BAD_SEGMENT", {"segment": 1}),
        ("BAD_SEGMENT", {"segment": 255}),
        ("BAD_SEGMENT", {"length": 0}),
        ("BAD_SEGMENT", {"length": 9}),
        ("BAD_SEGMENT", {"length": 65537}),
        ("BAD_SEGMENT", {"length": 2**32 - 1}),
        ("BAD_SEGMENT", {"length": 2**32 - 1, "segment": 255}),
        ("CHECKSUM", {"checksum": 1}),
        ("WRONG_WAY", {"kind": RESPONSE}),
        ("WRONG_WAY", {"kind": 3}),
        ("WRONG_WAY", {"kind": 15}),
        ("SHORT", {"kind": ACK, "payload": b"1234567"}),
        ("STALE", {"kind": ACK, "number": 3}),
    ],
)
def test_what_a_peer_must_not_send(session: Rpc, reason: str, fields: dict[str, Any]) -> None:
    how = {"kind": REQUEST, "payload": b"12345678", **fields}
    assert session.send(session.packet(how.pop("kind"), how.pop("payload"), **how)) == []
    assert session.told() == [] and session.reasons() == {reason: 1}


@pytest.mark.parametrize("cut", range(20, 44))
def test_a_packet_that_ends_early(session: Rpc, cut: int) -> None:
    whole = session.packet(REQUEST, b"")
    assert session.send(ipv4(PEER, ADDRESS, whole[20:cut], IP_RPC)) == []
    assert session.told() == [] and set(session.reasons()) <= {"SHORT", "CHECKSUM"}


@pytest.mark.parametrize("changed", ["source", "token", "address"])
def test_a_stranger_is_not_in_the_session_and_hears_so(session: Rpc, changed: str) -> None:
    value: Any = {"source": PEER_PORT + 1, "token": session.token ^ 0x1000, "address": "10.0.0.8"}[changed]
    answers = [decode(p) for p in session.send(session.packet(REQUEST, b"mine", **{changed: value}))]
    if changed == "address":
        answers += [decode(p) for p in session.run()]  # nobody answers ARP there
    assert all(a is not None and (a.kind, a.token) == (RESET, 0) for a in answers)
    assert session.told() == []
    assert session.put(OWNER, kind=REPLY, slot=0, number=1, len=1) == []


def test_segments_may_come_in_any_order_but_not_of_two_lengths(session: Rpc) -> None:
    message = random.Random(1).randbytes(5 * SEGMENT + 7)
    parts = [(i, message[i * SEGMENT : (i + 1) * SEGMENT]) for i in range(6)]
    random.Random(2).shuffle(parts)
    for i, part in parts[:-1]:
        assert session.send(session.packet(REQUEST, part, segment=i, length=len(message))) == []
    session.send(session.packet(REQUEST, bytes(SEGMENT), segment=0, length=2 * SEGMENT))
    assert session.told() == [] and session.reasons() == {"BAD_SEGMENT": 1}
    i, part = parts[-1]
    (ack,) = session.send(session.packet(REQUEST, part, segment=i, length=len(message), flags=ASK))
    assert ack[44:] == (0b111111).to_bytes(8, "big")
    assert [e[4] for e in session.told()] == [len(message)]
    rx = bytes(session.region.buffers("rx_bytes")[session.session * 32])
    at = session.session * 32 * 320
    assert rx[at : at + len(message)] == message


def test_acknowledgements_of_what_was_never_sent_change_nothing(session: Rpc) -> None:
    session.send(session.packet(REQUEST, b"long", credit=4))
    first = session.put(OWNER, kind=REPLY, slot=0, number=1, len=65536)
    assert len(first) == 4, "as many as the peer's credit allows"
    everything = session.send(session.packet(ACK, b"\xff" * 8, credit=4))
    assert len(everything) == 4, "what was sent is acknowledged, no more"
    assert [header(p)["segment"] for p in first + everything] == list(range(8))
    assert session.send(session.packet(ACK, bytes(8), credit=4)) == []


def test_credit_of_a_peer_is_limited(session: Rpc) -> None:
    session.send(session.packet(REQUEST, b"long", credit=65535))
    assert len(session.put(OWNER, kind=REPLY, slot=0, number=1, len=65536)) <= 46
    assert session.reasons() == {}


@pytest.mark.parametrize(
    ("reason", "by", "fields"),
    [
        ("NOT_ALLOWED", OTHER, {"kind": REPLY, "number": 1}),
        ("NOT_ALLOWED", OTHER, {"kind": OPEN}),
        ("NOT_ALLOWED", OWNER, {"kind": OPEN}),
        ("NOT_ALLOWED", OWNER, {"kind": CLOSE}),
        ("NOT_ALLOWED", OWNER, {"kind": 2**32 - 1}),
        ("NO_SESSION", OWNER, {"kind": REPLY, "session": 63}),
        ("NO_SESSION", OWNER, {"kind": REPLY, "session": 64}),
        ("NO_SESSION", OWNER, {"kind": REPLY, "session": 2**32 - 1}),
        ("STALE", OWNER, {"kind": REPLY, "number": 1, "generation": 77}),
        ("STALE", OWNER, {"kind": REPLY, "number": 2}),
        ("BAD_SLOT", OWNER, {"kind": REPLY, "number": 1, "slot": 32}),
        ("BAD_SLOT", OWNER, {"kind": REPLY, "number": 1, "slot": 2**32 - 1}),
        ("BAD_SEGMENT", OWNER, {"kind": REPLY, "number": 1, "len": 65537}),
        ("BAD_SEGMENT", OWNER, {"kind": REPLY, "number": 1, "len": 2**32 - 1}),
        ("WRONG_WAY", OWNER, {"kind": CALL, "number": 2}),
        ("WRONG_WAY", OWNER, {"kind": 0}),
    ],
)
def test_what_an_application_must_not_write(session: Rpc, reason: str, by: int, fields: dict[str, int]) -> None:
    session.send(session.packet(REQUEST, b"question"))
    assert session.put(by, **fields) == []
    assert session.reasons() == {reason: 1}
    assert len(session.put(OWNER, kind=REPLY, slot=0, number=1, len=3)) == 1, "the session is as it was"


# ---- the slow path ------------------------------------------------------------------------------------------------------------


def test_a_hello_again_is_welcomed_again(session: Rpc) -> None:
    (again,) = [decode(p) for p in session.control(HELLO, token=0, about=THEIR_TOKEN, value=32)]
    assert again is not None and again.about == session.token and session.told() == []


def test_a_client_that_begins_anew_is_believed_when_its_old_session_is_unknown_there(session: Rpc) -> None:
    (ping,) = [decode(p) for p in session.control(HELLO, token=0, about=0x999, value=32)]
    assert ping is not None and (ping.kind, ping.token) == (PING, THEIR_TOKEN)
    assert session.control(PONG) == session.told() == [], "it lives, and the other was a stranger"
    session.control(RESET, token=0, about=THEIR_TOKEN)
    (other,) = [decode(p) for p in session.control(HELLO, token=0, about=0x999, value=32)]
    assert other is not None and other.token == 0x999 and other.about != session.token
    assert [e[0] for e in session.told()] == [CLOSED, OPENED]


@pytest.mark.parametrize("fields", [{"token": 1}, {"remote_port": PORT + 1}, {"local_port": PEER_PORT + 1}])
@pytest.mark.parametrize("kind", [BYE, RESET, REJECT, WELCOME, PING])
def test_words_about_a_session_need_its_token_and_ends(session: Rpc, kind: int, fields: dict[str, int]) -> None:
    session.control(kind, about=THEIR_TOKEN if "token" not in fields else 5, **fields)
    assert session.told() == []


def test_a_session_ends_by_a_bye_or_a_reset_of_the_peer(session: Rpc) -> None:
    session.control(BYE)
    assert [e[0] for e in session.told()] == [CLOSED]
    session.token = 0
    session.establish()
    session.control(RESET, token=0, about=THEIR_TOKEN)
    assert [e[0] for e in session.told()] == [CLOSED]


def test_a_client_that_says_nothing_is_asked_and_given_up(session: Rpc) -> None:
    pings = 0
    for _ in range(20):
        pings += sum(d is not None and d.kind == PING for d in map(decode, session.run(1_000_000_000)))
    assert pings == 5 and [e[0] for e in session.told()] == [CLOSED]


def test_a_client_that_answers_pings_stays(session: Rpc) -> None:
    for _ in range(40):
        for packet in session.run(1_000_000_000):
            control = decode(packet)
            if control is not None and control.kind == PING:
                session.control(PONG)
    assert session.told() == []


def test_hellos_beyond_the_number_of_sessions_are_refused(idle: Rpc) -> None:
    kinds = []
    for i in range(70):
        kinds += [d.kind for d in map(decode, idle.control(HELLO, token=0, about=i + 1, value=32, local_port=1000 + i)) if d]
    assert kinds == [WELCOME] * 64 + [REJECT] * 6


@pytest.mark.parametrize("seed", range(3))
def test_random_packets_harm_nothing(session: Rpc, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(600):
        fields = {
            "slot": generator.choice([0, 1, 31, 32, 255]),
            "flags": generator.randrange(256),
            "segment": generator.choice([0, 0, 0, 1, 45, 46, 63, 64, 255]),
            "number": generator.choice([0, 1, 2, 3, 2**31, 2**32 - 1]),
            "length": generator.choice([8, 8, 8, 0, 1440, 1448, 65536, 65537, 2**32 - 1]),
            "credit": generator.choice([0, 1, 64, 65535]),
        }
        kind = generator.choice([REQUEST, RESPONSE, ACK, *range(3, BYE)] + [REQUEST, ACK] * 10)
        session.send(session.packet(kind, generator.randbytes(generator.choice([0, 8, 8, 1440])), **fields))
        if generator.random() < 0.3:
            slot, number = generator.choice([0, 1, 31]), generator.choice([0, 1, 2, 3])
            session.put(OWNER, kind=generator.choice([CALL, REPLY]), slot=slot, number=number, len=generator.choice([0, 9, 65536]))
    assert session.tenant.agent.runtime.errors == 0, session.tenant.agent.runtime.last_error
    seen = {(e[2], e[3]) for e in session.told() if e[0] == ASKED}
    assert seen, "some were requests"
    session.send(session.packet(BYE, bytes(8)))
    session.world.run(for_ns=100_000_000)
    assert session.host.free_frames[0] == session.host.free_frames[1]
