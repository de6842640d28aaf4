"""A connection as its scripted peer knows it: relative numbers, what was agreed on, segments in the words of scripts."""

from __future__ import annotations

from chamelio.lab.language import FlowSpec
from chamelio.lab.pattern import OURS, first_difference
from chamelio.lab.segments import (
    ACK,
    ECN,
    FIN,
    MSS,
    RST,
    SACK,
    SACKOK,
    SYN,
    TIMESTAMPS,
    U32,
    WSCALE,
    Segment,
    flag_names,
)

DEFAULT_MSS = 536  # RFC 9293 3.7.1
MAX_SHIFT = 14  # RFC 7323 2.3
WINDOW = 65535


def signed(difference: int) -> int:
    """A difference of two 32-bit numbers, the nearer way round."""
    return ((difference + (1 << 31)) & U32) - (1 << 31)


class Flow:
    """One flow of a script. "We" are the stack that is tested; what is not called absolute is relative to the SYNs."""

    def __init__(self, spec: FlowSpec, local_port: int | None) -> None:
        self.name, self.port, self.isn = spec.name, spec.port, spec.isn
        self.local_port = local_port  # ours; None: not known yet
        self.iss: int | None = None
        self.peer_next = 0  # what the peer sends next
        self.our_next = 0  # what is expected of us next
        self.received = 0  # what the peer has received in order
        self._beyond: list[tuple[int, int]] = []
        self.peer_syn: Segment | None = None
        self.our_syn: Segment | None = None
        self.window = WINDOW  # what the peer announces, bytes
        self.last_stamp: int | None = None  # TSval of our last segment
        self.sent_stamps = {0}
        self.last_packet: bytes | None = None  # of ours

    def reset_ours(self) -> None:
        """We begin anew: another initial sequence number, perhaps another port."""
        self.iss, self.our_next, self.received, self._beyond = None, 0, 0, []
        self.our_syn, self.local_port, self.last_stamp = None, None, None

    # ---- what both sides have agreed on -----------------------------------------------------------------------------------------

    def _both(self, kind: int) -> bool:
        syns = (self.peer_syn, self.our_syn)
        return all(syn is not None and syn.option(kind) is not None for syn in syns)

    @property
    def timestamps(self) -> bool:
        """RFC 7323 3.2."""
        return self._both(TIMESTAMPS)

    @property
    def ecn(self) -> bool:
        """RFC 3168 6.1.1."""
        syns = (self.peer_syn, self.our_syn)
        return all(syn is not None and syn.flags & 0x40 for syn in syns)

    def shift(self, syn: Segment | None) -> int:
        """The window scale of whoever sent a SYN (RFC 7323 2.2)."""
        if syn is None or not self._both(WSCALE):
            return 0
        return min((syn.option(WSCALE) or b"\0")[0], MAX_SHIFT)

    @property
    def mss(self) -> int:
        """What the peer has announced."""
        value = self.peer_syn.option(MSS) if self.peer_syn else None
        return int.from_bytes(value, "big") if value else DEFAULT_MSS

    # ---- relative numbers -------------------------------------------------------------------------------------------------------

    def of_peer(self, absolute: int) -> int:
        """A sequence number of the peer's, relative."""
        return signed(absolute - self.isn)

    def of_us(self, absolute: int) -> int:
        """A sequence number of ours, relative."""
        return signed(absolute - (self.iss or 0))

    def window_of(self, segment: Segment, syn: Segment | None) -> int:
        """The window that a segment announces, in bytes."""
        return segment.window << (0 if segment.flags & SYN else self.shift(syn))

    # ---- segments come and go ---------------------------------------------------------------------------------------------------

    def sent(self, segment: Segment) -> None:
        """The peer has sent this."""
        if segment.flags & SYN:
            self.peer_syn = segment
        if segment.timestamps is not None:
            self.sent_stamps.add(segment.timestamps[0])
        self.peer_next = max(self.peer_next, self.of_peer(segment.seq) + segment.length)

    def came(self, segment: Segment) -> str | None:
        """One of ours has come. What is wrong with it whatever the script says, or None."""
        if segment.flags & SYN and self.iss is None:
            self.iss = segment.seq
        wrong = self._always(segment)
        if segment.flags & SYN:
            self.our_syn = segment
        if segment.timestamps is not None:
            self.last_stamp = segment.timestamps[0]
        if not segment.flags & RST:
            self._receive(self.of_us(segment.seq), segment.length)
        return wrong

    def _receive(self, seq: int, length: int) -> None:
        self._beyond.append((seq, seq + length))
        for left, right in sorted(self._beyond):
            if left <= self.received:
                self.received = max(self.received, right)
        self._beyond = [(left, right) for left, right in self._beyond if right > self.received]

    def _always(self, segment: Segment) -> str | None:
        """What must hold for every segment of ours."""
        s, syn = segment, bool(segment.flags & SYN)
        if syn and (s.flags & (FIN | RST) or s.payload):
            return "a SYN has neither data nor FIN nor RST"
        if len(s.payload) + s.option_bytes > self.mss and s.payload:
            return f"{len(s.payload)} bytes of data and {s.option_bytes} of options are more than the peer's MSS of {self.mss}"
        if not syn:
            at = first_difference(s.payload, self.of_us(s.seq) - 1, OURS)
            if at is not None:
                return f"the byte at sequence number {at + 1} is not what was written"
            for kind in (MSS, WSCALE, SACKOK):
                if s.option(kind) is not None:
                    return f"option {kind} is for SYNs only"
            if s.option(SACK) is not None and not self._both(SACKOK):
                return "SACK was not agreed on"
            if s.timestamps is not None and self.peer_syn is not None and not self.timestamps:
                return "timestamps were not agreed on"
        stamps = s.timestamps
        if stamps is not None:
            if self.last_stamp is not None and signed(stamps[0] - self.last_stamp) < 0:
                return f"TSval {stamps[0]} is before the last one, {self.last_stamp}"
            if stamps[1] not in self.sent_stamps:
                return f"TSecr {stamps[1]} was never sent"
        if s.urgent:
            return "we never send urgent data"
        return None

    # ---- in words ---------------------------------------------------------------------------------------------------------------

    def describe(self, segment: Segment, *, ours: bool) -> str:
        """A segment as a script would write it."""
        s = segment
        own, other = (self.of_us, self.of_peer) if ours else (self.of_peer, self.of_us)
        words = [flag_names(s.flags), f"seq={own(s.seq)}"]
        if s.payload:
            words.append(f"len={len(s.payload)}")
        if s.flags & ACK:
            words.append(f"ack={other(s.ack)}")
        words.append(f"win={self.window_of(s, self.our_syn if ours else self.peer_syn)}")
        for kind, value in s.options:
            if kind == MSS and len(value) == 2:
                words.append(f"mss={int.from_bytes(value, 'big')}")
            elif kind == WSCALE and len(value) == 1:
                words.append(f"wscale={value[0]}")
            elif kind == SACKOK:
                words.append("sackok")
            elif kind == TIMESTAMPS and s.timestamps is not None:
                words.append("ts={}/{}".format(*s.timestamps))
            elif kind == SACK:
                words.append("sack=" + ",".join(f"{other(left)}-{other(right)}" for left, right in s.sack_blocks))
            elif kind > 1:
                words.append(f"opt={kind:02x}{len(value) + 2:02x}{value.hex()}")
        if s.ecn:
            words.append("ecn=" + next(name for name, number in ECN.items() if number == s.ecn))
        if s.urgent:
            words.append(f"urg={s.urgent}")
        return " ".join(words)
