"""How much gets through: the matrix of faults and round trips with its stored table, and averages to be compared with models.

    python tests/protocols/tcp/goodput.py matrix   # measure all cells with all seeds and store goodput.csv
    python tests/protocols/tcp/goodput.py models   # print goodput beside what models say, as in docs/benchmarks.md

Everything happens in virtual time, so that a figure is a function of the seed and of the code. A change of the code may move
packets to other fates: then a cell's figure is another draw of the same distribution, and what is stored is the distribution.
"""

from __future__ import annotations

import contextlib
import csv
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chamelio.lab import Laboratory
from chamelio.lab.laboratory import Stream

TABLE = Path(__file__).with_name("goodput.csv")
SEGMENT = 1448  # bytes of data, with timestamps
FRAME = 1514  # and on the line

# ---- the matrix of faults ---------------------------------------------------------------------------------------------------

RATE = 100e6
RTTS_MS = (0.1, 1, 10, 50, 200)
WAYS = ("one way", "echo")
FAULTS = {  # name: the injector's words, bytes that are sent
    "none": ("loss=0%", 200_000),
    "loss 1%": ("loss=1%", 150_000),
    "loss 3%": ("loss=3%", 100_000),
    "loss 10%": ("loss=10%", 50_000),
    "loss 30%": ("loss=30%", 30_000),
    "reordering": ("reorder=5%", 100_000),
    "duplication": ("dup=10%", 100_000),
    "bit errors": ("biterr=2%", 100_000),
    "combined": ("loss=2%,reorder=3%,dup=2%,biterr=1%,delay=0us..200us", 100_000),
}
ALL_SEEDS, FEW_SEEDS = range(1, 101), range(1, 3)
LIMIT_S = 900.0  # virtual time for a cell: nothing takes longer unless it is stuck
OPEN_S = 900.0
CHANGE, DEVIATIONS = 0.05, 4.0  # what a figure may differ by: so much, and so many standard deviations of the mean


@dataclass(frozen=True)
class Cell:
    """A cell of the stored table: the geometric mean (bits/s) over the seeds and the standard deviation of one seed's logarithm."""

    goodput: float
    sigma: float
    worst: float
    seeds: int

    def allowed(self, seeds: int) -> float:
        """By how much the logarithm of a mean over other seeds may differ."""
        return CHANGE + DEVIATIONS * self.sigma * math.sqrt(1 / seeds + 1 / self.seeds)


Key = tuple[float, str, str]  # RTT in ms, fault, way


def row(rtt_ms: float, seed: int) -> dict[Key, float]:
    """Goodput (bits/s) of all cells with this round trip. Raises ValueError for wrong bytes, Stalled, OSError."""
    settings = {"congestion": "cubic", "retries": 30, "syn_retries": 30}
    found = {}
    with Laboratory(rate=RATE, delay=rtt_ms / 2000, fault="loss=0%", settings=settings, seed=seed) as lab:
        for index, (fault, (words, length)) in enumerate(FAULTS.items()):
            for number, way in enumerate(WAYS):
                lab.mistreat(f"{words},seed={1000 * seed + 2 * index + number}")
                found[rtt_ms, fault, way] = _stream(lab, length, echo=way == "echo")
                lab.mistreat("loss=0%")
                lab.run(1)
    return found


def _stream(lab: Laboratory, length: int, *, echo: bool) -> float:
    """Send so much, and get it back; bits/s of what has arrived, from when the connection is open at both ends."""
    stream = _open(lab)
    started, returned, total = lab.now, 0, 1 + length
    stream.a.write(length)

    def done() -> bool:
        nonlocal returned
        if not echo:
            return stream.forth == total
        if stream.forth != returned:
            stream.b.write(stream.forth - returned)
            returned = stream.forth
        return stream.back == total

    lab.until(done, LIMIT_S)
    took = lab.now - started
    stream.close()
    lab.streams.clear()
    return length * (2 if echo else 1) * 8 / took


