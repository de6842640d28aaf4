"""The demo: tenants exchange requests, a third one joins, a protocol is replaced while packets flow; figures as they come."""

from __future__ import annotations

import json as json_
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live

from chamelio import toolchain
from chamelio.bench import view
from chamelio.bench.stage import Process, Stage, build_application

TICK_S = 0.5
JOIN_AT_S, SWAP_AT_S, END_AT_S = 2.0, 4.0, 6.5
RED, BLUE, GREEN = "red", "blue", "green"
ADDRESSES = {RED: "10.0.0.1", BLUE: "10.0.0.2", GREEN: "10.0.0.3"}
PORT = 7
TTLS = range(33, 250)  # what a new version of udp does differently; another one in each run, so that it is compiled


class Demo:
    """The scenario. `say` gets a line for each thing that happens."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self.stage, self.say = stage, say
        self.facts: dict[str, Any] = {}
        self.generators: dict[str, Process] = {}
        self.samples: list[dict[str, Any]] = []
        self._echo, self._load = str(build_application("echo")), str(build_application("load"))

    def join(self, tenant: str, server: bool) -> None:
        """A tenant with udp, its agent, and its application: a server, or a client of red's server."""
        self.stage.tenant(tenant, ADDRESSES[tenant])
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
            self.say(f"{tenant} serves echo on {ADDRESSES[tenant]}:{PORT}")

    def client(self, tenant: str, seconds: float, *options: str) -> None:
        """A load generator of a tenant against red's server."""
        command = (self._load, self.stage.socket(tenant), ADDRESSES[RED], str(PORT), "--seconds", f"{seconds:.1f}")
        self.generators[tenant] = self.stage.start(*command, "--interval", str(TICK_S), *options, ready=False)

    def swap(self) -> None:
        """A new version of udp for everybody, while requests are under way."""
        source = toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"
        started = time.perf_counter()
        content = toolchain.bpf_object(source, defines=(f"UDP_TTL={TTLS[time.time_ns() // 1_000_000 % len(TTLS)]}",))
        built = (time.perf_counter() - started) * 1e3
        swaps = []
        for tenant in (RED, BLUE, GREEN):
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

    def finish(self) -> dict[str, Any]:
        """Wait for the generators; the whole story as plain values."""
        deadline = time.monotonic() + 5
        while any(g.running for g in self.generators.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        requests = {name: next((r for r in g.reports if r["final"]), None) for name, g in self.generators.items()}
        lost = sum(r["lost"] for r in requests.values() if r)
        tenants = view.shares(self.samples[0], self.sample())
        return {**self.facts, "requests": requests, "lost": lost, "tenants": tenants}


def perform(
    stage: Stage, say: Callable[[str], None], show: Callable[[dict[str, Any] | None, dict[str, Any]], None]
) -> dict[str, Any]:
    """The demo on a stage that is up."""
    demo = Demo(stage, say)
    demo.join(RED, server=True)
    demo.join(BLUE, server=False)
    started = time.monotonic()
    demo.client(BLUE, END_AT_S, "--outstanding", "16")
    todo: list[tuple[float, Callable[[], None]]] = [
        (JOIN_AT_S, lambda: demo.join(GREEN, server=False)),
        (JOIN_AT_S, lambda: demo.client(GREEN, END_AT_S - (time.monotonic() - started), "--rate", "2000")),
        (SWAP_AT_S, demo.swap),
    ]
    before: dict[str, Any] | None = None
    while (now := time.monotonic() - started) < END_AT_S:
        while todo and now >= todo[0][0]:
            todo.pop(0)[1]()
        sample = demo.sample()
        show(before, sample)
        before = sample
        time.sleep(TICK_S)
    return demo.finish()


def run(*, real: bool = False, json: bool = False) -> int:
    """`chamelio demo`; the exit status."""
    if real:
        from chamelio.bench import real as against_linux

        return against_linux.run(json=json)
    console = Console(stderr=json)
    lines: list[str] = []
    started = time.monotonic()
    with console.status("starting a host"), Stage() as stage:
        up = time.monotonic() - started
        if json or not console.is_terminal:
            result = perform(stage, lambda line: console.print(f"  {line}"), lambda before, now: None)
        else:
            with Live(console=console, refresh_per_second=4) as live:
                result = perform(stage, lines.append, lambda before, now: live.update(view.screen(lines, before, now)))
    result["seconds_to_start"] = up
    if json:
        print(json_.dumps(result))
    else:
        console.print(view.summary(result))
    sys.stdout.flush()
    return 0 if result["lost"] == 0 and all(result["requests"].values()) else 1
