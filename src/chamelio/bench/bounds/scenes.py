"""Adversarial inputs of the shipped handlers: what drives each along its expensive paths, as choices that a search varies.

A scene names the choices and builds a run of one hook from one choice of each: the values of maps, wheels and rings, the packet or
entry. Values that only handlers can write are set freely: more states than can be reached are measured, never fewer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chamelio import toolchain
from chamelio.bench.bounds.rig import ADDRESS, NOW, PEER, Rig, Run, State
from chamelio.engine import abi

Choice = Mapping[str, Any]
WHEEL_SLOTS = 2048
QUEUED = WHEEL_SLOTS + 1
NONE = 0xFFFFFFFF


@dataclass(frozen=True)
class Scene:
    """`choices`: per name what there is to choose from; `build` makes a run of one choice of each.

    `seeds`: what is known to be dear; what one does not say is the first of the choices.
    """

    protocol: str
    hook: str
    ip_protocol: int
    choices: dict[str, tuple[Any, ...]]
    build: Callable[[State, Choice], Run]
    seeds: tuple[dict[str, Any], ...] = ({},)

    @property
    def first(self) -> dict[str, Any]:
        """The first of all choices."""
        return {name: options[0] for name, options in self.choices.items()}

    @property
    def source(self) -> Path:
        """The protocol's C."""
        return toolchain.PACKAGE / "protocols" / self.protocol / f"{self.protocol}.bpf.c"

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """One choice of each, at random."""
        return {name: rng.choice(options) for name, options in self.choices.items()}

    def run(self, rig: Rig, choice: Choice) -> Run:
        """What to measure."""
        return self.build(State(rig), choice)


# ---- packets ----------------------------------------------------------------------------------------------------------------


def _number(address: str) -> int:
    return int.from_bytes(bytes(map(int, address.split("."))), "little")


def _sum(data: bytes) -> int:
    total = int(np.frombuffer(data + bytes(len(data) % 2), "<u2").astype(np.uint64).sum())
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _packet(ip_protocol: int, ihl: int, segment: bytes, checksum_at: int | None = None) -> bytes:
    """An IPv4 packet from the peer to us, `ihl` words of header; the transport checksum is completed (RFC 1071)."""
    head = bytearray(4 * ihl)
    head[0] = 0x40 | ihl
    head[2:4] = (len(head) + len(segment)).to_bytes(2, "big")
    head[8:10] = bytes((64, ip_protocol))
    head[12:16], head[16:20] = (_number(a).to_bytes(4, "little") for a in (PEER, ADDRESS))
    body = bytearray(segment)
    if checksum_at is not None:
        body[checksum_at : checksum_at + 2] = bytes(2)
        pseudo = bytes(head[12:20]) + bytes((0, ip_protocol)) + len(segment).to_bytes(2, "big")
        body[checksum_at : checksum_at + 2] = ((~_sum(pseudo + bytes(body)) & 0xFFFF) or 0xFFFF).to_bytes(2, "little")
    return bytes(head + body)


# ---- wheels -----------------------------------------------------------------------------------------------------------------

ARMED = ("idle", "middle", "last", "queued")


