"""Objects made of bytes: sections of code with named functions, for tests that need them large or odd."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from chamelio.bpf.asm import assemble
from chamelio.bpf.insn import encode

_HEADER = struct.Struct("<4sBBBBQ2HI3QI6H")
_SECTION = struct.Struct("<2I4Q2I2Q")
_SYMBOL = struct.Struct("<IBBHQQ")
STB_GLOBAL, STT_FUNC = 1, 2

MOV, EXIT = (encode(assemble(text)) for text in ("mov r0, 0", "exit"))


def code(text: str) -> bytes:
    """Assembly as bytes."""
    return encode(assemble(text))


def make_object(
    code_of: Mapping[str, Sequence[tuple[str, bytes]]],
    others: Mapping[str, bytes] | None = None,
    calls: Sequence[tuple[str, int, str]] = (),
) -> bytes:
    """An object: per section its functions, (name, bytes), one behind the other; `others` are sections without code.

    `calls`: (section, byte, function) are relocations of a call.
    """
    names, strings = bytearray(b"\0"), bytearray(b"\0")
    sections: list[list[int]] = [[0] * 10]
    body, symbols, numbers = bytearray(), [bytes(_SYMBOL.size)], {}

    def section(name: str, type_: int, flags: int, data: bytes, link: int = 0, info: int = 0, size: int = 0) -> None:
        sections.append([len(names), type_, flags, 0, _HEADER.size + len(body), len(data), link, info, 8, size])
        names.extend(name.encode() + b"\0")
        body.extend(data)

    indices = {}
    for name, functions in code_of.items():
        at = 0
        for function, content in functions:
            numbers[function] = len(symbols)
            symbols.append(_SYMBOL.pack(len(strings), STB_GLOBAL << 4 | STT_FUNC, 0, len(sections), at, len(content)))
            strings.extend(function.encode() + b"\0")
            at += len(content)
        indices[name] = len(sections)
        section(name, 1, 6, b"".join(content for _, content in functions))
    for name, data in (others or {}).items():
        section(name, 1, 0, data)
    symtab = len(sections)
    section(".symtab", 2, 0, b"".join(symbols), symtab + 1, 1, _SYMBOL.size)
    section(".strtab", 3, 0, bytes(strings))
    for name, index in indices.items():
        entries = [struct.pack("<QQ", at, numbers[function] << 32 | 10) for where, at, function in calls if where == name]
        if entries:
            section(f".rel{name}", 9, 0, b"".join(entries), symtab, index, 16)
    section(".shstrtab", 3, 0, bytes(names) + b".shstrtab\0")
    table = b"".join(_SECTION.pack(*one) for one in sections)
    head = _HEADER.pack(
        b"\x7fELF", 2, 1, 1, 0, 0, 1, 247, 1, 0, 0, _HEADER.size + len(body), 0, 64, 0, 0, 64, len(sections), len(sections) - 1
    )
    return head + bytes(body) + table
