"""docs/promises.md tells the truth: the tests that it names exist, and faults that are held have tests that say so."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "promises.md").read_text()
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (held|partly: .+?|pending) \| (.*?) ?\|$", re.MULTILINE)
FAULTS = {int(number): (state, tests) for number, _, state, tests in ROW.findall(PAGE)}
NAMED = re.compile(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`")


def functions(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """Test functions of a file by name."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def marks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """Numbers of the faults that a test is marked with."""
    found = set()
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            (number,) = decorator.args
            assert isinstance(number, ast.Constant)
            found.add(int(number.value))
    return found


@functools.cache
def marked() -> dict[int, set[str]]:
    """Tests by fault, as `path` and `path::name`."""
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for name, function in functions(path).items():
            for number in marks(function):
                place = path.relative_to(TESTS).as_posix()
                found.setdefault(number, set()).update((place, f"{place}::{name}"))
    return found


def test_all_faults_are_listed() -> None:
    assert sorted(FAULTS) == list(range(1, 30))


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE))), ids=lambda part: part or "-")
def test_a_named_test_exists(path: str, name: str) -> None:
    assert (TESTS / path).is_file()
    assert not name or name in functions(TESTS / path)


@pytest.mark.parametrize("number", FAULTS)
def test_the_page_and_the_marks_agree(number: int) -> None:
    state, tests = FAULTS[number]
    named = {f"{path}::{name}" if name else path for path, name in NAMED.findall(tests)}
    held = marked().get(number, set())
    if state == "pending":
        assert not named and not held, "there are tests: say what they hold"
    elif state == "held":
        assert named and named <= held, "every test that is named carries the mark"
    else:
        assert named
