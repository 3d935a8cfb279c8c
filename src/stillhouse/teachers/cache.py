"""Soft targets on disk: asked for once, kept for ever, and checked before they are believed.

A folder of Parquet shards (zstd; pandas reads them) and index.json, which is written after each shard and names its
SHA-256.  A row is one example, found by its key (a hash of token ids, borders and counted positions), never by its place
in a batch.  A shard that is not in the index does not exist; one that is damaged is found when the cache is opened, and
only its rows are asked for again.  Several processes label at once, each into a part of the folder (part-2-of-4) with an
index of its own; who opens the folder reads them all.

    key        the example's key
    row        id of the row it was made from
    positions  N, its counted positions
    …          the targets of these positions (see `codec`)

Source of keeping targets of a fixed teacher: Hinton et al. 2015, arXiv:1503.02531.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ..data.encode import Example
from ..errors import DataError
from ..files import atomic, hash_file, hash_json, link_or_copy, read_json, sweep_parts, write_json
from ..tasks import Batch
from .codec import Arrays, decoded
from .keys import Keys
from .parts import PART
from .shards import Reader, Row, keys_of, write_shard
from .targets import Kept, joined

INDEX = "index.json"
FORMAT = 4
GROUP_VALUES = 2**15
"""Kept outcomes in a row group, about: what is decoded to find one row of a cache that does not fit in memory."""
BYTES_IN_MEMORY = 16 * 2**20
"""A cache whose shards are smaller than this together (on disk) is kept decoded in memory once read."""
BATCHES_AHEAD = 64
"""Micro-batches whose targets are read before they are asked for, at most: some megabytes."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one example."""

    example: Example
    columns: Arrays
    """As `codec.encoded` gives them."""

    @property
    def values(self) -> int:
        """How many outcomes were kept, over all positions."""
        return max(map(len, self.columns.values()))

    @property
    def positions(self) -> int:
        """N: how many positions it has targets for."""
        return self.example.counted


@dataclass(frozen=True)
class Shard:
    """One that is written."""

    told: dict[str, Any]
    """What the index says of it."""
    keys: list[str]


