"""Writes type information by hand, good and bad."""

from __future__ import annotations

import struct


class Builder:
    """Collects types; the n-th one added has id n."""

    def __init__(self) -> None:
        self.types, self.strings, self.count = b"", b"\0", 0

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, kind: int, name: str = "", count: int = 0, size: int = 0, extra: bytes = b"", flag: bool = False) -> int:
        info = kind << 24 | count | int(flag) << 31
        self.types += struct.pack("<III", self.name(name), info, size) + extra
        self.count += 1
        return self.count

    def int(self, name: str, size: int, signed: bool = False) -> int:
        return self.add(1, name, size=size, extra=struct.pack("<I", int(signed) << 24 | 8 * size))

    def ptr(self, target: int) -> int:
        return self.add(2, size=target)

    def array(self, element: int, count: int) -> int:
        return self.add(3, extra=struct.pack("<III", element, 0, count))

    def struct(self, name: str, size: int, members: list[tuple[str, int, int]], kind: int = 4, flag: bool = False) -> int:
        """Members are (name, type, offset in bits); with `flag` the offset's top byte is a bit field's width."""
        extra = b"".join(struct.pack("<III", self.name(field), type_, offset) for field, type_, offset in members)
        return self.add(kind, name, len(members), size, extra, flag)

    def enum(self, name: str, size: int, values: list[tuple[str, int]], signed: bool) -> int:
        extra = b"".join(struct.pack("<II", self.name(label), value & 0xFFFFFFFF) for label, value in values)
        return self.add(6, name, len(values), size, extra, signed)

    def enum64(self, name: str, values: list[tuple[str, int]], signed: bool) -> int:
        extra = b"".join(struct.pack("<IQ", self.name(label), value & (1 << 64) - 1) for label, value in values)
        return self.add(19, name, len(values), 8, extra, signed)

    def tag(self, text: str, target: int, component: int) -> int:
        return self.add(17, text, size=target, extra=struct.pack("<i", component))

    def bytes(self) -> bytes:
        return (
            struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
            + self.types
            + self.strings
        )
