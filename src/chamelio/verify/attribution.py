"""Where the worst case is spent: the costliest path through the explored graph, by source line and by loop."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate

from chamelio.bpf.object import Program
from chamelio.verify.explore import Stretch
from chamelio.verify.proof import Share

MOST = 8  # shares that are worth telling


def _path(stretch: Stretch | None) -> Iterator[tuple[int, int]]:
    while stretch is not None:
        yield from stretch.costs
        stretch = stretch.next


def shares(program: Program, worst: Stretch | None) -> tuple[Share, ...]:
    """The greatest shares of a worst path. A loop is known by its jump back, and has all that lies between there and its target."""
    spent: Counter[int] = Counter()
    turns: Counter[tuple[int, int]] = Counter()  # (target, jump)
    before = -1
    for pc, cost in _path(worst):
        spent[pc] += cost
        insn = program.insns[before] if before >= 0 else None
        if insn is not None and pc <= before and insn.is_jump and not insn.is_call and not insn.is_exit:
            turns[pc, before] += 1
        before = pc
    by_line: dict[tuple[str, int], Share] = {}
    for pc, cost in sorted(spent.items()):
        line = program.line_at(pc)
        where = (line.file, line.line) if line else ("", -pc)
        old = by_line.get(where)
        by_line[where] = Share(where[0], max(where[1], 0), old.pc if old else pc, cost + (old.cycles if old else 0))
    return _greatest([*by_line.values(), *_loops(program, spent, turns)])


def _loops(program: Program, spent: Counter[int], turns: Counter[tuple[int, int]]) -> Iterator[Share]:
    by_head: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (head, jump), count in turns.items():
        by_head[head].append((jump, count))
    slots = sorted(spent)
    before = [0, *accumulate(spent[pc] for pc in slots)]  # cycles spent before each of them
    for head, jumps in by_head.items():
        last = max(jump for jump, _ in jumps)
        line = program.line_at(head)
        cycles = before[bisect_right(slots, last)] - before[bisect_left(slots, head)]
        yield Share(line.file if line else "", line.line if line else 0, head, cycles, 1 + sum(count for _, count in jumps))


def _greatest(found: list[Share]) -> tuple[Share, ...]:
    return tuple(sorted(found, key=lambda share: (-share.cycles, -share.turns, share.pc))[:MOST])


def spent_mostly(found: tuple[Share, ...], total: int) -> str:
    """Where most of it goes, in words; empty if nothing stands out."""
    if not found or 100 * found[0].cycles < total:  # the rest is what beginning a run costs
        return ""
    first = found[0]
    where = f"{first.file.rpartition('/')[2]}:{first.line}" if first.line else f"instruction {first.pc}"
    percent = f"{100 * first.cycles / total:.0f} %"
    if first.turns:
        return f"{percent} in the loop at {where} (<= {first.turns} x {-(-first.cycles // first.turns):,})"
    return f"{percent} at {where}"
