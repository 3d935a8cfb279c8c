"""Causal language modelling: plain text, chat, prompts with completions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.encode import IGNORED, Example, encode_chat, encode_completion, encode_text
from ..data.packing import packed
from ..measure import TASK_METRICS
from ..models.heads import hidden_at_head, language_head, seen_by_wrapper, verify_head
from ..models.load import load_model
from ..models.sharded import is_sharded
from .base import Batch, Layout, Scores, foretold, marked, of_no_position, unwrap
from .panel import Panel, is_panel, load_panel
from .reading import frequency_floor, summed


class CausalLM:
    """Predict the next token.  A position counts if its *next* token has a label."""

    name = "causal_lm"
    auto_class = "AutoModelForCausalLM"
    metrics = TASK_METRICS[name]
    headline = "bits_per_byte"
    unit = "tokens/s"
    writes = True
    redraws = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: list[str]) -> None:
        self.tokenizer, self.max_length, self.labels = tokenizer, max_length, labels
        self.outcomes = int(max(tokenizer.get_vocab().values())) + 1
        """The real vocabulary: what the tokenizer can say, without the rows that pad the head."""

    def load(
        self, folder: Path, dtype: torch.dtype = torch.float32, head_seed: int | None = None
    ) -> PreTrainedModel:
        """The model in `folder`, in eval mode; its head is its own, always."""
        if is_panel(folder):
            return load_panel(self, folder, dtype)
        model = load_model(folder, self.auto_class, dtype)
        self.verify(model)
        return model

    def verify(self, model: PreTrainedModel) -> None:
        """See `models.heads.verify_head`."""
        verify_head(model, self.outcomes)

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """Plain text is packed; conversations and completions are one example each."""
        rows = list(rows)
        texts = [row for row in rows if "text" in row]
        examples = list(encode_text(texts, self.tokenizer, self.max_length))
        dropped = []
        for row in rows:
            if "text" in row:
                continue
            encode = encode_chat if "messages" in row else encode_completion
            made = encode(row, self.tokenizer, self.max_length)
            if isinstance(made, str):
                dropped.append({"where": row["where"], "reason": made})
            else:
                examples.append(made)
        return examples, dropped

    def drawn(self, example: Example, seed: int, epoch: int) -> Example:
        """The same in every epoch."""
        return example

    def collate(self, examples: list[Example]) -> Batch:
        """Pad on the right.  No attention mask is passed: under causal attention nothing real looks at the padding.

        Where documents share a row, position ids restart at each; together with the missing mask that makes
        transformers build block-diagonal attention, so that they do not see each other.  (With a mask of ones it would
        not, without a word.)
        """
        length = max(len(example.input_ids) for example in examples)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(examples), length), pad)
        labels = torch.full((len(examples), length), IGNORED)
        for number, example in enumerate(examples):
            ids[number, : len(example.input_ids)] = torch.tensor(example.input_ids)
            labels[number, : len(example.labels)] = torch.tensor(example.labels)
        batch: Batch = {
            "input_ids": ids,
            "labels": labels,
            "lengths": torch.tensor([len(example.input_ids) for example in examples]),
            "keys": [example.key for example in examples],
        }
        batch |= marked(examples, [0] * len(examples), length)
        if any(len(example.starts) > 1 for example in examples):
            batch["position_ids"] = torch.stack([_positions(example, length) for example in examples])
        return batch

    @torch.no_grad()
    def packs(self, model: PreTrainedModel) -> bool:
        """Tried out on eight tokens: a family that ignores position ids, or has a state, says something else."""
        ids = [[number % self.outcomes for number in row] for row in ([1, 2, 3, 4], [5, 6], [7, 8])]
        rows = [Example("", "", row, [IGNORED, *row[1:]], [0], 0) for row in ids]
        was_training = model.training
        model.eval()
        try:
            apart, together = (
                self.scores(
                    model, {name: value.to(model.device) for name, value in batch.items() if name != "keys"}
                )
                for batch in (self.collate(rows), self.collate(packed(rows)[0]))
            )
        except (TypeError, ValueError):  # a forward pass without position ids
            return False
        finally:
            model.train(was_training)
        close = 1e-4 if apart.hidden.dtype == torch.float32 else 2e-2
        gap = (apart.hidden - together.hidden).abs().max()
        return bool(gap <= close * apart.hidden.abs().max())

    def counted(self, batch: Batch) -> Tensor:
        """[B, T-1]: whether the token after each position has a label."""
        mask: Tensor = batch["labels"][:, 1:] != IGNORED
        return mask

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """What of the batch a forward pass of `model` is handed."""
        return {name: batch[name] for name in ("input_ids", "position_ids") if name in batch}

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Whatever is no padding."""
        at = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)
        return (at < batch["lengths"].unsqueeze(1),)

    def prompts(self, batch: Batch, tokens: int) -> list[Example]:
        """Up to the first counted token; of a plain text, its beginning."""
        found = []
        layout = self.layout(batch)
        rows, groups, due, ids = (
            value.cpu() for value in (_rows(batch), layout.groups, layout.tokens, batch["input_ids"])
        )
        for row in range(int(rows.max()) + 1):
            mine = (rows == row) & (groups >= 0)
            own, counted, texts = ids[mine].tolist(), due[mine].tolist(), groups[mine].tolist()
            length = texts.count(texts[0])  # of the row's first text alone
            first = counted.index(True) + 1 if True in counted else length
            prompt = own[: first if first > 1 else min(tokens, max(1, length - 1))]
            found.append(Example("", "", prompt, [], [0], 0))
        return found

    def layout(self, batch: Batch) -> Layout:
        """A counted position is the token there."""
        counted = self.counted(batch)
        tokens = torch.nn.functional.pad(counted, (0, 1))
        length = tokens.shape[1]
        at = torch.arange(length, device=tokens.device).expand_as(tokens)
        places = batch.get("position_ids", at)
        groups = (places == 0).long().cumsum(1) - 1
        groups = groups.masked_fill(at >= batch["lengths"].unsqueeze(1), -1)
        rows = _rows(batch)[tokens]
        return Layout(tokens, torch.arange(len(rows), device=tokens.device), groups, rows, batch.get("rows"))

    def scores(self, model: nn.Module, batch: Batch) -> Scores:
        """Hidden states at the counted positions only; the head's product is left to the loss."""
        if isinstance(model, Panel):
            return model.scores(self, batch)
        inner = unwrap(model)
        sharded = is_sharded(model)
        with hidden_at_head(inner, sharded) as caught:
            output = model(**self.inputs(inner, batch), use_cache=False)
        mask = self.counted(batch)
        hidden = caught[-1][:, : mask.shape[1]][mask]
        labels = foretold(batch["labels"], mask)
        return Scores(
            hidden=seen_by_wrapper(hidden, output.logits) if sharded else hidden,
            head=language_head(inner, self.outcomes),
            labels=torch.full_like(labels, IGNORED) if batch.get("written") else labels,
            rows=_rows(batch)[:, : mask.shape[1]][mask],
            reasons=foretold(batch["reasons"], mask) if "reasons" in batch else None,
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
        """The columns of LM_METRICS of each, summed over each example's positions; see `readings`."""
        sizes = torch.tensor([float(example.bytes) for example in examples], dtype=torch.float64)
        return [
            columns | {"bytes": sizes} for columns in summed(models, teacher, self.outcomes, len(examples))
        ]

    def floor(self, train: list[Example], evaluated: list[Example]) -> dict[str, Any]:
        """Who only knows how frequent each counted token is in the training rows (with one more of each)."""
        counts = Counter(label for example in train for label in example.labels[1:] if label != IGNORED)
        sizes = np.asarray([float(example.bytes) for example in evaluated])
        return frequency_floor(counts, self.outcomes, evaluated) | {"bytes": sizes}


def _rows(batch: Batch) -> Tensor:
    """[B, T] row of the batch that a token is of; as a packed batch says (`train/packing.py`), else the sequence."""
    labels = batch["labels"]
    own = torch.arange(len(labels), device=labels.device).unsqueeze(1).expand_as(labels)
    rows: Tensor = batch.get("rows", own)
    return rows


def _positions(example: Example, length: int) -> Tensor:
    """[T] position ids that restart at each document; the padding is a document of its own."""
    positions = torch.arange(length)
    used = len(example.input_ids)
    for start, end in zip(example.starts, [*example.starts[1:], used], strict=True):
        positions[start:end] = torch.arange(end - start)
    positions[used:] = torch.arange(length - used)
    return positions
