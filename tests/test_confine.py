"""Confinement: what is left to a process, with the filter of system calls and with Landlock alone."""

from __future__ import annotations

import os
import platform
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from chamelio import confine as c

MEMORY = 64 << 20


def confined(work: Callable[[], object]) -> str:
    """What a confined child says to `work`: its result, or the name of the exception."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            c.confine(cpu_seconds=5, memory_bytes=MEMORY)
            answer = str(work())
        except BaseException as error:
            answer = type(error).__name__
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        answer = answers.read()
    os.waitpid(pid, 0)
    return answer


@pytest.mark.fault(14)
def test_computing_works_and_memory_has_an_end() -> None:
    assert confined(lambda: sum(range(100_000))) == "4999950000"
    assert confined(lambda: len(bytearray(MEMORY // 2))) == str(MEMORY // 2)
    assert confined(lambda: bytearray(2 * MEMORY)) == "MemoryError"


@pytest.mark.fault(14)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter of system calls is for x86-64")
def test_files_sockets_processes_and_signals_are_out_of_reach(tmp_path: Path) -> None:
    parent = os.getpid()
    for what in (lambda: (tmp_path / "x").touch(), Path("/").stat, socket.socket, os.fork, lambda: os.kill(parent, 0)):
        assert confined(what) in ("PermissionError", "BlockingIOError")


@pytest.mark.fault(14)
@pytest.mark.skipif(not c.landlock_version(), reason="this kernel has no Landlock")
def test_landlock_alone_keeps_files_and_processes_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "one without a filter")
    there, parent = tmp_path / "there", os.getpid()
    there.write_text("x")

    def few_files(work: Callable[[], object]) -> Callable[[], object]:
        """With some descriptors, which the limits would forbid otherwise."""
        monkeypatch.setattr(c.resource, "RLIMIT_NOFILE", resource.RLIMIT_CORE)
        return work

    assert confined(lambda: there.stat().st_size) == "1", "reading attributes is not a right that Landlock has"
    for what in (there.read_text, there.unlink, lambda: (tmp_path / "x").mkdir(), lambda: list(tmp_path.iterdir())):
        assert confined(few_files(what)) == "PermissionError"
    if c.landlock_version() >= 6:
        assert confined(lambda: os.kill(parent, 0)) == "PermissionError"


def test_without_landlock_nothing_is_missing_but_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "_CREATE_RULESET", 1 << 20)  # as an old kernel answers
    assert c.landlock_version() == 0
    assert confined(lambda: 7) == "7"
