"""Class probabilities from label names: a causal language model scores each name as the answer; no prose is parsed.

p(label | text) ∝ p(the tokens of the label's name | the prompt with the text), and that is what a student can take as soft
targets.  Few-shot examples are earlier turns of the same conversation.
Sources: Brown et al. 2020 (scoring options), arXiv:2005.14165, section 2.4; Zhao et al. 2021 (calibration), arXiv:2102.09690.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.formats import Message
from ..data.templates import fill, template
from ..errors import RecipeError
from .writer import LocalWriter

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Texts that say nothing: what the model answers to them is its bias for a name (Zhao et al. 2021, section 4)."""


class ZeroShot:
    """A language model in a classifier's place."""

    def __init__(
        self,
        model: PreTrainedModel,
        reader: LocalWriter,
        labels: Sequence[str],
        *,
        examples: Sequence[tuple[str, str]] = (),
        calibrated: bool = False,
        prompts: Path | None = None,
    ) -> None:
        """Args:
            reader: makes token ids of conversations, with the model's tokenizer.
            labels: the names that are scored, in the order of the classes; words that describe a text.
            examples: (text, label) pairs shown before each text.
            calibrated: divide by what the model says to a text without content.
            prompts: folder with a zero_shot.txt of the user's.
        Raises: RecipeError if two labels are the same tokens, or an example's label is not among them.
        """
        self.model, self.reader, self.labels = model.eval(), reader, list(labels)
        self.prompt = template("zero_shot", prompts)
        self.names = [reader.tokenizer(name, add_special_tokens=False)["input_ids"] for name in labels]
        if len({tuple(name) for name in self.names}) < len(self.names) or not all(self.names):
            raise RecipeError(
                f"labels: {', '.join(labels)} are not all different to the tokenizer; use other names."
            )
        if unknown := [label for _, label in examples if label not in self.labels]:
            raise RecipeError(f"examples: {unknown[0]!r} is none of the labels {', '.join(labels)}; mend it.")
        self.shown: list[Message] = []
        for text, label in examples:
            self.shown += [self._ask(text), {"role": "assistant", "content": label}]
        self.bias = torch.zeros(len(self.labels), dtype=torch.float64)
        if calibrated:
            self.bias = self.log_probs(CONTENT_FREE).exp().mean(0).log()

    def _ask(self, text: str) -> Message:
        return {"role": "user", "content": fill(self.prompt, text=text, labels=", ".join(self.labels))}

    @torch.inference_mode()
    def log_probs(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """[texts, C] log-probabilities of the labels, summing to 1 over them; for a T other than 1 divide, and normalise again."""
        prompts = [self.reader.ids([*self.shown, self._ask(text)]) for text in texts]
        order = sorted(range(len(texts)), key=lambda number: -len(prompts[number]))
        scores = torch.zeros((len(texts), len(self.labels)), dtype=torch.float64)
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            scores[some] = self._scores([prompts[number] for number in some])
        return (scores - self.bias).log_softmax(-1)

    def _scores(self, prompts: Sequence[list[int]]) -> Tensor:
        """[B, C] log-probability of each name after each prompt, all of its tokens counted."""
        if all(len(name) == 1 for name in self.names):
            logits = self._logits(prompts, 1)[:, -1]
            return logits.log_softmax(-1)[:, [name[0] for name in self.names]]
        columns = []
        for name in self.names:
            logits = self._logits([[*prompt, *name] for prompt in prompts], len(name) + 1)[:, :-1]
            tokens = torch.tensor(name, device=logits.device).expand(len(prompts), -1)
            columns.append(logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1).sum(-1))
        return torch.stack(columns, -1)

    def _logits(self, rows: Sequence[list[int]], last: int) -> Tensor:
        """[B, last, V] at the last positions, in float64; rows are padded on the left."""
        width, place = max(map(len, rows)), self.model.device
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=place)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=place)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        logits: Tensor = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=last
        ).logits
        return logits.double().cpu()
