"""Values of maps as text and back, by the types that BTF gives: `{address: 10.0.0.1, port: 7}`, `address=10.0.0.1,port=7`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import numpy as np

from chamelio.bpf.object import Object
from chamelio.jit.layout import HASH
from chamelio.messages import Refusal

DType = np.dtype[Any]
DECIMAL = 10**12  # numbers beyond this say more in hexadecimal

_ADDRESS = re.compile(r"(^|_)(addr|address|src|dst|from|to|local|peer|remote|source|destination)$")
_PORT = re.compile(r"(^|_)(port|sport|dport)$")
_STATE = re.compile(r"(?P<map>[\w.]+)\[(?P<key>[^\]]*)\]=(?P<value>.*)", re.DOTALL)


class Types:
    """Key and value types of an object's maps."""

    def __init__(self, obj: Object) -> None:
        self.maps = obj.maps
        btf = obj.btf

        def of(type_: int | None) -> DType | None:
            return btf.dtype(type_) if btf is not None and type_ is not None else None

        self.values = [of(m.value_type) if m.kind != 100 else None for m in obj.maps]
        self.keys = [of(m.key_type) for m in obj.maps]

    def index(self, name: str) -> int:
        """The map of a name. Raises Refusal."""
        for i, m in enumerate(self.maps):
            if m.name == name:
                return i
        known = ", ".join(m.name for m in self.maps) or "none"
        raise Refusal("usage", f"there is no map {name!r}", f"maps are: {known}")

    def field(self, index: int, offset: int, size: int) -> str:
        """Which field of a map's value lies at an offset: `.muted`, or `+12`."""
        return field(self.values[index], offset, size)

    def state(self, text: str) -> tuple[int, bytes, bytes]:
        """Map, key and value of `NAME[KEY]=VALUE`. Raises Refusal."""
        found = _STATE.fullmatch(text)
        if found is None:
            raise Refusal("usage", f"--map-state {text}: this is not NAME[KEY]=VALUE", "write it as 'totals[0]=muted=1'")
        index = self.index(found["map"])
        m = self.maps[index]
        what = f"--map-state {text}"
        key = parse(found["key"], self.keys[index] if m.kind == HASH else None, m.key_size, what)
        return index, key, parse(found["value"], self.values[index], m.value_size, what)


def field(dtype: DType | None, offset: int, size: int) -> str:
    """Which field of a type lies at an offset."""
    if dtype is not None and dtype.fields is not None:
        for name in dtype.names or ():
            inner, at = dtype.fields[name][:2]
            if at <= offset < at + inner.itemsize:
                return f".{name}{field(inner, offset - at, size)}"
    if dtype is not None and dtype.subdtype is not None:
        base = dtype.subdtype[0]
        at, rest = divmod(offset, base.itemsize)
        return f"[{at}]{field(base, rest, size)}"
    return f"+{offset}" if offset else ""


# ---- to text ----------------------------------------------------------------------------------------------------------


def scalar(value: int, size: int, name: str = "") -> str:
    """A number; what its name calls an address or a port is also shown as one."""
    if size == 4 and value and _ADDRESS.search(name):
        return str(ipaddress.IPv4Address(value.to_bytes(4, "little")))
    if size == 2 and value and _PORT.search(name):
        return f"{int.from_bytes(value.to_bytes(2, 'little'), 'big')} (big-endian)"
    return str(value) if abs(value) < DECIMAL else f"{value:#x}"


def on_the_wire(value: int, size: int, name: str = "") -> str:
    """What a handler reads of a packet: the number that it sees, and the one that was sent, where they differ."""
    swapped = int.from_bytes(value.to_bytes(size, "little"), "big")
    if size in (2, 4) and swapped < value and not _ADDRESS.search(name):
        return f"{value:#x} (big-endian {swapped})"
    return scalar(value, size, name)


def show(data: bytes, dtype: DType | None, name: str = "") -> str:
    """A value as text; without a type, its bytes."""
    if dtype is None or dtype.itemsize != len(data):
        return data.hex(" ", 4) if len(data) != 4 else str(int.from_bytes(data, "little"))
    if dtype.fields is not None:
        parts = []
        for one in dtype.names or ():
            inner, at = dtype.fields[one][:2]
            if one not in ("pad", "reserved"):
                parts.append(f"{one}: {show(data[at : at + inner.itemsize], inner, one)}")
        return "{" + ", ".join(parts) + "}"
    if dtype.subdtype is not None:
        base = dtype.subdtype[0]
        if base.itemsize == 1 or len(data) > 64:
            return data.hex(" ", 4) if len(data) <= 32 else data[:32].hex(" ", 4) + "..."
        return "[" + ", ".join(show(data[i : i + base.itemsize], base, name) for i in range(0, len(data), base.itemsize)) + "]"
    if dtype.kind in "ui":
        return scalar(int.from_bytes(data, "little", signed=dtype.kind == "i"), len(data), name)
    return data.hex()


# ---- from text --------------------------------------------------------------------------------------------------------


def parse(text: str, dtype: DType | None, size: int, what: str) -> bytes:
    """Bytes of a value: a number, `hex:BYTES`, or fields as `name=value,name=value` (the others are zero). Raises Refusal."""
    text = text.strip()
    if text.startswith("hex:"):
        return _fit(_hex(text[4:], what), size, what)
    if "=" not in text and not (dtype is not None and dtype.fields is not None and text == ""):
        return _integer(text, size, False, what)
    if dtype is None or dtype.fields is None:
        raise Refusal("usage", f"{what}: the object has no fields for this value", "give a number, or hex:BYTES")
    out = bytearray(size)
    for part in text.split(",") if text else []:
        name, equals, value = (p.strip() for p in part.partition("="))
        if name not in dtype.fields or not equals:
            raise Refusal("usage", f"{what}: there is no field {name!r}", f"fields are: {', '.join(dtype.names or ())}")
        inner, at = dtype.fields[name][:2]
        big = inner.itemsize == 2 and bool(_PORT.search(name))
        if value.startswith("hex:"):
            out[at : at + inner.itemsize] = _fit(_hex(value[4:], what), inner.itemsize, what)
        else:
            out[at : at + inner.itemsize] = _integer(value, inner.itemsize, big, what)
    return bytes(out)


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refusal("usage", f"{what}: {text!r} is not hexadecimal", "write pairs of digits, as hex:0a000001") from None


def _fit(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise Refusal("usage", f"{what}: {len(data)} bytes, where {size} are needed")
    return data


def _integer(text: str, size: int, big: bool, what: str) -> bytes:
    """A number in the host's order; an address in packet byte order; a field that is called a port, too."""
    if size == 4 and text.count(".") == 3:
        try:
            return ipaddress.IPv4Address(text).packed
        except ValueError:
            raise Refusal("usage", f"{what}: {text!r} is not an address") from None
    try:
        value = int(text, 0)
        return (value & (1 << 8 * size) - 1 if value < 0 else value).to_bytes(size, "big" if big else "little")
    except ValueError:
        raise Refusal("usage", f"{what}: {text!r} is not a number", "write 7, 0x1f, 10.0.0.1 or hex:BYTES") from None
    except OverflowError:
        raise Refusal("usage", f"{what}: {text} does not fit into {size} bytes") from None
