"""DCTCP (RFC 8257): marks reduce the window by as much as the path is congested: the part of the bytes that were marked."""

from __future__ import annotations

from typing import Any

import numpy as np

from chamelio.protocols.tcp.congestion import UNIT, Array, CongestionControl, Tick

GAIN = 1 / 16  # section 4.2


class Dctcp(CongestionControl):
    """Per connection the estimate `alpha` (section 3.3), which is 1 at first: then marks halve, as a loss does (section 3.5)."""

    def __init__(self, about: Any) -> None:
        super().__init__(about)
        self._alpha = np.zeros(len(about), np.float32)

    def begin(self, rows: Array) -> None:
        """Nothing is known of the path."""
        super().begin(rows)
        self._set(rows, np.ones(len(rows)))

    def on_tick(self, tick: Tick) -> None:
        """The estimate moves once for each window that was acknowledged: several at once, if round trips are shorter than ticks."""
        moving = tick.delivered != 0
        rows, delivered = tick.rows[moving], tick.delivered[moving].astype(np.float64)
        part = np.minimum(tick.marked[moving] / delivered, 1)
        windows = delivered / np.maximum(self.about["win"][rows], 1)
        self._set(rows, part + (self._alpha[rows] - part) * (1 - GAIN) ** windows)

    def _set(self, rows: Array, alpha: Array) -> None:
        self._alpha[rows] = alpha
        self.about["alpha"][rows] = np.clip(np.rint(alpha * UNIT / 2), 1, UNIT // 2).astype(np.uint16)
