"""The command `chamelio`: OBJECT COMMAND, `-o json` everywhere, stable exit codes.

Exit codes: 0 ok, 1 failed, 2 usage, 3 rejected by the verifier, 4 no daemon, 5 quota.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from chamelio.cli.output import print_error, wants_json
from chamelio.messages import Refusal

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Whatever goes wrong for a reason is one message without a traceback."""
    from chamelio.cli.commands import chamelio
    from chamelio.toolchain import BuildError

    words = list(sys.argv[1:] if arguments is None else arguments)
    json = wants_json(words)
    try:
        result = chamelio.main(words, prog_name="chamelio", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "chamelio"
        return print_error(Refusal("usage", error.format_message(), f"see `{where} --help`"), json=json)
    except click.ClickException as error:
        return print_error(Refusal("failed", error.format_message()), json=json)
    except Refusal as error:
        return print_error(error, json=json)
    except BuildError as error:
        return print_error(Refusal("build", str(error)), json=json)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
