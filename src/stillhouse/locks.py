"""One process at a time in a folder; the system lets go of the lock when a process ends in any way."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import ResourceError
from .progress import Watch

LOCK = ".lock"
MOMENT = 0.3
"""Seconds before a lock that is taken is believed to be: who only looks at it holds it for an instant."""


@contextmanager
def locked(folder: Path, waiting: Watch | None = None) -> Iterator[None]:
    """Keep other processes out of a folder.

    Args: waiting: who is told that one waits for another process; without it that is refused.
    Raises: ResourceError if another process works in `folder`, and one is not to wait for it.
    """
    with (folder / LOCK).open("w", encoding="utf-8") as handle:
        told, began = False, time.monotonic()
        while not _held(handle):
            if time.monotonic() < began + MOMENT:
                time.sleep(0.02)
                continue
            if waiting is None:
                raise ResourceError(f"{folder}: another stillhouse is at work here; wait for it, or stop it.")
            if not told:
                waiting.note(f"{folder}: waiting for another stillhouse that is at work here")
            told = True
            time.sleep(0.2)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in `folder`."""
    lock = folder / LOCK
    if not lock.exists():
        return False
    with lock.open("r", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _held(handle: TextIO) -> bool:
    """Whether the lock is to be had now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
