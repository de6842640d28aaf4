"""The first tutorial and the page on debugging say what happens; followed.py says what it means to follow a page."""

from __future__ import annotations

import pytest
from followed import DOCS, blocks, directory, follow, missing

PAGES = ("tutorial.md", "debugging.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_to_the_letter(page: str) -> None:
    with directory() as here:
        follow(page, here)


@pytest.mark.parametrize("page", PAGES)
def test_the_installation_is_that_of_the_readme(page: str) -> None:
    readme = (DOCS.parent / "README.md").read_text()
    for block in blocks(DOCS / page):
        if block.words == "setup":
            for line in block.content.splitlines():
                if "venv" in line and "pip" in line:
                    assert line.split(" pytest")[0] in readme


def test_expected_output_is_compared_loosely_but_compared() -> None:
    assert missing("worst case 3,138 cycles  cold\n...\nlast", "worst  case 77 cycles cold\nmore\nlast") is None
    assert missing("a.bpf.c:7:10", "a.bpf.c:8:10") == "a.bpf.c:7:10"
    assert missing("V102", "V103") == "V102"
    assert missing("two\none", "one\ntwo") == "one"
