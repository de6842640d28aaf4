"""Coverage-guided fuzzing of loader, verifier and lifter, one after the other: `python -m fuzz --seconds 3600` in tests/.

Inputs that were found to be of use stay in build/fuzz/TARGET/corpus, those that break something in build/fuzz/TARGET/crashes.
With files, these are run instead of fuzzing, without atheris. Exit code 1: something was broken.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.engine import bounded, load

TARGETS = ("loader", "verifier", "lifter")
TESTS = Path(__file__).parents[1]
SEEDS = Path(__file__).parent / "seeds"
BUILD = TESTS.parent / "build" / "fuzz"
STUCK = 60  # seconds until an input is stopped; before that its own time is looked at
MEMORY = 4096  # MiB
SLICE = 600  # seconds of one process: LLVM keeps constants and names of all programs that it has seen
MOST_CRASHES = 10  # of a target; then it is left alone
_PROGRESS = re.compile(r"^#\d+\s.*cov: (\d+) ft: (\d+) corp: (\d+)/", re.M)
_TOTAL = re.compile(r"^stat::(number_of_executed_units|new_units_added): +(\d+)$", re.M)


@dataclass
class Outcome:
    """What fuzzing one target has brought. `own`: processor time in seconds; `edges`, `features`: of the corpus, at the end."""

    target: str
    seconds: float = 0.0
    own: float = 0.0
    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    new: int = 0
    crashes: list[Path] = field(default_factory=list)

    def add(self, log: str) -> None:
        """Take figures from what libFuzzer has printed."""
        for edges, features, corpus in _PROGRESS.findall(log)[-1:]:
            self.edges, self.features, self.corpus = int(edges), int(features), int(corpus)
        totals = dict(_TOTAL.findall(log))
        self.executions += int(totals.get("number_of_executed_units", 0))
        self.new += int(totals.get("new_units_added", 0))


def fuzz(target: str, seconds: int) -> Outcome:
    """Fuzz one target for so long, whatever it finds."""
    here = BUILD / target
    places = {name: here / name for name in ("corpus", "given", "crashes")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for data in load(target).given():
        (places["given"] / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    directories = [places["corpus"], places["given"], *(d for d in [SEEDS / target] if d.is_dir())]
    outcome, begin, before = Outcome(target), time.monotonic(), _processor_time()
    old = set(places["crashes"].iterdir())
    while (left := int(seconds - outcome.seconds)) > 0 and len(outcome.crashes) < MOST_CRASHES:
        arguments = [
            f"-max_total_time={min(left, SLICE)}", f"-timeout={STUCK}", f"-rss_limit_mb={MEMORY}",
            f"-max_len={load(target).MAX_LEN}", f"-artifact_prefix={places['crashes']}/", "-print_final_stats=1",
            "-report_slow_units=60",
        ]  # fmt: skip
        log = here / "log"
        with log.open("w") as out:
            done = subprocess.run(
                [sys.executable, "-m", "fuzz.engine", target, *arguments, *map(str, directories)],
                cwd=TESTS, stdout=out, stderr=out, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False,
            )  # fmt: skip
        text = log.read_text(errors="replace")
        outcome.add(text)
        outcome.seconds, outcome.own = time.monotonic() - begin, _processor_time() - before
        found = set(places["crashes"].iterdir()) - old
        if done.returncode and not found:
            sys.exit(f"the fuzzer of the {target} ended with {done.returncode}, see {log}:\n{text[-2000:]}")
        for path in sorted(found):
            (here / f"{path.name}.log").write_text(text)
            print(f"crash: {path}\n  what happened:  {here / path.name}.log\n"
                  f"  once more, from tests/: python -m fuzz --target {target} {path}", flush=True)  # fmt: skip
        outcome.crashes += sorted(found)
        old |= found
    return outcome


def _processor_time() -> float:
    """Seconds that the children of this process have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(outcomes: list[Outcome]) -> str:
    """The figures as a table."""
    lines = ["target     seconds  of CPU  executions   edges  features  corpus    new  crashes"]
    for o in outcomes:
        figures = f"{o.executions:11,} {o.edges:7,} {o.features:9,} {o.corpus:7,} {o.new:6,} {len(o.crashes):8}"
        lines.append(f"{o.target:10} {o.seconds:7.0f} {o.own:7.0f} {figures}")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").split(":", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=3600, help="in all, shared evenly by the targets (default: an hour)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one (may be repeated)")
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run once, of the one target that is named")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.files:
        if len(targets) != 1:
            parser.error("whose inputs are these? Name one --target")
        for path in options.files:
            print(path, flush=True)
            bounded(load(targets[0]).one)(path.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install -e '.[fuzz]'")
    outcomes = [fuzz(target, options.seconds // len(targets)) for target in targets]
    print(report(outcomes))
    return int(any(o.crashes for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
