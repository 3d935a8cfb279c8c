"""From a source text to a target text with an encoder–decoder: translation, summarisation."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.encode import IGNORED, Example
from ..data.pairs import encode_pair
from ..errors import RecipeError
from ..models.insides import target_fault
from .base import Batch, Layout, marked, padded
from .causal_lm import CausalLM


class Seq2Seq(CausalLM):
    """Predict the target's tokens, each from the source and the target before it.  What is said at its positions is measured as a
    causal model's is; the source is read by the encoder, and nothing of it is counted.
    """

    name = "seq2seq"
    auto_class = "AutoModelForSeq2SeqLM"

    def verify(self, model: PreTrainedModel) -> None:
        """As a causal model's head; the decoder must know, too, what it begins with."""
        kind, config = type(model).__name__, model.config
        if fault := target_fault(config.model_type, kind):
            raise RecipeError(fault)
        if not config.is_encoder_decoder or not hasattr(model, "prepare_decoder_input_ids_from_labels"):
            raise RecipeError(f"{kind} is no encoder–decoder that learns from targets; set task: causal_lm.")
        for name in ("decoder_start_token_id", "pad_token_id"):
            if config.to_dict().get(name) is None:
                raise RecipeError(f"{kind}: its config has no {name}, which targets begin with; add it.")
        super().verify(model)

    def encode(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Example], list[dict[str, str]]]:
        """One example a row with a prompt (the source) and a completion (the target)."""
        examples, dropped = [], []
        for row in rows:
            whole = "prompt" in row and "completion" in row
            made = encode_pair(row, self.tokenizer, self.max_length) if whole else "no prompt and completion"
            if isinstance(made, str):
                dropped.append({"where": row["where"], "reason": made})
            else:
                examples.append(made)
        return examples, dropped

    def collate(self, examples: list[Example]) -> Batch:
        """Sources and targets, each padded on the right to the longest of them."""
        sources = [example.input_ids[: example.starts[1]] for example in examples]
        ids, real = padded(sources, self.tokenizer.pad_token_id or 0)
        labels, _ = padded([example.labels[example.starts[1] :] for example in examples], IGNORED)
        batch: Batch = {
            "input_ids": ids,
            "attention_mask": real.long(),
            "labels": labels,
            "keys": [example.key for example in examples],
        }
        return batch | marked(examples, [example.starts[1] for example in examples], labels.shape[1])

    def inputs(self, model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
        """The source, and the target one place later behind the token that the model's targets begin with.

        Not by the model's own function, which in some families puts the last label in front: of a target that was cut, what is
        to be foretold.  The decoder gets no mask: padding stands behind all that is real, which never looks there.
        """
        labels, config = batch["labels"], model.config
        read = labels.masked_fill(labels == IGNORED, config.pad_token_id)
        shifted = read.roll(1, dims=1)
        shifted[:, 0] = config.decoder_start_token_id
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": shifted,
        }

    def packs(self, model: PreTrainedModel) -> bool:
        """Never: every target has a source of its own."""
        return False

    def counted(self, batch: Batch) -> Tensor:
        """[B, T] over the decoder's positions: whether there is a label."""
        mask: Tensor = batch["labels"] != IGNORED
        return mask

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Of the decoder, and of the encoder."""
        return self.counted(batch), batch["attention_mask"].bool()

    def prompts(self, batch: Batch, tokens: int) -> list[Example]:
        """The sources: what the student writes is another target of each."""
        (_, read), ids = self.real(batch), batch["input_ids"]
        sources = [row[mask].tolist() for row, mask in zip(ids.cpu(), read.cpu(), strict=True)]
        return [Example("", "", source, [], [0, len(source)], 0) for source in sources]

    def layout(self, batch: Batch) -> Layout:
        """A counted position is the decoder's token there; the source's tokens belong to their row."""
        tokens, read = self.real(batch)
        each = torch.arange(len(tokens), device=tokens.device)
        rows = each.unsqueeze(1).expand_as(tokens)[tokens]
        source = Layout(read, each.unsqueeze(1).expand_as(read)[read], read.long() - 1, each)
        return Layout(
            tokens, torch.arange(len(rows), device=tokens.device), tokens.long() - 1, rows, source=source
        )
