"""Lists of outcomes as bytes that compress: sorted, frequent outcomes first, and told by the gaps between them.

Of each position, how many outcomes there are (one byte), and of each outcome its gap, in planes: all low bytes, all next
bytes, …  A gap is the difference to the outcome before it at the same position (to 0 at the first) in a shard's own order:
by how often an outcome occurs in it, in powers of two, and then by id.  A compressor that weighs single bytes (zstd does, where
nothing repeats) comes within a tenth of what lists of independent draws can be told in; two-byte numbers side by side take a
quarter more.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .columns import Array

CODEC = pa.Codec("zstd", compression_level=19)


@dataclass(frozen=True)
class Order:
    """Of the outcomes of one shard."""

    classes: Array
    """[V], uint8: 0 for an outcome that does not occur, c for one that does 2^(c−1) to 2^c − 1 times."""
    ids: Array
    """[V], the outcomes from the most frequent class on."""

    @classmethod
    def of(cls, lists: Iterable[Array], outcomes: int) -> "Order":
        """From all ids of a shard."""
        times = np.zeros(outcomes, np.int64)
        for ids in lists:
            times += np.bincount(ids, minlength=outcomes)
        return cls.by(np.ceil(np.log2(times + 1)).astype(np.uint8))

    @classmethod
    def by(cls, classes: Array) -> "Order":
        """From the classes alone."""
        ids = np.argsort(-classes.astype(np.int16), kind="stable")
        return cls(classes, ids.astype(np.uint16 if len(ids) <= 2**16 else np.uint32))

    @classmethod
    def unpacked(cls, packed: bytes, outcomes: int) -> "Order":
        """As `packed` wrote it."""
        return cls.by(np.frombuffer(CODEC.decompress(packed, outcomes), np.uint8))

    def packed(self) -> bytes:
        """For a shard's metadata."""
        return bytes(CODEC.compress(self.classes.tobytes(), asbytes=True))

    @property
    def planes(self) -> int:
        """Bytes of a gap."""
        return 2 if len(self.ids) <= 2**16 else 3


def written_gaps(
    position: Array, ids: Array, positions: int, order: Order
) -> tuple[Array, list[Array], Array]:
    """Args: position: [M], rising; ids: [M], each at its position.
    Returns: (how many at each position [positions], planes of gaps [M] each, and the place in `ids` of each gap [M]).
    """
    rank = np.empty(len(order.ids), np.int64)
    rank[order.ids] = np.arange(len(order.ids))
    key = position * len(rank) + rank[ids]
    places = np.argsort(key)
    ranks = rank[ids[places]]
    first = np.diff(position, prepend=-1) > 0
    gaps = np.where(first, ranks, np.diff(ranks, prepend=0))
    planes = [(gaps >> 8 * number & 255).astype(np.uint8) for number in range(order.planes)]
    return np.bincount(position, minlength=positions), planes, places


def read_gaps(count: Array, planes: Sequence[Array], order: Order) -> Array:
    """Args: count: how many at each position; planes: of all their gaps [M].  Returns: ids [M]."""
    gaps = sum(plane.astype(np.int64) << 8 * number for number, plane in enumerate(planes))
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(gaps)])
    before = running[np.cumsum(count) - count]
    found: Array = order.ids[running[1:] - np.repeat(before, count)]
    return found
