"""Congestion control on connections that are rows of an array: formulas against the RFCs' own, and who is looked at when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from chamelio.protocols.tcp.congestion import INTERVAL_MAX_NS, REST_NS, TICK_NS, CongestionControl, Tick, Tuner, find, names

MS = 1_000_000
SECOND = 1000 * MS
ROWS = 16
ESTABLISHED = 3
SEGMENT = 1448  # an MSS of 1460, with timestamps
ABOUT = np.dtype(
    [
        *((name, "<u4") for name in ("state", "generation", "win", "ssthresh", "mss", "mss_limit", "options", "srtt")),
        *((name, "<u4") for name in ("delivered", "marked", "grow")),
        ("beta", "<u2"),
        ("alpha", "<u2"),
    ]
)


def connections(srtt_ms: float = 50) -> np.ndarray:
    about = np.zeros(ROWS, ABOUT)
    about["state"], about["generation"] = ESTABLISHED, 1
    about["mss"], about["options"], about["srtt"] = 1460, 1, srtt_ms * 1000
    about["win"] = about["ssthresh"] = 100 * SEGMENT
    return about


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@dataclass
class Path:
    """A connection that is never short of data, as handlers would treat it: windows in bytes, round by round."""

    about: np.ndarray
    row: int = 0
    now: int = SECOND
    grown: float = 0.0

    def trip(self, tuner: Tuner, *, marked: bool = False) -> None:
        """A window is acknowledged in a round trip, in 10 steps, and looked at when it is due."""
        a, row = self.about, self.row
        for _ in range(10):
            part = int(a["win"][row]) / 10
            self.now += int(a["srtt"][row]) * 100
            a["delivered"][row : row + 1] += np.uint32(part)  # wraps
            a["marked"][row : row + 1] += np.uint32(part if marked else 0)
            if a["win"][row] < a["ssthresh"][row]:
                a["win"][row] += np.uint32(part)
            else:
                self.grown += part / a["win"][row] * (a["grow"][row] or SEGMENT)
                a["win"][row] += np.uint32(self.grown)
                self.grown %= 1
            if (due := tuner.due) is not None and due <= self.now:
                tuner.tick(self.now)

    def lose(self, tuner: Tuner) -> None:
        """What start_recovery does, and the event that follows."""
        a, row = self.about, self.row
        a["ssthresh"][row] = a["win"][row] = int(a["win"][row]) * (int(a["beta"][row]) or 512) >> 10
        tuner.loss(rows(row), self.now)


def tuner_of(name: str, about: np.ndarray) -> Tuner:
    return Tuner(about, find(name)(about))


# ---- the registry -----------------------------------------------------------------------------------------------------------


def test_an_algorithm_is_a_file() -> None:
    assert {"cubic", "dctcp", "newreno"} <= set(names())
    for name in names():
        assert issubclass(find(name), CongestionControl)
    with pytest.raises(KeyError, match="there is no congestion control 'cubik': did you mean 'cubic'"):
        find("cubik")
    with pytest.raises(KeyError, match="there are cubic, dctcp, newreno"):
        find("bbr")


# ---- CUBIC ------------------------------------------------------------------------------------------------------------------


def test_cubic_follows_its_function() -> None:
    """RFC 9438, figure 1 of section 4.2: K = cbrt(W_max * 0.3 / 0.4), and the window is back at W_max after K seconds."""
    about = connections(srtt_ms=100)
    tuner, path = tuner_of("cubic", about), Path(about)
    about["beta"][0] = 717
    about["win"][0] = 1000 * SEGMENT
    path.lose(tuner)
    assert about["win"][0] / SEGMENT == pytest.approx(700, rel=0.001)
    path.trip(tuner)
    began, k = path.now, math.cbrt(300 / 0.4)
    for second in (1, 3, 5, 8, 12, 14):
        while path.now < began + second * SECOND:
            path.trip(tuner)
        expected = 0.4 * ((path.now - began) / SECOND - k) ** 3 + 1000
        assert about["win"][0] / SEGMENT == pytest.approx(expected, rel=0.02), f"after {second} s"


def test_cubic_is_no_slower_than_reno_on_short_paths() -> None:
    """Section 4.3: at 10 ms and 20 segments the function is flat, and Reno's window with the same beta decides."""
    about = connections(srtt_ms=10)
    tuner, path = tuner_of("cubic", about), Path(about)
    about["beta"][0], about["win"][0] = 717, 20 * SEGMENT
    path.lose(tuner)
    alpha, window = 3 * (1 - 0.7) / (1 + 0.7), 14.0
    for _ in range(20):
        path.trip(tuner)
        window += alpha if window < 20 else 1
        assert about["win"][0] / SEGMENT == pytest.approx(window, abs=1)


