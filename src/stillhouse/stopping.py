"""Stopping at a good moment when a person or a scheduler asks.

Long loops that can save their state open `good_moments()` and look at `asked()` between steps; a first SIGINT or SIGTERM
then waits for them.  Everywhere else, and at a second signal, it stops at once.  (A kill needs no handling: see `files`.)
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_listening = False
_asked: int | None = None


class Stopped(BaseException):
    """A signal asked for it; carries its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Handle SIGINT and SIGTERM in this process; the command line calls it once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _handle)


@contextmanager
def good_moments() -> Iterator[None]:
    """While this is open, a first signal only makes `asked()` true; it takes effect when the block ends."""
    global _listening, _asked
    _listening, _asked = True, None
    try:
        yield
    finally:
        _listening = False
    if _asked is not None:
        raise Stopped(_asked)


def asked() -> bool:
    """Whether a signal came."""
    return _asked is not None


def ask() -> None:
    """As if a SIGTERM had come: another process of this run was asked to stop."""
    global _asked
    _asked = _asked or signal.SIGTERM


def _handle(number: int, frame: FrameType | None) -> None:
    global _asked
    if not _listening or _asked is not None:
        raise Stopped(number)
    _asked = number
