"""`chamelio protocol`: from C to a protocol that runs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.cli.common import Group, Settings, common
from chamelio.cli.output import fields, table
from chamelio.cli.verify import exit_of, judge, plain_of, text_of
from chamelio.host.limits import Limits
from chamelio.messages import Refusal, memfd
from chamelio.tenant.folder import (
    TEMPLATE_IP_PROTOCOL,
    copy_folder,
    new_folder,
    read_manifest,
    read_protocol,
)
from chamelio.verify import verify_object


@click.group(cls=Group)
def protocol() -> None:
    """Protocols: handlers and maps in a BPF object, run for a tenant."""


@protocol.command("new")
@click.argument("name")
@click.option("--in", "parent", type=click.Path(path_type=Path), default=Path(), help="Where the folder is made [default: here].")
@click.option("--ip-protocol", type=click.IntRange(2, 255), default=TEMPLATE_IP_PROTOCOL, help="Number in the IP header.")
@common()
def new(settings: Settings, name: str, parent: Path, ip_protocol: int) -> None:
    """Make a folder with handlers, slow path, client, tests and README of a new protocol; it works at once."""
    folder = new_folder(name, parent, ip_protocol)
    files = sorted(path.name for path in folder.iterdir())
    settings.show({"folder": str(folder), "files": files}, lambda: _next_steps(folder, name))


def _next_steps(folder: Path, name: str) -> str:
    return (
        f"{folder} is ready. What to do next:\n"
        f"  chamelio verify {folder}              what is proven of the handlers, and what they cost\n"
        f"  pytest {folder}                       two hosts and a lossy wire, in virtual time\n"
        f"  chamelio protocol load TENANT {folder}    run it; again after every change\n"
        f"and read {folder / 'README.md'}; the handlers are in {folder / (name + '.bpf.c')}"
    )


@protocol.command("copy")
@click.argument("name", metavar="NAME|FOLDER")
@click.argument("target", type=click.Path(path_type=Path))
@common()
def copy(settings: Settings, name: str, target: Path) -> None:
    """Copy a shipped protocol, to change it. It keeps its name: the copy is another version of the same protocol."""
    folder = copy_folder(name, target)
    files = sorted(path.name for path in folder.iterdir())
    settings.show(
        {"folder": str(folder), "files": files}, lambda: f"{folder} is a copy of {name}: change it, then `chamelio verify {folder}`"
    )


@protocol.command("build")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), help="The object [default: beside the source, with .o].")
@common()
def build(settings: Settings, source: Path, target: Path | None) -> int:
    """Build an object from a handler's C source, or from a protocol's folder, and verify its handlers.

    What the compiler and what the verifier have to say comes in one go. The object is written either way.
    """
    if source.is_dir():
        manifest = read_manifest(source)
        if manifest.source is None:
            raise Refusal("usage", f"{source} has no source to build", "its protocol.toml names an object")
        source = source / manifest.source
    if not source.is_file():
        raise Refusal("usage", f"there is no file {source}")
    started = time.perf_counter()
    content = toolchain.bpf_object(source)
    seconds = time.perf_counter() - started
    target = target or source.with_suffix(".o")
    try:
        target.write_bytes(content)
    except OSError as error:
        raise Refusal("failed", f"{target} cannot be written: {error.strerror}") from None
    verdicts = judge(settings, content, str(source))
    result = {"object": str(target), "bytes": len(content), "seconds": seconds, **plain_of(verdicts)}

    def text() -> str:
        return "\n".join([f"{target}: {len(content)} bytes in {seconds:.2f} s", text_of(verdicts)])

    settings.show(result, text)
    return exit_of(verdicts)


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal():
        raise Refusal("usage", f"--ports {text}: this is not LOW-HIGH", "write it as 5000-5999")
    return int(low), int(high or low)


@protocol.command("load")
@click.argument("tenant")
@click.argument("protocol")
@click.option("--name", help="What the protocol is called [default: as its folder or file says].")
@click.option("--ip-protocol", type=click.IntRange(2, 255), help="Number in the IP header [default: as its folder says].")
@click.option("--ports", metavar="LOW-HIGH", help="Destination ports that it takes.")
@click.option("--address", help="Which of the tenant's addresses [default: the first].")
@click.option("--mode", type=click.Choice(["joint", "separate"]), default="joint", help="How it is compiled.")
@common()
def load(
    settings: Settings,
    tenant: str,
    protocol: str,
    name: str | None,
    ip_protocol: int | None,
    ports: str | None,
    address: str | None,
    mode: str,
) -> None:
    """Load PROTOCOL (a folder, an object, a .bpf.c source, or a shipped protocol's name) for TENANT.

    Where the tenant runs a protocol of that name, the new version takes its place without losing a packet, if it fits.
    """
    manifest, content = read_protocol(protocol)
    number = ip_protocol or manifest.ip_protocol
    if not number:
        raise Refusal("usage", f"{protocol} does not say which IP protocol it is", "give --ip-protocol, e.g. 17 for UDP")
    fd = memfd("chamelio-object", content)
    try:
        with _progress(settings, f"verifying and compiling {manifest.name}"):
            result = settings.call(
                "protocol.load",
                fd,
                tenant=tenant,
                name=name or manifest.name,
                ip_protocol=number,
                ports=_range(ports) or manifest.ports,
                steer=manifest.steer,
                address=address,
                options={"mode": mode},
            )
    finally:
        os.close(fd)
    settings.show(result, lambda: _loaded(result))


def _loaded(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    times = ", ".join(f"{what} {1000 * s:.1f} ms" for what, s in seconds.items() if s)
    origin = "known code" if result["cached"] else "new code"
    text = f"{result['name']} of {result['tenant']}: {result['action']} ({origin}"
    return text + (f"; {times})" if times else ")")


def _progress(settings: Settings, text: str) -> Any:
    """Something that moves while long work runs, on a terminal only."""
    import contextlib

    if settings.json or not sys.stderr.isatty():
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(text)


def costs(about: dict[str, Any], which: str) -> dict[str, int]:
    """Worst-case cycles of the hooks that there are, `cold` or `warm`."""
    return {hook: cycles for hook, cycles in about.get(f"{which}_cycles", {}).items() if cycles}


@protocol.command("list")
@click.argument("tenant", required=False)
@common()
def list_(settings: Settings, tenant: str | None) -> None:
    """List protocols, of one tenant or of all."""
    protocols = settings.call("protocol.list", tenant=tenant)
    columns = ("tenant", "name", "version", "state", "agent", "ip_protocol", "address", "mode", "instructions")

    def text() -> str:
        heads = (*columns, "cold", "warm", "memory")
        rows = [[*(p.get(c) for c in columns), *(costs(p, c) for c in ("cold", "warm")), p.get("memory_bytes")] for p in protocols]
        return table(heads, rows)

    settings.show(protocols, text)


@protocol.command("show")
@click.argument("tenant", metavar="[TENANT]")
@click.argument("name", metavar="PROTOCOL", required=False)
@common()
def show(settings: Settings, tenant: str, name: str | None) -> int:
    """Show a protocol of a tenant: its contract, its memory, its versions, its counters.

    Without TENANT: the contract of a shipped one, a folder or an object, by the budgets that a tenant has if nothing else was said.
    """
    if name is None:
        contract = contract_of(tenant)
        settings.show(contract, lambda: _contract(contract))
        return 0 if contract["admitted"] else 3
    about = settings.call("protocol.show", tenant=tenant, protocol=name)
    settings.show(about, lambda: _shown(about))
    return 0


def contract_of(text: str) -> dict[str, Any]:
    """What is proven of a protocol that nobody has loaded. Raises Refusal, BuildError, ObjectError."""
    manifest, content = read_protocol(text)
    budgets = Limits().budgets
    hooks = {}
    for verdict in verify_object(load_object(content, manifest.name), budgets=budgets):
        hook = verdict.section.rpartition("/")[2]
        hooks[hook] = {
            "cold": verdict.cost_cold, "warm": verdict.cost_warm, "budget": budgets.get(hook), "verdict": verdict.verdict,
            "code": verdict.code,
        }  # fmt: skip
    admitted = bool(hooks) and all(one["verdict"] == "accept" for one in hooks.values())
    return {"name": manifest.name, "ip_protocol": manifest.ip_protocol, "admitted": admitted, "hooks": hooks}


def _contract(contract: dict[str, Any]) -> str:
    rows = [[h, *(one[k] for k in ("cold", "warm", "budget", "verdict"))] for h, one in contract["hooks"].items()]
    said = {"name": contract["name"], "ip_protocol": contract["ip_protocol"], "admitted": "yes" if contract["admitted"] else "no"}
    return fields(said) + "\n\nworst case, in cycles\n" + table(("hook", "cold", "warm", "budget", "verdict"), rows)


def slow_path(about: dict[str, Any]) -> str:
    """How a slow path is, with its last words."""
    text = fields({"slow_path": {k: v for k, v in about.items() if k != "traceback" and v is not None}})
    trace = about.get("traceback", "").rstrip()
    return text + ("\n" + "\n".join(f"  | {line}" for line in trace.splitlines()) if trace else "")


def _shown(about: dict[str, Any]) -> str:
    apart = ("slow_path", "memory", "memory_bytes", "maps", "versions", "counters", "cold_cycles", "warm_cycles")
    text = fields({k: v for k, v in about.items() if k not in apart}) + "\n" + slow_path(about["slow_path"])
    if "memory" in about:
        memory = about["memory"]
        hooks = [[h, about["cold_cycles"][h], about["warm_cycles"][h]] for h in costs(about, "cold")]
        text += "\n\nworst case, in cycles\n" + table(("hook", "cold", "warm"), hooks)
        text += "\n\nmemory\n" + fields({k: v for k, v in memory.items() if k != "maps"}, "  ")
        maps = [[m, *(one[k] for k in ("kind", "entries", "bytes_per_entry", "shared"))] for m, one in memory["maps"].items()]
        text += "\n\n" + table(("map", "kind", "entries", "bytes/entry", "shared"), maps)
    versions = [
        [v["version"], v["state"], v["protocol_sha"][:12], v["mode"], time.strftime("%F %T", time.localtime(v["when"])), v["who"],
         costs(v, "cold"), v["result"]]
        for v in about["versions"]
    ]  # fmt: skip
    text += "\n\n" + table(("version", "state", "content", "mode", "when", "who", "cold", "result"), versions)
    return text + "\n\n" + fields({"counters": about["counters"]})


@protocol.command("rollback")
@click.argument("tenant")
@click.argument("name")
@click.argument("version", type=click.IntRange(1), required=False)
@common()
def rollback(settings: Settings, tenant: str, name: str, version: int | None) -> None:
    """Let an earlier VERSION run again, by default the one before the running one. Nothing is lost, nothing is compiled."""
    result = settings.call("protocol.rollback", tenant=tenant, protocol=name, version=version)
    before = f", was {result['from']}" if result["from"] != result["version"] else ""
    settings.show(result, lambda: f"{name} of {tenant}: {result['action']} (version {result['version']}{before})")


@protocol.command("rm")
@click.argument("tenant")
@click.argument("name")
@common()
def rm(settings: Settings, tenant: str, name: str) -> None:
    """Remove a protocol from a tenant."""
    result = settings.call("protocol.rm", tenant=tenant, protocol=name)
    settings.show(result, lambda: f"{name} of {tenant} is removed")
