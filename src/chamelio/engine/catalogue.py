"""Names and texts of drop reasons and events, read from the fast path's own tables (fastpath/catalogue.h)."""

from __future__ import annotations

import ctypes
import functools
import re
from typing import NamedTuple

from chamelio import toolchain


class Entry(NamedTuple):
    """One thing that is counted: its stable name and what it means."""

    name: str
    text: str


_ENTRY = re.compile(r'^\s*X\(\w+, "(\w+)", "([^"]*)"\)', re.MULTILINE)


@functools.cache
def _lists() -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    source = (toolchain.FASTPATH / "catalogue.h").read_text()
    drops, _, events = source.partition("#define CHAM_EVENTS")
    return tuple(Entry(*m) for m in _ENTRY.findall(drops)), tuple(Entry(*m) for m in _ENTRY.findall(events))


def drops() -> tuple[Entry, ...]:
    """Why packets end, by index in the `drops` arrays of `struct cham_counters`."""
    return _lists()[0]


def events() -> tuple[Entry, ...]:
    """What else is counted, by index in the `events` arrays."""
    return _lists()[1]


class _TableEntry(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("text", ctypes.c_char_p))


def table(address: int) -> tuple[Entry, ...]:
    """A catalogue as the loaded fast path has it (`cham_drop_catalogue`, `cham_event_catalogue`), to compare with."""
    entries = ctypes.cast(address, ctypes.POINTER(_TableEntry))
    found = []
    i = 0
    while entries[i].name:
        found.append(Entry(entries[i].name.decode(), entries[i].text.decode()))
        i += 1
    return tuple(found)
