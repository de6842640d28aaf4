"""What all commands share: the options --run and -o, "did you mean", and calls to the daemon."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chamelio.cli.output import print_json
from chamelio.messages import Channel, Refusal, connect, default_run


class Group(click.Group):
    """A group that suggests what was meant."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a better message."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = self.list_commands(ctx)
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f" (commands: {', '.join(known)})"
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


class Settings:
    """The options that every command takes, wherever on the command line they are."""

    def __init__(self) -> None:
        self.run: Path | None = None
        self.format = "text"
        self.token_file: Path | None = None

    @property
    def json(self) -> bool:
        """Whether to print JSON."""
        return self.format == "json"

    @property
    def run_directory(self) -> Path:
        """The daemon's directory."""
        return self.run or default_run()

    def connect(self, timeout: float | None = 120.0) -> Channel:
        """A connection to the daemon. Raises Refusal."""
        return connect(self.run_directory, timeout=timeout)

    def call(self, verb: str, fd: int | None = None, /, **arguments: Any) -> Any:
        """One request. Raises Refusal."""
        token = self.token()
        if token is not None:
            arguments["token"] = token
        with self.connect() as channel:
            result, fds = channel.call(verb, [fd] if fd is not None else [], **arguments)
        for received in fds:
            os.close(received)
        return result

    def token(self) -> str | None:
        """The token to show, if one was named (--token-file, or CHAMELIO_TOKEN itself). Raises Refusal."""
        if self.token_file is None:
            return os.environ.get("CHAMELIO_TOKEN")
        try:
            return self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal("usage", f"the token file {self.token_file} cannot be read: {error}") from None

    def show(self, value: Any, text: Callable[[], str]) -> None:
        """Print a result as was asked for."""
        if self.json:
            print_json(value)
        else:
            print(text(), flush=True)


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def store(ctx: click.Context, _: click.Parameter, value: Any) -> Any:
        if value is not None:
            setattr(ctx.ensure_object(Settings), name, value)
        return value

    return store


def common() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of all commands."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "-o",
                "--output",
                "--format",
                "format_",
                type=click.Choice(["text", "json"]),
                expose_value=False,
                is_eager=True,
                callback=_store("format"),
                help="How results and errors are printed.",
            ),
            click.option(
                "--run",
                type=click.Path(path_type=Path),
                expose_value=False,
                is_eager=True,
                callback=_store("run"),
                help="The daemon's directory [default: $CHAMELIO_RUN, $XDG_RUNTIME_DIR/chamelio or /tmp/chamelio-UID].",
            ),
            click.option(
                "--token-file",
                type=click.Path(path_type=Path),
                expose_value=False,
                is_eager=True,
                callback=_store("token_file"),
                help="Act as the tenant (or provider) whose token this file holds.",
            ),
        ):
            command = option(command)
        return click.pass_context(_with_settings(command))

    return add


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    import functools

    @functools.wraps(command)
    def run(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        return command(ctx.ensure_object(Settings), *args, **kwargs)

    return run
