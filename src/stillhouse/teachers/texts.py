"""Texts on disk, found by key: shards of JSON lines, each line with a sum of its own.

Several processes write at once, each into a part of the folder (part-2-of-4); who reads the folder reads all of them.  A shard
is never changed once it is there.  A line that is damaged does not exist, and its text is asked for again.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files import hash_json, link_or_copy, sweep_parts, write_jsonl
from .parts import PART

TAKEN = f"{PART}of-another-run-"
"""Begins the name of a part that another run of the same plan wrote."""
Text = str | None
"""None: cut off before its end."""


class Texts:
    """Reads such a folder, and writes into it or into a part of it."""

    def __init__(self, folder: Path, part: str = "") -> None:
        """Args: part: where this process writes: the folder itself, or one below it."""
        self.folder, self._mine = folder, folder / part
        self._read: set[Path] = set()
        self._found: dict[str, Text] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Text:
        return self._found[key]

    def look(self) -> None:
        """Read the shards that are new.  Of a key that two processes wrote the first text stays, the folder's own before the
        parts'."""
        for path in (*sorted(self.folder.glob("*.jsonl")), *sorted(self.folder.glob(f"{PART}*/*.jsonl"))):
            if path not in self._read:
                self._read.add(path)
                for key, text in _sound(path):
                    self._found.setdefault(key, text)

    def sweep(self) -> None:
        """Remove what a killed process left half-written where this one writes; nobody else may be at work there."""
        sweep_parts(self._mine)

    def keep(self, some: Sequence[tuple[str, Text]]) -> None:
        """Write one shard of (key, text)."""
        number = 1 + max((int(path.stem) for path in self._mine.glob("*.jsonl")), default=-1)
        path = self._mine / f"{number:05d}.jsonl"
        write_jsonl(path, ({"key": key, "text": text, "sum": _sum(key, text)} for key, text in some))
        self._read.add(path)
        for key, text in some:
            self._found.setdefault(key, text)


def pool_texts(theirs: Path, mine: Path) -> None:
    """Take over the shards that were written in `theirs`, as a part of `mine`; not what it took from others itself."""
    own = [path for path in theirs.glob(f"{PART}*") if not path.name.startswith(TAKEN)]
    for folder in (theirs, *sorted(own)):
        place = mine / f"{TAKEN}{hash_json([theirs.parent.name, folder.name])[:12]}"
        for path in sorted(folder.glob("*.jsonl")):
            if not (place / path.name).exists():
                place.mkdir(parents=True, exist_ok=True)
                link_or_copy(str(path), str(place / path.name))


def _sound(path: Path) -> Iterator[tuple[str, Text]]:
    """(key, text) of every line that is what was written."""
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if row["sum"] == _sum(row["key"], row["text"]):
                yield row["key"], row["text"]
        except (ValueError, KeyError, TypeError):
            continue  # a damaged line is asked for again


def _sum(key: str, text: Text) -> str:
    return hash_json([key, text])[:16]
