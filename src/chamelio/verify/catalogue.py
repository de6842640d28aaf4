"""What handlers may see and call, as data: contexts, helpers, verdicts. `include/chamelio.h` says the same in C; a test compares.

Costs are cycles of the cost model: `Cost(fixed, per_line, lines, per_line_cold)`; `verify/cost.py` says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chamelio.jit.layout import ARRAY, BYTES, DATA, HASH, RING_IN, RING_OUT, TIMER, TX

__all__ = ["ARRAY", "BYTES", "DATA", "HASH", "HELPERS", "HOOKS", "RING_IN", "RING_OUT", "TIMER", "TX"]

HOOKS = ("rx", "ring", "tx", "timer")
MAP_READ_ONLY, MAP_WRITE_ONLY = 1 << 7, 1 << 8  # of a kernel map's flags: for programs


@dataclass(frozen=True)
class CtxField:
    """One field of a context: what a load of exactly this offset and size gives.

    `kind`: "scalar", or an address: "packet", "packet_end", "packet_meta", "entry", "entry_end", "sock_common_or_null".
    `narrow`: aligned parts of it can be loaded too; `writable`: it can be stored to; `narrow_stores`: in aligned parts too.
    """

    name: str
    offset: int
    size: int
    kind: str
    doc: str = ""
    writable: bool = False
    narrow: bool = False
    narrow_stores: bool = False


@dataclass(frozen=True)
class Context:
    """What r1 points to when a handler starts, and what the handler may call.

    `sections`: names of sections that mean this context; one that ends in `/` or `.` means all names that begin with it.
    """

    name: str
    size: int
    fields: tuple[CtxField, ...]
    hooks: tuple[str, ...]
    packet_max: int  # bytes of the longest packet
    helpers: Mapping[int, Helper] = field(default_factory=dict)
    sections: tuple[str, ...] = ()
    runs: bool = False  # False: its programs can be verified, not run

    def field_at(self, offset: int) -> CtxField | None:
        """The field that begins at an offset."""
        return next((f for f in self.fields if f.offset == offset), None)


@dataclass(frozen=True)
class Arg:
    """One argument.

    `kind`, of numbers and objects: "scalar"; "constant", one number on all paths; "ctx"; "map", of the kinds in `maps` (none:
    of any kind); "sock", an address of a socket; "allocated", memory that a helper has handed out; "callback", a function;
    "stack_or_null", an address on the stack or 0.
    `kind`, of memory: "key", "value" and "entry", which the map says the size of and the helper reads; "value_out", which it
    writes; "read", "write" and "read_write", of `size` bytes, or, if that is 0, of as many as the next argument says, "size"
    (at least one) or "size_or_zero"; "text", constant data up to a zero byte. What is only written need not be initialised
    before. `nullable`: NULL will do.
    """

    name: str
    kind: str
    maps: tuple[int, ...] = ()
    size: int = 0
    nullable: bool = False

    @property
    def is_pointer(self) -> bool:
        """Whether the compiled helper takes a pointer to memory here."""
        return self.kind in ("key", "value", "entry")


@dataclass(frozen=True)
class Cost:
    """Cycles: `fixed`, and `per_line` for each 64 bytes of length; cold: `lines` misses more, and `per_line_cold` for each."""

    fixed: int
    per_line: int = 0
    lines: int = 0
    per_line_cold: int = 0


@dataclass(frozen=True)
class Helper:
    """A function of the provider that handlers call by number."""

    id: int
    name: str
    args: tuple[Arg, ...]
    ret: str  # "scalar", "void", or "X_or_null", X being map_value, allocated, sock, sock_common or tcp_sock
    cost: Cost
    doc: str
    errors: str = ""
    invalidates_packet: bool = False
    pure: bool = False
    length_arg: int | None = None  # register whose low 32 bits are the length that is priced
    acquires: bool = False  # what it returns must be given back before the program ends
    releases: int | None = None  # register whose reference it takes back

    @property
    def result(self) -> str:
        """What it returns, in C: a helper that cannot fail returns a number, others 0 or an error."""
        return "void *" if self.ret != "scalar" else "s64" if self.errors else "u64"

    @property
    def signature(self) -> str:
        """Its declaration in C."""
        kinds = {"ctx": "struct chamelio_ctx *", "scalar": "u64 "}
        arguments = ", ".join(f"{kinds.get(a.kind, 'const void *')}{a.name}" for a in self.args)
        return f"{self.result}{'' if self.result.endswith('*') else ' '}{self.name}({arguments})"


@dataclass(frozen=True)
class MapKind:
    """A kind of map. `declaration` is the macro of chamelio.h; `limits` what is refused beyond; `memory` where its parts lie."""

    kind: int
    name: str
    declaration: str
    doc: str
    limits: str
    memory: str


@dataclass(frozen=True)
class VerdictKind:
    """What a handler can return."""

    name: str
    doc: str


_CTX = Arg("ctx", "ctx")
_BYTES = Arg("bytes", "map", (BYTES,))
_IDS = Arg("ids", "map", (TX, TIMER))
_ID, _SPAN = Arg("id", "scalar"), Arg("span", "scalar")

HELPERS: dict[int, Helper] = {
    h.id: h
    for h in (
        Helper(1, "cham_lookup", (Arg("map", "map", (ARRAY, HASH)), Arg("key", "key")), "map_value_or_null",
               Cost(60, 0, 4), "the value of a key in an array or hash map, or NULL", pure=True),
        Helper(2, "cham_update",
               (Arg("map", "map", (ARRAY, HASH)), Arg("key", "key"), Arg("value", "value"), Arg("flags", "scalar")),
               "scalar", Cost(120, 0, 5), "insert or overwrite", "-ENOSPC: the hash is full; -ENOENT: no such index"),
        Helper(3, "cham_delete", (Arg("map", "map", (HASH,)), Arg("key", "key")), "scalar", Cost(80, 0, 4),
               "remove a key from a hash map", "-ENOENT: it is not there"),
        Helper(0x101, "cham_push", (Arg("ring", "map", (RING_OUT,)), Arg("context", "scalar"), Arg("entry", "entry")),
               "scalar", Cost(40, 0, 4), "put a copy of an entry in the ring of a context",
               "-ENOSPC: the ring is full; -EINVAL: no such context, or its ring is damaged"),
        Helper(0x102, "cham_resize", (_CTX, Arg("len", "scalar")), "scalar", Cost(40, 8, 4, 48),
               "set the packet's length; what it gains is zero", "-EINVAL: beyond the longest packet", True, length_arg=2),
        Helper(0x103, "cham_pkt_to_bytes", (_CTX, _BYTES, _ID, Arg("pos", "scalar"), _SPAN), "scalar", Cost(40, 8, 4, 64),
               "copy a span of the packet to a position of a buffer", "-EINVAL: span, id, or longer than the buffer",
               length_arg=5),
        Helper(0x104, "cham_bytes_to_pkt", (_CTX, _BYTES, _ID, Arg("pos", "scalar"), _SPAN), "scalar", Cost(60, 8, 5, 64),
               "copy from a buffer to a span, which may extend the packet", "-EINVAL: span, id, or longer than the buffer",
               True, length_arg=5),
        Helper(0x105, "cham_csum", (_CTX, _SPAN, Arg("seed", "scalar")), "scalar", Cost(30, 16, 1, 48),
               "ones' complement sum (RFC 1071) of a seed of 64 bits and a span", "-EINVAL: the span is not within the packet",
               pure=True, length_arg=2),
        Helper(0x106, "cham_schedule", (_IDS, _ID, Arg("when", "scalar")), "scalar", Cost(60, 0, 5),
               "make an id due at a time", "-ENOENT: no such id"),
        Helper(0x107, "cham_cancel", (_IDS, _ID), "scalar", Cost(50, 0, 4), "forget an id",
               "-ENOENT: no such id, or it was not set"),
        Helper(0x108, "cham_pace", (_IDS, _ID, Arg("gap", "scalar")), "scalar", Cost(65, 0, 5),
               "make an id due some time after it was due last: pacing", "-ENOENT: no such id"),
        Helper(0x109, "cham_random", (_CTX,), "scalar", Cost(40, 0, 1), "64 random bits"),
        Helper(0x10A, "cham_hash", (_CTX, Arg("a", "scalar"), Arg("b", "scalar")), "scalar", Cost(20, 0, 1),
               "keyed hash of two words", pure=True),
        Helper(0x10B, "cham_emit", (_CTX,), "scalar", Cost(60, 0, 3),
               "transmit the packet as it stands and go on without one",
               "-ENOSPC: as many as a run may; -EINVAL: there is no packet", True),
        Helper(0x10C, "cham_csum_later", (_CTX, Arg("start", "scalar"), Arg("at", "scalar")), "scalar", Cost(8, 0, 1),
               "let the provider complete the transport checksum", "-EINVAL: there is no packet, or no such place"),
        Helper(0x10D, "cham_bytes_open", (_BYTES, _ID, Arg("size", "scalar"), Arg("keep", "scalar")), "scalar",
               Cost(300, 16, 24, 128), "give an id of a pool a buffer, keeping some of what was in the old one",
               "-ENOSPC: the pool has none; -EINVAL: no such id or size, a fixed map, or too much to keep", length_arg=4),
        Helper(0x10E, "cham_bytes_close", (_BYTES, _ID), "scalar", Cost(350, 0, 20), "take the buffer of an id back",
               "-ENOENT: it has none"),
        Helper(0x10F, "cham_bytes_size", (_BYTES, _ID), "scalar", Cost(16, 0, 2), "bytes of the buffer of an id, 0: none",
               pure=True),
    )
}  # fmt: skip

PACKET_MAX = 1920  # CHAM_IP_MAX: no packet is longer
EMITS = 2  # CHAM_EMITS: packets that one run can emit besides the one it ends with

MAP_KINDS: dict[int, MapKind] = {
    m.kind: m
    for m in (
        MapKind(ARRAY, "array", "CHAM_ARRAY(name, entries, value_t, flags)",
                "Values by index, all there from the beginning and zero. With the flag CHAM_SHARED the slow path and applications "
                "see them; each field has one writer, CHAM_FAST (handlers, the default) or CHAM_SLOW.",
                "1 to 1,048,576 entries; values of 1 to 65,536 bytes",
                "shared: once for all cores, an index belonging to one of them; else per core, in engine memory"),
        MapKind(HASH, "hash", "CHAM_HASH(name, entries, key_t, value_t, flags)",
                "Values by key. The hash is keyed with a secret of the instance, a key is in one of two buckets of eight: a "
                "constant worst case. Full is an error for this tenant alone.",
                "1 to 1,048,576 entries; keys of 1 to 64 bytes, values of 1 to 65,536",
                "per core; index and keys in engine memory, values too unless CHAM_SHARED"),
        MapKind(RING_OUT, "ring_out", "CHAM_RING_OUT(name, entries, entry_t)",
                "From handlers to applications: a ring for each context (0 is the slow path). Who sleeps is woken at the end of "
                "the turn.",
                "a power of two of entries; entries of 1 to 256 bytes", "per core, in the region"),
        MapKind(RING_IN, "ring_in", "CHAM_RING_IN(name, entries, entry_t)",
                "From applications to handlers: each entry runs the ring hook, with a private copy of it and the context's number "
                "in id.",
                "one such map per protocol; a power of two of entries; entries of 1 to 256 bytes", "per core, in the region"),
        MapKind(BYTES, "bytes", "CHAM_BYTES(name, ids, size)",
                "A byte buffer for each id, for payload. Positions count on and are taken modulo the size, so a buffer is a byte "
                "ring whose ends the protocol keeps. CHAM_BYTES_POOL(name, ids, min, max, total) declares buffers that come and "
                "go: an id has none until cham_bytes_open gives it one, out of `total` bytes of its core.",
                "sizes are powers of two, 64 to 16,777,216 bytes; 1 to 1,048,576 ids; a pool of at most 1 GiB",
                "in the region: once for all cores, a pool per core"),
        MapKind(TX, "tx", "CHAM_TX_IDS(name, ids)",
                "Ids with a time at which they are due to send; then the tx hook runs, with the id in id and without a packet.",
                "one such map per protocol; 1 to 1,048,576 ids", "per core, in engine memory"),
        MapKind(TIMER, "timer", "CHAM_TIMERS(name, ids)",
                "Ids with a deadline; when it has passed, the timer hook runs. Never early, and one tick of 8.2 us late at most "
                "if the core keeps up.",
                "one such map per protocol; 1 to 1,048,576 ids", "per core, in engine memory"),
        MapKind(DATA, "data", "static u64 counts[4];",
                "Global variables and constants, which C makes by itself; the index must be checked as any other.",
                "16 MiB in all", "per core, in engine memory"),
    )
}  # fmt: skip

VERDICTS = (
    VerdictKind("CHAM_DONE", "finished with the packet, if there was one"),
    VerdictKind("CHAM_TX", "transmit the packet as it stands; the provider checks length, source address and protocol"),
    VerdictKind("CHAM_PUNT", "give the packet to the slow path"),
    VerdictKind("CHAM_ERROR(reason)", "drop; counted as handler_error, and under the protocol's own reason, 0 to 255"),
)

CHAMELIO = Context(
    "chamelio",
    56,
    (
        CtxField("data", 0, 8, "packet", "first byte of the packet, from the IP header on"),
        CtxField("data_end", 8, 8, "packet_end", "one past its last byte"),
        CtxField("entry", 16, 8, "entry", "ring hook: a private copy of the ring's entry"),
        CtxField("entry_end", 24, 8, "entry_end", "one past it"),
        CtxField("now", 32, 8, "scalar", "engine time in ns, read once per batch"),
        CtxField("id", 40, 4, "scalar", "ring: the context that wrote the entry; tx, timer: the id that is due"),
        CtxField("hash", 44, 4, "scalar", "rx: the provider's keyed hash of the flow"),
        CtxField("core", 48, 4, "scalar", "which engine core runs this"),
        CtxField("csum_ok", 52, 4, "scalar", "rx: 1 when the port has verified the transport checksum"),
    ),
    HOOKS,
    PACKET_MAX,
    HELPERS,
    runs=True,
)