class SoftTargetCache:
    """Reads such a folder, and writes into it or into a part of it."""

    def __init__(
        self, folder: Path, meta: dict[str, Any], say: Callable[[str], None] = print, part: str = ""
    ) -> None:
        """Open `folder`, or begin it.

        Args:
            meta: what the targets depend on (teacher, temperature, top_k or samples, outcomes, …); a folder that holds
                other ones is refused.
            part: where this process writes: the folder itself, or one below it, so that several processes label at once.
        Raises: DataError if the folder belongs to other targets.
        """
        self.folder, self.meta, self._say, self._part = folder, meta, say, part
        self._own: list[dict[str, Any]] = []
        self._shards: list[tuple[str, int]] = []
        """(file, rows in a row group)"""
        self._keys = Keys()
        self._reader = Reader(folder, meta["outcomes"])
        self._bytes = 0
        mine = folder / part
        mine.mkdir(parents=True, exist_ok=True)
        sweep_parts(mine)
        for index in indexes(folder):
            self._open(index)
        named = {shard["file"] for shard in self._own}
        for path in mine.glob("*.parquet"):
            if path.name not in named:
                path.unlink()
        self._number = max((int(shard["file"].partition(".")[0]) for shard in self._own), default=-1)

    @property
    def temperature(self) -> float:
        """At which the targets were taken."""
        return float(self.meta["temperature"])

    def __contains__(self, key: str) -> bool:
        return self._keys.find(key) is not None

    def __len__(self) -> int:
        return len(self._keys)

    def _open(self, index: Path) -> None:
        """Admit the shards that an index names and that are whole; the others are not named any more."""
        saved = _read_index(index)
        if saved.get("format") != FORMAT:
            raise DataError(
                f"{index.parent}: holds soft targets in another version's format; remove it, and the teacher is asked again."
            )
        if saved["meta"] != self.meta:
            raise DataError(f"{index.parent}: holds soft targets of {saved['meta']}, not of {self.meta}.")
        sound = []
        for shard in saved["shards"]:
            fault = _shard_fault(index.parent, shard)
            if fault is None:
                self._admit(index.parent, shard, keys_of(index.parent / shard["file"]))
                sound.append(shard)
                continue
            self._say(f"soft targets: {fault}; its {shard['rows']} rows will be asked for again")
        if len(sound) < len(saved["shards"]):
            write_json(index, {**saved, "shards": sound})
        if index.parent == self.folder / self._part:
            self._own = sound

    def _admit(self, place: Path, shard: dict[str, Any], keys: Sequence[str]) -> None:
        self._bytes += shard["bytes"]
        self._keys.add(keys, len(self._shards))
        self._shards.append(
            ((place / shard["file"]).relative_to(self.folder).as_posix(), shard["rows_in_group"])
        )

    def add(self, entries: list[Entry]) -> None:
        """Write one shard and then name it in the index."""
        self.admit(self.write(entries, self.next_number()))

    def next_number(self) -> int:
        """Of the next shard, each time another one."""
        self._number += 1
        return self._number

    def write(self, entries: list[Entry], number: int) -> "Shard":
        """Write one shard, which does not exist before `admit` names it; several threads may, each its own."""
        path = self.folder / self._part / f"{number:05d}.parquet"
        in_group = max(1, GROUP_VALUES * len(entries) // max(1, sum(entry.values for entry in entries)))
        rows = [
            Row(entry.example.key, entry.example.row, entry.positions, entry.columns) for entry in entries
        ]
        with atomic(path) as part:
            write_shard(part, rows, self.meta, in_group)
        pa.default_memory_pool().release_unused()  # or it keeps what the largest row group took
        told = {
            "file": path.name,
            "rows": len(entries),
            "rows_in_group": in_group,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
        return Shard(told, [row.key for row in rows])

    def admit(self, shard: "Shard") -> None:
        """Name a shard that is written in the index."""
        place = self.folder / self._part
        self._own.append(shard.told)
        self._admit(place, shard.told, shard.keys)
        write_json(place / INDEX, {"format": FORMAT, "meta": self.meta, "shards": self._own})

    def get(self, key: str) -> Kept:
        """The targets of an example's N positions.  Raises: DataError if nobody labelled it."""
        found = self._keys.find(key)
        if found is not None:
            file, in_group = self._shards[found[0]]
            group, row = (None, found[1]) if self._bytes <= BYTES_IN_MEMORY else divmod(found[1], in_group)
            block = self._reader.block(file, group)
            if block.keys[row].as_py() == key:
                return decoded(block.row(row), int(block.positions[row]), self.meta, block.order)
        raise DataError(
            f"{self.folder}: has no soft targets for the example {key}; run the label stage again."
        )


def folder_name(meta: dict[str, Any]) -> str:
    """Of a cache: another one for other targets, and for another version's format, which is asked for again."""
    return f"targets-{hash_json([FORMAT, meta])[:12]}"


def indexes(folder: Path) -> list[Path]:
    """Of the folder itself and of its parts, those that are there."""
    return [path for path in (folder / INDEX, *sorted(folder.glob(f"{PART}*/{INDEX}"))) if path.exists()]


def _shard_fault(folder: Path, shard: dict[str, Any]) -> str | None:
    """What is wrong with one shard, or None."""
    path = folder / shard["file"]
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != shard["bytes"] or hash_file(path) != shard["sha256"]:
        return f"{path.name} is damaged"
    return None


def cache_fault(folder: Path) -> str | None:
    """What is wrong with the soft targets in `folder`, or None; nothing is changed."""
    found = indexes(folder)
    if not found:
        return f"{folder / INDEX} is gone"
    if any(_read_index(path).get("format") != FORMAT for path in found):
        return f"{folder.name} holds soft targets in another version's format"
    faults = (_shard_fault(path.parent, shard) for path in found for shard in _read_index(path)["shards"])
    return next((fault for fault in faults if fault), None)


def pool_caches(theirs: Path, mine: Path) -> None:
    """Take over what the caches in `theirs` hold and those in `mine` do not, whole shards at a time.

    Folders of one name hold the same kind of targets (their names are made from `meta`); shards are linked where the
    disk can, and an example that two of them hold is there twice, to no harm.
    """
    for other in sorted(theirs.iterdir()):
        for index in indexes(other) if other.is_dir() else []:
            _take_shards(index, mine / other.name)


def _take_shards(index: Path, folder: Path) -> None:
    """The shards that `index` names and `folder` lacks, into `folder`."""
    offered = _read_index(index)
    kept = _read_index(folder / INDEX) if (folder / INDEX).exists() else {**offered, "shards": []}
    if offered["format"] != kept["format"] or offered["meta"] != kept["meta"]:
        return
    have = {shard["sha256"] for own in indexes(folder) for shard in _read_index(own)["shards"]}
    number = 1 + max((int(shard["file"].partition(".")[0]) for shard in kept["shards"]), default=-1)
    folder.mkdir(exist_ok=True)
    for shard in offered["shards"]:
        if shard["sha256"] in have or _shard_fault(index.parent, shard):
            continue
        name = f"{number:05d}.parquet"
        (folder / name).unlink(missing_ok=True)
        link_or_copy(str(index.parent / shard["file"]), str(folder / name))
        kept["shards"].append({**shard, "file": name})
        number += 1
    write_json(folder / INDEX, kept)


def _read_index(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise DataError(
            f"{path}: is damaged ({error}); remove the folder, and the teacher is asked again."
        ) from error


class CachedTeacher:
    """The teacher's kept targets, in the teacher's place."""

    def __init__(self, cache: SoftTargetCache) -> None:
        self.cache = cache
        self._reader = ThreadPoolExecutor(1, "soft-targets")
        """All reading is done there: a cache is for one thread at a time."""
        self._ahead: OrderedDict[tuple[str, ...], Future[Kept]] = OrderedDict()

    def expect(self, keys: Sequence[str]) -> None:
        """Begin to read what a later `signal` will ask for, so that the student need not wait for it.

        Of batches that nobody asks for in the end the oldest are forgotten.
        """
        if tuple(keys) not in self._ahead:
            self._ahead[tuple(keys)] = self._reader.submit(self._read, tuple(keys))
        while len(self._ahead) > BATCHES_AHEAD:
            self._ahead.popitem(last=False)[1].cancel()

    def signal(self, batch: Batch) -> Kept:
        """By the examples' keys, so that shuffling, accumulation, several ranks and resuming change nothing."""
        self.expect(batch["keys"])
        found = self._ahead.pop(tuple(batch["keys"])).result()
        return joined([found], batch["labels"].device)

    def _read(self, keys: tuple[str, ...]) -> Kept:
        return joined([self.cache.get(key) for key in keys], torch.device("cpu"))
