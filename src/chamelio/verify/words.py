"""How values and places are called in messages."""

from __future__ import annotations

from chamelio.verify.scalar import Scalar
from chamelio.verify.values import Pointer, Value


def count_bytes(n: int) -> str:
    """A number of bytes as text."""
    return "1 byte" if n == 1 else f"{n} bytes"


def span(low: int, high: int) -> str:
    """An inclusive range as text."""
    return str(low) if low == high else f"{low}..{high}"


def place(p: Pointer) -> str:
    """Where a pointer points, as text."""
    return f"offset {span(p.off + p.vmin, p.off + p.vmax)}"


_NAMES = {
    "stack": "a stack address", "ctx": "the context", "packet": "a packet address", "packet_end": "the packet's end",
    "packet_meta": "an address in the packet's metadata", "entry": "an address in the ring's entry", "entry_end": "the entry's end",
    "map_value": "an address in a map's value", "data": "an address in global data", "allocated": "an address in a helper's memory",
    "sock": "a socket", "map": "a map", "inner_map": "an inner map", "function": "a function",
    "map_key": "an address in a map's key", "sock_common": "a socket", "tcp_sock": "a socket", "xsk": "a socket",
    "stale": "an address in a packet that has changed since",
}  # fmt: skip


def describe(value: Value) -> str:
    """What a value is, in words."""
    if isinstance(value, Scalar):
        return f"the number {value.const}" if value.const is not None else "a number"
    if value.half:
        return f"half of {_NAMES[value.region]}"
    return _NAMES[value.region] + (" that may be NULL" if value.null else "")
