"""The dearest input that a budget of measurements finds: from seeds and random draws on, one choice at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chamelio.bench.bounds.rig import Rig
from chamelio.bench.bounds.scenes import Scene

STARTS = 3  # inputs that are climbed from


@dataclass
class Found:
    """The dearest input so far, the cycles it took, and how many inputs were measured."""

    cycles: int = 0
    choice: dict[str, Any] = field(default_factory=dict)
    inputs: int = 0
    verdicts: set[int] = field(default_factory=set)


class Search:
    """Of one handler with one kind of caches; `starts`: inputs to begin with, found elsewhere."""

    def __init__(
        self, rig: Rig, scene: Scene, cold: int, budget: int, seed: int, repetitions: int, starts: list[dict[str, Any]]
    ) -> None:
        self.rig, self.scene, self.cold, self.budget, self.repetitions = rig, scene, cold, budget, repetitions
        self.random = random.Random(f"{scene.protocol} {scene.hook} {cold} {seed}")
        self.starts = starts
        self.found = Found()

    def run(self) -> Found:
        """Spend the budget."""
        drawn = [(self._measure(choice), choice) for choice in self._first()]
        drawn.sort(key=lambda item: -item[0])
        for cycles, choice in drawn[:STARTS]:
            self._climb(cycles, choice)
        return self.found

    def _first(self) -> Iterator[dict[str, Any]]:
        for seed in self.scene.seeds:
            yield {**self.scene.first, **seed}
        yield from self.starts
        for _ in range(self.budget // 3):
            yield self.scene.draw(self.random)

    def _measure(self, choice: dict[str, Any]) -> int:
        cycles = self.rig.cycles(self.scene.hook, self.scene.run(self.rig, choice), cold=self.cold, repetitions=self.repetitions)
        self.found.inputs += 1
        self.found.verdicts.add(int(self.rig.last.verdict))
        if cycles > self.found.cycles:
            self.found.cycles, self.found.choice = cycles, dict(choice)
        return cycles

    def _climb(self, cycles: int, choice: dict[str, Any]) -> None:
        better = True
        while better:
            better = False
            for name in self.random.sample(list(self.scene.choices), len(self.scene.choices)):
                for option in dict.fromkeys(self.scene.choices[name]):
                    if option == choice[name]:
                        continue
                    if self.found.inputs >= self.budget:
                        return
                    changed = {**choice, name: option}
                    new = self._measure(changed)
                    if new > cycles:
                        cycles, choice, better = new, changed, True
