"""Watching over a slow path from a thread beside it: what it has thrown, what it has lost, and where it hangs is told to chameliod.

A slow path that hangs keeps its event loop from everything, so whoever reports that must live elsewhere. A report is sent only
when there is something new to say; a host that does not answer costs the slow path nothing.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from chamelio.messages import Refusal, close_all, connect
from chamelio.tenant.runtime import Runtime

LOOK_S = 0.25
HUNG_S = 1.0  # in one call of the slow path
ANSWER_S = 2.0
MAX_TRACE = 8000  # characters


class Watch:
    """Reports on a runtime that the calling thread runs, from now until `stop`."""

    def __init__(self, runtime: Runtime, run: Path | None, about: dict[str, Any]) -> None:
        """`about`: the arguments that say whose slow path it is, and prove it."""
        self._runtime, self._run_directory, self._about = runtime, run, about
        self._watched = threading.get_ident()
        self._told: tuple[Any, ...] = (0, 0, None)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Report for the last time."""
        self._stopping.set()
        self._thread.join(2 * ANSWER_S)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        runtime = self._runtime
        since = runtime.busy_since
        hung = since is not None and time.monotonic() - since > HUNG_S
        news = (runtime.errors, runtime.services.dropped, since if hung else None)
        if news == self._told:
            return
        report = {
            "errors": news[0],
            "dropped": news[1],
            "traceback": runtime.last_error[-MAX_TRACE:],
            "hung_seconds": time.monotonic() - since if hung and since is not None else None,
            "stack": self._stack() if hung else "",
        }
        try:
            with connect(self._run_directory, timeout=ANSWER_S) as channel:
                close_all(channel.call("slowpath.report", **self._about, **report)[1])
        except (Refusal, OSError):
            return  # it is told when chameliod is there again
        self._told = news

    def _stack(self) -> str:
        """Where the watched thread is."""
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame))[-MAX_TRACE:] if frame is not None else ""
