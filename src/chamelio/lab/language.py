"""The words of the laboratory's script language, and what a parsed script consists of.

Tables here are the only list of settings, fields, calls and checks: the parser, its suggestions and docs/laboratory.md follow them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from chamelio.lab.segments import ICMP

NS = 1_000_000_000
ANY = "*"
MAIN = "main"  # the flow of steps that name none
PORT = 7  # where scripts listen
PEER_PORT = 5000  # the first flow's, at the peer; others follow
ISN = 1_000_000  # of the peer, unless a flow says otherwise


class Kind(StrEnum):
    """What the value of a setting, field or argument looks like."""

    NUMBER = "number"
    TIME = "time"
    FLAG = "flag"  # a word without a value
    WORD = "word"
    HEX = "hex"
    BLOCKS = "blocks"  # A-B,C-D
    STAMPS = "stamps"  # VALUE/ECHO
    SWITCHES = "switches"  # a,b,c


@dataclass(frozen=True)
class Field:
    """A word that may follow the flags of a segment. `sent`, `expected`: on which side it may stand."""

    kind: Kind
    about: str
    sent: bool = True
    expected: bool = True
    option: bool = False  # an option of the header
    words: tuple[str, ...] = ()


FIELDS: dict[str, Field] = {
    "seq": Field(Kind.NUMBER, "sequence number, relative to the SYN's [the next one]"),
    "ack": Field(Kind.NUMBER, "acknowledgement number, relative [sent: all that has come in order; expected: must be given]"),
    "len": Field(Kind.NUMBER, "bytes of data, which follow the pattern [0]"),
    "win": Field(Kind.NUMBER, "window in bytes, window scaling applied [sent: as before, at first 65535; expected: any]"),
    "urg": Field(Kind.NUMBER, "urgent pointer [0]"),
    "ecn": Field(
        Kind.WORD,
        "ECN field of the IP header: none, ect0, ect1, ce [none; expected on a connection that does ECN: any]",
        words=("none", "ect0", "ect1", "ce"),
    ),
    "mss": Field(Kind.NUMBER, "maximum segment size", option=True),
    "wscale": Field(Kind.NUMBER, "window scale", option=True),
    "sackok": Field(Kind.FLAG, "SACK permitted", option=True),
    "ts": Field(
        Kind.STAMPS,
        "timestamps: VALUE/ECHO, each a number, `*`, or a name ($t) that is bound when it comes and used when it is sent"
        " [if both SYNs had it: sent: the peer's clock in ms, echo of the last; expected: it is there]",
        option=True,
    ),
    "sack": Field(Kind.BLOCKS, "SACK blocks, LEFT-RIGHT,..., relative [none]", option=True),
    "nop": Field(Kind.FLAG, "a NOP", expected=False, option=True),
    "eol": Field(Kind.FLAG, "the end of the options", expected=False, option=True),
    "opt": Field(Kind.HEX, "bytes of options as they are, behind the others", expected=False, option=True),
    "nots": Field(Kind.FLAG, "no timestamps, although they were agreed on"),
    "anyopts": Field(Kind.FLAG, "whatever options", sent=False),
    "fill": Field(Kind.NUMBER, "all bytes of data are this one", expected=False),
    "doff": Field(Kind.NUMBER, "what the data offset claims, in words", expected=False),
    "badsum": Field(Kind.FLAG, "a wrong checksum", expected=False),
    "ttl": Field(Kind.NUMBER, "time to live [sent: 64; expected: any]"),
}

SETTINGS: dict[str, Field] = {
    "options": Field(
        Kind.SWITCHES,
        "what we offer and accept: timestamps, sack, wscale, ecn; none",
        words=("timestamps", "sack", "wscale", "ecn", "none"),
    ),
    "mss": Field(Kind.NUMBER, "what we announce"),
    "initial_window": Field(Kind.NUMBER, "segments sent before the first acknowledgement"),
    "rto_min": Field(Kind.TIME, "smallest retransmission timeout"),
    "rto_max": Field(Kind.TIME, "largest retransmission timeout"),
    "rto_initial": Field(Kind.TIME, "retransmission timeout before there is a measurement"),
    "ack_delay": Field(Kind.TIME, "how long an acknowledgement may wait"),
    "time_wait": Field(Kind.TIME, "how long TIME_WAIT lasts"),
    "buffer_max": Field(Kind.NUMBER, "bytes that a receive buffer may grow to"),
    "retries": Field(Kind.NUMBER, "timeouts until a connection is given up"),
    "syn_retries": Field(Kind.NUMBER, "timeouts until an attempt to connect is given up"),
    "dctcp": Field(Kind.NUMBER, "1: congestion marks are echoed as RFC 8257 says"),
    "congestion": Field(Kind.WORD, "congestion control, by name [newreno]"),
    "tolerance": Field(Kind.TIME, "by how much times may differ [2ms]"),
    "mtu": Field(Kind.NUMBER, "of the port to the peer [1500]"),
    "cores": Field(Kind.NUMBER, "of the engine [1]"),
}

FLOW_SETTINGS: dict[str, Field] = {
    "port": Field(Kind.NUMBER, "the peer's port [5000, 5001, ...]"),
    "isn": Field(Kind.NUMBER, "the peer's initial sequence number [1000000]"),
}

LAB_SETTINGS = ("tolerance", "mtu", "cores")  # the laboratory's own; the others are the slow path's

# Calls of the application: the argument that must follow, if any, and what may.
CALLS: dict[str, tuple[Kind | None, dict[str, Field], str]] = {
    "listen": (
        None,
        {"port": Field(Kind.NUMBER, "[7]"), "backlog": Field(Kind.NUMBER, "[16]")},
        "take connections",
    ),
    "unlisten": (None, {"port": Field(Kind.NUMBER, "[7]")}, "take no more connections"),
    "accept": (None, {}, "the flow's connection is there: take it"),
    "connect": (None, {"local": Field(Kind.NUMBER, "our port [any]")}, "open the flow's connection"),
    "write": (
        Kind.NUMBER,
        {"notify": Field(Kind.FLAG, "ask to be told when it is acknowledged")},
        "write so many bytes of the pattern",
    ),
    "read": (Kind.NUMBER, {}, "so many bytes can be read, and follow the pattern: read them"),
    "shutdown": (None, {}, "write no more"),
    "close": (None, {}, "write and read no more"),
    "abort": (None, {}, "end the connection at once"),
    "keepalive": (
        Kind.TIME,
        {"interval": Field(Kind.TIME, "between probes [75s]"), "count": Field(Kind.NUMBER, "[9]")},
        "probe a peer that is silent for so long",
    ),
}

CHECKS: dict[str, tuple[Kind | None, str]] = {
    "connected": (None, "`connect` has succeeded"),
    "eof": (None, "all has been read, and there will be no more"),
    "ended": (None, "the connection has ended, as both sides wanted"),
    "error": (Kind.WORD, "the connection has ended by an error, e.g. ECONNRESET"),
    "readable": (Kind.NUMBER, "exactly so many bytes can be read"),
    "writable": (None, "what `write N notify` asked for is acknowledged"),
    "state": (Kind.WORD, "the connection's state, e.g. FIN_WAIT_2"),
    "about": (None, "columns of the connection's row, e.g. `about acked=1461 losses=0`; sequence numbers relative"),
    "nothing": (None, "`nothing for TIME`: no segment comes"),
}


@dataclass(frozen=True)
class When:
    """The time of a step in ns: within low..high after the last step, or (not `relative`) after the script's start; None: any."""

    low: int
    high: int | None
    relative: bool
    text: str