def _open(lab: Laboratory) -> Stream:
    """A connection that has carried a byte. Who accepts may give up before the third segment has come: then another one."""
    for _ in range(10):
        with contextlib.suppress(OSError):
            return lab.open(forth=1, limit=OPEN_S)
    raise OSError("there is no connection after ten attempts")


def load() -> dict[Key, Cell]:
    """The stored table."""
    with TABLE.open() as lines:
        return {
            (float(r["rtt_ms"]), r["fault"], r["way"]):
                Cell(float(r["kbit_s"]) * 1e3, float(r["sigma"]), float(r["worst_kbit_s"]) * 1e3, int(r["seeds"]))
            for r in csv.DictReader(lines)
        }  # fmt: skip


def store(rows: Sequence[dict[Key, float]]) -> None:
    """Write the table of what was measured, a dict for each seed and round trip."""
    cells: dict[Key, list[float]] = {}
    for one in rows:
        for key, goodput in one.items():
            cells.setdefault(key, []).append(goodput)
    with TABLE.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["rtt_ms", "fault", "way", "kbit_s", "sigma", "worst_kbit_s", "seeds"])
        for (rtt_ms, fault, way), values in cells.items():
            logs = [math.log(v) for v in values]
            sigma = statistics.stdev(logs) if len(logs) > 1 else 0.0
            mean, worst = math.exp(statistics.fmean(logs)), min(values)
            writer.writerow([f"{rtt_ms:g}", fault, way, f"{mean / 1e3:.4g}", f"{sigma:.3f}", f"{worst / 1e3:.4g}", len(values)])


def differences(rows: Sequence[dict[Key, float]], stored: dict[Key, Cell]) -> list[str]:
    """What is not as stored, in words: cells, and the mean over all cells, which sees small changes. `rows`: one for each seed."""
    words, total, spread = [], 0.0, 0.0
    for key in rows[0]:
        cell, n = stored[key], len(rows)
        mean = statistics.fmean(math.log(one[key]) for one in rows)
        off = mean - math.log(cell.goodput)
        total += off
        spread += cell.sigma**2 * (1 / n + 1 / cell.seeds)
        if abs(off) > cell.allowed(n):
            rtt_ms, fault, way = key
            words.append(
                f"RTT {rtt_ms:g} ms, {fault}, {way}: {math.exp(mean) / 1e3:.0f} kbit/s instead of {cell.goodput / 1e3:.0f}, "
                f"{math.exp(off):.2f} times; a factor of {math.exp(cell.allowed(n)):.2f} is allowed"
            )
    count = len(rows[0])
    limit = CHANGE + DEVIATIONS * math.sqrt(spread) / count
    if abs(total / count) > limit:
        words.append(f"all cells together: {math.exp(total / count):.3f} times; a factor of {math.exp(limit):.3f} is allowed")
    return words


# ---- models -----------------------------------------------------------------------------------------------------------------


def newreno_window(loss: float, rtt: float) -> float:
    """Segments on average (Mathis, Semke, Mahdavi, Ott 1997): the root of 3/2p, as growth counts bytes, not ACKs."""
    return math.sqrt(1.5 / loss)


def cubic_window(loss: float, rtt: float) -> float:
    """Segments on average (RFC 9438, section 5.1, with C = 0.4 and beta = 0.7); in the Reno-friendly region (4.3) Reno's."""
    return max(1.054 * (rtt / loss) ** 0.75, newreno_window(loss, rtt))


WINDOWS: dict[str, Callable[[float, float], float]] = {"newreno": newreno_window, "cubic": cubic_window}


class Losses:
    """Loses data segments on the way forth: each with the same probability, or every so many-th, as models have it.

    The `first` is lost in any case, and ends slow start.
    """

    def __init__(self, loss: float, *, first: int, regular: bool, seed: int) -> None:
        self._loss, self._first, self._random = loss, first, None if regular else random.Random(seed)
        self.sent = self.lost = 0

    def __call__(self, forth: bool, packet: bytes) -> bool:
        """For Line.drop."""
        header = (packet[0] & 15) * 4
        if not forth or len(packet) == header + (packet[header + 12] >> 4) * 4:
            return False
        self.sent += 1
        if self._random is None:
            lost = (self.sent - self._first) * self._loss >= self.lost
        else:
            lost = self.sent == self._first or self._random.random() < self._loss
        self.lost += lost
        return lost


