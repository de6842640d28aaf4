"""The fast path compiled to trap on undefined behaviour, through the tests that throw the worst at it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_no_undefined_behaviour_in_what_fates_and_hostile_rings_exercise() -> None:
    tests = [str(HERE / name) for name in ("test_fates.py", "test_hostile_rings.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "CHAMELIO_SANITIZE": "1"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"a trap shows as signal 4:\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
