"""What machine a benchmark ran on, for whoever reads its figures."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from chamelio.bench.bounds.rig import library

CALIBRATION_S = 0.05


def describe() -> dict[str, Any]:
    """Processor, cores, how fast the time stamp counter runs and a core goes (dependent additions take a cycle each)."""
    ghz = _tsc_ghz()
    chain = min(_additions() for _ in range(20))
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "tsc_ghz": round(ghz, 2),
        "core_ghz": round(ghz / chain, 2),
        "load": round(os.getloadavg()[0], 2),
    }


def text(machine: dict[str, Any]) -> str:
    """In a sentence."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}; "
        f"time stamp counter {machine['tsc_ghz']} GHz, core {machine['core_ghz']} GHz; load {machine['load']}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return f"{about.get('model name', platform.machine())} (family {about.get('cpu family', '?')}, model {about.get('model', '?')})"


def _tsc_ghz() -> float:
    """Held against CLOCK_MONOTONIC over a span of time."""
    chain = library().bounds_now
    start, cycles = time.monotonic_ns(), chain()
    time.sleep(CALIBRATION_S)
    cycles = chain() - cycles
    return float(cycles / (time.monotonic_ns() - start))


def _additions(turns: int = 200) -> float:
    """Cycles of the counter for one of many dependent additions."""
    return float(library().bounds_chain(0, turns, None) / turns / 64)