@dataclass(frozen=True)
class Value:
    """What is written behind a field: a number or a comparison with one, a wildcard, or something of the field's own kind."""

    op: str  # "=", ">=", "<="
    value: Any  # None: anything
    text: str

    @property
    def any(self) -> bool:
        """Whether everything will do."""
        return self.value is None

    def fits(self, number: int) -> bool:
        """Whether a number is what is wanted."""
        if self.value is None:
            return True
        wanted = int(self.value)
        return number == wanted if self.op == "=" else number >= wanted if self.op == ">=" else number <= wanted

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Stamp:
    """One side of `ts=`: a number, or what a name stands for and a number more; neither: anything, or the default."""

    name: str | None = None
    number: int | None = None


@dataclass(frozen=True)
class Send:
    """The peer sends a segment, `count` times; those with data one after the other."""

    flags: int
    fields: dict[str, Value]
    count: int = 1


@dataclass(frozen=True)
class Await:
    """A segment comes from us. `push`: the PSH flag matters."""

    flags: int
    fields: dict[str, Value]
    count: int = 1
    push: bool = False


@dataclass(frozen=True)
class SendIcmp:
    """The peer's host (or one on the way) complains about a segment of ours: the last one, or a full one at `seq`."""

    kind: str
    seq: int | None = None
    mtu: int = 0


@dataclass(frozen=True)
class Call:
    """The application does something: a key of CALLS."""

    verb: str
    argument: int = 0
    options: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Something must be as the application sees it: a key of CHECKS. `columns` are those of `about`."""

    what: str
    argument: Any = None
    columns: dict[str, Value] = field(default_factory=dict)


Action = Send | Await | SendIcmp | Call | Check


@dataclass(frozen=True)
class Step:
    """One line of a script."""

    line: int
    text: str
    when: When
    flow: str
    action: Action


@dataclass(frozen=True)
class FlowSpec:
    """A connection as the peer knows it: its port and initial sequence number."""

    name: str
    port: int
    isn: int


@dataclass
class Script:
    """One script of a file. `settings`: numbers; times in ns."""

    path: str
    name: str
    line: int
    shows: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    flows: dict[str, FlowSpec] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


ICMP_KINDS = tuple(ICMP)
