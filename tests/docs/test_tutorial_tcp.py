"""The tutorial for TCP's ACK policy says what happens."""

from __future__ import annotations

import re

import pytest
from followed import DOCS, blocks, directory, follow


@pytest.mark.timeout(300)
def test_the_ack_policy_can_be_changed_to_the_letter() -> None:
    with directory() as here:
        follow("tutorial-tcp.md", here, longest_s=240)  # TCP is compiled five times


def test_the_policy_is_changed_in_ten_lines() -> None:
    changes = [b.content for b in blocks(DOCS / "tutorial-tcp.md") if b.language == "diff" and "mytcp/" in b.content]
    assert changes and sum(len(re.findall(r"^[+-](?![+-])", change, re.MULTILINE)) for change in changes) <= 10
