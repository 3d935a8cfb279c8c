"""Order and randomness as functions of (seed, epoch, index), so that a run can stop anywhere and go on bit for bit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from ..data.encode import Example
from ..errors import RecipeError
from ..seeds import draw_seed
from ..tasks import Task

IntArray = np.ndarray[Any, np.dtype[np.int64]]


class SeededOrder(torch.utils.data.Sampler[int]):
    """All rows once an epoch, in an order that depends on the seed, the epoch and the rows' lengths alone.

    Rows of like length come together, so that little of a batch is padding: a permutation is cut into windows of some
    batches, each window is sorted by length, and its batches come in a drawn order.

    Args: batch_size: rows of a whole optimiser step, so that it has the same ones on one process and on several.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng(draw_seed(self.seed, "order", self.epoch))
        order = generator.permutation(len(self.lengths))
        if len(set(self.lengths.tolist())) > 1:
            order = self._grouped(order, generator)
        return iter(order.tolist())

    def _grouped(self, order: IntArray, generator: np.random.Generator) -> IntArray:
        """The same rows, with batches of like length; a last, incomplete batch stays last."""
        whole = len(order) // self.batch_size * self.batch_size
        window = WINDOW_BATCHES * self.batch_size
        pieces = [order[start : min(start + window, whole)] for start in range(0, whole, window)]
        alike = [piece[np.argsort(self.lengths[piece], kind="stable")] for piece in pieces]
        batches = np.concatenate(alike or [order[:0]]).reshape(-1, self.batch_size)
        drawn = batches[generator.permutation(len(batches))].ravel()
        return np.concatenate([drawn, order[whole:]])


class EachEpoch(torch.utils.data.Dataset[Example]):
    """Rows of which a task draws something anew in each epoch, such as what is hidden: a function of (seed, epoch, row)."""

    def __init__(
        self, rows: Sequence[Example], task: Task, order: SeededOrder, args: TrainingArguments
    ) -> None:
        """Args: order: who knows the seed and the epoch.

        Raises: RecipeError for workers that outlive an epoch: each has a copy of the order, and never hears of the next one.
        """
        if args.dataloader_persistent_workers:
            raise RecipeError(
                "dataloader_persistent_workers: such workers would hide the first epoch's tokens in all epochs; set it to False."
            )
        self.rows, self.task, self.order = rows, task, order

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Example:
        return self.task.drawn(self.rows[number], self.order.seed, self.order.epoch)


WINDOW_BATCHES = 32
"""Batches among which rows are sorted by length: enough for little padding, few enough that batches stay random."""
