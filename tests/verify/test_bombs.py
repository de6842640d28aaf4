"""Programs and objects made to keep the verifier busy: each ends with verdicts, in bounded time and memory (fault 14)."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bpf.btf_builder import Builder
from chamelio.bpf.insn import SLOT
from chamelio.host.link import child_environment
from chamelio.jit.pool import Compiler
from chamelio.messages import Refusal
from chamelio.verify.apart import ObjectLimits, Report, verify_apart
from verify.objects import EXIT, MOV, code, make_object

MEGABYTE = 1 << 20
LOADING = 10.0  # seconds for 16 MB, on a busy machine
CALL = struct.pack("<BBhi", 0x85, 0x10, 0, -1)  # of a function that a relocation names
READ = code("ldxdw r7, [r1+32]\nmov r0, 0")  # r7: a number that nothing is known of
READ_XDP = code("ldxw r7, [r1+12]\nmov r0, 0")


def handler(body: bytes) -> bytes:
    """An object with one handler."""
    return make_object({"chamelio/rx": [("main", body)]})


#: An address is computed from r0, so that the verifier has to know what it is.
USE = code("stdw [r10-8], 0\nmov r3, r0\nand r3, 7\nmov r4, r10\nsub r4, r3\nldxb r0, [r4-1]")


def paths() -> bytes:
    """2^20 paths: twenty branches, each of which leaves its own trace in what is returned."""
    tests = (f"mov r3, r7\nand r3, {1 << bit}\njeq r3, 0, +1\nor r0, {1 << bit}\n" for bit in range(20))
    return READ + code("".join(tests)) + EXIT


def sums(read: bytes = READ) -> bytes:
    """2^20 paths of which no two agree: each leaves another sum of multiples of 3, and what is no such sum would be an error."""
    tests = (f"mov r3, r7\nand r3, {1 << bit}\njeq r3, 0, +1\nadd r0, {3 * (1009 << bit)}\n" for bit in range(20))
    return read + code("".join(tests)) + code(f"jeq r0, {3 * (1009 << 19) + 1}, +1\nexit\nldxdw r0, [r7]\nexit")


def branches(count: int) -> bytes:
    """Branches one behind the other, with a counter that differs on every path."""
    return handler(READ + code("jset r7, 1, +1\nadd r0, 1") * count + USE + EXIT)


def straight() -> bytes:
    """A megabyte of code."""
    return handler(MOV + code("add r0, 1") * (MEGABYTE // SLOT - 2) + EXIT)


def crowd(sections: int, each: int) -> bytes:
    """Many programs of one instruction."""
    return make_object({f"xdp/{s}": [(f"p{s}_{n}", EXIT) for n in range(each)] for s in range(sections)})


def call_graph(depth: int, width: int) -> bytes:
    """Functions that call the next one `width` times each, with other arguments every time: width^depth call sites."""
    functions, calls, at = [("f0", code("mov r1, 1") + CALL + EXIT)], [("chamelio/rx", SLOT, "f1")], 0
    below: list[tuple[str, bytes]] = []
    for level in range(1, depth + 1):
        body = b""
        for site in range(width if level < depth else 0):
            body += code(f"lsh r1, 4\nadd r1, {site}\nmov r6, r1")
            calls.append((".text", at + len(body), f"f{level + 1}"))
            body += CALL + code("mov r1, r6")
        body += code("mov r0, r1\nexit")
        below.append((f"f{level}", body))
        at += len(body)
    return make_object({"chamelio/rx": functions, ".text": below}, calls=calls)


def shared_function() -> bytes:
    """A thousand programs that all call one long function: 99 million instructions, were they linked."""
    programs = {f"xdp/{n}": [(f"p{n}", CALL + EXIT)] for n in range(1_000)}
    return make_object(
        {**programs, ".text": [("f", MOV + code("add r0, 1") * 99_000 + EXIT)]}, calls=[(section, 0, "f") for section in programs]
    )


def types(count: int, members: int) -> bytes:
    """Type information with `count` structures."""
    builder = Builder()
    builder.int("int", 4)
    builder.types += (struct.pack("<III", 0, 4 << 24 | members, 4) + struct.pack("<III", 0, 1, 0) * members) * count
    return make_object({"chamelio/rx": [("main", MOV + EXIT)]}, {".BTF": builder.bytes()})


def loops(depth: int, turns: int) -> bytes:
    """Loops within loops, each of so many turns."""
    body = code("add r0, 1")
    for level in range(depth):
        register, size = f"r{level + 2}", len(body) // SLOT
        body = code(f"mov {register}, 0") + body + code(f"add {register}, 1\njlt {register}, {turns}, -{size + 2}")
    return handler(MOV + body + EXIT)


BOMBS: dict[str, Callable[[], bytes]] = {
    "2^20 paths": lambda: handler(paths()),
    "10^5 branches": lambda: branches(100_000),
    "a megabyte in one program": straight,
    "a megabyte that is no code": lambda: handler(b"\xff" * MEGABYTE),
    "4,096 sections": lambda: crowd(4096, 1),
    "calls that nest too deeply": lambda: call_graph(1_000, 2),
    "2^6 call sites": lambda: call_graph(7, 2),
    "16^6 call sites": lambda: call_graph(7, 16),
    "a quarter million types": lambda: types(250_000, 0),
    "a million types": lambda: types(1_000_000, 0),
    "a million fields": lambda: types(20, 65_535),
}
ENDLESS_BOMBS: dict[str, Callable[[], bytes]] = {  # they take all the time that there is
    "2^20 paths of which no two agree": lambda: handler(sums()),
    "a loop of 2^30 turns": lambda: loops(1, 1 << 30),
}
LONG_BOMBS: dict[str, Callable[[], bytes]] = {
    "49,000 branches": lambda: branches(49_000),
    "a loop in a loop in a loop": lambda: loops(3, 1_000),
    "131,072 programs in one section": lambda: crowd(1, 131_072),
    "131,072 programs in 4,096 sections": lambda: crowd(4096, 32),
    "a thousand programs that call one long function": shared_function,
    "16 megabytes of code": lambda: handler(MOV * (2 * MEGABYTE - 200) + EXIT),
    "300 programs of 2^20 paths": lambda: make_object({f"xdp/{n}": [(f"p{n}", sums(READ_XDP))] for n in range(300)}),
}


def ends_in_bounds(content: bytes, limits: ObjectLimits | None = None) -> Report:
    report = verify_apart(content, limits=limits)
    assert report.verdicts and all(v.code != "V145" for v in report.verdicts)
    assert report.seconds < min(60.0, 5.0 * len(report.verdicts) + LOADING)
    assert all(v.seconds <= 5.0 for v in report.verdicts)
    assert report.peak_bytes < 512 << 20
    return report


@pytest.mark.fault(14)
@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_ends_with_verdicts_in_bounded_time_and_memory(make: Callable[[], bytes]) -> None:
    ends_in_bounds(make())


@pytest.mark.fault(14)
@pytest.mark.parametrize("seconds", [1.0, pytest.param(ObjectLimits().program_seconds, marks=pytest.mark.long)])
@pytest.mark.parametrize("make", ENDLESS_BOMBS.values(), ids=ENDLESS_BOMBS.keys())
def test_a_bomb_that_has_no_end_is_given_up_when_its_time_is_over(make: Callable[[], bytes], seconds: float) -> None:
    (verdict,) = ends_in_bounds(make(), ObjectLimits(program_seconds=seconds)).verdicts
    assert verdict.code == "V160" and verdict.seconds < seconds + 1.0


@pytest.mark.long
@pytest.mark.fault(14)
@pytest.mark.parametrize("make", LONG_BOMBS.values(), ids=LONG_BOMBS.keys())
def test_a_slow_bomb_ends_with_verdicts_in_bounded_time_and_memory(make: Callable[[], bytes]) -> None:
    ends_in_bounds(make())


@pytest.mark.fault(14)
def test_every_program_of_a_crowd_has_its_verdict() -> None:
    verdicts = verify_apart(crowd(40, 50)).verdicts
    assert {(v.section, v.program) for v in verdicts} == {(f"xdp/{s}", f"p{s}_{n}") for s in range(40) for n in range(50)}


@pytest.mark.fault(14)
def test_whoever_uploads_bombs_without_end_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The real compiler process: one owner's bombs are refused one after the other, another's handler is compiled meanwhile."""

    async def refused(compiler: Compiler, content: bytes) -> str:
        try:
            await compiler.compile("bomber", content, {})
        except Refusal as refusal:
            return refusal.code
        return "compiled"

    async def test() -> None:
        compiler = Compiler(environment=child_environment(tmp_path))
        bombs = [handler(sums()) + bytes(n) for n in range(12)]  # what follows the section headers makes each another one
        try:
            await compiler.compile("other", handler(MOV + EXIT), {})  # the process has started
            flood = [asyncio.create_task(refused(compiler, bomb)) for bomb in bombs]
            waits = []
            for _ in range(4):
                began = time.monotonic()
                built, cached = await compiler.compile("other", handler(MOV + EXIT) + os.urandom(8), {})  # not in the cache
                waits.append(time.monotonic() - began)
                assert built.cold[0] > 0 and not cached
            assert max(waits) < 2.0, waits
            assert not flood[-1].done(), "the bombs are no bombs"
            for task in flood:
                task.cancel()
        finally:
            await compiler.close()

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
