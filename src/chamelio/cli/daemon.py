"""`chamelio up`, `down`, `status`: the daemon's life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from chamelio.cli.common import Settings, common
from chamelio.cli.output import fields
from chamelio.messages import Channel, Refusal

DOWN_SECONDS = 15.0
LOG = "chameliod.log"


def parse_port(text: str) -> tuple[str, str]:
    """`NAME=SPEC`. Raises Refusal."""
    from chamelio.engine.ports import PortError, parse

    name, equals, spec = text.partition("=")
    if not equals or not name or not spec or ":" in name or "(" in name:
        raise Refusal("usage", f"--port {text}: this is not NAME=SPEC", "write it as w0=wire:w0:a or eth=afxdp:eth1")
    try:
        parse(spec)
    except PortError as error:
        raise Refusal("usage", f"--port {text}: {error}") from None
    return name, spec


def parse_budgets(texts: Sequence[str]) -> dict[str, int]:
    """`HOOK=CYCLES` of each, and the usual budget of the hooks that are not named. Raises Refusal."""
    from chamelio.host.limits import HOOK_BUDGET
    from chamelio.verify.catalogue import HOOKS

    budgets = dict.fromkeys(HOOKS, HOOK_BUDGET)
    for text in texts:
        hook, _, cycles = text.partition("=")
        if hook not in HOOKS or not cycles.isdecimal() or not 0 < int(cycles) < 1 << 40:
            raise Refusal("usage", f"--budget {text}: this is not HOOK=CYCLES", f"hooks are {', '.join(HOOKS)}; e.g. rx=50000")
        budgets[hook] = int(cycles)
    return budgets


def parse_route(text: str) -> dict[str, Any]:
    """`PREFIX=PORT[@GATEWAY]`. Raises Refusal."""
    prefix, equals, rest = text.partition("=")
    port, at, gateway = rest.partition("@")
    if not equals or not prefix or not port or (at and not gateway):
        raise Refusal(
            "usage", f"--route {text}: this is not PREFIX=PORT[@GATEWAY]", "write it as 10.0.0.0/24=w0 or 0.0.0.0/0=w0@10.0.0.1"
        )
    return {"prefix": prefix, "port": port, "gateway": gateway or None}


def _put_in_force(costs: Path | None) -> None:
    """Check the table of costs, and hand it to the processes that we start. Raises Refusal."""
    from chamelio.verify.cost import VARIABLE, table

    if costs is not None:
        os.environ[VARIABLE] = os.fspath(costs.resolve())
    table()


@click.command()
@click.option("--port", "ports", multiple=True, metavar="NAME=SPEC", help="A port, e.g. w0=wire:w0:a. May be repeated.")
@click.option(
    "--route", "routes", multiple=True, metavar="PREFIX=PORT[@GATEWAY]", help="A route, e.g. 10.0.0.0/24=w0. May be repeated."
)
@click.option("--poll", type=click.Choice(["adaptive", "spin"]), default="adaptive", help="What an idle engine does.")
@click.option("--cores", type=click.IntRange(1, 8), default=1, help="Cores of the engine, each a thread.")
@click.option("--cpu", "cpus", type=click.IntRange(0), multiple=True, help="Pin the cores to these processors. May be repeated.")
@click.option("--frames", type=click.IntRange(64, 1 << 20), default=8192, help="Packet buffers of the engine.")
@click.option("--hardening", type=click.Choice(["mask", "none"]), default="mask", help="Against speculation: mask accesses.")
@click.option("--grace", type=click.FloatRange(0), default=5.0, help="Seconds that an instance outlives its agent.")
@click.option(
    "--budget", "budgets", multiple=True, metavar="HOOK=CYCLES",
    help="Most that a handler may cost in the worst case, e.g. rx=50000. May be repeated.",
)  # fmt: skip
@click.option(
    "--costs", type=click.Path(path_type=Path), metavar="FILE",
    help="A table of costs for the verifier, as `chamelio calibrate --write` makes it [default: $CHAMELIO_COSTS].",
)  # fmt: skip
@click.option(
    "--metrics", metavar="HOST:PORT", help="Serve OpenMetrics there too, e.g. 127.0.0.1:9464; RUN/metrics.sock always does."
)
@click.option("--detach", is_flag=True, help="Run in the background; returns when requests are answered.")
@click.option("--ready-fd", type=int, hidden=True)
@common()
def up(
    settings: Settings,
    ports: tuple[str, ...],
    routes: tuple[str, ...],
    poll: str,
    cores: int,
    cpus: tuple[int, ...],
    frames: int,
    hardening: str,
    grace: float,
    budgets: tuple[str, ...],
    costs: Path | None,
    metrics: str | None,
    detach: bool,
    ready_fd: int | None,
) -> int | None:
    """Start the host: the daemon, its compiler and its engine. An engine that still runs is taken over."""
    run = settings.run_directory.resolve()
    config = {
        "run": run,
        "ports": [parse_port(p) for p in ports],
        "routes": [parse_route(r) for r in routes],
        "engine": {"cores": cores, "cpus": list(cpus), "poll": poll, "frames": frames, "hardening": hardening == "mask"},
        "limits": {"grace_seconds": grace, "budgets": parse_budgets(budgets)},
        "metrics": metrics,
    }
    for cpu in set(cpus) - os.sched_getaffinity(0):
        allowed = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise Refusal("usage", f"--cpu {cpu}: there is no such processor for us", f"processors are {allowed}")
    _put_in_force(costs)
    if detach:
        words = [f"--port={p}" for p in ports] + [f"--route={r}" for r in routes]
        words += [*(f"--cpu={cpu}" for cpu in cpus), f"--cores={cores}"]
        words += [f"--poll={poll}", f"--frames={frames}", f"--hardening={hardening}", f"--grace={grace}", f"--run={run}"]
        words += [f"--budget={budget}" for budget in budgets]
        words += [f"--metrics={metrics}"] if metrics else []
        _detached(settings, run, words)
        return None
    from chamelio.host import logs
    from chamelio.host.daemon import Config, Daemon

    logs.set_up()

    def ready(daemon: Daemon) -> None:
        about = daemon.status()
        if ready_fd is not None:
            os.write(ready_fd, msgspec.json.encode({"ok": about}))
            os.close(ready_fd)
        else:
            settings.show(about, lambda: f"chameliod {about['pid']}, engine {about['engine']['pid']}, in {run}; ^C ends both")

    try:
        asyncio.run(Daemon(msgspec.convert(config, Config, from_attributes=True)).run(ready))
    except Refusal as error:
        if ready_fd is None:
            raise
        os.write(ready_fd, msgspec.json.encode({"error": error.describe()}))
        return error.exit
    return None


def _detached(settings: Settings, run: Path, words: Sequence[str]) -> None:
    from chamelio.host.daemon import prepare_run
    from chamelio.host.link import child_environment

    prepare_run(run)
    read, write = os.pipe2(os.O_CLOEXEC)
    with open(run / LOG, "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "chamelio", "up", *words, "--ready-fd", str(write)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[write],
            env=child_environment(run),
        )
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    try:
        message = msgspec.json.decode(answer, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Refusal("failed", "the daemon died when it started", f"see {run / LOG}") from None
    if "ok" not in message:
        raise Refusal.of(message.get("error"))
    about = message["ok"]
    settings.show(about, lambda: f"chameliod {about['pid']}, engine {about['engine']['pid']}, in {run}; `chamelio down` ends both")


@click.command()
@click.option("--keep-engine", is_flag=True, help="The engine forwards on; the next `chamelio up` takes it over.")
@common()
def down(settings: Settings, keep_engine: bool) -> None:
    """End the daemon and its engine. An engine that was left alone by its daemon is ended too."""
    from chamelio.files import await_unlocked
    from chamelio.host.daemon import LOCK

    run = settings.run_directory
    try:
        result = settings.call("shutdown", keep_engine=keep_engine)
    except Refusal as error:
        if error.code != "no_daemon" or keep_engine or not _end_engine(run):
            raise
        settings.show({"engine": "ended"}, lambda: "there was no daemon; its engine is ended")
        return
    await_unlocked(run / LOCK, DOWN_SECONDS)  # the daemon holds it to its end
    settings.show(result, lambda: "down" + ("; the engine forwards on" if keep_engine else ""))


def _end_engine(run: Path) -> bool:
    """Ask an engine without a daemon to end; False if there is none."""
    from chamelio.engine.client import SOCKET

    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(os.fspath(run / SOCKET))
    except OSError:
        sock.close()
        return False
    with Channel(sock, timeout=DOWN_SECONDS) as channel:
        channel.call("shutdown")
        with contextlib.suppress(Refusal, OSError):
            channel.receive()  # returns when the engine has gone
    return True


@click.command()
@common()
def status(settings: Settings) -> None:
    """Show how the daemon and its processes are."""
    about = settings.call("status")
    settings.show(about, lambda: fields(about))


@click.group()
def port() -> None:
    """Ports: where packets come from and go to."""


@port.command("list")
@common()
def port_list(settings: Settings) -> None:
    """List ports with their state and counters."""
    from chamelio.cli.output import table

    ports = settings.call("port.list")
    columns = ("name", "spec", "network", "mtu", "mac", "state", "counters")
    settings.show(ports, lambda: table(columns, [[p.get(c) for c in columns] for p in ports]))


@port.command("add")
@click.argument("port", metavar="NAME=SPEC")
@common()
def port_add(settings: Settings, port: str) -> None:
    """Open a port while the host runs."""
    name, spec = parse_port(port)
    result = settings.call("port.add", name=name, spec=spec)
    settings.show(result, lambda: f"port {name} is open")


@click.command()
@click.argument("route", metavar="PREFIX=PORT[@GATEWAY]")
@common()
def route(settings: Settings, route: str) -> None:
    """Add a route while the host runs."""
    result = settings.call("route.add", **parse_route(route))
    settings.show(result, lambda: f"route {route} is set")
