"""Readers of metrics for tests: scrapes, what OpenMetrics says in the shape of a snapshot, counters written for the engine."""

from __future__ import annotations

import mmap
import socket
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chamelio.engine import abi, delays
from chamelio.engine.metrics import FAMILIES, Family, put

Counters = np.ndarray[Any, np.dtype[Any]]


def write_counters(run: Path) -> Any:
    """The first core's `struct cham_counters` in the counters file of a run directory, to be written."""
    layout = abi.dtype("cham_counters")
    with (run / "counters").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    return np.frombuffer(memory, layout, 1)[0:1]


def fill(counters: Any, seed: int) -> None:
    """A different number in every counter."""
    words = counters.view(np.uint64)
    words[:] = np.random.default_rng(seed).integers(1, 1 << 40, len(words), np.uint64)


def connect(run: Path) -> socket.socket:
    """A connection to the endpoint."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(str(run / "metrics.sock"))
    return sock


def get(sock: socket.socket, path: str = "/metrics", method: str = "GET") -> tuple[str, str]:
    """Head and body of a reply; closes the connection."""
    with sock:
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        parts = []
        while data := sock.recv(1 << 16):
            parts.append(data)
    head, _, body = b"".join(parts).decode().partition("\r\n\r\n")
    return head, body


def snapshot_of(text: str) -> dict[str, Any]:
    """What an exposition says, in the shape of a snapshot (engine/metrics.py). Histograms are left in their coarser buckets."""
    families = {f.full: f for f in FAMILIES}
    values: dict[str, Any] = {}
    for metric in text_string_to_metric_families(text):
        family = families[metric.name]
        assert (metric.type, metric.unit, metric.documentation) == (family.kind, family.unit, family.text)
        for sample in metric.samples:
            where = tuple(sample.labels[label] for label in family.labels)
            assert set(sample.labels) - {"le"} == set(family.labels)
            if family.kind == "histogram":
                part = sample.name.removeprefix(family.full + "_")
                put(values, family, (*where, part, *([sample.labels["le"]] if part == "bucket" else [])), sample.value)
            else:
                put(values, family, where, sample.value)
    return values


def coarser(histogram: dict[str, Any]) -> dict[str, Any]:
    """A snapshot's histogram as OpenMetrics has it."""
    counts = {int(i): n for i, n in histogram["buckets"].items()}
    total = sum(counts.values())
    edges = delays.edges()
    ends = range(delays.PER_POWER - 1, delays.BUCKETS - 1, delays.PER_POWER)
    bucket = {str(edges[end] / 1e9): sum(n for i, n in counts.items() if i <= end) for end in ends}
    return {"bucket": {**bucket, "+Inf": total}, "count": total, "sum": histogram["sum"] / 1e9}


def as_exposed(values: dict[str, Any]) -> dict[str, Any]:
    """A snapshot with coarser histograms, to compare with what an exposition says."""

    def each(family: Family, level: int, value: Any) -> Any:
        if level:
            return {key: each(family, level - 1, inner) for key, inner in value.items()}
        return coarser(value) if family.kind == "histogram" else value

    known = {f.name: f for f in FAMILIES}
    return {name: each(known[name], len(known[name].labels), value) for name, value in values.items()}
