"""Parquet shards: written row group by row group, and read at random.

Files stay open and row groups stay decoded, both for a while.  A shard's metadata says what its targets are (`stillhouse`,
JSON), in which order outcomes are counted (`classes`, see `gaps`), and the nats of a step (`step`, see `codec`).
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .codec import STEP, Arrays, columns, order_of
from .columns import Array, flat, numbers, texts
from .gaps import Order

GROUPS_IN_MEMORY = 32
FILES_OPEN = 16
LEVEL = 15
"""Of zstd."""


@dataclass(frozen=True)
class Row:
    """What a shard holds of one example."""

    key: str
    row: str
    positions: int
    values: Arrays
    """As `codec.encoded` gives them."""


def write_shard(path: Path, rows: Sequence[Row], meta: dict[str, Any], in_group: int) -> None:
    """Args: in_group: rows in a row group; no more of them are put into columns at a time."""
    order = order_of([row.values for row in rows], meta)
    says = {b"stillhouse": json.dumps(meta).encode()} | (
        {} if order is None else {b"classes": order.packed(), b"step": str(STEP).encode()}
    )
    writer = None
    try:
        for start in range(0, len(rows), in_group):
            some = rows[start : start + in_group]
            table = pa.table(
                {
                    "key": texts([row.key for row in some]),
                    "row": texts([row.row for row in some]),
                    "positions": numbers(np.array([row.positions for row in some], np.int32)),
                    **columns([row.values for row in some], meta, order),
                }
            )
            # bytes are compressed as they are: a dictionary's numbers are of 14 bits or so, which hides what repeats;
            # of float16 all first bytes and then all second ones, or they hide each other
            writer = writer or pq.ParquetWriter(
                path, table.schema, compression="zstd", compression_level=LEVEL, write_statistics=False,
                use_dictionary=["row"], use_byte_stream_split=["log_p.list.element"] if order is None else False,
            )  # fmt: skip
            writer.write_table(table, row_group_size=in_group)
        if writer is not None:
            writer.add_key_value_metadata(says)
    finally:
        if writer is not None:
            writer.close()


@dataclass(frozen=True)
class Block:
    """Some rows as flat arrays: of each column, row r is values[offsets[r]:offsets[r + 1]]."""

    keys: pa.ChunkedArray
    positions: Array
    columns: dict[str, tuple[Array, Array]]
    """name -> (offsets, values)"""
    order: Order | None

    @classmethod
    def of(cls, table: pa.Table, order: Order | None) -> "Block":
        """From Parquet."""
        parts = {
            name: flat(table.column(name))
            for name in table.column_names
            if name not in ("key", "row", "positions")
        }
        return cls(table.column("key"), flat(table.column("positions"))[1], parts, order)

    def row(self, number: int) -> Arrays:
        """The values of one row."""
        return {
            name: values[offsets[number] : offsets[number + 1]]
            for name, (offsets, values) in self.columns.items()
        }


def keys_of(path: Path) -> list[str]:
    """The keys of a shard's rows, in order; without pyarrow's machinery for data sets, which takes tens of megabytes."""
    with pq.ParquetFile(path) as opened:
        keys: list[str] = opened.read(columns=["key"], use_threads=False).column("key").to_pylist()
    return keys


class Reader:
    """Rows of the shards in a folder."""

    def __init__(self, folder: Path, outcomes: int) -> None:
        self.folder, self.outcomes = folder, outcomes
        self._blocks: OrderedDict[tuple[str, int | None], Block] = OrderedDict()
        self._files: OrderedDict[str, tuple[pq.ParquetFile, Order | None]] = OrderedDict()

    def block(self, file: str, group: int | None) -> Block:
        """A shard, or one row group of it; whole shards stay in memory, of row groups those that were used last."""
        at = (file, group)
        if at not in self._blocks:
            opened, order = self._opened(file)
            self._blocks[at] = Block.of(
                opened.read() if group is None else opened.read_row_group(group), order
            )
            if group is not None and len(self._blocks) > GROUPS_IN_MEMORY:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(at)
        return self._blocks[at]

    def _opened(self, file: str) -> tuple[pq.ParquetFile, Order | None]:
        if file not in self._files:
            opened = pq.ParquetFile(self.folder / file)
            classes = (opened.metadata.metadata or {}).get(b"classes")
            order = None if classes is None else Order.unpacked(classes, self.outcomes)
            self._files[file] = opened, order
            if len(self._files) > FILES_OPEN:
                self._files.popitem(last=False)[1][0].close()
        self._files.move_to_end(file)
        return self._files[file]
