"""The pages of docs/ that can be followed are followed to the letter, in a directory of their own: how.

What the fences say: `sh` is run (one bash with -e for the whole page, so what is exported or started stays), `LANGUAGE file=NAME`
is written to that file, `diff` is applied with patch, `text` must be found in the output of the `sh` block before it. `sh setup` is
not run: it is what this checkout has been through already. All other fences are for the eye.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chamelio.cli import main

DOCS = Path(__file__).parent.parent.parent / "docs"
FENCE = re.compile(r"^```(\S*)[ ]?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"\w+\.\w+(?:\.c)?:\d+:\d+")
NUMBER = re.compile(r"(?<![A-Za-z\d])\d[\d,.]*")


@dataclass
class Block:
    """A fenced block of a page, which begins at `line`."""

    language: str
    words: str
    content: str
    line: int

    @property
    def file(self) -> str | None:
        """Where it is to be written."""
        found = re.fullmatch(r"file=(\S+)", self.words)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [Block(m[1], m[2].strip(), m[3], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def script(parts: list[Block], outputs: Path) -> str:
    """One bash script of a page's blocks; what block N prints goes to a file of that name."""
    lines = ["set -e"]
    for n, block in enumerate(parts):
        if block.file:
            lines.append(f"cat > {block.file} <<'END OF BLOCK'\n{block.content}END OF BLOCK")
        elif block.language == "diff":
            lines.append(f"patch -p0 > {outputs}/{n} <<'END OF BLOCK'\n{block.content}END OF BLOCK")
        elif block.language == "sh" and block.words != "setup":
            lines.append(f"{{\n{block.content}}} > {outputs}/{n} 2>&1")
    return "\n".join(lines) + "\n"


def loosely(line: str) -> re.Pattern[str]:
    """A line of expected output: any space is as good as any other, and so are numbers, but not those of source lines."""
    pattern, at = "", 0
    text = line.strip()
    kept = [m.span() for m in PLACE.finditer(text)]
    for m in NUMBER.finditer(text):
        if any(a <= m.start() < b for a, b in kept):
            continue
        pattern += re.escape(text[at : m.start()]) + r"[\d,.]+"
        at = m.end()
    pattern += re.escape(text[at:])
    return re.compile(re.sub(r"(\\ )+", r"\\s+", pattern))


def missing(expected: str, output: str) -> str | None:
    """The first line of `expected` that `output` does not have behind the ones before it; `...` stands for anything."""
    at = 0
    for line in expected.splitlines():
        if not line.strip() or line.strip() == "...":
            continue
        found = loosely(line).search(output, at)
        if found is None:
            return line
        at = found.end()
    return None


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """Where a page is followed; the hosts that it leaves running are ended."""
    with tempfile.TemporaryDirectory(prefix="cham-") as name:
        try:
            yield Path(name)
        finally:
            for lock in Path(name).glob("*/api.sock"):
                main(["down", "--run", str(lock.parent)])


def follow(page: str, here: Path, longest_s: float = 40) -> None:
    """Do what a page of docs/ says in an empty directory. AssertionError, with the page's line, where something else happens."""
    parts = blocks(DOCS / page)
    assert any(block.language == "sh" for block in parts)
    outputs = here / ".outputs"
    outputs.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHAMELIO_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CHECKOUT": str(DOCS.parent),
    }
    environment |= {k: v for k, v in os.environ.items() if k in ("CHAMELIO_CACHE", "CHAMELIO_CC", "CHAMELIO_CPU")}
    process = subprocess.Popen(["bash"], stdin=subprocess.PIPE, cwd=here, env=environment, text=True, start_new_session=True)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has no return code then
            process.communicate(script(parts, outputs), timeout=longest_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # agents that an abandoned page has left
    shown = {int(path.name): path.read_text() for path in outputs.iterdir()}
    last = max(shown)
    assert process.returncode == 0, f"{page}:{parts[last].line} fails:\n{parts[last].content}\n{shown[last]}"
    before = ""
    for n, block in enumerate(parts):
        if n in shown:
            before = shown[n]
        if block.language == "text":
            line = missing(block.content, before)
            assert line is None, f"{page}:{block.line}: {line!r} is not in the output, which is\n{before}"
