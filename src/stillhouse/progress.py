"""Telling a person, a log or a machine what is going on.

On a terminal: a bar with the time that is left.  Elsewhere: one plain line every few seconds.  `--format json`: one JSON
object a line.  Results go to standard output, and all of this to standard error.
"""

import json
import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY_SECONDS = 5.0


class Watch(Protocol):
    """Who is told."""

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """`done` of `total` of something long."""
        ...

    def end(self) -> None:
        """The something is over."""
        ...


class Silent:
    """Nobody."""

    def note(self, text: str) -> None:
        """Nothing."""

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Terminal:
    """A person at a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._what = ""

    def note(self, text: str) -> None:
        """Printed above the bar."""
        (self._bars.console if self._bars else self.console).print(text, markup=False)

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """Move the bar; a new `what` begins a new one."""
        if self._bars is None or self._bar is None or what != self._what:
            self.end()
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
            )
            self._bars = Progress(
                *columns, TimeRemainingColumn(), TextColumn("{task.fields[extra]}"), console=self.console
            )
            self._bars.start()
            self._bar, self._what = self._bars.add_task(what, total=total, extra=extra), what
        self._bars.update(self._bar, completed=done, total=total, extra=extra)

    def end(self) -> None:
        """Leave the bar where it is."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._bar = None, None


class Lines:
    """A log file."""

    def __init__(self, as_json: bool = False) -> None:
        self._json = as_json
        self._what, self._began, self._first, self._last = "", 0.0, 0, 0.0

    def note(self, text: str) -> None:
        """One line."""
        print(
            json.dumps({"note": text}, ensure_ascii=False) if self._json else text,
            file=sys.stderr,
            flush=True,
        )

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """At most one line every few seconds, and always the last."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._first, self._last = what, now, done, now
        if done < total and now - self._last < EVERY_SECONDS:
            return
        self._last = now
        moved = done - self._first
        left = (now - self._began) / moved * (total - done) if moved else 0.0
        if self._json:
            values = {
                "step": what,
                "done": done,
                "total": total,
                "seconds_left": round(left, 1),
                "extra": extra,
            }
            print(json.dumps(values, ensure_ascii=False), file=sys.stderr, flush=True)
        else:
            clock = f", {left:.0f} s left" if done < total and moved else ""
            print(
                f"  {what} {done}/{total}{clock}{' · ' + extra if extra else ''}", file=sys.stderr, flush=True
            )

    def end(self) -> None:
        """Forget what was going on."""
        self._what = ""


def watch_for(output: str = "auto") -> Watch:
    """The right one for `--format` and for where standard error goes."""
    if output == "json":
        return Lines(as_json=True)
    return Terminal() if sys.stderr.isatty() else Lines()
