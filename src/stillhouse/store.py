"""What models said of held-out rows, found by content: nobody is asked the same thing twice.

    said/<what>-<hash>/          the files of an entry, and MANIFEST.json with their sums, written last

The hash is of all that an entry follows from, so it outlives the stage that made it, and all runs of a plan have one such
folder together.  An entry that is damaged is made again; those that nobody used for longest go when there are too many.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .asking import ledger_of
from .files import (
    MANIFEST,
    atomic,
    atomic_folder,
    folder_bytes,
    hash_json,
    link_or_copy,
    manifest_fault,
    read_json,
    sweep_parts,
    write_json,
)
from .locks import locked
from .progress import Silent, Watch

SAID = "said"
MOST = 2 * 2**30
"""Bytes in such a folder, about."""
VALUE = "value.json"
_ENTRY = re.compile(r"[a-z]+-[0-9a-f]{32}")


def said_of(run: Path) -> Path:
    """Where what was said in a run lies: in its plan's folder, if it has one there; see `ledger_of`."""
    return ledger_of(run, SAID)


class Store:
    """Such a folder, for one evaluation at a time; several processes may use it at once.

    Args:
        folder: None keeps nothing.
        about: what all entries of this evaluation follow from.
    """

    def __init__(self, folder: Path | None = None, about: Any = None, watch: Watch | None = None) -> None:
        self.folder, self.about, self.watch = folder, about, watch or Silent()
        self._used: set[Path] = set()

    def take(self, what: str, of: Any, files: Mapping[str, Path]) -> bool:
        """Put an entry's files where they are wanted (name -> path), those that are there already excepted.

        Args: of: what it follows from.  Returns: whether there is such an entry, and it is sound.
        """
        with self._alone(what, of) as entry:
            if entry is None or not self._sound(entry):
                return False
            for name, path in files.items():
                if not path.exists():
                    with atomic(path) as part:
                        link_or_copy(str(entry / name), str(part))
            return True

    def give(self, what: str, of: Any, files: Mapping[str, Path], bounded: bool = False) -> bool:
        """Make an entry of files (name in it -> path), which stay where they are and are not changed in place from now on.

        Args: bounded: leave it where this evaluation's own entries would be more than MOST with it.
        Returns: whether there is room for it.
        """
        with self._alone(what, of) as entry:
            if entry is None:
                return True
            if not entry.is_dir():
                size = sum(path.stat().st_size for path in files.values())
                if bounded and size + sum(map(folder_bytes, self._used)) > MOST:
                    return False
                with atomic_folder(entry) as part:
                    for name, path in files.items():
                        link_or_copy(str(path), str(part / name))
            self._used.add(entry)
            self._make_room(entry.parent)
            return True

    def get(self, what: str, of: Any) -> Any:
        """A value that was put there; None if there is none."""
        with self._alone(what, of) as entry:
            return read_json(entry / VALUE) if entry is not None and self._sound(entry) else None

    def put(self, what: str, of: Any, value: Any) -> None:
        """Keep a JSON value, in the place of an older one."""
        with self._alone(what, of) as entry:
            if entry is not None:
                with atomic_folder(entry) as part:
                    write_json(part / VALUE, value)
                self._used.add(entry)
                self._make_room(entry.parent)

    def value(self, what: str, of: Any, make: Callable[[], Any]) -> Any:
        """A value that is made once."""
        if (known := self.get(what, of)) is not None:
            return known
        made = make()
        self.put(what, of, made)
        return made

    @contextmanager
    def _alone(self, what: str, of: Any) -> Iterator[Path | None]:
        """The place of an entry, while no other process looks at the folder; None where nothing is kept."""
        if self.folder is None:
            yield None
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder, self.watch):
            sweep_parts(self.folder)  # of who was killed, for nobody else is at work here
            yield self.folder / f"{what}-{hash_json([self.about, of])[:32]}"

    def _sound(self, entry: Path) -> bool:
        """Whether it is there and whole; what is not goes."""
        if not entry.is_dir():
            return False
        if fault := manifest_fault(entry):
            self.watch.note(f"  {SAID}/{entry.name}: {fault}; it is made again")
            shutil.rmtree(entry)
            return False
        os.utime(entry)
        self._used.add(entry)
        return True

    def _make_room(self, folder: Path) -> None:
        """Remove what others made and nobody used for longest, until there is no more than MOST."""
        entries = [
            path for path in folder.iterdir() if _ENTRY.fullmatch(path.name) and (path / MANIFEST).exists()
        ]
        sizes = {path: folder_bytes(path) for path in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=lambda path: path.stat().st_mtime):
            if total > MOST and path not in self._used:
                shutil.rmtree(path)
                total -= sizes[path]
