"""`chamelio lab`: TCP in the laboratory. No daemon is needed, and time is virtual."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from chamelio.cli.common import Group, Settings, common
from chamelio.cli.output import fields
from chamelio.messages import Refusal

if TYPE_CHECKING:
    from chamelio.lab import Result
    from chamelio.lab.language import Script


@click.group(cls=Group)
def lab() -> None:
    """The laboratory: TCP in virtual time, against a scripted peer or against itself."""


@lab.command("run")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--trace", is_flag=True, help="Show all segments of scripts that went as written, too.")
@click.option("--only", metavar="WORDS", help="Scripts whose name contains this.")
@click.option("--protocol", metavar="FOLDER|NAME", default="tcp", show_default=True, help="The TCP that is tested.")
@common()
def run(settings: Settings, files: tuple[str, ...], trace: bool, only: str | None, protocol: str) -> int:
    """Run scripts: segments in, segments expected out, calls of an application. Exit code 1: one did not go as written."""
    scripts = [script for file in files for script in _read(file) if only is None or only in script.name]
    if not scripts:
        raise Refusal("usage", f"no script has {only!r} in its name" if only else "there are no scripts in these files")
    results = []
    for script in scripts:
        result = _run(script, protocol)
        results.append(result)
        if not settings.json:
            _print(result, trace)
    failed = sum(not result.ok for result in results)
    about = {"scripts": [_plain(result) for result in results], "passed": len(results) - failed, "failed": failed}
    settings.show(about, lambda: f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


@lab.command("transfer")
@click.argument("count", metavar="BYTES", type=click.IntRange(1))
@click.option("--back", metavar="BYTES", type=click.IntRange(0), default=0, help="Send so many the other way at the same time.")
@click.option("--rate", metavar="BITS/S", type=click.FloatRange(0, min_open=True), help="Of the line [default: no limit].")
@click.option("--delay", metavar="SECONDS", type=click.FloatRange(0), default=0.0, help="Of the line, one way.")
@click.option(
    "--queue", metavar="PACKETS", type=click.IntRange(1), default=1000, show_default=True, help="That may wait for the line."
)
@click.option("--mark", metavar="PACKETS", type=click.IntRange(0), help="Mark what finds so many waiting (ECN).")
@click.option("--fault", metavar="TEXT", help="Of the fault injector, as in a port: loss=1%,reorder=5%,seed=7.")
@click.option("--set", "chosen", metavar="NAME=VALUE", multiple=True, help="A setting of the slow path; times in seconds.")
@click.option("--protocol", metavar="FOLDER|NAME", default="tcp", show_default=True, help="The TCP of both hosts.")
@click.option("--trace", is_flag=True, help="Show all segments.")
@common()
def transfer(
    settings: Settings,
    count: int,
    back: int,
    rate: float | None,
    delay: float,
    queue: int,
    mark: int | None,
    fault: str | None,
    chosen: tuple[str, ...],
    protocol: str,
    trace: bool,
) -> int:
    """Send bytes from one host to another over a line, and say what it took in virtual time."""
    from chamelio.engine.ports import PortError
    from chamelio.lab import Laboratory, Stalled
    from chamelio.tenant.runtime import RequestError

    line: dict[str, Any] = {"rate": rate, "delay": delay, "queue": queue, "mark": mark, "fault": fault}
    try:
        with _refusals(protocol), Laboratory(**line, trace=True, settings=_chosen(chosen), protocol=protocol) as here:
            done = here.transfer(count, back)
            assert here.line is not None
            row = here.streams[0].a.row
            about = {
                "bytes": done.bytes,
                "seconds": done.seconds,
                "goodput": done.goodput,
                "packets": {"forth": here.line.forth.packets, "back": here.line.back.packets},
                "dropped": here.line.forth.dropped + here.line.back.dropped,
                "marked": here.line.forth.marked + here.line.back.marked,
                "longest_queue": max(here.line.forth.longest, here.line.back.longest),
                **{name: row[name] for name in ("losses", "timeouts", "retransmitted")},
            }
            lines = here.trace_lines() if trace else []
    except (RequestError, PortError) as error:
        raise Refusal("usage", str(error)) from None
    except (Stalled, OSError, ValueError) as error:
        raise Refusal("failed", f"the transfer has failed: {error}") from None
    settings.show(about | ({"trace": lines} if trace else {}), lambda: "\n".join([*lines, fields(about)]))
    return 0


def _chosen(texts: tuple[str, ...]) -> dict[str, Any]:
    """Settings as --set gives them: numbers, words, and words with commas, which are lists. Raises Refusal."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise Refusal("usage", f"{text!r} is no setting", "write NAME=VALUE, e.g. ack_delay=0.1 or options=sack,timestamps")
        if name == "options":
            found[name] = [] if value == "none" else value.split(",")
            continue
        try:
            found[name] = float(value) if "." in value else int(value)
        except ValueError:
            found[name] = value
    return found


def _read(file: str) -> list[Script]:
    """The scripts of a file. Raises Refusal."""
    from chamelio.lab import ScriptError, parse_file

    try:
        return parse_file(file)
    except ScriptError as error:
        raise Refusal("usage", str(error), file=error.path, line=error.line, column=error.column) from None
    except UnicodeDecodeError:
        raise Refusal("usage", f"{file} is no text in UTF-8") from None
    except OSError as error:
        raise Refusal("usage", f"{file} cannot be read: {error.strerror}") from None


def _run(script: Script, protocol: str) -> Result:
    """Raises Refusal."""
    from chamelio.lab import run_script

    with _refusals(protocol):
        return run_script(script, protocol)


@contextlib.contextmanager
def _refusals(protocol: str) -> Iterator[None]:
    """Why a protocol does not run, as a Refusal."""
    from chamelio.engine.engine import EngineError
    from chamelio.jit.compile import Rejected
    from chamelio.verify import render

    try:
        yield
    except Rejected as error:
        verdicts = [{"verdict": v.verdict, "rendered": render(v)} for v in error.verdicts]
        raise Refusal(
            "rejected", f"{protocol} is refused: {error}", f"see `chamelio verify {protocol}`", verdicts=verdicts
        ) from None
    except EngineError as error:
        raise Refusal("failed", f"{protocol} does not run: {error}") from None


def _print(result: Result, trace: bool) -> None:
    click.echo(str(result))
    if trace and result.ok:
        click.echo("\n".join(result.trace_lines()))


def _plain(result: Result) -> dict[str, Any]:
    script = result.script
    return {
        "file": script.path,
        "name": script.name,
        "shows": script.shows,
        "ok": result.ok,
        "line": result.line or script.line,
        "step": result.step,
        "error": result.error,
        "trace": [{"seconds": r.time / 1e9, "side": r.side, "flow": r.flow, "text": r.text} for r in result.trace],
    }
