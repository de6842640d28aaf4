"""The bytes that are sent in the laboratory: each follows from its position in its stream, so that every one can be checked."""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

OURS, PEERS = 0x00, 0xA5  # the two directions of a connection differ


def pattern(position: int, length: int, direction: int) -> Bytes:
    """`length` bytes from a position on. Neighbouring positions, and those a power of two apart, differ almost always."""
    at = np.arange(position, position + length, dtype=np.int64).astype(np.uint64)
    mixed = at * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(40)).astype(np.uint8) ^ np.uint8(direction)


def first_difference(data: bytes, position: int, direction: int) -> int | None:
    """The position of the first byte that is not what it must be; None: all are right."""
    wrong = np.flatnonzero(np.frombuffer(data, np.uint8) != pattern(position, len(data), direction))
    return position + int(wrong[0]) if len(wrong) else None
