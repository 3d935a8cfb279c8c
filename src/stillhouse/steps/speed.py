"""How many times as fast as its teacher a model reads: both in turn, so that a machine that slows down slows both."""

import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..data.encode import Example
from ..models.machine import device, synchronise
from ..tasks import Task, on_device

REPEATS = 5
ROWS = 4


class Speed:
    """Measures models against one teacher on the same rows."""

    def __init__(self, teacher: PreTrainedModel, task: Task, examples: Sequence[Example]) -> None:
        longest = sorted(examples, key=lambda example: -len(example.input_ids))[:ROWS]
        self.teacher, self.task, self.batch = teacher, task, on_device(task.collate(longest))

    def times_as_fast(self, model: PreTrainedModel) -> float:
        """Seconds of the teacher ÷ seconds of `model`, the shortest of several turns each."""
        model = model.to(device())
        shortest = [float("inf"), float("inf")]
        for _ in range(REPEATS):
            for which, one in enumerate((self.teacher, model)):
                start = time.perf_counter()
                self._read(one)
                synchronise()
                shortest[which] = min(shortest[which], time.perf_counter() - start)
        return shortest[0] / shortest[1]

    @torch.inference_mode()
    def _read(self, model: PreTrainedModel) -> None:
        scores = self.task.scores(model, self.batch)
        scores.head.logits(scores.hidden[:512])
