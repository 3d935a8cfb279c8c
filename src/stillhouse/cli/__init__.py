"""The command line: parse, call one function, print.  Nothing here imports torch before a command needs it."""

import json
import logging
import os
import re
import sys
import traceback
from itertools import pairwise
from typing import Any

import typer

from .. import stopping
from ..errors import StillhouseError
from ..registry import did_you_mean
from . import about, labels, parts, plans, runs, runs_compared
from .teachers import teachers

app = typer.Typer(
    name="stillhouse",
    help="Distil a large language model into a small one, with proof of what was kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    about.ls, about.cp, about.init, runs.validate, runs.plan, runs.run, runs.status, runs.report, teachers, about.doctor, about.schema,
    plans.tune, plans.ablate,
    runs_compared.check, runs_compared.compare, runs_compared.history,
):  # fmt: skip
    app.command()(command)
app.add_typer(parts.app)
app.add_typer(labels.app)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_version
    ),
) -> None:
    """Distil a large language model into a small one, with proof of what was kept."""


def main() -> None:
    """Run a command; a mistake of the user's is one sentence and its exit code, never a traceback."""
    stopping.install()
    for talker in TALKERS:
        logging.getLogger(talker).setLevel(logging.ERROR)
    try:
        code = app(standalone_mode=False, prog_name="stillhouse")
        sys.stdout.flush()
    except StillhouseError as error:
        code = _fail(f"error: {error}", error.exit_code)
    except stopping.Stopped as stop:
        code = _fail(STOPPED, 128 + stop.number)
    except BrokenPipeError:  # whoever read us has had enough; nothing may be flushed to them at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except MemoryError:
        code = _fail(
            "error: out of memory; lower train.batch_size or data.max_length. What was done is kept.", 5
        )
    except Exception as error:
        code = _unforeseen(error)
    sys.exit(code or 0)


TALKERS = ("torchao", "torch.utils._pytree")
"""Libraries that warn at import about what no user of ours can change."""

STOPPED = "stopped; what was done is kept. Run the same command to go on."


def _fail(sentence: str, code: int) -> int:
    if "--format=json" in sys.argv or ("--format", "json") in pairwise(sys.argv):
        sentence = json.dumps(
            {"error": sentence.removeprefix("error: "), "exit_code": code}, ensure_ascii=False
        )
    print(sentence, file=sys.stderr)
    return code


def _misused(said: str) -> int:
    """What the parser did not understand; without any command, it says how to use this."""
    if said.startswith("Usage:"):
        print(said, file=sys.stderr)
        return 2
    word = re.search(r"No such command '(.*)'", said)
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    hint = did_you_mean(word[1], names) if word else ""
    asked = next((f" {arg}" for arg in sys.argv[1:2] if re.fullmatch(r"[a-z]+", arg) and not word), "")
    return _fail(
        f"error: {said.replace('Value error, ', '').rstrip('.')}.{hint} Try: stillhouse{asked} --help", 2
    )


_UNUSABLE = (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError)
"""A path that somebody named is not what it must be."""


def _unforeseen(error: Any) -> int:
    """A usage error of the parser, a full disk, or a bug of ours."""
    if hasattr(error, "format_message"):  # click's usage errors, whichever click typer carries
        return _misused(error.format_message())
    if isinstance(error, OSError) and error.errno == 28:
        return _fail(
            "error: the disk is full; free some space and run the same command. What was done is kept.", 5
        )
    if isinstance(error, _UNUSABLE):
        return _fail(
            f"error: {error.filename}: {error.strerror}; choose another place, or mend its permissions.", 5
        )
    if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
        return _fail(
            "error: out of memory; lower train.batch_size or data.max_length. What was done is kept.", 5
        )
    traceback.print_exc()
    return _fail("This is a bug of ours. What was done is kept; please report the lines above.", 1)


__all__ = ["app", "main"]
