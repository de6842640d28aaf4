"""`chamelio verify`: a verdict for every program of an object, whatever the object is."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chamelio.cli.common import Settings, common
from chamelio.messages import Refusal
from chamelio.tenant.folder import find_folder, read_manifest, read_object

if TYPE_CHECKING:
    from chamelio.verify import Verdict

REJECTED = 3

# what a verdict's fields are called in JSON; the others keep their names
_CALLED = {"program": "name", "col": "column", "insn": "instruction", "pc": "instruction"}
_INNER = ("proof", "text", "shares")


@click.command()
@click.argument("object", metavar="OBJECT|SOURCE.bpf.c|FOLDER")
@click.option("--context", metavar="NAME", help="What all programs are called with, instead of what their sections say.")
@click.option("--all", "every", is_flag=True, help="All errors of a program, not the first alone.")
@common()
def verify(settings: Settings, object: str, context: str | None, every: bool) -> int:
    """Prove the programs of an object, or say why that cannot be done. No daemon is needed.

    Any BPF object will do, at most 5 s are spent on a program and 60 s on an object. Exit code 0: all programs are accepted.
    """
    folder = find_folder(object)
    if folder is not None:
        manifest = read_manifest(folder)
        content = read_object(folder / str(manifest.source or manifest.object))
    else:
        content = _read(Path(object))
    verdicts = judge(settings, content, object, context=context, every=every)
    settings.show({"object": object, **plain_of(verdicts)}, lambda: text_of(verdicts))
    return exit_of(verdicts)


def _read(path: Path) -> bytes:
    """An object, as `read_object`, but of one that is over the limit no more than shows that. Raises Refusal and BuildError."""
    from chamelio.bpf.elf import MAX_BYTES

    try:
        if path.stat().st_size > MAX_BYTES:
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refusal("failed", f"{path} cannot be read: {error.strerror}") from None
    return read_object(path)


def judge(settings: Settings, content: bytes, name: str, *, context: str | None = None, every: bool = False) -> list[Verdict]:
    """What is said of the programs of an object. Raises Refusal: there is no such context."""
    from chamelio.verify.apart import verify_apart
    from chamelio.verify.contexts import CONTEXTS

    if context is not None and context not in CONTEXTS:
        close = difflib.get_close_matches(context, CONTEXTS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"contexts are {', '.join(CONTEXTS)}"
        raise Refusal("usage", f"there is no context {context!r}", hint)
    return verify_apart(content, Path(name).name, context=context, every=every, progress=_progress(settings)).verdicts


def exit_of(verdicts: list[Verdict]) -> int:
    """0 if all programs are accepted."""
    return 0 if all(v.verdict == "accept" for v in verdicts) else REJECTED


def plain_of(verdicts: list[Verdict]) -> dict[str, Any]:
    """Verdicts as plain values."""
    names = [one.name for one in dataclasses.fields(verdicts[0]) if one.name not in _INNER]
    programs = []
    for verdict in verdicts:
        shares = [{_CALLED.get(name, name): value for name, value in share._asdict().items()} for share in verdict.shares]
        programs.append({**{_CALLED.get(name, name): getattr(verdict, name) for name in names}, "attribution": shares})
    return {"accepted": exit_of(verdicts) == 0, "programs": programs}


def text_of(verdicts: list[Verdict]) -> str:
    """Verdicts as text, and how many programs are accepted."""
    from chamelio.verify.render import render

    accepted = sum(v.verdict == "accept" for v in verdicts)
    count = sum(1 for _ in itertools.groupby(verdicts, key=lambda v: (v.section, v.program)))
    return "\n".join([*map(render, verdicts), f"{accepted} of {count} accepted"])


def _progress(settings: Settings) -> Any:
    """Something that moves while many programs are verified, on a terminal only."""
    if settings.json or not sys.stderr.isatty():
        return lambda done, programs: None

    def show(done: int, programs: int) -> None:
        print(f"\r\x1b[Kverified {done} of {programs}" if done < programs else "\r\x1b[K", end="", file=sys.stderr, flush=True)

    return show
