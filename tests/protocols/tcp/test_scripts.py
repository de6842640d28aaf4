"""TCP in the laboratory: every script of scripts/ is a test, and goes as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chamelio.lab import parse_file, run_script
from chamelio.lab.language import Script

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.tcp"))
ALL = [script for path in SCRIPTS for script in parse_file(path)]


@pytest.mark.parametrize("script", ALL, ids=[f"{Path(script.path).stem}: {script.name}" for script in ALL])
def test_tcp_does_as_the_script_says(script: Script) -> None:
    result = run_script(script)
    assert result.ok, f"\n{result}"


def test_there_are_enough_scripts_and_each_says_what_it_shows() -> None:
    assert len(ALL) >= 120
    assert [script.name for script in ALL if not re.search(r"RFC \d+", script.shows)] == []
