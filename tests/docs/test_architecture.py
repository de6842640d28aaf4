"""docs/architecture.md and docs/threat-model.md speak of what exists, and follow a packet in the order of the files."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import click
import pytest

from chamelio.cli.commands import chamelio

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "chamelio"
DOCS = ROOT / "docs"
PAGES = ("architecture.md", "threat-model.md")
DEFINED = re.compile(
    r"^\s*(?:async )?(?:def|class) (\w+)|^(\w+)(?:: \w.*)? = |^(?!return|else)[\w*]+(?: [\w*]+)* \*?(\w+)\(|^HELPER \w+ \*?(\w+)\("
    r"|^\s*(?:struct|enum) (\w+) \{|^extern (?:const )?\w+ (\w+)",
    re.MULTILINE,
)
SUFFIXES = (".c", ".h", ".py", ".toml", ".md")
WORDS = re.compile(r"\w+")


@functools.cache
def names(path: Path) -> set[str]:
    """What a source file defines."""
    return {name for found in DEFINED.findall(path.read_text()) for name in found if name}


@functools.cache
def everything() -> set[str]:
    """All words of all sources."""
    return {w for p in SOURCE.rglob("*") if p.suffix in SUFFIXES for w in WORDS.findall(p.read_text())}


def quoted(text: str) -> list[str]:
    """What stands in single backquotes."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def is_path(name: str) -> bool:
    return " " not in name and (name.endswith("/") or name.endswith(SUFFIXES))


def exists(name: str) -> bool:
    """A file or folder, as the pages name them: below the package, the tests, the checkout; a bare name anywhere in the package."""
    if any((base / name).exists() for base in (SOURCE, ROOT, ROOT / "tests", DOCS)):
        return True
    return "/" not in name and any(SOURCE.rglob(name))


def is_command(words: list[str]) -> bool:
    """Whether `chamelio WORDS` is a command; capital letters and options are its arguments."""
    command: click.Command = chamelio
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        found = command.commands.get(word)
        if found is None:
            return False
        command = found
    return True


@pytest.mark.parametrize(
    "page",
    [
        *PAGES,
        "tutorial.md",
        "debugging.md",
        "reference.md",
        "verifier.md",
        "support.md",
        "bounds.md",
        "observability.md",
        "fuzzing.md",
        "laboratory.md",
        "../README.md",
    ],
)
def test_every_file_and_command_that_a_page_names_exists(page: str) -> None:
    path = DOCS / page
    text = path.read_text()
    for name in quoted(text):
        if name.startswith("chamelio ") and name != "chamelio ":
            assert is_command(name.split()[1:]), name
        elif is_path(name) and page in PAGES:
            assert exists(name), name
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_other_word_in_code_is_one_of_the_sources(page: str) -> None:
    for name in quoted((DOCS / page).read_text()):
        if not is_path(name) and not name.startswith("chamelio "):
            unknown = [w for w in WORDS.findall(name) if w not in everything() and not w.isdigit()]
            assert not unknown or name.startswith(("pytest ", "make ")), (name, unknown)


def steps() -> list[str]:
    """The numbered steps of a packet's way."""
    text = (DOCS / "architecture.md").read_text()
    way = text[text.index("## One packet") : text.index("Packets that a handler punts")]
    return re.split(r"^\d+\. ", way, flags=re.MULTILINE)[1:]


def test_each_function_on_a_packets_way_is_defined_in_a_file_that_its_step_names() -> None:
    assert len(steps()) == 13
    for step in steps():
        files = [SOURCE / name for name in quoted(step) if is_path(name) and "/" in name]
        assert files
        defined = set().union(*(names(f) for f in files))
        for name in quoted(step):
            if re.fullmatch(r"[A-Za-z]\w+", name) and name not in ("udp", "tx", "datagram_received"):
                assert name in defined, f"{name} is in none of {[f.name for f in files]}"


def test_a_file_calls_on_in_the_order_of_the_steps() -> None:
    """The first file of each step up to the handler has a call of a function of the next one's, directly or through a table."""
    calls = [
        ("fastpath/round.c", "port->ops->rx("),
        ("fastpath/round.c", "cham_input("),
        ("fastpath/input.c", "cham_hand_delivery("),
        ("fastpath/run.c", "cham_round("),
        ("fastpath/round.c", "cham_enter_rx("),
        ("fastpath/enter.c", "->rx("),
        ("fastpath/unit.c", "cham_handler_rx("),
        ("fastpath/round.c", "cham_wake("),
        ("fastpath/unit.c", "cham_output("),
        ("fastpath/output.c", "cham_neighbour_send("),
        ("fastpath/neighbour.c", "cham_port_queue("),
        ("fastpath/round.c", "port->ops->tx("),
    ]
    for file, call in calls:
        assert call in (SOURCE / file).read_text(), (file, call)
