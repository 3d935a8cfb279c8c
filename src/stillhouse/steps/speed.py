"""How many times as fast as its teacher a model reads: both in turn, so that a machine that slows down slows both.

The answer is the median of the pairs' ratios; between which values it lies follows from their ranks (a 95 % interval that
supposes nothing of how a machine is disturbed, for a number of pairs that is fixed beforehand; measuring ends early where it is
narrow, and then it holds a little less often).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

import torch
from transformers import PreTrainedModel

from ..data.encode import Example
from ..measure import middle
from ..models.machine import device, synchronise
from ..tasks import Task, on_device

ROWS = 4
FEW, MANY = 7, 61
"""Pairs that are timed: more and more of them until they agree."""
AGREED = 0.015
"""Half of the interval, as a share of the ratio, that is good enough."""
LONG_ENOUGH = 0.02
"""Seconds of one timing: fewer passes than that are repeated, for a clock and a scheduler disturb what is short."""
PATIENCE = 10.0
"""Seconds after which a noisy machine is taken as it is."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, and between what."""

    value: float
    low: float
    high: float


class Speed:
    """Measures models against one teacher on the same rows."""

    def __init__(self, teacher: PreTrainedModel, task: Task, examples: Sequence[Example]) -> None:
        longest = sorted(examples, key=lambda example: -len(example.input_ids))[:ROWS]
        self.teacher, self.task, self.batch = teacher, task, on_device(task.collate(longest))

    def times_as_fast(self, model: PreTrainedModel) -> Ratio:
        """Seconds of the teacher ÷ seconds of `model`."""
        model = model.to(device())
        passes = [self._passes(one) for one in (self.teacher, model)]
        ratios: list[float] = []
        began = time.perf_counter()
        while True:
            theirs, ours = (
                self._seconds(one, count) / count
                for one, count in zip((self.teacher, model), passes, strict=True)
            )
            ratios.append(theirs / ours)
            if len(ratios) < FEW:
                continue
            low, high = middle(ratios)
            found = Ratio(median(ratios), low, high)
            late = time.perf_counter() - began > PATIENCE
            if late or len(ratios) >= MANY or high - low <= 2 * AGREED * found.value:
                return found

    def _passes(self, model: PreTrainedModel) -> int:
        """How many passes take long enough, after a warm-up."""
        model.eval()
        self._seconds(model, 1)
        return max(1, ceil(LONG_ENOUGH / self._seconds(model, 1)))

    @torch.inference_mode()
    def _seconds(self, model: PreTrainedModel, passes: int) -> float:
        start = time.perf_counter()
        for _ in range(passes):
            scores = self.task.scores(model, self.batch)
            scores.head.logits(scores.hidden[:512])
        synchronise()
        return time.perf_counter() - start
