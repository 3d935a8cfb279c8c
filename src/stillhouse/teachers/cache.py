"""Soft targets on disk: asked for once, kept for ever, and checked before they are believed.

A folder of Parquet shards (zstd; pandas reads them) and index.json, which is written after each shard and names its
SHA-256.  A row is one example, found by its key (a hash of token ids, borders and counted positions), never by its place
in a batch.  A shard that is not in the index does not exist; one that is damaged is found when the cache is opened, and
only its rows are asked for again.

    key        the example's key
    row        id of the row it was made from
    positions  N, its counted positions
    …          the targets of these positions as lists (see `codec`)

Source of keeping targets of a fixed teacher: Hinton et al. 2015, arXiv:1503.02531.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.encode import Example
from ..errors import DataError
from ..files import atomic, hash_file, link_or_copy, read_json, sweep_parts, write_json
from ..tasks import Batch
from .codec import Arrays, decoded, schema
from .targets import Kept, joined

INDEX = "index.json"
FORMAT = 2
GROUP_VALUES = 2**15
"""Kept outcomes in a row group, about: what is decoded to find one row of a cache that does not fit in memory."""
GROUPS_IN_MEMORY = 64
FILES_OPEN = 16
BYTES_IN_MEMORY = 16 * 2**20
"""A cache whose shards are smaller than this together (on disk) is kept decoded in memory once read."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one example."""

    example: Example
    columns: Arrays
    """As `codec.encoded` gives them."""

    @property
    def values(self) -> int:
        """How many outcomes were kept, over all positions."""
        return len(self.columns["ids"])

    @property
    def positions(self) -> int:
        """N: how many positions it has targets for."""
        return self.example.counted


