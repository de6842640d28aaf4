"""The daemon's log: lines go to a thread that writes them, so that a full pipe or disk never stops the daemon.

What does not fit into the queue is lost, and counted.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from typing import TextIO

QUEUE_LINES = 1000


class LossyHandler(logging.Handler):
    """Formats records and leaves the writing to a thread; `lost` counts lines for which there was no room."""

    def __init__(self, stream: TextIO, lines: int = QUEUE_LINES) -> None:
        super().__init__()
        self.lost = 0
        self._stream = stream
        self._queue: queue.Queue[str] = queue.Queue(lines)
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            self._queue.put_nowait(self.format(record))
        except queue.Full:
            self.lost += 1

    def _write(self) -> None:
        reported = 0
        while True:
            line = self._queue.get()
            if self.lost != reported:
                line += f"\n({self.lost - reported} lines of the log were lost)"
                reported = self.lost
            try:
                print(line, file=self._stream, flush=True)
            except (OSError, ValueError):
                self.lost += 1


def set_up(stream: TextIO = sys.stderr, level: int = logging.INFO) -> LossyHandler:
    """Let the daemon's loggers write to a stream."""
    handler = LossyHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("chameliod")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    return handler
