"""A few inputs that reach what a whole corpus reaches: `python -m fuzz.distil TARGET DIRECTORY BYTES` in tests/.

Copies the inputs that it chooses, of so many bytes at most, from build/fuzz/TARGET/corpus to the directory, without those
that one of the seeds makes superfluous. What an input reaches are the pairs of lines of chamelio that run one after the other.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from fuzz.__main__ import BUILD, SEEDS
from fuzz.engine import load

_OURS = "/chamelio/"
_MOST_BYTES = 10_000  # of one input


def reached(fuzzer: ModuleType, data: bytes) -> set[tuple[int, int, int]]:
    """What an input reaches: (function, line, next line)."""
    found: set[tuple[int, int, int]] = set()
    last: dict[int, int] = {}

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            number = id(frame)
            found.add((hash((frame.f_code.co_filename, frame.f_code.co_firstlineno)), last.get(number, 0), frame.f_lineno))
            last[number] = frame.f_lineno
        return local

    def begin(frame: FrameType, event: str, _: Any) -> Any:
        last.pop(id(frame), None)
        return local if _OURS in frame.f_code.co_filename else None

    sys.settrace(begin)
    try:
        fuzzer.one(data)
    finally:
        sys.settrace(None)
    return found


def distil(target: str, directory: Path, size: int) -> None:
    """Choose, one after the other, the input that adds most for its length."""
    fuzzer = load(target)
    known: set[tuple[int, int, int]] = set()
    for path in SEEDS.glob(f"{target}/*"):
        known |= reached(fuzzer, path.read_bytes())
    adds = {}
    for path in (BUILD / target / "corpus").iterdir():
        data = path.read_bytes()
        if len(data) <= _MOST_BYTES:
            adds[data] = reached(fuzzer, data)
    directory.mkdir(parents=True, exist_ok=True)
    while adds:
        best = max(adds, key=lambda data: (len(adds[data] - known) / (100 + len(data)), data))
        new = adds.pop(best) - known
        if not new or len(best) > size:
            break
        known |= new
        size -= len(best)
        (directory / hashlib.sha256(best).hexdigest()[:12]).write_bytes(best)


if __name__ == "__main__":
    distil(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
