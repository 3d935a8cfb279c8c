"""What a task becomes when the teacher has another tokenizer: rows are the student's, and the teacher reads them its way."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.alignment import Alignment, Reading
from ..data.augment import MADE
from ..data.encode import Example, encode_labelled, read_examples
from ..data.vocabularies import Vocabularies
from ..errors import DataError, RecipeError
from ..files import hash_json
from ..models.load import load_tokenizer, same_tokenizer
from .base import Batch, Scores, Task, unwrap
from .causal_lm import CausalLM
from .classification import Classification

Messages = dict[str, list[dict[str, str]]]
"""Key of an example -> the conversation that it was made from."""


OF_THE_TEACHER = ("agree", "kl", "teacher_wrong", "repeats", "agree_at", "count_at")
"""Columns that compare with what the teacher says of the same token."""


def conversations(rows: Iterable[Mapping[str, Any]], examples: Iterable[Example]) -> Messages:
    """Those that the examples were made from, by the examples' keys; none of rows that are no conversations."""
    said = {row["id"]: row["messages"] for row in rows if "messages" in row}
    return {example.key: said[example.row] for example in examples if example.row in said}


@dataclass(frozen=True)
class TheirScores(Scores):
    """What the model with the other tokenizer says, at its own counted positions."""


class Bilingual(ABC):
    """Goes before a task in a class's bases: a model whose tokenizer is another one is handed the same text in its own tokens.

    Args: other: the same task in that tokenizer.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(self, other: Task) -> None:
        self.other = other
        self._others: WeakSet[nn.Module] = WeakSet()

    @abstractmethod
    def as_other(self, examples: list[Example]) -> list[Example]:
        """The examples in the other tokenizer."""

    def adopt(self, model: PreTrainedModel) -> PreTrainedModel:
        """Remember that this model reads in the other tokenizer."""
        self._others.add(model)
        return model

    def is_mine(self, folder: Path) -> bool:
        """Whether the student's tokenizer lies beside the model in `folder`, or else the other one.

        Raises: RecipeError if it is neither: the model would be handed ids that mean something else to it.
        """
        there = load_tokenizer(folder)
        why = same_tokenizer(there, self.tokenizer)
        if why is not None and (fault := same_tokenizer(there, self.other.tokenizer)) is not None:
            raise RecipeError(
                f"{folder}: its tokenizer is neither the student's ({why}) nor the teacher's ({fault}); put the model's own beside it."
            )
        return why is None

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, with whichever of the two tokenizers lies beside it."""
        if self.is_mine(folder):
            mine: PreTrainedModel = super().load(folder, dtype, head_seed)  # type: ignore[misc]
            return mine
        return self.adopt(self.other.load(folder, dtype, head_seed))

    def collate(self, examples: list[Example]) -> Batch:
        """As for one tokenizer; the examples ride along, to be read in the other."""
        return {**super().collate(examples), "examples": examples}  # type: ignore[misc]

    def is_other(self, model: nn.Module) -> bool:
        """Whether this model reads in the other tokenizer."""
        return unwrap(model) in self._others

    def others_scores(self, model: nn.Module, batch: Batch) -> Scores:
        """What it says, at its own counted positions."""
        theirs = self.other.collate(self.as_other(batch["examples"]))
        return self.other.scores(model, _moved(theirs, unwrap(model).device))


class BilingualLM(Bilingual, CausalLM):
    """Language modelling; the two models' distributions are over different tokens (see `losses.cross_tokenizer`).

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
        CausalLM.__init__(self, mine, max_length, [])
        Bilingual.__init__(self, CausalLM(theirs, max_length, []))
        self.alignment = Alignment(mine, theirs)
        self.messages = messages or {}

    @cached_property
    def vocabularies(self) -> Vocabularies:
        """What the one's tokens are in the other's; asked for once the rows are known, for conversations end in another way."""
        return Vocabularies(self.alignment.mine, self.alignment.theirs, chat=bool(self.messages))

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """As for one tokenizer; conversations are remembered, to be rendered in the other's template."""
        rows = list(rows)
        examples, dropped = super().encode(rows)
        self.messages |= conversations(rows, examples)
        return examples, dropped

    def packs(self, model: PreTrainedModel) -> bool:
        """Never: each row has a reading of its own, and the control must see the same batches."""
        return False

    def readings(self, examples: list[Example]) -> list[Reading]:
        """How the other model reads each example."""
        return [self.alignment.read(example, self.messages.get(example.key)) for example in examples]

    def as_other(self, examples: list[Example]) -> list[Example]:
        """The examples in the other tokenizer."""
        return [reading.example for reading in self.readings(examples)]

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """The student at its own counted positions; the other model at its own."""
        if not self.is_other(model):
            return super().scores(model, batch)
        found = self.others_scores(model, batch)
        return TheirScores(found.hidden, found.head, found.labels, found.rows)

    def silent(self, model: nn.Module) -> Scores:
        """Each has a head over its own tokens."""
        if not self.is_other(model):
            return super().silent(model)
        found = self.other.silent(model)
        return TheirScores(found.hidden, found.head, found.labels, found.rows)

    def side_by_side(
        self, models: Sequence[Scores], teacher: Scores | None, examples: list[Example]
    ) -> list[dict[str, Tensor]]:
        """As for one tokenizer, but that nothing is compared token by token; bytes are those that a model itself counted."""
        found = []
        for mine in models:
            (sums,) = super().side_by_side([mine], None, examples)
            if isinstance(mine, TheirScores):
                sizes = [float(example.bytes) for example in self.as_other(examples)]
                sums["bytes"] = torch.tensor(sizes, dtype=torch.float64)
            found.append({name: value for name, value in sums.items() if name not in OF_THE_TEACHER})
        return found