def test_cubic_first_loss_may_have_been_by_half() -> None:
    about = connections(srtt_ms=100)
    tuner, path = tuner_of("cubic", about), Path(about)
    about["win"][0] = 400 * SEGMENT
    path.lose(tuner)
    assert about["beta"][0] == 717 and about["win"][0] == 200 * SEGMENT
    k = math.cbrt(200 / 0.4)
    for _ in range(round(k * 10) + 1):
        path.trip(tuner)
    assert about["win"][0] / SEGMENT == pytest.approx(400, rel=0.02)


def test_cubic_makes_room_when_its_window_shrinks() -> None:
    """Section 4.7, fast convergence: after a loss below the former maximum the plateau is at 0.85 of the window."""
    about = connections(srtt_ms=100)
    tuner, path = tuner_of("cubic", about), Path(about)
    about["beta"][0], about["win"][0] = 717, 1000 * SEGMENT
    path.lose(tuner)
    path.trip(tuner)
    before = int(about["win"][0]) / SEGMENT
    path.lose(tuner)
    plateau = before * 0.85
    k = math.cbrt((plateau - before * 0.7) / 0.4)
    for _ in range(round(k * 10) + 1):
        path.trip(tuner)
    assert about["win"][0] / SEGMENT == pytest.approx(plateau, rel=0.03)


def test_cubic_grows_from_where_slow_start_ended_after_a_timeout() -> None:
    """Section 4.8."""
    about = connections(srtt_ms=100)
    tuner, path = tuner_of("cubic", about), Path(about)
    tuner.timeout(rows(0), path.now)
    about["ssthresh"][0], about["win"][0] = 70 * SEGMENT, SEGMENT
    while about["win"][0] < about["ssthresh"][0]:
        path.trip(tuner)
    began, start = path.now, int(about["win"][0]) / SEGMENT
    while path.now < began + 6 * SECOND:
        path.trip(tuner)
    reno = start + 60 * 0.53
    assert about["win"][0] / SEGMENT == pytest.approx(max(0.4 * 6**3 + start, reno), rel=0.05)


def test_cubic_time_stands_still_without_enough_to_send() -> None:
    about = connections(srtt_ms=100)
    tuner, path = tuner_of("cubic", about), Path(about)
    about["beta"][0], about["win"][0] = 717, 1000 * SEGMENT
    path.lose(tuner)
    path.trip(tuner)
    path.trip(tuner)
    before = int(about["grow"][0])
    for _ in range(100):  # 10 s with a segment in each round trip
        path.now += 100 * MS
        about["delivered"][0] += np.uint32(SEGMENT)
        tuner.tick(path.now)
    path.trip(tuner)
    assert int(about["grow"][0]) == pytest.approx(before, rel=0.1)


@pytest.mark.parametrize(("rtt_ms", "loss"), [(50, 1e-2), (50, 1e-3), (100, 1e-4)])
@pytest.mark.parametrize("name", ["newreno", "cubic"])
def test_the_average_window_is_what_models_say(name: str, rtt_ms: int, loss: float) -> None:
    """RFC 9438, section 5.1: one loss in every 1/p segments; for NewReno the square root of Mathis et al. (1997)."""
    about = connections(rtt_ms)
    about["win"] = about["ssthresh"] = 20 * SEGMENT
    tuner, path = tuner_of(name, about), Path(about)
    sent, losses, windows = 0.0, 0, []
    while losses < 30:
        window = int(about["win"][0]) / SEGMENT
        path.trip(tuner)
        sent += window
        if losses >= 10:
            windows.append(window)
        if sent * loss >= 1:
            sent -= 1 / loss
            path.lose(tuner)
            losses += 1
    reno, cubic = math.sqrt(1.5 / loss), 1.054 * (rtt_ms / 1000 / loss) ** 0.75
    assert np.mean(windows) == pytest.approx(max(reno, cubic) if name == "cubic" else reno, rel=0.15)


# ---- DCTCP ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("srtt_ms", [20, 0.1])
def test_dctcp_estimates_the_part_that_is_marked(srtt_ms: float) -> None:
    """RFC 8257, section 3.3: alpha = (1 - g) * alpha + g * M once for each window, however many of them lie between two looks."""
    about = connections(srtt_ms)
    tuner, path = tuner_of("dctcp", about), Path(about)
    tuner.marked(rows(0), path.now)
    assert about["alpha"][0] == 512, "at first marks halve"
    alpha, pattern = 1.0, (True, False, False, False)
    about["ssthresh"][0] = 0
    for i in range(2000):
        about["win"][0] = 100 * SEGMENT
        path.trip(tuner, marked=pattern[i % 4])
        alpha += (pattern[i % 4] - alpha) / 16
    assert about["alpha"][0] / 512 == pytest.approx(0.25, abs=0.05)
    assert about["alpha"][0] / 512 == pytest.approx(alpha, abs=0.05)
    for _ in range(400):
        about["win"][0] = 100 * SEGMENT
        path.trip(tuner)
    assert about["alpha"][0] == 1, "never 0, which would mean half"


