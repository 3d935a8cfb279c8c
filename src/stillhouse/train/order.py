"""Order and randomness as functions of (seed, epoch, index), so that a run can stop anywhere and go on bit for bit."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def draw_seed(seed: int, *what: int | str) -> int:
    """A seed of its own for everything that draws; 63 bits."""
    text = ":".join(map(str, (seed, *what)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class SeededOrder(torch.utils.data.Sampler[int]):
    """All rows once an epoch, in an order that depends on the seed and the epoch alone."""

    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng(draw_seed(self.seed, "order", self.epoch))
        return iter(generator.permutation(self.rows).tolist())