class BilingualClassification(Bilingual, Classification):
    """Classes are the same whatever tokens a text is cut into, so every term that compares classes serves as it is.

    An example's key is of what both models read: texts that are the same tokens to one of them only (capitals, rare words, a
    long end that is cut off) stay apart, and so do their kept targets.

    Args:
        theirs: the teacher's tokenizer.
        readings: a file of examples in its tokens, by our keys; those that are encoded here are known without it.
    """

    def __init__(
        self,
        mine: PreTrainedTokenizerBase,
        theirs: PreTrainedTokenizerBase,
        max_length: int,
        labels: list[str],
        readings: Path | None = None,
    ) -> None:
        Classification.__init__(self, mine, max_length, labels)
        Bilingual.__init__(self, Classification(theirs, max_length, labels))
        self._kept = readings

    @cached_property
    def readings(self) -> dict[str, Example]:
        """Key of an example -> the same text in the other's tokens."""
        return {} if self._kept is None else {one.key: one for one in read_examples(self._kept)}

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """As for one tokenizer, and in the other's tokens too, which are remembered."""
        rows = list(rows)
        examples, dropped = super().encode(rows)
        said = {row["id"]: row for row in rows}
        kept = [said[example.row] for example in examples]
        theirs = list(encode_labelled(kept, self.other.tokenizer, self.max_length, self.labels))
        examples = [
            replace(mine, key=hash_json([mine.key, their.key])[:32])
            for mine, their in zip(examples, theirs, strict=True)
        ]
        self.readings.update(
            {mine.key: replace(their, key=mine.key) for mine, their in zip(examples, theirs, strict=True)}
        )
        return examples, dropped

    def as_other(self, examples: list[Example]) -> list[Example]:
        """The examples in the other tokenizer.  One that was made of tokens has no text: the other reads what they say."""
        return [replace(self._reading(example), labels=example.labels) for example in examples]

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """Each model reads the rows in its own tokens."""
        return self.others_scores(model, batch) if self.is_other(model) else super().scores(model, batch)

    def _reading(self, example: Example) -> Example:
        known = self.readings.get(example.key)
        if known is None:
            if MADE not in example.row:
                raise DataError(
                    f"row {example.row}: nobody knows how the teacher's tokenizer cuts it; give rows of text, not examples."
                )
            row = {"id": example.row, "text": self._said(example.input_ids)}
            (known,) = encode_labelled([row], self.other.tokenizer, self.max_length, self.labels)
        return known

    def _said(self, ids: list[int]) -> str:
        """The text of some tokens; a mask stays one, where the other tokenizer has any."""
        mine, theirs = self.tokenizer.mask_token, self.other.tokenizer.mask_token
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.mask_token_id}
        text = str(self.tokenizer.decode([token for token in ids if token not in special]))
        return text.replace(mine, theirs or "") if mine else text


def _moved(batch: Batch, place: torch.device) -> Batch:
    return {name: value.to(place) if isinstance(value, Tensor) else value for name, value in batch.items()}


def voice(task: Task, model: Any) -> Task:
    """The task in the tokenizer that `model` reads."""
    return task.other if isinstance(task, Bilingual) and task.is_other(model) else task


def as_read_by(task: Task, model: Any, examples: list[Example]) -> list[Example]:
    """The examples in the tokenizer that `model` reads."""
    return task.as_other(examples) if isinstance(task, Bilingual) and task.is_other(model) else examples
