"""Sequence classification: one of C labels for a text or a pair of texts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encode import Example, encode_labelled
from ..errors import RecipeError
from ..losses import Head
from ..measure import TASK_METRICS, class_prior_rows, classification_rows
from ..models.load import label_names, load_config, load_model
from .base import Batch, Layout, Scores, of_no_position
from .panel import Panel, is_panel, load_panel
from .told import Told, is_told, load_told
from .zero_shot import ZeroShot, is_zero_shot, load_zero_shot


class Classification:
    """Choose one of `labels`.  Every row counts; one without a label counts for the teacher's soft targets only."""

    name = "classification"
    auto_class = "AutoModelForSequenceClassification"
    metrics = TASK_METRICS[name]
    headline = "accuracy"
    unit = "rows/s"
    writes = False
    redraws = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: list[str]) -> None:
        self.tokenizer, self.max_length, self.labels = tokenizer, max_length, labels
        self.outcomes = len(labels)
        """C: the classes."""

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, in eval mode, with its outputs in the order of `labels`."""
        if is_panel(folder):
            return load_panel(self, folder, dtype)
        if is_zero_shot(folder):
            return load_zero_shot(folder, dtype)
        if is_told(folder):
            return load_told(folder)
        model = load_model(
            folder,
            self.auto_class,
            dtype,
            head_seed,
            num_labels=len(self.labels),
            id2label=dict(enumerate(self.labels)),
            label2id={label: number for number, label in enumerate(self.labels)},
        )
        if model.config.pad_token_id is None:  # a decoder finds the last real token of a row by it
            model.config.pad_token_id = self.tokenizer.pad_token_id
        return model

    def verify(self, model: PreTrainedModel) -> None:
        """One output a label."""
        if model.config.num_labels != self.outcomes:
            raise RecipeError(
                f"{type(model).__name__} has {model.config.num_labels} outputs for {self.outcomes} labels; "
                "load it with num_labels of the data."
            )

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """One example a row, cut at max_length."""
        known, dropped, kept = set(self.labels), [], []
        for row in rows:
            if row.get("label") is not None and row["label"] not in known:
                dropped.append(
                    {
                        "where": row["where"],
                        "reason": f"label {row['label']!r} is not among the training labels",
                    }
                )
            else:
                kept.append(row)
        return list(encode_labelled(kept, self.tokenizer, self.max_length, self.labels)), dropped

    def drawn(self, example: Example, seed: int, epoch: int) -> Example:
        """The same in every epoch."""
        return example

    def collate(self, examples: list[Example]) -> Batch:
        """Pad to the longest row of the batch."""
        padded = self.tokenizer.pad(
            {"input_ids": [example.input_ids for example in examples]}, return_tensors="pt"
        )
        batch: Batch = {
            "input_ids": padded["input_ids"],
            "attention_mask": padded["attention_mask"],
            "labels": torch.tensor([example.labels[0] for example in examples]),
            "keys": [example.key for example in examples],
        }
        if "token_type_ids" in self.tokenizer.model_input_names:
            second = torch.tensor(
                [example.starts[1] if len(example.starts) > 1 else 1 << 30 for example in examples]
            )
            at = torch.arange(batch["input_ids"].shape[1])
            batch["token_type_ids"] = (at >= second.unsqueeze(1)).long() * batch["attention_mask"]
        return batch

    def packs(self, model: PreTrainedModel) -> bool:
        """Never: a classifier says one thing about a sequence."""
        return False

    def counted(self, batch: Batch) -> Tensor:
        """[B]: every row."""
        return torch.ones_like(batch["labels"], dtype=torch.bool)

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Whatever is no padding."""
        return (batch["attention_mask"].bool(),)

    def prompts(self, batch: Batch, tokens: int) -> list[Example]:
        """A classifier writes nothing."""
        raise RecipeError("rollouts: a classifier writes no text; remove them.")

    def layout(self, batch: Batch) -> Layout:
        """Every token of a row belongs to the row."""
        tokens = batch["attention_mask"].bool()
        rows = torch.arange(len(tokens), device=tokens.device)
        at = rows.unsqueeze(1).expand_as(tokens)[tokens]
        return Layout(tokens, at, tokens.long() - 1, rows)

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """The logits are few; they are their own hidden states."""
        if isinstance(model, Panel | ZeroShot | Told):
            return model.scores(self, batch)
        inputs = {
            name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch
        }
        output = model(**inputs)
        rows = torch.arange(batch["labels"].shape[0], device=batch["labels"].device)
        return Scores(output.logits, Head(None, vocabulary=self.outcomes), batch["labels"], rows)

    def silent(self, model: nn.Module) -> Scores:
        """The logits are what is said, but for a panel's, which are pooled."""
        if isinstance(model, Panel):
            return model.silent(self)
        return of_no_position(Head(None, vocabulary=self.outcomes))

    @torch.no_grad()
    def statistics(self, mine: Scores, teacher: Scores, examples: list[Example]) -> dict[str, Tensor]:
        """See `measure.classification_rows`."""
        columns = classification_rows(
            _probabilities(mine), mine.labels.cpu().numpy(), _probabilities(teacher)
        )
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in columns.items()}

    def side_by_side(
        self, models: Sequence[Scores], teacher: Scores | None, examples: list[Example]
    ) -> list[dict[str, Tensor]]:
        """Each in turn: their probabilities are few."""
        return [self.statistics(mine, teacher or mine, examples) for mine in models]

    def floor(self, train: list[Example], evaluated: list[Example]) -> dict[str, Any]:
        """Who always says the majority class of the training rows, with the classes' shares as probabilities."""
        counts = np.bincount([e.labels[0] for e in train if e.labels[0] >= 0], minlength=self.outcomes) + 1.0
        return dict(class_prior_rows(counts, np.asarray([e.labels[0] for e in evaluated])))


def label_order(folder: Path, labels: list[str], who: str = "teacher.model") -> list[str]:
    """`labels` in the order of the outputs of the classifier in `folder`.  Raises: RecipeError if they are not its labels."""
    names = label_names(load_config(folder))
    if sorted(names) == sorted(labels):
        return names
    numbered = [str(number) for number in range(len(labels))]
    if names == [f"LABEL_{number}" for number in numbered] and sorted(labels) == sorted(numbered):
        return numbered
    remedy = (
        "rename the data's labels, or add teacher.finetune to train it on them"
        if who == "teacher.model"
        else "name a model that was trained on these labels"
    )
    raise RecipeError(
        f"{who}: its labels are {', '.join(names)}, and the data's are {', '.join(labels)}; {remedy}."
    )


def _probabilities(scores: Scores) -> Any:
    return scores.head.logits(scores.hidden).softmax(-1).double().cpu().numpy()
