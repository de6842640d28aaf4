"""`chamelio lab`: TCP in the laboratory. No daemon is needed, and time is virtual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from chamelio.cli.common import Group, Settings, common
from chamelio.messages import Refusal

if TYPE_CHECKING:
    from chamelio.lab import Result
    from chamelio.lab.language import Script


@click.group(cls=Group)
def lab() -> None:
    """The laboratory: TCP in virtual time, against a scripted peer."""


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


def _read(file: str) -> list[Script]:
    """The scripts of a file. Raises Refusal."""
    from chamelio.lab import ScriptError, parse_file

    try:
        return parse_file(file)
    except ScriptError as error:
        raise Refusal("usage", str(error), **error.describe()) from None
    except UnicodeDecodeError:
        raise Refusal("usage", f"{file} is no text in UTF-8") from None
    except OSError as error:
        raise Refusal("usage", f"{file} cannot be read: {error.strerror}") from None


def _run(script: Script, protocol: str) -> Result:
    """Raises Refusal."""
    from chamelio.engine.engine import EngineError
    from chamelio.jit.compile import Rejected
    from chamelio.lab import run_script
    from chamelio.verify import render

    try:
        return run_script(script, protocol)
    except Rejected as error:
        verdicts = [{"verdict": v.verdict, "rendered": render(v)} for v in error.verdicts]
        raise Refusal("rejected", f"{protocol} is refused: {error}", f"see `chamelio verify {protocol}`", verdicts=verdicts) from None
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