def test_dctcp_treats_a_loss_as_others_do() -> None:
    about = connections()
    tuner, path = tuner_of("dctcp", about), Path(about)
    path.lose(tuner)
    path.trip(tuner)
    assert (about["beta"][0], about["grow"][0]) == (0, 0)


# ---- who is looked at -------------------------------------------------------------------------------------------------------


class Recorded(CongestionControl):
    """Remembers what it is told."""

    def __init__(self, about: np.ndarray) -> None:
        super().__init__(about)
        self.ticks_seen: list[Tick] = []
        self.began: list[int] = []
        self.rested: list[int] = []

    def begin(self, rows: np.ndarray) -> None:
        self.began += rows.tolist()

    def on_tick(self, tick: Tick) -> None:
        self.ticks_seen.append(tick)

    def on_idle(self, rows: np.ndarray) -> None:
        self.rested += rows.tolist()


def recorded(about: np.ndarray) -> tuple[Tuner, Recorded]:
    control = Recorded(about)
    return Tuner(about, control), control


def test_nobody_is_looked_at_before_something_happens() -> None:
    tuner, _ = recorded(connections())
    assert tuner.due is None and tuner.tick(SECOND) is None


def test_newreno_is_never_looked_at() -> None:
    about = connections()
    tuner = tuner_of("newreno", about)
    tuner.loss(rows(1, 2), SECOND)
    assert tuner.watched == 0 and not about["beta"].any()


@pytest.mark.parametrize(("srtt_ms", "interval"), [(0, TICK_NS), (1, TICK_NS), (40, 40 * MS), (5000, INTERVAL_MAX_NS)])
def test_a_look_comes_after_a_round_trip(srtt_ms: float, interval: int) -> None:
    about = connections(srtt_ms)
    tuner, control = recorded(about)
    tuner.loss(rows(3, 3, 5), SECOND)
    assert tuner.due == SECOND + interval and control.began == [3, 5]
    about["delivered"][3] += np.uint32(700)
    about["marked"][5] += np.uint32(300)
    assert tuner.tick(SECOND + interval - 1) is not None and not control.ticks_seen
    assert tuner.tick(SECOND + interval) == SECOND + 2 * interval
    (tick,) = control.ticks_seen
    assert [tick.rows.tolist(), tick.delivered.tolist(), tick.marked.tolist()] == [[3, 5], [700, 0], [0, 300]]
    assert tick.elapsed.tolist() == [interval] * 2


def test_counters_wrap_and_what_the_peer_gave_up_is_no_progress() -> None:
    about = connections()
    about["delivered"][0], about["delivered"][1] = (1 << 32) - 100, 5000
    tuner, control = recorded(about)
    tuner.loss(rows(0, 1), SECOND)
    about["delivered"][0], about["delivered"][1] = 200, 4000
    tuner.tick(2 * SECOND)
    assert control.ticks_seen[0].delivered.tolist() == [300, 0]


def test_looks_become_rare_without_progress_and_end() -> None:
    about = connections(srtt_ms=10)
    tuner, control = recorded(about)
    tuner.loss(rows(4), SECOND)
    now: int | None = SECOND
    while (due := tuner.tick(now)) is not None:
        now = due
    assert control.rested == [4] and len(control.ticks_seen) < 15
    assert REST_NS < now - SECOND < 3 * REST_NS and tuner.watched == 0
    tuner.loss(rows(4), now)
    assert tuner.watched == 1 and control.began == [4], "it is still the same connection"


def test_a_connection_that_has_ended_is_forgotten() -> None:
    about = connections()
    tuner, control = recorded(about)
    tuner.loss(rows(1, 2, 3), SECOND)
    about["state"][1], about["generation"][2] = 0, 2
    tuner.tick(2 * SECOND)
    assert control.ticks_seen[0].rows.tolist() == [3] and tuner.watched == 1
    tuner.marked(rows(2), 2 * SECOND)
    assert control.began == [1, 2, 3, 2], "another one has its number"


def test_another_algorithm_begins_anew() -> None:
    about = connections()
    tuner = tuner_of("cubic", about)
    tuner.loss(rows(1, 2), SECOND)
    tuner.tick(2 * SECOND)
    assert about["beta"][1] == 717 and about["grow"][2]
    tuner.use(find("newreno")(about))
    assert tuner.watched == 0 and not about["beta"].any() and not about["grow"].any()
