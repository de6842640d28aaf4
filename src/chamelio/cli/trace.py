"""`chamelio trace`: one packet through a handler, on the reference interpreter. No daemon is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from chamelio.cli.common import Settings, common
from chamelio.cli.verify import REJECTED
from chamelio.messages import Refusal
from chamelio.tenant.folder import Manifest, read_protocol

if TYPE_CHECKING:
    from chamelio.trace import Scene, Start, Trace
    from chamelio.trace.packets import Check
    from chamelio.verify import Verdict

HOOKS = ("rx", "ring", "tx", "timer")


@click.command()
@click.argument("protocol", metavar="FOLDER|OBJECT|SOURCE.bpf.c|NAME")
@click.option("--packet", metavar="HEX|FILE.pcapng[:N]", help="A packet from its IP header on, a frame, or the Nth of a capture.")
@click.option("--entry", metavar="FIELD=VALUE,...", help="The ring hook's entry: fields (others are 0), a number, or hex:BYTES.")
@click.option("--hook", type=click.Choice(HOOKS), help="Which handler [default: rx with a packet, ring with an entry].")
@click.option(
    "--map-state",
    "states",
    multiple=True,
    metavar="NAME[KEY]=VALUE",
    help="What a map holds: 'totals[0]=muted=1'. May be repeated.",
)
@click.option("--id", "number", type=click.IntRange(0, 0xFFFFFFFF), default=0, help="ctx->id: a context, or the id that is due.")
@click.option("--now", type=click.IntRange(0), default=1_000_000_000, help="ctx->now in ns.")
@click.option("--csum-ok", is_flag=True, help="The port has verified the transport checksum.")
@click.option("--address", help="The tenant's address, to check source and destination.")
@common()
def trace(
    settings: Settings,
    protocol: str,
    packet: str | None,
    entry: str | None,
    hook: str | None,
    states: tuple[str, ...],
    number: int,
    now: int,
    csum_ok: bool,
    address: str | None,
) -> int:
    """Show what a handler does with one packet: lines, reads, helpers, branches, verdict, and cycles against the proven bound."""
    from chamelio.bpf.insn import BpfFormatError
    from chamelio.bpf.object import load_object
    from chamelio.trace import Scene, Start, packets, trace
    from chamelio.verify import verify_program

    manifest, content = read_protocol(protocol)
    try:
        obj = load_object(content, protocol)
        scene = Scene(obj)
    except BpfFormatError as error:
        raise Refusal("malformed", f"{protocol} cannot be used: {error}", "build it with `chamelio protocol build`") from None
    hook = _hook(hook, packet, entry)
    program = next((p for p in obj.programs if p.section == f"chamelio/{hook}"), None)
    if program is None:
        has = ", ".join(p.section.rpartition("/")[2] for p in obj.programs) or "none"
        raise Refusal("usage", f"{protocol} has no handler for {hook}", f"its handlers are: {has}")
    ethernet, received = packets.read_packet(packet) if packet is not None else (None, None)
    checks = packets.check_input(ethernet, received, address, manifest.ip_protocol, manifest.ports) if received is not None else []
    whole = packets.trimmed(received) if received is not None else None
    start = Start(hook, whole, scene.parse_entry(entry) if entry is not None else None, now, number, csum_ok=int(csum_ok))
    for state in states:
        scene.set_value(state)
    verdict = verify_program(obj, program)
    done = trace(obj, program, scene, start)
    accepted = verdict.verdict == "accept"
    about = {
        **_plain(msgspec.to_builtins(done, builtin_types=(bytes,))),
        "checks": [c._asdict() for c in checks],
        "accepted": accepted,
        "bound_warm": verdict.cost_warm if accepted else None,
        "bound_cold": verdict.cost_cold if accepted else None,
    }
    settings.show(about, lambda: _text(manifest, scene, start, checks, verdict, done, address))
    return 0 if accepted and done.verdict != "fault" else REJECTED


def _hook(hook: str | None, packet: str | None, entry: str | None) -> str:
    """The hook to run: as asked for, or as what was given suggests. Raises Refusal."""
    hook = hook or ("rx" if packet is not None else "ring" if entry is not None else None)
    if hook is None:
        raise Refusal("usage", "there is nothing to trace", "give --packet, --entry, or --hook tx or timer with --id")
    if hook == "rx" and packet is None:
        raise Refusal("usage", "the rx hook starts with a packet", "give --packet")
    if hook == "ring" and entry is None:
        raise Refusal("usage", "the ring hook starts with an entry", "give --entry")
    if hook != "rx" and packet is not None:
        raise Refusal("usage", f"the {hook} hook starts without a packet", "leave --packet out")
    return hook


def _text(
    manifest: Manifest, scene: Scene, start: Start, checks: list[Check], verdict: Verdict, done: Trace, address: str | None
) -> str:
    from chamelio.trace import packets, render
    from chamelio.trace.render import render_checks
    from chamelio.verify import render as render_verdict

    lines = [f"{start.hook} of {manifest.name}"]
    if start.packet is not None:
        lines.append(f"packet    {packets.describe(start.packet)}")
    if start.entry is not None:
        lines.append(f"entry     {scene.show_entry(start.entry)}")
    lines += render_checks(checks)
    accepted = verdict.verdict == "accept"
    if not accepted:
        lines += [
            "refused   no host would run this handler:",
            *(f"          {line}" for line in render_verdict(verdict).splitlines()),
        ]
    source = address or packets.destination(start.packet)
    bound = verdict.cost_warm if accepted else None
    return "\n".join([*lines, "", render(done, bound=bound, address=source, protocol=manifest.ip_protocol)])


def _plain(value: Any) -> Any:
    """Bytes as hexadecimal digits, for JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
