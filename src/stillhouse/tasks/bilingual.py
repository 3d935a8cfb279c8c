"""Language modelling when the teacher has another tokenizer: rows are the student's, and the teacher reads them its way."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.alignment import Alignment, Reading
from ..data.encode import Example
from ..data.vocabularies import Vocabularies
from ..models.load import load_tokenizer, same_tokenizer
from .base import Batch, Scores, Task, unwrap
from .causal_lm import CausalLM

Messages = dict[str, list[dict[str, str]]]
"""Key of an example -> the conversation that it was made from."""


OF_THE_TEACHER = ("agree", "kl", "teacher_wrong", "repeats", "agree_at", "count_at")
"""Columns that compare with what the teacher says of the same token."""


@dataclass(frozen=True)
class TheirScores(Scores):
    """What the model with the other tokenizer says, at its own counted positions."""


class Bilingual(CausalLM):
    """The student's task.  A model whose tokenizer is another one is handed the same text in its own tokens.

    Args:
        theirs: the teacher's tokenizer.
        messages: of rows that are conversations, so that each model reads them in its own template.
    """

    def __init__(
        self,
        mine: PreTrainedTokenizerBase,
        theirs: PreTrainedTokenizerBase,
        max_length: int,
        messages: Messages | None = None,
    ) -> None:
        super().__init__(mine, max_length, [])
        self.other = CausalLM(theirs, max_length, [])
        self.alignment = Alignment(mine, theirs)
        self.messages = messages or {}
        self._others: WeakSet[nn.Module] = WeakSet()

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """What the one's tokens are in the other's; asked for once the rows are known, for conversations end in another way."""
        return Vocabularies(self.alignment.mine, self.alignment.theirs, chat=bool(self.messages))

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """As for one tokenizer; conversations are remembered, to be rendered in the other's template."""
        rows = list(rows)
        examples, dropped = super().encode(rows)
        said = {row["id"]: row["messages"] for row in rows if "messages" in row}
        self.messages |= {example.key: said[example.row] for example in examples if example.row in said}
        return examples, dropped

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, with whichever of the two tokenizers lies beside it."""
        if same_tokenizer(load_tokenizer(folder), self.tokenizer) is None:
            return super().load(folder, dtype, head_seed)
        return self.adopt(self.other.load(folder, dtype, head_seed))

    def adopt(self, model: PreTrainedModel) -> PreTrainedModel:
        """Remember that this model reads in the other tokenizer."""
        self._others.add(model)
        return model

    def collate(self, examples: list[Example]) -> Batch:
        """As for one tokenizer; the examples ride along, to be read in the other."""
        return {**super().collate(examples), "examples": examples}

    def packs(self, model: PreTrainedModel) -> bool:
        """Never: each row has a reading of its own, and the control must see the same batches."""
        return False

    def readings(self, examples: list[Example]) -> list[Reading]:
        """How the other model reads each example."""
        return [self.alignment.read(example, self.messages.get(example.key)) for example in examples]

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """The student at its own counted positions; the other model at its own."""
        inner = unwrap(model)
        if inner not in self._others:
            return super().scores(model, batch)
        examples = [reading.example for reading in self.readings(batch["examples"])]
        found = self.other.scores(model, _moved(self.other.collate(examples), inner.device))
        return TheirScores(found.hidden, found.head, found.labels, found.rows)

    @torch.no_grad()
    def statistics(self, mine: Scores, teacher: Scores, examples: list[Example]) -> dict[str, Tensor]:
        """As for one tokenizer, but that nothing is compared token by token; bytes are those that the model itself counted."""
        sums = super().statistics(mine, mine, examples)
        if isinstance(mine, TheirScores):
            sizes = [float(reading.example.bytes) for reading in self.readings(examples)]
            sums["bytes"] = torch.tensor(sizes, dtype=torch.float64)
        return {name: value for name, value in sums.items() if name not in OF_THE_TEACHER}


def _moved(batch: Batch, place: torch.device) -> Batch:
    return {name: value.to(place) if isinstance(value, Tensor) else value for name, value in batch.items()}


def voice(task: Task, model: Any) -> Task:
    """The task in the tokenizer that `model` reads."""
    return task.other if isinstance(task, Bilingual) and unwrap(model) in task._others else task


def as_read_by(task: Task, model: Any, examples: list[Example]) -> list[Example]:
    """The examples in the tokenizer that `model` reads."""
    if isinstance(task, Bilingual) and voice(task, model) is not task:
        return [reading.example for reading in task.readings(examples)]
    return examples
