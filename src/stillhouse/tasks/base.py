"""What every task offers; see `tasks/__init__.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encode import Example
from ..losses import Head
from ..measure import Metric
from ..models.machine import device

Batch = dict[str, Any]
"""Tensors by name, as a Trainer moves them about; `keys` and `targets` ride along."""


@dataclass(frozen=True)
class Written:
    """The student's own tokens at the N counted positions, and what the teacher makes of them."""

    tokens: Tensor
    """[N]"""
    reward: Tensor
    """[N], log p(teacher) − log q(student)."""
    later: Tensor
    """[N], its mean from each token to the end of its row."""


@dataclass(frozen=True)
class Scores:
    """What a model says at the counted positions of a batch, N of them."""

    hidden: Tensor
    """[N, H]; the logits themselves where `head.weight` is None."""
    head: Head
    labels: Tensor
    """[N] hard targets, -100 where there is none."""
    rows: Tensor
    """[N] which example of the batch each position belongs to, also where several share a sequence."""
    written: Written | None = None
    """What the student's own words are worth, if it wrote this batch."""
    reasons: Tensor | None = None
    """[N] whether each position's token is one of a rationale; None if no row of the batch has one."""


@dataclass(frozen=True)
class Layout:
    """How the tokens of a batch [B, T] belong to its N counted positions, for what compares layers."""

    tokens: Tensor
    """[B, T] mask of the M tokens whose layers are compared."""
    at: Tensor
    """[M] the counted position that each of them belongs to."""
    groups: Tensor
    """[B, T] number of the text that a token is of within its sequence, −1 for padding."""
    rows: Tensor
    """[N] row of each counted position."""
    owners: Tensor | None = None
    """[B, T] row that a token is of, −1 for padding; None if each row has a sequence of its own."""
    source: "Layout | None" = None
    """The same of what an encoder–decoder's encoder reads, where a counted position is a row of the batch, N = B; None for others."""

    def by_position(self, values: Tensor) -> Tensor:
        """[M] values of tokens -> [N], the mean over each position's tokens."""
        sums = values.new_zeros(len(self.rows)).index_add(0, self.at, values)
        return sums / torch.bincount(self.at, minlength=len(self.rows)).clamp_min(1)

    def row_means(self, hidden: Tensor) -> Tensor:
        """[B, T, H] -> [R, H], float32, over each row's tokens that are no padding; R = B unless rows share a sequence.  0 for a row
        without tokens.

        A product, because sums by index come in no fixed order on an accelerator.
        """
        owners, place = self.owners, hidden.device
        count = len(self.groups) if owners is None else int(owners.max()) + 1
        rows = torch.arange(count, device=place).unsqueeze(1)
        if owners is None:
            owners = rows.where(self.groups >= 0, -1)
        members = (owners.flatten() == rows).float()  # [R, B·T]
        with torch.autocast(place.type, enabled=False):
            sums = members @ hidden.flatten(0, 1).float()
        return sums / members.sum(1, keepdim=True).clamp_min(1.0)


class Task(Protocol):
    """One thing that models do."""

    name: str
    auto_class: str
    """The class of transformers that loads such a model."""
    metrics: dict[str, Metric]
    headline: str
    """The metric that retention is about."""
    unit: str
    """What throughput counts."""
    writes: bool
    """Whether its models write text."""
    redraws: bool
    """Whether an example may be read differently in each epoch; see `drawn`."""
    tokenizer: PreTrainedTokenizerBase
    labels: list[str]
    max_length: int

    outcomes: int
    """V: the real vocabulary, or the classes."""

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, ready for this task; see `models.load.load_model` for `head_seed`."""
        ...

    def verify(self, model: PreTrainedModel) -> None:
        """Raises: RecipeError if what this task computes from `model` is not what the model itself says."""
        ...

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """Rows -> (examples, rows dropped with "where" and "reason")."""
        ...

    def drawn(self, example: Example, seed: int, epoch: int) -> Example:
        """The example as it is read in that epoch: itself, unless the task draws something of it, as a mask is drawn."""
        ...

    def collate(self, examples: list[Example]) -> Batch:
        """Examples -> one batch: what the model reads, and `labels`."""
        ...

    def packs(self, model: PreTrainedModel) -> bool:
        """Whether rows may share a sequence of `model` (`data/packing.py`) without seeing one another."""
        ...

    def counted(self, batch: Batch) -> Tensor:
        """Mask over `labels` of the positions that a loss counts."""
        ...

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Masks [B, T] of the tokens that are no padding: of what the layers read that end in the head, and of an encoder's source."""
        ...

    def prompts(self, batch: Batch, tokens: int) -> list[Example]:
        """What the student goes on from in each row of a batch, as an example without its answer: the row's prompt, its source, or the
        first `tokens` of a plain text."""
        ...

    def layout(self, batch: Batch) -> Layout:
        """Which tokens belong to which counted position."""
        ...

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """Run `model` (or its DDP or FSDP wrapper) on a batch."""
        ...

    def silent(self, model: nn.Module) -> Scores:
        """The scores of no position: their kind, and the model's head, without gradients.  Nothing is read for them."""
        ...

    def statistics(self, mine: Scores, teacher: Scores, examples: list[Example]) -> dict[str, Tensor]:
        """Per-example sums from which `metrics` are computed: name -> [examples] or [examples, C]."""
        ...

    def side_by_side(
        self, models: Sequence[Scores], teacher: Scores | None, examples: list[Example]
    ) -> list[dict[str, Tensor]]:
        """`statistics` of several models that read the same batch, each beside the teacher; what it says is looked at once.

        Args: teacher: may be one of them; None: each is compared with itself.
        """
        ...

    def floor(self, train: list[Example], evaluated: list[Example]) -> dict[str, Any]:
        """The same statistics for who knows nothing but the training rows' frequencies."""
        ...


def of_no_position(head: Head) -> Scores:
    """What a model with this head says at no position."""
    none = torch.empty(0)
    return Scores(none, head.detached(), none, none)


def on_device(batch: Batch) -> Batch:
    """The batch with its tensors where the models are."""
    return {name: value.to(device()) if isinstance(value, Tensor) else value for name, value in batch.items()}


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside DDP, FSDP, torch.compile or PEFT's own wrapper."""
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        if isinstance(getattr(inner, "module", None), nn.Module):
            inner = inner.module
        elif callable(base := getattr(inner, "get_base_model", None)):
            inner = base()
        else:
            inner = inner._orig_mod
    return inner


def foretold(values: Tensor, counted: Tensor) -> Tensor:
    """[N] of the `values` [B, T] of a batch's tokens, those at its `counted` positions [B, T], or [B, T-1] where the first token of a
    row is nobody's prediction."""
    return values[:, values.shape[1] - counted.shape[1] :][counted]


def marked(examples: list[Example], starts: list[int], length: int) -> Batch:
    """`reasons` [B, length]: which of the examples' tokens, from `starts` on, are a rationale's; nothing if none is."""
    if not any(example.reasons for example in examples):
        return {}
    reasons = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, (example, start) in enumerate(zip(examples, starts, strict=True)):
        reasons[row, [place - start for place in example.reasons]] = True
    return {"reasons": reasons}


def padded(rows: list[list[int]], filling: int) -> tuple[Tensor, Tensor]:
    """([B, T] numbers with the filling on the right, [B, T] mask of those that are none of it)."""
    length = max(len(row) for row in rows)
    values = torch.full((len(rows), length), filling)
    for number, row in enumerate(rows):
        values[number, : len(row)] = torch.tensor(row)
    real = torch.arange(length) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    return values, real