@dataclass(frozen=True)
class Average:
    """Goodput of a connection that loses segments, beside a model's."""

    control: str
    rtt: float
    loss: float
    regular: bool
    losses: int
    timeouts: int
    model: float
    measured: float
    seconds: float

    @property
    def ratio(self) -> float:
        """Measured to model."""
        return self.measured / self.model

    def line(self) -> str:
        """A line of the table in docs/benchmarks.md."""
        name = {"newreno": "NewReno", "cubic": "CUBIC"}[self.control]
        return (
            f"| {name} | {self.rtt * 1000:g} ms | {self.loss:.1%} | {'regular' if self.regular else 'random'} | {self.losses} | "
            f"{self.timeouts} | {self.seconds:.0f} s | {self.model / 1e6:.2f} | {self.measured / 1e6:.2f} | {self.ratio:.2f} |"
        )


HEADING = (
    "| control | RTT | loss | losses are | losses | timeouts | time | model, Mbit/s | measured | ratio |\n"
    "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|"
)
WARM_UP = 10  # losses before counting begins


def average(control: str, rtt: float, loss: float, losses: int, *, regular: bool = False, seed: int = 1) -> Average:
    """Goodput over so many losses, of a connection that nothing else holds up."""
    window = WINDOWS[control](loss, rtt)
    with Laboratory(rate=RATE, delay=rtt / 2, queue=10_000, settings={"congestion": control}, seed=seed) as lab:
        stream = lab.open()
        stream.a.write(1 << 40)
        assert lab.line is not None
        lab.line.drop = lost = Losses(loss, first=round(2 * window), regular=regular, seed=seed)
        lab.until(lambda: lost.lost >= WARM_UP, 1e5)
        bytes_before, began, timeouts = stream.forth, lab.now, stream.a.row["timeouts"]
        lab.until(lambda: lost.lost >= WARM_UP + losses, 1e5)
        took = lab.now - began
        model = window * SEGMENT * 8 / rtt
        measured = (stream.forth - bytes_before) * 8 / took
        return Average(control, rtt, loss, regular, losses, stream.a.row["timeouts"] - timeouts, model, measured, took)


def steady(lab: Laboratory, streams: Iterable[Stream], warm_up: float, seconds: float) -> list[float]:
    """Let streams that write all the time go on; bits/s of each after the warm-up."""
    for stream in streams:
        stream.a.write(1 << 40)
    lab.run(warm_up)
    assert lab.line is not None
    way = lab.line.forth
    way.longest = way.packets = way.queued = way.dropped = way.marked = 0
    before = [stream.forth for stream in streams]
    lab.run(seconds)
    return [(stream.forth - b) * 8 / seconds for stream, b in zip(streams, before, strict=True)]


def jain(shares: Sequence[float]) -> float:
    """Fairness index (Jain, Chiu, Hawe 1984): 1 when all are alike, 1/n when one has everything."""
    return float(sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares)))


def _main(words: Sequence[str]) -> None:
    if list(words) == ["matrix"]:
        rows: list[Any] = []
        for rtt_ms in RTTS_MS:
            for seed in ALL_SEEDS:
                rows.append(row(rtt_ms, seed))
                print(f"\rRTT {rtt_ms:g} ms, seed {seed}", end="", file=sys.stderr)
        print(file=sys.stderr)
        store(rows)
    elif list(words) == ["models"]:
        print(HEADING)
        for loss, losses in ((1e-2, 200), (1e-3, 60)):
            for rtt in (0.05, 0.2):
                for control in WINDOWS:
                    for regular in (False, True):
                        print(average(control, rtt, loss, losses, regular=regular).line(), flush=True)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    _main(sys.argv[1:])
