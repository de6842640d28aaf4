"""The compiler process: confined children, verdicts for their deaths, a cache, fairness between owners."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chamelio.host.link import child_environment
from chamelio.jit.pool import Built, Compiler
from chamelio.messages import Refusal

COMMAND = [sys.executable, str(Path(__file__).parent / "small_compiler.py")]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Run a coroutine function with a compiler of these settings."""

    def start(test: Callable[[Compiler], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
        async def whole() -> Any:
            encoded = msgspec.json.encode(settings).decode()
            compiler = Compiler([*COMMAND, str(tmp_path)], child_environment(tmp_path), settings=encoded)
            try:
                async with asyncio.timeout(20):
                    return await test(compiler)
            finally:
                await compiler.close()

        return asyncio.run(whole())

    return start


async def refusal(compiler: Compiler, order: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await compiler.compile("a", order.encode(), {})
    return caught.value


DEATHS = {
    "segfault": "killed by SIGSEGV",
    "abort": "killed by SIGABRT",
    "exit": "ended with status 3",
    "raise": "ValueError: unexpected",
    "lie": "no result",
    "other": "answered for another job",
}


@pytest.mark.fault(14)
def test_however_a_child_dies_it_is_a_verdict_and_the_next_job_works(run: Any) -> None:
    async def test(compiler: Compiler) -> None:
        orders = {order: asyncio.create_task(refusal(compiler, order)) for order in DEATHS}
        for order, task in orders.items():
            error = await task
            assert (error.code, error.exit) == ("compiler_crash", 3), order
            assert DEATHS[order] in error.message, (order, error.message)
        built, cached = await compiler.compile("a", b"fine", {})
        assert not cached and built.seconds == {"verify": 1.0}

    run(test, workers=2)


@pytest.mark.fault(14)
@pytest.mark.parametrize(("order", "wall_seconds", "told"), [("spin", 15.0, "1 s"), ("hang", 0.5, "0.5 s")])
def test_too_much_time_is_the_verdict_budget(run: Any, order: str, wall_seconds: float, told: str) -> None:
    async def test(compiler: Compiler) -> None:
        error = await refusal(compiler, order)
        assert (error.code, error.exit) == ("rejected", 3) and f"more than {told}" in error.message
        assert error.details["verdicts"][0]["verdict"] == "budget"

    run(test, cpu_seconds=1, wall_seconds=wall_seconds)


def test_a_rejection_arrives_with_its_verdicts(run: Any) -> None:
    async def test(compiler: Compiler) -> None:
        error = await refusal(compiler, "reject")
        assert (error.code, error.details["verdicts"]) == ("rejected", [{"verdict": "unsafe"}])

    run(test)


@pytest.mark.fault(14)
def test_too_much_memory_is_the_verdict_budget(run: Any) -> None:
    async def test(compiler: Compiler) -> None:
        error = await refusal(compiler, "memory")
        assert error.code == "rejected" and error.details["verdicts"][0]["verdict"] == "budget"

    run(test, memory_bytes=64 << 20)


@pytest.mark.fault(14)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter of system calls is for x86-64")
def test_a_child_can_reach_nothing(run: Any) -> None:
    async def test(compiler: Compiler) -> None:
        for what in ("open", "unlink", "socket", "fork", "kill", "exec"):
            built, _ = await compiler.compile("a", f"attempt {what}".encode(), {})
            assert built.mode in ("PermissionError", "BlockingIOError"), what

    run(test)


def test_results_are_cached_by_content_and_survive_the_process(run: Any) -> None:
    async def first(compiler: Compiler) -> Built:
        built, cached = await compiler.compile("a", b"x", {})
        assert not cached
        assert (await compiler.compile("b", b"x", {})) == (built, True)
        assert (await compiler.compile("b", b"x", {"mode": "separate"}))[1] is False
        return built

    async def second(compiler: Compiler) -> Built | None:
        return await compiler.cached(built.key)

    async def third(compiler: Compiler) -> Built | None:
        return await compiler.cached("f" * 64)

    built = run(first)
    assert run(second) == built
    assert run(third) is None


def test_a_damaged_cache_entry_is_compiled_again(run: Any, tmp_path: Path) -> None:
    async def test(compiler: Compiler) -> bool:
        return (await compiler.compile("a", b"x", {}))[1]

    assert [run(test), run(test)] == [False, True]
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:10])
    assert [run(test), run(test)] == [False, True]


def test_the_cache_is_bounded(run: Any, tmp_path: Path) -> None:
    async def test(compiler: Compiler) -> None:
        for i in range(6):
            await compiler.compile("a", f"size {100_000 + i}".encode(), {})

    run(test, cache_bytes=350_000)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 350_000


@pytest.mark.fault(14)
def test_a_flood_of_one_owner_does_not_keep_others_waiting(run: Any) -> None:
    async def test(compiler: Compiler) -> None:
        flood = [asyncio.create_task(compiler.compile("flood", f"wait 0.3{i}".encode(), {})) for i in range(6)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await compiler.compile("other", b"fine", {})
        assert time.monotonic() - started < 0.5
        assert not any(task.done() for task in flood[1:])
        for task in flood:
            task.cancel()

    run(test, workers=2)


def test_the_process_ends_with_its_children_when_the_daemon_goes(run: Any) -> None:
    async def test(compiler: Compiler) -> int:
        task = asyncio.create_task(compiler.compile("a", b"hang", {}))
        await compiler.compile("b", b"fine", {})
        pid = compiler.pid
        assert pid is not None
        task.cancel()
        return pid

    pid = run(test)
    assert not Path(f"/proc/{pid}").exists()
