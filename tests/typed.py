"""Typing a command: in this process, so that it is fast, or in one of its own."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

SRC = Path(__file__).parents[1] / "src"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


def stillhouse(*words: object) -> Said:
    """`stillhouse WORDS` through the real entry point, in this process."""
    from stillhouse.cli import main

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        mock.patch.object(sys, "argv", ["stillhouse", *map(str, words)]),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return Said(code, out.getvalue(), err.getvalue())


def start(*words: object, script: str | None = None, **options: object) -> "subprocess.Popen[str]":
    """`python -m stillhouse WORDS` (or `python -c SCRIPT WORDS`) as a process of its own, running."""
    how = ["-m", "stillhouse"] if script is None else ["-c", script]
    settings = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": ENVIRONMENT,
        **options,
    }
    started: subprocess.Popen[str] = subprocess.Popen([sys.executable, *how, *map(str, words)], **settings)  # type: ignore[call-overload]
    return started


def process(*words: object, script: str | None = None, **options: object) -> Said:
    """The same, until its end."""
    running = start(*words, script=script, **options)
    out, err = running.communicate(timeout=300)
    return Said(running.returncode, out, err)


def write_recipe(path: Path, values: dict[str, object]) -> Path:
    """`values` as a recipe in `path`."""
    from stillhouse.recipe.yaml import write_yaml

    path.write_text(write_yaml(values), encoding="utf-8")
    return path


@contextmanager
def hurried() -> Iterator[None]:
    """Speeds and memory are measured for a moment only: tests do not look at how exact they are."""
    from stillhouse import cost, latency
    from stillhouse.steps import paces

    with (
        mock.patch.object(paces, "SECONDS", 0.01),
        mock.patch.object(latency, "MOST", 1),
        mock.patch.object(latency, "MOMENT", 0.0),
        mock.patch.object(latency, "REQUESTS", 2),
        mock.patch.object(latency, "NEW_TOKENS", 3),
        mock.patch.object(cost, "fresh_peak", return_value=1),
    ):
        yield
