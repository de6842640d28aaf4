"""Histograms of queueing delays, as the fast path counts them (`struct cham_delays` in fastpath/core.h), and their percentiles.

Log-linear, after Tene's HdrHistogram: units of 8 ns; one bucket for each of the first 16 units, then 8 buckets for each power of
two. A percentile is the upper edge of the bucket that holds it: never less than the true one, and at most an eighth (or 8 ns) more.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

UNIT_NS = 8  # 1 << CHAM_DELAY_SHIFT
PER_POWER = 8
BUCKETS = 224  # CHAM_DELAY_BUCKETS: the last one counts everything that does not fit into those before it
Counts = np.ndarray[Any, np.dtype[np.uint64]]


def bucket(ns: int) -> int:
    """The bucket that counts a delay."""
    units = ns // UNIT_NS
    power = (units | PER_POWER).bit_length() - 4
    return min(PER_POWER * power + (units >> power), BUCKETS - 1)


@functools.cache
def edges() -> tuple[int, ...]:
    """What each bucket's delays are below (ns)."""
    found = []
    for i in range(BUCKETS):
        power = max(0, i // PER_POWER - 1)
        found.append((i + 1 - PER_POWER * power << power) * UNIT_NS)
    return tuple(found)


def percentile(counts: Counts, percent: float) -> float | None:
    """The delay (ns) that so many percent of what was counted did not exceed; None if nothing was, inf beyond the last bucket."""
    total = int(counts.sum())
    if not total:
        return None
    rank = max(1, -int(-total * percent // 100))
    place = int(np.searchsorted(np.cumsum(counts), rank))
    return float("inf") if place == len(counts) - 1 else float(edges()[place])
