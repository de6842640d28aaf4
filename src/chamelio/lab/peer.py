"""The scripted peer: segments as a script describes them go out, ours come in and wait to be compared."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from chamelio.lab.flow import Flow
from chamelio.lab.language import PORT, FlowSpec, Send, SendIcmp, Stamp, Value
from chamelio.lab.link import End
from chamelio.lab.pattern import PEERS, pattern
from chamelio.lab.segments import (
    ACK,
    ECN,
    EOL,
    MSS,
    NOP,
    RST,
    SACKOK,
    SYN,
    U32,
    WSCALE,
    Malformed,
    Segment,
    decode,
    encode,
    icmp_about,
    sack_option,
    timestamps_option,
)

OURS, PEER = "10.0.0.1", "10.0.0.2"
CLOCK = 1000  # TSval of the peer when a script begins; it counts ms
Note = Callable[[str, str, str], None]


class Mismatch(Exception):
    """What came is not what was expected, or what is asked for cannot be; the words say how."""


class Peer:
    """The far end's host. `now` gives ns since the script's start; `note(side, flow, text)` is told of every segment."""

    def __init__(self, end: End, specs: Iterable[FlowSpec], now: Callable[[], int], note: Note) -> None:
        self._end, self._now, self._note = end, now, note
        self.flows = {spec.name: Flow(spec, PORT) for spec in specs}
        self.queues: dict[str, deque[tuple[int, Segment]]] = {name: deque() for name in self.flows}
        self._owner: dict[int, Flow] = {}  # who has a port
        self.names: dict[str, int] = {}  # of timestamps
        self.wrong: str | None = None  # the first thing that no script could expect

    def own(self, flow: Flow) -> None:
        """What comes for its port is a flow's from now on."""
        self._owner[flow.port] = flow

    # ---- out --------------------------------------------------------------------------------------------------------------------

    def send(self, flow: Flow, action: Send) -> None:
        """As many segments as a step asks for. Raises Mismatch for what cannot be sent."""
        length = int(action.fields["len"].value) if "len" in action.fields else 0
        for i in range(action.count):
            self._send_one(flow, action.fields, action.flags, length, i * length)

    def _send_one(self, flow: Flow, fields: dict[str, Value], flags: int, length: int, ahead: int) -> None:
        def number(name: str, default: int) -> int:
            return int(fields[name].value) if name in fields else default

        seq = number("seq", 0) + ahead if "seq" in fields else 0 if flags & SYN else flow.peer_next
        data = pattern(seq - 1 + bool(flags & SYN), length, PEERS).tobytes()
        if "fill" in fields:
            data = bytes([number("fill", 0) & 0xFF]) * length
        acks = bool(flags & ACK) or "ack" in fields
        options, raw = self._options(flow, fields, flags)
        segment = Segment(
            source=PEER,
            destination=OURS,
            source_port=flow.port,
            destination_port=flow.local_port or PORT,
            seq=(flow.isn + seq) & U32,
            ack=((flow.iss or 0) + number("ack", flow.received)) & U32 if acks else 0,
            flags=flags,
            window=_window_field(flow, fields, flags),
            urgent=number("urg", 0),
            options=tuple(options),
            payload=data,
            ecn=ECN[str(fields["ecn"].value)] if "ecn" in fields else 0,
            ttl=number("ttl", 64),
        )
        offset = number("doff", 0) if "doff" in fields else None
        try:
            packet = encode(segment, raw_options=raw, data_offset=offset, bad_checksum="badsum" in fields)
        except ValueError as error:
            raise Mismatch(str(error)) from None
        flow.sent(segment)
        lies = [f"opt={raw.hex()}"] if raw else []
        lies += ["badsum"] if "badsum" in fields else []
        lies += [f"doff={offset}"] if offset is not None else []
        self._note("<", flow.name, " ".join([flow.describe(segment, ours=False), *lies]))
        self._transmit(flow, packet)

    def _transmit(self, flow: Flow, packet: bytes) -> None:
        self.own(flow)
        if not self._end.send(packet):
            raise Mismatch("the wire is full")

    def _options(self, flow: Flow, fields: dict[str, Value], flags: int) -> tuple[list[tuple[int, bytes]], bytes]:
        options: list[tuple[int, bytes]] = []
        raw = b""
        if flow.timestamps and not flags & (SYN | RST) and "ts" not in fields and "nots" not in fields:
            options += [(NOP, b""), (NOP, b""), self._stamps(flow, (Stamp(), Stamp()))]
        for word, value in fields.items():
            name = word.split()[0]
            if name == "mss":
                options.append((MSS, int(value.value).to_bytes(2, "big")))
            elif name == "wscale":
                options.append((WSCALE, bytes([int(value.value)])))
            elif name == "sackok":
                options.append((SACKOK, b""))
            elif name == "ts":
                options.append(self._stamps(flow, value.value or (Stamp(), Stamp())))
            elif name == "sack":
                options.append(sack_option([((flow.iss or 0) + left, (flow.iss or 0) + right) for left, right in value.value]))
            elif name in ("nop", "eol"):
                options.append((NOP if name == "nop" else EOL, b""))
            elif name == "opt":
                raw = value.value
        return options, raw

    def _stamps(self, flow: Flow, stamps: tuple[Stamp, Stamp]) -> tuple[int, bytes]:
        clock = CLOCK + self._now() // 1_000_000
        return timestamps_option(self._stamp(stamps[0], clock), self._stamp(stamps[1], flow.last_stamp or 0))

    def _stamp(self, stamp: Stamp, default: int) -> int:
        if stamp.name is None:
            return default if stamp.number is None else stamp.number
        if stamp.name not in self.names:
            raise Mismatch(f"no segment has given ${stamp.name} a value yet")
        return self.names[stamp.name] + (stamp.number or 0)

    def send_icmp(self, flow: Flow, action: SendIcmp) -> None:
        """A complaint about a segment of ours."""
        packet = flow.last_packet
        if action.seq is not None:
            seq = (flow.iss or 0) + action.seq
            packet = encode(Segment(OURS, PEER, flow.local_port or PORT, flow.port, seq, 0, ACK, payload=bytes(1460)))
        if packet is None:
            raise Mismatch("there is no segment of ours yet that ICMP could be about: give seq=N")
        self._note("<", flow.name, f"icmp {action.kind}" + (f" mtu={action.mtu}" if action.mtu else ""))
        self._transmit(flow, icmp_about(packet, PEER, action.kind, mtu=action.mtu))

    # ---- in ---------------------------------------------------------------------------------------------------------------------

    def step(self, now: int) -> int | None:
        """In each round of the world: what has come of ours."""
        for packet in self._end.receive():
            self._take(packet)
        return None

    def _take(self, packet: bytes) -> None:
        try:
            segment = decode(packet)
        except Malformed as error:
            self._note(">", "", packet.hex())
            self.wrong = self.wrong or f"we have sent a packet that is none: {error}"
            return
        flow = self._owner.get(segment.destination_port)
        if flow is not None and flow.local_port is None:
            flow.local_port = segment.source_port
        if flow is None or flow.local_port != segment.source_port or (segment.source, segment.destination) != (OURS, PEER):
            self._note(">", "", repr(segment))
            self.wrong = self.wrong or "we have sent a segment to somewhere else"
            return
        flow.last_packet = packet
        wrong = flow.came(segment)
        text = flow.describe(segment, ours=True)
        self._note(">", flow.name, text)
        if wrong is not None:
            self.wrong = self.wrong or f"came      > {text}\n{wrong}"
        self.queues[flow.name].append((self._now(), segment))


def _window_field(flow: Flow, fields: dict[str, Value], flags: int) -> int:
    shift = 0 if flags & SYN else flow.shift(flow.peer_syn)
    if "win" not in fields:
        return min(flow.window >> shift, 65535)
    window = flow.window = int(fields["win"].value)
    if window >> shift << shift != window or window >> shift > 65535:
        raise Mismatch(f"win={window} cannot be said with a window scale of {shift}: use a multiple of {1 << shift}")
    return window >> shift
