"""Reading rows of Parquet shards at random: files stay open, row groups stay decoded, both for a while."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .codec import Arrays

GROUPS_IN_MEMORY = 64
FILES_OPEN = 16


@dataclass(frozen=True)
class Block:
    """Some rows as flat arrays: of each column, row r is values[offsets[r]:offsets[r + 1]]."""

    keys: pa.ChunkedArray
    positions: np.ndarray[Any, Any]
    columns: dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]
    """name -> (offsets, values)"""

    @classmethod
    def of(cls, table: pa.Table) -> "Block":
        """From Parquet."""
        lists = {
            name: table.column(name).combine_chunks()
            for name in table.column_names
            if pa.types.is_list(table.schema.field(name).type)
        }
        flat = {name: (column.offsets.to_numpy(), column.values.to_numpy()) for name, column in lists.items()}
        return cls(table.column("key"), table.column("positions").to_numpy(), flat)

    def row(self, number: int) -> Arrays:
        """The lists of one row."""
        return {
            name: values[offsets[number] : offsets[number + 1]]
            for name, (offsets, values) in self.columns.items()
        }


class Reader:
    """Rows of the shards in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: OrderedDict[tuple[str, int | None], Block] = OrderedDict()
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def block(self, file: str, group: int | None) -> Block:
        """A shard, or one row group of it; whole shards stay in memory, of row groups those that were used last."""
        at = (file, group)
        if at not in self._blocks:
            opened = self._opened(file)
            self._blocks[at] = Block.of(opened.read() if group is None else opened.read_row_group(group))
            if group is not None and len(self._blocks) > GROUPS_IN_MEMORY:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(at)
        return self._blocks[at]

    def _opened(self, file: str) -> pq.ParquetFile:
        if file not in self._files:
            self._files[file] = pq.ParquetFile(self.folder / file)
            if len(self._files) > FILES_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(file)
        return self._files[file]