class SoftTargetCache:
    """Reads and writes one such folder."""

    def __init__(self, folder: Path, meta: dict[str, Any], say: Callable[[str], None] = print) -> None:
        """Open `folder`, or begin it.

        Args: meta: what the targets depend on (teacher, temperature, top_k or samples, outcomes, …); a folder that holds other ones is refused.
        Raises: DataError if the folder belongs to other targets.
        """
        self.folder, self.meta, self._say = folder, meta, say
        folder.mkdir(parents=True, exist_ok=True)
        sweep_parts(folder)
        self.shards: list[dict[str, Any]] = []
        self._where: dict[str, tuple[str, int]] = {}
        self._in_group: dict[str, int] = {}
        self._bytes = 0
        self._blocks: OrderedDict[tuple[str, int | None], _Block] = OrderedDict()
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        if (folder / INDEX).exists():
            saved = _read_index(folder / INDEX)
            if saved.get("format") != FORMAT:
                raise DataError(
                    f"{folder}: holds soft targets in another version's format; remove it, and the teacher is asked again."
                )
            if saved["meta"] != meta:
                raise DataError(f"{folder}: holds soft targets of {saved['meta']}, not of {meta}.")
            self._open(saved["shards"])
        for path in folder.glob("*.parquet"):
            if path.name not in {shard["file"] for shard in self.shards}:
                path.unlink()

    @property
    def temperature(self) -> float:
        """At which the targets were taken."""
        return float(self.meta["temperature"])

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def _open(self, shards: list[dict[str, Any]]) -> None:
        for shard in shards:
            fault = _shard_fault(self.folder, shard)
            if fault is None:
                self._admit(shard)
                continue
            self._say(f"soft targets: {fault}; its {shard['rows']} rows will be asked for again")
        if len(self.shards) < len(shards):
            self._write_index()

    def _admit(self, shard: dict[str, Any]) -> None:
        self.shards.append(shard)
        self._bytes += shard["bytes"]
        self._in_group[shard["file"]] = shard["rows_in_group"]
        keys = pq.read_table(self.folder / shard["file"], columns=["key"]).column("key").to_pylist()
        self._where.update({key: (shard["file"], number) for number, key in enumerate(keys)})

    def _write_index(self) -> None:
        write_json(self.folder / INDEX, {"format": FORMAT, "meta": self.meta, "shards": self.shards})

    def add(self, entries: list[Entry]) -> None:
        """Write one shard and then name it in the index."""
        number = 1 + max((int(shard["file"].partition(".")[0]) for shard in self.shards), default=-1)
        path = self.folder / f"{number:05d}.parquet"
        columns = {
            "key": pa.array([entry.example.key for entry in entries]),
            "row": pa.array([entry.example.row for entry in entries]),
            "positions": pa.array([entry.positions for entry in entries], pa.int32()),
        }
        for name, kind in schema(self.meta).items():
            columns[name] = pa.array([entry.columns[name] for entry in entries], kind)
        in_group = max(1, GROUP_VALUES * len(entries) // max(1, sum(entry.values for entry in entries)))
        with atomic(path) as part:
            pq.write_table(pa.table(columns), part, compression="zstd", row_group_size=in_group)
        del columns
        pa.default_memory_pool().release_unused()  # or it keeps what the largest shard took
        shard = {
            "file": path.name,
            "rows": len(entries),
            "rows_in_group": in_group,
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
        self._admit(shard)
        self._write_index()

    def get(self, key: str) -> Kept:
        """The targets of an example's N positions.  Raises: DataError if nobody labelled it."""
        if key not in self._where:
            raise DataError(
                f"{self.folder}: has no soft targets for the example {key}; run the label stage again."
            )
        file, number = self._where[key]
        if self._bytes <= BYTES_IN_MEMORY:
            block, row = self._block(file, None), number
        else:
            in_group = self._in_group[file]
            block, row = self._block(file, number // in_group), number % in_group
        return decoded(block.row(row), int(block.positions[row]), self.meta)

    def _block(self, file: str, group: int | None) -> "_Block":
        """A shard, or one row group of it, decoded; a small cache stays in memory, of a large one what was used last."""
        at = (file, group)
        if at not in self._blocks:
            opened = self._open_file(file)
            self._blocks[at] = _Block.of(opened.read() if group is None else opened.read_row_group(group))
            if group is not None and len(self._blocks) > GROUPS_IN_MEMORY:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(at)
        return self._blocks[at]

    def _open_file(self, file: str) -> pq.ParquetFile:
        if file not in self._files:
            self._files[file] = pq.ParquetFile(self.folder / file)
            if len(self._files) > FILES_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(file)
        return self._files[file]


@dataclass(frozen=True)
class _Block:
    """Some rows as flat arrays: of each column, row r is values[offsets[r]:offsets[r + 1]]."""

    positions: np.ndarray[Any, Any]
    columns: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    """name -> (offsets, values)"""

    @classmethod
    def of(cls, table: pa.Table) -> "_Block":
        lists = {
            name: table.column(name).combine_chunks()
            for name in table.column_names
            if pa.types.is_list(table.schema.field(name).type)
        }
        flat = {name: (column.offsets.to_numpy(), column.values.to_numpy()) for name, column in lists.items()}
        return cls(table.column("positions").to_numpy(), flat)

    def row(self, number: int) -> Arrays:
        return {
            name: values[offsets[number] : offsets[number + 1]]
            for name, (offsets, values) in self.columns.items()
        }


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
    if not (folder / INDEX).exists():
        return f"{folder / INDEX} is gone"
    faults = (_shard_fault(folder, shard) for shard in _read_index(folder / INDEX)["shards"])
    return next((fault for fault in faults if fault), None)


def pool_caches(theirs: Path, mine: Path) -> None:
    """Take over what the caches in `theirs` hold and those in `mine` do not, whole shards at a time.

    Folders of one name hold the same kind of targets (their names are made from `meta`); shards are linked where the
    disk can, and an example that two of them hold is there twice, to no harm.
    """
    for other in theirs.glob(f"*/{INDEX}"):
        folder = mine / other.parent.name
        offered = _read_index(other)
        kept = _read_index(folder / INDEX) if (folder / INDEX).exists() else {**offered, "shards": []}
        if offered["format"] != kept["format"] or offered["meta"] != kept["meta"]:
            continue
        have = {shard["sha256"] for shard in kept["shards"]}
        number = 1 + max((int(shard["file"].partition(".")[0]) for shard in kept["shards"]), default=-1)
        folder.mkdir(exist_ok=True)
        for shard in offered["shards"]:
            if shard["sha256"] in have or _shard_fault(other.parent, shard):
                continue
            name = f"{number:05d}.parquet"
            (folder / name).unlink(missing_ok=True)
            link_or_copy(str(other.parent / shard["file"]), str(folder / name))
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

    def signal(self, batch: Batch) -> Kept:
        """By the examples' keys, so that shuffling, accumulation, several ranks and resuming change nothing."""
        return joined([self.cache.get(key) for key in batch["keys"]], batch["labels"].device)
