"""Where each example's targets lie, in 20 bytes an example: a dict would take as much memory as the targets' disk."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

UNSORTED = 2**16
"""Keys added before they are sorted in, at most: each takes ten times as much until then."""


class Keys:
    """Key -> (shard, row in it).  By 64 bits of the key's hash: whoever reads the row checks that it has the key."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._shards = np.empty(0, np.uint32)
        self._rows = np.empty(0, np.uint64)
        self._new: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._new)

    def add(self, keys: Sequence[str], shard: int) -> None:
        """The rows of a shard, in order."""
        self._new.update({_hash(key): (shard, row) for row, key in enumerate(keys)})
        if len(self._new) > min(UNSORTED, max(2**12, len(self._hashes) // 8)):
            self._sort_in()

    def find(self, key: str) -> tuple[int, int] | None:
        """(shard, row), or None."""
        wanted = _hash(key)
        if wanted in self._new:
            return self._new[wanted]
        place = int(np.searchsorted(self._hashes, np.uint64(wanted)))
        if place == len(self._hashes) or int(self._hashes[place]) != wanted:
            return None
        return int(self._shards[place]), int(self._rows[place])

    def _sort_in(self) -> None:
        """A key that comes again lies where it was put last."""
        hashes = np.concatenate([np.fromiter(self._new, np.uint64, len(self._new)), self._hashes])
        places = np.array(list(self._new.values()), np.uint64).reshape(-1, 2)
        shards = np.concatenate([places[:, 0].astype(np.uint32), self._shards])
        rows = np.concatenate([places[:, 1], self._rows])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._shards, self._rows = shards[first], rows[first]
        self._new = {}


def _hash(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
