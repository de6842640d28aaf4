"""CUBIC (RFC 9438): the window follows a cubic function of the time since the last reduction, and is never below Reno's.

Windows are counted in segments, times in seconds. What the handler adds for each window acknowledged, `grow`, is set so that by
the next look `win` is where the function is. Left out are HyStart++, of which handlers do the first half, and the undoing of
reductions (section 4.9), which is theirs, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chamelio.protocols.tcp.congestion import UNIT, Array, CongestionControl, Tick, interval

C = 0.4  # section 5: segments per second cubed
BETA = 717  # section 4.6: 0.7
_BETA = BETA / UNIT
ALPHA = 3 * (1 - _BETA) / (1 + _BETA)  # section 4.3: Reno's pace for this beta
GROWTH_MAX = 0.5  # section 4.2: of the window, in a round trip
GROWS, AFTER_LOSS, AFTER_TIMEOUT = range(3)


class Cubic(CongestionControl):
    """Per connection: the function's parameters, and Reno's window, which would have the same average loss."""

    beta = BETA

    def __init__(self, about: Any) -> None:
        super().__init__(about)
        n = len(about)
        self._stage = np.zeros(n, np.uint8)  # whether congestion avoidance must begin anew, and after what
        self._used = np.zeros(n, np.uint16)  # the `beta` of the next reduction
        self._began = np.zeros(n, np.int64)  # ns; time without enough to send does not count
        self._max, self._k, self._reno, self._prior = (np.zeros(n, np.float32) for _ in range(4))

    def begin(self, rows: Array) -> None:
        """What reduced them first may have been another `beta`."""
        beta = self.about["beta"][rows]
        self._used[rows] = np.where(beta == 0, UNIT // 2, beta)
        self._max[rows] = 0
        self._stage[rows] = AFTER_LOSS
        super().begin(rows)

    def on_loss(self, rows: Array, now: int) -> None:
        """Section 4.6, and 4.7: a window that is below the former maximum makes room for others."""
        reduced = self.about["ssthresh"][rows] / self.segment(rows)
        window = reduced * UNIT / self._used[rows]
        self._used[rows] = self.beta
        self._max[rows] = np.where(window < self._max[rows], window * (1 + _BETA) / 2, window)
        self._prior[rows] = window
        self._stage[rows] = AFTER_LOSS
        self.about["grow"][rows] = np.maximum(ALPHA * self.segment(rows), 1).astype(np.uint32)

    on_marked = on_loss

    def on_timeout(self, rows: Array, now: int) -> None:
        """Section 4.8: slow start, then growth from wherever that ends."""
        self._used[rows] = self.beta
        self._prior[rows] = self.about["win"][rows] / self.segment(rows)
        self._stage[rows] = AFTER_TIMEOUT

    def on_tick(self, tick: Tick) -> None:
        """Sections 4.2 to 4.5."""
        avoiding = self.about["win"][tick.rows] >= self.about["ssthresh"][tick.rows]
        rows, elapsed = tick.rows[avoiding], tick.elapsed[avoiding]
        segment = self.segment(rows)
        window = np.maximum(self.about["win"][rows] / segment, 1)
        rtt = np.maximum(self.about["srtt"][rows], 1) / 1e6
        begins = self._stage[rows] != GROWS
        if begins.any():
            self._begin_avoidance(rows[begins], window[begins], tick.now)
        delivered = tick.delivered[avoiding] / segment
        limited = (delivered * rtt < window / 2 * (elapsed / 1e9)) & ~begins  # by the application, or the peer's window
        self._began[rows[limited]] += elapsed[limited]
        pace = np.where(self._reno[rows] < self._prior[rows], ALPHA, 1.0)
        self._reno[rows] += np.where(limited | begins, 0, pace * delivered / window)

        ahead = interval(self.about, rows) / 1e9  # until the next look
        trips = np.maximum(ahead / rtt, 1)
        t = (tick.now - self._began[rows]) / 1e9 + ahead
        cubic = C * (t - self._k[rows]) ** 3 + self._max[rows]
        target = np.maximum(cubic, self._reno[rows] + pace * trips)
        growth = np.clip((target - window) / trips, 0, GROWTH_MAX * window)
        self.about["grow"][rows] = np.maximum(growth * segment, 1).astype(np.uint32)

    def _begin_avoidance(self, rows: Array, window: Array, now: int) -> None:
        """Congestion avoidance begins with these windows; after a timeout where the function begins to rise (section 4.8)."""
        timeout = self._stage[rows] == AFTER_TIMEOUT
        highest = np.where(timeout, window, np.maximum(self._max[rows], window))
        self._max[rows], self._k[rows] = highest, np.cbrt((highest - window) / C)
        self._reno[rows], self._began[rows], self._stage[rows] = window, now, GROWS

    def on_idle(self, rows: Array) -> None:
        """The function stands still: until something happens they grow as Reno's."""
        self.about["grow"][rows] = 0
