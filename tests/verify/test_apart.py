"""Verification in confined children: limits of time and memory, deaths, lies; every program has its verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from chamelio.verify import Verdict, apart
from chamelio.verify.apart import ObjectLimits, verify_apart
from verify.objects import EXIT, MOV, make_object

NAMES = ("a", "b", "c", "d")
LIMITS = ObjectLimits(program_seconds=1.0, object_seconds=15.0, memory_bytes=64 << 20)


@pytest.fixture
def content() -> bytes:
    return make_object({"chamelio/rx": [("a", MOV + EXIT)], "xdp": [(name, MOV + EXIT) for name in NAMES[1:]]})


@pytest.fixture
def with_program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Let the verifier do something else when it comes to a program."""

    def patch(name: str, act: Callable[[], None]) -> None:
        real = apart.verify_object

        def verify_object(obj: Any, **options: Any) -> list[Verdict]:
            if obj.programs[-1].name == name:
                act()
            return real(obj, **options)

        monkeypatch.setattr(apart, "verify_object", verify_object)

    return patch


def shown(content: bytes, **options: Any) -> list[tuple[str, str, str | None]]:
    return [(v.program, v.verdict, v.code) for v in verify_apart(content, **{"limits": LIMITS, **options}).verdicts]


def test_verdicts_come_in_order_without_proofs(content: bytes) -> None:
    seen: list[tuple[int, int]] = []
    report = verify_apart(content, progress=lambda done, programs: seen.append((done, programs)))
    assert [(v.program, v.verdict, v.proof) for v in report.verdicts] == [(name, "accept", None) for name in NAMES]
    assert seen == [(n, 4) for n in (1, 2, 3, 4)] and 0 <= report.peak_bytes < 512 << 20


def test_a_hook_has_one_handler_here_too() -> None:
    for first, second in (("a", "b"), ("a", "a")):
        content = make_object({"chamelio/rx": [(first, MOV + EXIT), (second, MOV + EXIT)]})
        assert shown(content) == [(first, "accept", None), (second, "unsupported", "V142")]


def spin() -> None:
    while True:
        pass


def fill() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(64 << 20))


def lie() -> None:
    os.write(3, (5).to_bytes(4, "big") + b"lies!")
    time.sleep(60)


def flood() -> None:
    while True:
        os.write(3, b"\xff" * 4096)


def fail() -> None:
    raise RuntimeError("unexpected")


ENDS: dict[str, tuple[Callable[[], object], str, str]] = {
    "takes too long": (spin, "V160", "it was not done after 1 s"),
    "sleeps": (lambda: time.sleep(60), "V160", "it was not done after 1 s"),
    "takes too much memory": (fill, "V160", "out of memory"),
    "crashes": (os.abort, "V145", "killed by SIGABRT"),
    "ends": (lambda: os._exit(3), "V145", "its child ended with status 3"),
    "fails": (fail, "V145", "RuntimeError"),
    "makes no sense": (lie, "V145", "makes no sense"),
    "floods": (flood, "V145", "makes no sense"),
}


@pytest.mark.fault(14)
@pytest.mark.parametrize(("act", "code", "message"), ENDS.values(), ids=ENDS.keys())
def test_however_a_child_ends_the_others_have_their_verdicts(
    content: bytes, with_program: Any, act: Callable[[], None], code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_SLACK_SECONDS", 0.2)
    with_program("b", act)
    a, b, c, d = verify_apart(content, limits=LIMITS).verdicts
    assert [v.verdict for v in (a, c, d)] == ["accept"] * 3
    assert (b.program, b.section, b.code) == ("b", "xdp", code) and message in b.message, b
    assert b.verdict == ("budget" if code == "V160" else "unsupported")


@pytest.mark.fault(14)
def test_when_the_time_of_the_object_is_over_the_rest_is_budget(content: bytes, with_program: Any) -> None:
    with_program("b", spin)
    began = time.monotonic()
    verdicts = verify_apart(content, limits=ObjectLimits(program_seconds=60, object_seconds=1.0)).verdicts
    assert time.monotonic() - began < 4
    assert [(v.program, v.code) for v in verdicts] == [("a", None), ("b", "V160"), ("c", "V160"), ("d", "V160")]
    assert all("1 s for the whole object" in v.reason for v in verdicts[1:])


@pytest.mark.fault(14)
@pytest.mark.parametrize(("act", "code"), [(spin, "V160"), (fill, "V160"), (fail, "V145"), (lambda: os._exit(1), "V145")])
def test_an_object_that_cannot_be_loaded_in_bounds_has_one_verdict(
    content: bytes, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], code: str
) -> None:
    monkeypatch.setattr(apart, "load_object", lambda data, name: act())
    assert shown(content, limits=ObjectLimits(object_seconds=1.0, memory_bytes=64 << 20)) == [("", CODE_KINDS[code], code)]


CODE_KINDS = {"V160": "budget", "V145": "unsupported"}


def test_what_cannot_be_read_has_one_verdict() -> None:
    assert shown(b"\x7fELF") == [("", "unsupported", "V143")]
    assert shown(make_object({})) == [("", "unsupported", "V143")]


def test_a_context_is_for_all_programs(content: bytes) -> None:
    assert shown(make_object({"other": [("a", MOV + EXIT)]})) == [("a", "unsupported", "V141")]
    assert shown(make_object({"other": [("a", MOV + EXIT)]}), context="chamelio") == [("a", "accept", None)]
