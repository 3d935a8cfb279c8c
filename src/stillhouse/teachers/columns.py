"""Columns of Arrow from numpy, by their buffers: `pyarrow.array` would load pandas, which takes 30 MB."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Array = np.ndarray[Any, Any]


def numbers(values: Array) -> pa.Array:
    """One number a row."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def lists(values: Sequence[Array]) -> pa.Array:
    """A list of numbers a row."""
    flat = numbers(np.concatenate(values))
    offsets = pa.py_buffer(np.cumsum([0, *map(len, values)]).astype(np.int32))
    return pa.Array.from_buffers(pa.list_(flat.type), len(values), [None, offsets], children=[flat])


def pieces(values: Array, ends: Array) -> pa.Array:
    """[M] bytes, cut at `ends` into one value for each row."""
    return _strings(pa.binary(), pa.py_buffer(np.ascontiguousarray(values)), ends)


def texts(values: Sequence[str]) -> pa.Array:
    """A text a row."""
    raw = [value.encode() for value in values]
    return _strings(pa.string(), pa.py_buffer(b"".join(raw)), np.cumsum([len(one) for one in raw]))


def flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """(offsets, values) of a column of `lists`, `pieces` or `numbers`: row r is values[offsets[r]:offsets[r + 1]]."""
    whole = column.combine_chunks()
    if pa.types.is_list(whole.type):
        values = whole.values
        return _offsets(whole), np.frombuffer(_of(values), values.type.to_pandas_dtype(), len(values))
    if pa.types.is_binary(whole.type):
        return _offsets(whole), np.frombuffer(whole.buffers()[2] or b"", np.uint8)
    own = np.frombuffer(_of(whole), whole.type.to_pandas_dtype())
    return np.arange(len(whole) + 1), own[whole.offset : whole.offset + len(whole)]


def _of(column: pa.Array) -> Any:
    return column.buffers()[1] or b""


def _offsets(column: pa.Array) -> Array:
    return np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]


def _strings(kind: pa.DataType, data: pa.Buffer, ends: Array) -> pa.Array:
    offsets = pa.py_buffer(np.concatenate([[0], ends]).astype(np.int32))
    return pa.Array.from_buffers(kind, len(ends), [None, offsets, data])
