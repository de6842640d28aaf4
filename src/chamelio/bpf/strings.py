"""String tables of hostile files: names by offset, with a bound on how much text overlapping names can make."""

from __future__ import annotations

from chamelio.bpf.insn import BpfFormatError

MAX_OVERLAP = 16  # characters read, as a multiple of the table; linkers share tails, so a little overlap is normal
LEAST_BUDGET = 4096


class Strings:
    """NUL-terminated UTF-8 by offset; offset 0 is the empty name. `what` is named in errors."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what = data, what
        self._known: dict[int, str] = {0: ""}
        self._budget = max(MAX_OVERLAP * len(data), LEAST_BUDGET)

    def __getitem__(self, offset: int) -> str:
        """The string at an offset. BpfFormatError: it is outside the table, not terminated, or the budget is spent."""
        known = self._known.get(offset)
        if known is not None:
            return known
        end = self._data.find(0, offset) if 0 < offset < len(self._data) else -1
        if end < 0:
            raise BpfFormatError(f"{self._what}: no string at {offset} of {len(self._data)} bytes")
        self._budget -= end - offset
        if self._budget < 0:
            raise BpfFormatError(f"{self._what}: strings overlap more than {MAX_OVERLAP} times")
        text = self._known[offset] = self._data[offset:end].decode("utf-8", "replace")
        return text
