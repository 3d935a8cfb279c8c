"""A teacher with another tokenizer: it reads the student's rows in its own tokens, and says where both stand alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.alignment import Reading
from ..tasks import Batch
from ..tasks.bilingual import BilingualLM
from .local import LocalTeacher
from .targets import Crossed


@dataclass(frozen=True)
class Foreign:
    """Asks a Distiller for such a teacher: `Distiller(teacher=Foreign(model, tokenizer))`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class CrossTeacher:
    """Runs beside the student, like a LocalTeacher, but on its own tokens."""

    def __init__(self, model: PreTrainedModel, task: BilingualLM) -> None:
        self.task = task
        self._local = LocalTeacher(model, task.other)

    def signal(self, batch: Batch) -> Crossed:
        """What it says at its own counted positions, and the spans that both cut alike."""
        place = batch["labels"].device
        if self._local.place != place:
            self._local.model.to(place)
        shared = torch.tensor(self.task.vocabularies.shared, dtype=torch.long, device=place).reshape(-1, 2)
        readings = self.task.readings(batch["examples"])
        made = self.task.other.collate([reading.example for reading in readings])
        theirs = {n: value.to(place) if isinstance(value, Tensor) else value for n, value in made.items()}
        mine = [example.counted for example in batch["examples"]]
        spans = torch.tensor(list(_over_the_batch(mine, readings)), dtype=torch.long, device=place)
        return Crossed(
            dense=self._local.signal(theirs),
            tokens=theirs["labels"][:, 1:][self.task.other.counted(theirs)],
            spans=spans.reshape(-1, 4),
            positions=sum(mine),
            mine=shared[:, 0],
            theirs=shared[:, 1],
            nearest=self._nearest,
        )

    def _nearest(self, ids: Tensor) -> Tensor:
        found = self.task.vocabularies.nearest(ids.flatten().tolist())
        return torch.tensor(found, device=ids.device).reshape(ids.shape)


def _over_the_batch(mine: list[int], readings: list[Reading]) -> Iterator[tuple[int, int, int, int]]:
    """Each row's spans, counted from the batch's first position on."""
    theirs = [reading.example.counted for reading in readings]
    before = zip(accumulate(mine, initial=0), accumulate(theirs, initial=0), strict=True)
    for (own, other), reading in zip(before, readings, strict=False):
        for a, b, c, d in reading.spans:
            yield a + own, b + own, c + other, d + other
