"""The demo: tenants exchange requests, a third one joins, a protocol is replaced while packets flow; figures as they come."""

from __future__ import annotations

import contextlib
import json as json_
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live

from chamelio import toolchain
from chamelio.bench import view
from chamelio.bench.stage import Process, Stage, build_application, ended_by_signals

TICK_S = 0.5
JOIN_AT_S, SWAP_AT_S, END_AT_S = 2.0, 4.0, 6.5
RED, BLUE, GREEN = "red", "blue", "green"
ADDRESSES = {RED: "10.0.0.1", BLUE: "10.0.0.2", GREEN: "10.0.0.3"}
PORT = 7
TTLS = range(33, 250)  # what a new version of udp does differently; another one in each run, so that it is compiled

Scene = TypeVar("Scene")
Say = Callable[[str], None]
Show = Callable[[dict[str, Any] | None, dict[str, Any]], None]


class Demo:
    """What a scenario is made of. `say` gets a line for each thing that happens."""

    def __init__(self, stage: Stage, say: Say, addresses: Mapping[str, str]) -> None:
        self.stage, self.say, self.addresses = stage, say, addresses
        self.tenants: list[str] = []
        self.ends = 0.0
        self.facts: dict[str, Any] = {}
        self.generators: dict[str, Process] = {}
        self.samples: list[dict[str, Any]] = []
        self._echo, self._load = str(build_application("echo")), str(build_application("load"))

    def join(self, tenant: str, server: bool) -> None:
        """A tenant with udp, its agent, and its application if that is a server."""
        self.stage.tenant(tenant, self.addresses[tenant])
        self.tenants.append(tenant)
        loaded = self.stage.load(tenant, "udp")
        seconds = loaded["seconds"]
        if loaded["unit_shared"]:
            how = "known code, nothing compiled"
        elif loaded["cached"]:
            how = "from the cache"
        else:
            how = f"verified in {seconds['verify'] * 1e3:.0f} ms, compiled in {seconds['compile'] * 1e3:.0f} ms"
        self.say(f"{tenant} joins with udp: {loaded['wall_ms']:.0f} ms ({how})")
        self.facts[f"load_{tenant}"] = {k: loaded[k] for k in ("wall_ms", "cached", "unit_shared", "seconds")}
        self.stage.agent(tenant, "udp")
        if server:
            self.stage.start(self._echo, self.stage.socket(tenant), str(PORT))
            self.say(f"{tenant} serves echo on {self.addresses[tenant]}:{PORT}")

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.ends - time.monotonic()

    def client(self, tenant: str, server: str, *options: str) -> None:
        """A load generator of a tenant, to the end."""
        command = (self._load, self.stage.socket(tenant), server, str(PORT), *self.load_options(*options))
        self.generators[tenant] = self.stage.start(*command, ready=False)

    def load_options(self, *options: str) -> tuple[str, ...]:
        """Of a load generator that runs to the end."""
        return ("--seconds", f"{self.left:.1f}", "--interval", str(TICK_S), *options)

    def swap(self) -> None:
        """A new version of udp for everybody, while requests are under way."""
        source = toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"
        started = time.perf_counter()
        content = toolchain.bpf_object(source, defines=(f"UDP_TTL={TTLS[time.time_ns() // 1_000_000 % len(TTLS)]}",))
        built = (time.perf_counter() - started) * 1e3
        swaps = []
        for tenant in self.tenants:
            loaded = self.stage.load(tenant, "udp", content)
            swaps.append(
                {"tenant": tenant, "built_ms": built, **{k: loaded[k] for k in ("action", "cached", "seconds", "wall_ms")}}
            )
        self.facts["swaps"] = swaps
        first = swaps[0]["seconds"]
        self.say(
            f"a new version of udp: verified in {first['verify'] * 1e3:.0f} ms, compiled in {first['compile'] * 1e3:.0f} ms, "
            f"swapped in {max(s['seconds']['swap'] for s in swaps) * 1e6:.0f} us"
        )

    def sample(self) -> dict[str, Any]:
        """What the engine and the generators say now."""
        stats: dict[str, Any] = self.stage.call("stats")
        stats["generators"] = {name: g.reports[-1] for name, g in self.generators.items() if g.reports}
        self.samples.append(stats)
        return stats

    def play(self, seconds: float, todo: Sequence[tuple[float, Callable[[], None]]], show: Show) -> None:
        """Do things when it is time for them, sample and show in between."""
        started = time.monotonic()
        self.ends = started + seconds
        waiting = list(todo)
        before: dict[str, Any] | None = None
        while self.left > 0:
            while waiting and time.monotonic() - started >= waiting[0][0]:
                waiting.pop(0)[1]()
            sample = self.sample()
            show(before, sample)
            before = sample
            time.sleep(TICK_S)

    def finish(self) -> dict[str, Any]:
        """Wait for the generators; the whole story as plain values."""
        deadline = time.monotonic() + 5
        while any(g.running for g in self.generators.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        requests = {name: next((r for r in g.reports if r["final"]), None) for name, g in self.generators.items()}
        lost = sum(r["lost"] for r in requests.values() if r)
        last = self.sample()
        tenants = view.shares(self.samples[0], last)
        return {**self.facts, "requests": requests, "lost": lost, "tenants": tenants, "host_drops": last["drops"]}


def perform(stage: Stage, say: Say, show: Show) -> dict[str, Any]:
    """Three tenants of one host, on a stage that is up."""
    demo = Demo(stage, say, ADDRESSES)
    demo.join(RED, server=True)
    demo.join(BLUE, server=False)
    red = ADDRESSES[RED]
    todo = (
        (0.0, lambda: demo.client(BLUE, red, "--outstanding", "16")),
        (JOIN_AT_S, lambda: demo.join(GREEN, server=False)),
        (JOIN_AT_S, lambda: demo.client(GREEN, red, "--rate", "2000")),
        (SWAP_AT_S, demo.swap),
    )
    demo.play(END_AT_S, todo, show)
    return demo.finish()


def present(
    opening: Callable[[], contextlib.AbstractContextManager[Scene]],
    perform: Callable[[Scene, Say, Show], dict[str, Any]],
    *,
    json: bool,
) -> int:
    """Open a scene, perform in it, show what happens, and end it whatever happens; the exit status."""
    console = Console(stderr=json)
    lines: list[str] = []
    started = time.monotonic()
    with ended_by_signals(), contextlib.ExitStack() as stack:
        with console.status("starting a host"):
            scene = stack.enter_context(opening())
        up = time.monotonic() - started
        if json or not console.is_terminal:
            result = perform(scene, lambda line: console.print(f"  {line}", soft_wrap=True), lambda before, now: None)
        else:
            with Live(console=console, refresh_per_second=4) as live:
                result = perform(scene, lines.append, lambda before, now: live.update(view.screen(lines, before, now)))
    result["seconds_to_start"] = up
    if json:
        print(json_.dumps(result))
    else:
        console.print(view.summary(result))
    sys.stdout.flush()
    return 0 if result["lost"] == 0 and all(result["requests"].values()) else 1


def run(*, real: bool = False, json: bool = False) -> int:
    """`chamelio demo`; the exit status."""
    if real:
        from chamelio.bench import real as against_linux

        return against_linux.run(json=json)
    return present(Stage, perform, json=json)
