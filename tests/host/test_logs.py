"""The daemon's log never makes it wait."""

from __future__ import annotations

import contextlib
import logging
import os
import time

import pytest

from chamelio.host.logs import LossyHandler
from host.rig import wait_until


@pytest.mark.fault(28)
def test_a_full_log_pipe_loses_lines_and_counts_them_and_nobody_waits() -> None:
    read, write = os.pipe()
    os.set_blocking(read, False)
    handler = LossyHandler(os.fdopen(write, "w"), lines=10)
    record = logging.LogRecord("chameliod", logging.INFO, "", 0, "x" * 1000, None, None)
    started = time.monotonic()
    for _ in range(500):
        handler.emit(record)
    assert time.monotonic() - started < 0.5
    assert handler.lost > 300
    text = ""

    def told() -> bool:
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            text += os.read(read, 1 << 20).decode()
        return f"({handler.lost} lines of the log were lost)" in text

    assert wait_until(told)
    os.close(read)
