"""Masked language modelling: encoders learn from plain text, by saying which tokens were hidden (see `data/masking.py`)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encode import IGNORED, Example
from ..data.masking import Masking, unmasked
from ..errors import RecipeError
from ..measure import TASK_METRICS
from ..models.heads import hidden_at_head, language_head, seen_by_wrapper, verify_head
from ..models.load import load_model
from ..models.sharded import is_sharded
from .base import Batch, Layout, Scores, of_no_position, padded, unwrap
from .panel import Panel, is_panel, load_panel
from .reading import frequency_floor, summed


class MaskedLM:
    """Say which tokens were hidden.  A position counts if its own token was drawn, and has a label for that."""

    name = "masked_lm"
    auto_class = "AutoModelForMaskedLM"
    metrics = TASK_METRICS[name]
    headline = "bits_per_token"
    unit = "rows/s"
    writes = False
    redraws = True

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: list[str]) -> None:
        self.tokenizer, self.max_length, self.labels = tokenizer, max_length, labels
        self.outcomes = int(max(tokenizer.get_vocab().values())) + 1
        """The real vocabulary, without the rows that pad the head."""
        self._masking = Masking(tokenizer, max_length)

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, in eval mode; an encoder without a head gets one, if `head_seed` says from which seed."""
        if is_panel(folder):
            return load_panel(self, folder, dtype)
        model = load_model(folder, self.auto_class, dtype, head_seed)
        self.verify(model)
        return model

    def verify(self, model: PreTrainedModel) -> None:
        """See `models.heads.verify_head`."""
        verify_head(model, self.outcomes)

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """Each text by itself, a long one in pieces; one without a token to hide is dropped."""
        rows = list(rows)
        examples = list(self._masking.encode(rows))
        used = {example.row for example in examples}
        dropped = [
            {"where": row["where"], "reason": "no token that could be hidden"}
            for row in rows
            if row["id"] not in used
        ]
        return examples, dropped

    def drawn(self, example: Example, seed: int, epoch: int) -> Example:
        """The same text with the tokens hidden that this seed and epoch draw."""
        return self._masking.drawn(example, seed, epoch)

    def collate(self, examples: list[Example]) -> Batch:
        """Pad to the longest row of the batch, on the right."""
        ids, real = padded([example.input_ids for example in examples], self.tokenizer.pad_token_id or 0)
        labels, _ = padded([example.labels for example in examples], IGNORED)
        return {
            "input_ids": ids,
            "attention_mask": real.long(),
            "labels": labels,
            "keys": [example.key for example in examples],
        }

    def packs(self, model: PreTrainedModel) -> bool:
        """Never: every token of a sequence sees all others."""
        return False

    def counted(self, batch: Batch) -> Tensor:
        """[B, T]: the tokens that were drawn."""
        mask: Tensor = batch["labels"] != IGNORED
        return mask

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Whatever is no padding."""
        return (batch["attention_mask"].bool(),)

    def prompts(self, batch: Batch, tokens: int) -> list[Example]:
        """It writes nothing."""
        raise RecipeError("rollouts: a masked language model writes no text; remove them.")

    def layout(self, batch: Batch) -> Layout:
        """Layers are compared at all tokens of a row, hidden or not; each belongs to one of the row's counted positions, of
        which each has as many as another, or one more."""
        tokens = batch["attention_mask"].bool()
        counted = self.counted(batch)
        rows = _rows_of(counted)
        many, wide = counted.sum(1, keepdim=True), tokens.sum(1, keepdim=True)
        place = tokens.long().cumsum(1) - 1
        first = many.cumsum(0) - many
        at = first + place * many // wide
        return Layout(tokens, at[tokens], tokens.long() - 1, rows)

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """Hidden states at the counted positions only, as the head's last product reads them; that is left to the loss."""
        if isinstance(model, Panel):
            return model.scores(self, batch)
        inner = unwrap(model)
        sharded = is_sharded(model)
        with hidden_at_head(inner, sharded) as caught:
            output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        mask = self.counted(batch)
        hidden = caught[-1][mask]
        return Scores(
            hidden=seen_by_wrapper(hidden, output.logits) if sharded else hidden,
            head=language_head(inner, self.outcomes),
            labels=batch["labels"][mask],
            rows=_rows_of(mask),
        )

    def silent(self, model: nn.Module) -> Scores:
        """The head, as `scores` has it."""
        if isinstance(model, Panel):
            return model.silent(self)
        return of_no_position(language_head(unwrap(model), self.outcomes))

    def statistics(self, mine: Scores, teacher: Scores, examples: list[Example]) -> dict[str, Tensor]:
        """Those of one model; see `side_by_side`."""
        return self.side_by_side([mine], None if teacher is mine else teacher, examples)[0]

    def side_by_side(
        self, models: Sequence[Scores], teacher: Scores | None, examples: list[Example]
    ) -> list[dict[str, Tensor]]:
        """The columns of MASKED_METRICS of each, summed over each example's counted positions."""
        return summed(models, teacher, self.outcomes, len(examples))

    def floor(self, train: list[Example], evaluated: list[Example]) -> dict[str, Any]:
        """Who only knows how frequent each token is in the training rows (with one more of each)."""
        special = self._masking.special
        counts = Counter(token for example in train for token in unmasked(example) if token not in special)
        return frequency_floor(counts, self.outcomes, evaluated)


def _rows_of(mask: Tensor) -> Tensor:
    """[B, T] mask of N positions -> [N] the row of each."""
    return torch.arange(len(mask), device=mask.device).unsqueeze(1).expand_as(mask)[mask]
