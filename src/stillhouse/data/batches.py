"""Batches of rows of like length, so that little of what a model reads is padding; and what was found, in the rows' own order."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .encode import Example


def like_lengths(examples: Sequence[Example], size: int) -> list[list[int]]:
    """Places of the examples in batches of at most `size`, the longest first; a function of the examples, whatever their order."""
    order = sorted(range(len(examples)), key=lambda at: (-len(examples[at].input_ids), examples[at].key))
    return [order[start : start + size] for start in range(0, len(order), size)]


def in_order(parts: Sequence[dict[str, Any]], batches: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Column -> [rows, …], from what was found batch by batch ([rows of the batch, …] each) in `batches` of `like_lengths`."""
    back = np.argsort(np.concatenate([np.asarray(some, dtype=np.int64) for some in batches]))
    return {name: np.concatenate([np.asarray(part[name]) for part in parts])[back] for name in parts[0]}