def wheel_entry(state: State, name: str, id_: int, armed: str, crowded: bool) -> None:
    """Put an id in a list between others, or in none; `crowded`: every slot of the wheel holds an id already."""
    m = state.rig.maps[name]
    wheel = state.view(m.index, abi.dtype("wheel"))[0]
    nodes = state.view(m.keys, abi.dtype("wheel_node"), m.max_entries)
    wheel["tick"], wheel["armed"] = NOW >> 13, m.max_entries // 2
    others = [k for k in (3, m.max_entries // 2, m.max_entries - 2, m.max_entries - 1) if k != id_]
    if crowded:
        wheel["head"][:WHEEL_SLOTS] = others[0]
        nodes[others[0]] = (NOW, NONE, NONE, 5, 0)
    wheel["head"][QUEUED], wheel["tail"] = others[1], others[1]
    nodes[others[1]] = (NOW, NONE, NONE, QUEUED, 0)
    if armed != "idle":
        slot = QUEUED if armed == "queued" else 700
        before, after = others[1 if armed == "queued" else 2], others[-1] if armed == "middle" else NONE
        nodes[id_] = (NOW, after, before, slot, 0)
        nodes[before]["next"], nodes[before]["slot"] = id_, slot
        if after != NONE:
            nodes[after] = (NOW, NONE, id_, slot, 0)
        if armed == "queued":
            wheel["tail"] = id_
    elif armed == "idle":
        nodes[id_] = (NOW, NONE, NONE, NONE, 0)


RINGS = ("room", "look", "full")


def ring_positions(state: State, name: str, context: int, how: str, at: int = 0) -> None:
    """An outbound ring that has room, has room when it is looked at again, or has none."""
    slots = state.rig.maps[name].max_entries
    pos = slots + at
    state.ring(name, context, pos, pos if how == "room" else pos - slots, pos - slots if how == "full" else pos)


# ---- echo and ping ----------------------------------------------------------------------------------------------------------


def _echo(state: State, c: Choice) -> Run:
    return Run(state, packet=_packet(17, c["ihl"], bytes(c["length"])))


def _ping_rx(state: State, c: Choice) -> Run:
    state.value("totals", 0)["muted"] = c["muted"]
    ring_positions(state, "replies", 1, c["ring"], c["at"])
    body = c["kind"].to_bytes(4, "little") + c["context"].to_bytes(4, "little") + bytes(16 + c["more"])
    return Run(state, packet=_packet(253, 5, body))


def _ping_ring(state: State, c: Choice) -> Run:
    entry = np.zeros(1, state.rig.types["requests"])
    entry[0] = _number(ADDRESS), _number(PEER), c["sequence"], 0
    return Run(state, entry=entry.tobytes(), id=1)


# ---- udp --------------------------------------------------------------------------------------------------------------------

_LENGTHS = (0, 1, 63, 200, 700, 1023, 1439, 1471, 1472)
UDP_BUFFER, UDP_SOCKETS = 65536, 128


def _mix(a: int, b: int) -> int:
    r = a * b
    return (r ^ r >> 64) & (1 << 64) - 1


def _hash(secret: Any, key: bytes) -> int:
    """`key_hash` of fastpath/map.h for keys of whole words."""
    h = int(secret[0]) ^ len(key)
    for at in range(0, len(key), 8):
        h = _mix(h ^ int.from_bytes(key[at : at + 8], "little"), int(secret[1]))
    return _mix(h, 0x9E3779B97F4A7C15)


PLACES = ("first", "second", "absent", "full")


def hash_entry(state: State, name: str, key: bytes, value: int, place: str, alike: int, entry: int) -> None:
    """Put a key in a hash map: in its first bucket, in its second behind a full first one, or nowhere; `alike`: so many other
    entries of the first bucket have its tag and are compared too; "full": both buckets are.
    """
    m = state.rig.maps[name]
    h = _hash(state.rig.head["secret"][0], key)
    buckets = state.view(m.index, np.uint32, 16 * (m.mask + 1)).reshape(-1, 2, 8)
    first, second, tag = buckets[h & m.mask], buckets[h >> 24 & m.mask], h >> 32
    keys = state.view(m.keys, np.uint8, m.key_size * m.max_entries).reshape(-1, m.key_size)
    for bucket, base in ((first, 8), (second, 64)):
        if place in ("second", "full") and (bucket is first or place == "full"):
            bucket[1] = np.arange(8) + base + 1
            bucket[0] = np.arange(8) + 1
            bucket[0, :alike] = tag
    if place in ("first", "second"):
        bucket = first if place == "first" else second
        bucket[0, 7], bucket[1, 7] = tag, entry + 1
        keys[entry] = np.frombuffer(key, np.uint8)
        m_values = state.view(m.values, np.uint32, m.stride // 4 * m.max_entries)
        m_values[entry * m.stride // 4] = value


def _udp_key(address: int, port: int, local_port: int) -> bytes:
    return address.to_bytes(4, "little") + port.to_bytes(2, "little") + local_port.to_bytes(2, "little")


def _udp_rx(state: State, c: Choice) -> Run:
    peer, socket = _number(PEER), c["socket"]
    state.value("states", 0)["connected"] = c["connected"]
    wild, exact = _udp_key(0, 0, 7), _udp_key(peer, 9, 7)
    if c["match"] == "connected":
        hash_entry(state, "table", exact, socket, c["place"], c["alike"], c["entry"])
    else:
        hash_entry(state, "table", exact, socket, "full", c["alike"], 127)
        hash_entry(state, "table", wild, socket, c["place"], c["alike"], c["entry"])
    binding, value = state.value("bindings", socket), state.value("sockets", socket)
    binding["rx_pos"], binding["context"] = c["pos"], 1
    value["taken"] = c["pos"]
    ring_positions(state, "received", 1, c["ring"], c["at"])
    body = (9).to_bytes(2, "little") + (7).to_bytes(2, "little") + (8 + c["length"]).to_bytes(2, "big") + bytes(2)
    packet = _packet(17, c["ihl"], body + b"x" * c["length"], 6 if c["checksum"] else None)
    return Run(state, packet, buffers=[("rx_bytes", socket * UDP_BUFFER + c["pos"] % UDP_BUFFER, 1600)])


def _udp_ring(state: State, c: Choice) -> Run:
    socket, kind = c["socket"], c["kind"]
    key = _udp_key(_number(PEER), 9, 7)
    hash_entry(state, "table", key, socket, c["place"], c["alike"], c["entry"])
    binding = state.value("bindings", socket)
    for name, value in (("open", 1), ("context", 1), ("local", _number(ADDRESS)), ("local_port", 7)):
        binding[name] = value
    if c["connected"]:
        binding["address"], binding["port"] = _number(PEER), 9
    ring_positions(state, "received", 1, c["ring"], c["at"])
    entry = np.zeros(1, state.rig.types["requests"])
    entry[0] = (kind, socket, _number(PEER), 9, 7, c["pos"], c["length"], 1, _number(ADDRESS))
    return Run(
        state, entry=entry.tobytes(), id=1 if kind == 1 else 0,
        buffers=[("tx_bytes", socket * UDP_BUFFER + c["pos"] % UDP_BUFFER, 1600)],
    )  # fmt: skip


# ---- rpc --------------------------------------------------------------------------------------------------------------------

RPC_SLOTS, RPC_BUFFER, RPC_SEGMENT = 32, 65536, 1440
_MASKS = (0, 1, 3, 0xFF, (1 << 46) - 1, (1 << 46) - 2, 0x155555555555, 0xFFFFFF)
_TX_LENGTHS = (0, 64, 1440, 1441, 4320, 20000, 65536)
_SESSION = {
    "session": (0, 1, 7, 31, 62, 63), "slot": (0, 1, 5, 30, 31), "pending": (0, 1, 3, 0x80000005, 0xFFFFFFFF), "next": (0, 3, 32),
    "armed": (0, 1), "under_way": (0, 2, 60), "credit": (1, 2, 64), "sent": _MASKS, "acked": _MASKS, "resent": _MASKS,
    "have": _MASKS, "tx_len": _TX_LENGTHS, "gap": (0, 0, 1000), "same": (0, 1), "srtt": (0, 40000), "backoff": (0, 3),
    "sessions": (0, 1, 3, 64),
    "timer": ARMED, "paced": ARMED, "crowded": (0, 1), "ring": RINGS, "at": (0, 1, 2, 4095), "server": (0, 1), "fresh": (0, 1),
    "state": (0, 1, 2, 3, 4),
}  # fmt: skip


def _rpc_state(state: State, c: Choice) -> tuple[Any, Any]:
    """A session and one of its slots."""
    number, slot = c["session"], c["slot"]
    state.value("cores", 0)["sessions"] = c["sessions"]
    s = state.value("sessions", number)
    for name, value in (
        ("open", 1), ("server", c["server"]), ("context", 1), ("generation", 9), ("local", _number(ADDRESS)),
        ("address", _number(PEER)), ("local_port", 7), ("port", 9), ("token", 64 * 77 + number), ("peer_token", 64 * 78),
        ("slots", RPC_SLOTS), ("pending", c["pending"]), ("next", c["next"]), ("armed", c["armed"]), ("under_way", c["under_way"]),
        ("credit", c["credit"]), ("pass", 0), ("srtt", c["srtt"]), ("rttvar", c["srtt"] // 2),
    ):  # fmt: skip
        s[name] = value
    state.value("about", number)["gap"] = c["gap"]
    for k in range(RPC_SLOTS):
        other = state.value("slots", number * RPC_SLOTS + k)
        other["generation"], other["tx_len"], other["sent"] = 9 if c["same"] else 8, c["tx_len"], c["sent"]
    sl = state.value("slots", number * RPC_SLOTS + slot)
    for name, value in (
        ("generation", 9 if c["same"] else 8), ("state", c["state"]), ("number", 100), ("rx_len", c.get("length", 0)),
        ("sent", c["sent"]), ("acked", c["acked"] & c["sent"]), ("resent", c["resent"]), ("have", c["have"]),
        ("backoff", c["backoff"]),
    ):  # fmt: skip
        sl[name] = value
    wheel_entry(state, "timers", number * RPC_SLOTS + slot, c["timer"], c["crowded"])
    wheel_entry(state, "paced", number, c["paced"], c["crowded"])
    ring_positions(state, "events", 1, c["ring"], c["at"])
    return s, sl


def _rpc_buffers(name: str, session: int, slots: range | list[int], segments: range | list[int]) -> list[tuple[str, int, int]]:
    ids = [session * RPC_SLOTS + slot for slot in slots]
    return [(name, id_ * RPC_BUFFER + (320 * id_ + seg * RPC_SEGMENT) % RPC_BUFFER, 1500) for id_ in ids for seg in segments]


def _rpc_rx(state: State, c: Choice) -> Run:
    s, sl = _rpc_state(state, c)
    segments = max(1, -(-c["length"] // RPC_SEGMENT))
    segment = min(c["segment"], segments - 1)
    if c["whole"]:
        sl["have"] = ((1 << segments) - 1) & ~(1 << segment)
    len_ = min(RPC_SEGMENT, c["length"] - segment * RPC_SEGMENT)
    body = c["have"].to_bytes(8, "big") if c["kind"] == 2 else b"x" * len_
    head = (9).to_bytes(2, "little") + (7).to_bytes(2, "little") + int(s["token"]).to_bytes(4, "little")
    head += bytes((c["kind"], c["slot"], c["flags"], segment)) + (100 + c["fresh"]).to_bytes(4, "big")
    head += c["length"].to_bytes(4, "big") + (64).to_bytes(2, "big") + bytes(2)
    packet = _packet(254, c["ihl"], head + body, 22)
    return Run(state, packet, csum_ok=c["csum_ok"], buffers=_rpc_buffers("rx_bytes", c["session"], [c["slot"]], [segment]))


def _rpc_tx(state: State, c: Choice) -> Run:
    _rpc_state(state, c)
    return Run(state, id=c["session"], buffers=_rpc_buffers("tx_bytes", c["session"], range(RPC_SLOTS), range(4)))


def _rpc_timer(state: State, c: Choice) -> Run:
    s, sl = _rpc_state(state, c)
    sl["tries"], s["probe_at"] = c["tries"], NOW + c["probe"]
    buffers = _rpc_buffers("tx_bytes", c["session"], [c["slot"]], range(46))
    return Run(state, id=c["session"] * RPC_SLOTS + c["slot"], buffers=buffers)


def _rpc_ring(state: State, c: Choice) -> Run:
    _rpc_state(state, c)
    entry = np.zeros(1, state.rig.types["entries"])
    e = entry[0]
    for name, value in (
        ("kind", c["kind"]), ("session", c["session"]), ("slot", c["slot"]), ("number", 100 + c["fresh"]), ("len", c["tx_len"]),
        ("generation", 9), ("context", 1), ("slots", 32), ("address", _number(PEER)), ("local", _number(ADDRESS)),
    ):  # fmt: skip
        e[name] = value
    buffers = _rpc_buffers("tx_bytes", c["session"], [c["slot"]], [0])
    return Run(state, entry=entry.tobytes(), id=1 if c["kind"] < 16 else 0, buffers=buffers)


_SENDS = {
    "same": 1, "armed": 0, "credit": 64, "under_way": 0, "sent": 0, "acked": 0, "pending": 0xFFFFFFFF, "next": 3, "tx_len": 1440,
    "timer": "middle", "paced": "middle", "crowded": 1, "sessions": 3,
}  # fmt: skip

SCENES = (
    Scene("echo", "rx", 17, {"ihl": (5, 6), "length": (8, 40, 1472)}, _echo),
    Scene(
        "ping", "rx", 253,
        {"muted": (0, 1), "kind": (0, 1, 2), "context": (0, 1, 2), "ring": RINGS, "at": (0, 1, 255), "more": (0, 100)}, _ping_rx,
        ({}, {"kind": 1, "context": 1, "ring": "look"}),
    ),
    Scene("ping", "ring", 253, {"sequence": (0, 1)}, _ping_ring),
    Scene(
        "udp", "rx", 17,
        {
            "connected": (0, 1), "match": ("connected", "any"), "place": PLACES, "alike": (0, 1), "entry": (0, 60, 126),
            "socket": (0, 1, 77, 127), "pos": (0, 1, 63, 1000, 65535, 65000, 64800), "ring": RINGS, "at": (0, 1, 2, 1023),
            "length": _LENGTHS, "ihl": (5, 15), "checksum": (0, 1),
        }, _udp_rx,
        ({"connected": 1, "match": "any", "place": "second", "alike": 1, "ring": "look", "length": 1472, "ihl": 15,
          "checksum": 1},),
    ),
    Scene(
        "udp", "ring", 17,
        {
            "kind": (1, 1, 2, 3, 4), "connected": (0, 1), "place": PLACES, "alike": (0, 1), "entry": (0, 60, 126),
            "socket": (0, 1, 77, 127), "pos": (0, 1, 63, 1000, 65535, 65000, 64800), "ring": RINGS, "at": (0, 1, 2, 1023),
            "length": _LENGTHS,
        }, _udp_ring,
        ({"length": 1472, "pos": 64800, "connected": 1}, {"kind": 2, "place": "absent"},
         {"kind": 4, "connected": 1, "ring": "look"}),
    ),
    Scene(
        "rpc", "rx", 254,
        {
            **_SESSION, "kind": (0, 1, 2), "flags": (0, 1, 2, 3, 4, 7, 9), "segment": (0, 1, 2, 44, 45), "whole": (0, 1),
            "ihl": (5, 15), "length": (0, 64, 1440, 1441, 4320, 65536), "csum_ok": (0, 1),
        }, _rpc_rx,
        tuple({**_SENDS, "ring": "look", "flags": 3, "segment": 1, "whole": 1, "ihl": 15, "length": 65536, "state": state,
               "server": server, "kind": kind, "fresh": fresh}
              for state, server, kind, fresh in ((2, 1, 0, 0), (4, 1, 0, 1), (1, 0, 1, 0), (1, 0, 2, 0), (4, 1, 2, 0))),
    ),
    Scene("rpc", "tx", 254, _SESSION, _rpc_tx, (_SENDS, {**_SENDS, "tx_len": 4320}, {**_SENDS, "same": 0})),
    Scene(
        "rpc", "timer", 254, {**_SESSION, "tries": (0, 13, 14), "probe": (-1, 1000)}, _rpc_timer,
        ({**_SENDS, "state": 1, "sent": (1 << 46) - 1, "acked": 1, "tx_len": 65536},
         {**_SENDS, "state": 1, "tries": 14, "ring": "look"}),
    ),
    Scene(
        "rpc", "ring", 254, {**_SESSION, "kind": (1, 2, 16, 17)}, _rpc_ring,
        tuple({**_SENDS, "pending": 0, "kind": kind, "server": server, "state": state, "fresh": fresh, "tx_len": length}
              for kind, server, state, fresh in ((1, 0, 0, 1), (2, 1, 3, 0)) for length in (1440, 20000)),
    ),
)  # fmt: skip
