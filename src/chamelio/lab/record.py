"""A line of a trace."""

from __future__ import annotations

from dataclasses import dataclass

from chamelio.lab.language import NS


@dataclass(frozen=True)
class Record:
    """When (ns since the beginning), `<`, `>` or `app`, whose, what."""

    time: int
    side: str
    flow: str
    text: str

    def line(self, several: bool) -> str:
        """For people; `several`: say whose."""
        name = f"{self.flow}: " if several and self.flow else ""
        return f"{self.time / NS:11.6f}  {self.side:<3}  {name}{self.text}"
