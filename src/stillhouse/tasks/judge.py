"""How good an answer is, from 0 to 1: by a language model that is asked, or by a reward model.

A language model's score is the probability of "yes", of "yes" and "no", as the answer to the judge's prompt; no prose is parsed.
A reward model's is the sigmoid of its one output for the conversation.
Sources: Zheng et al. 2023 (language models as judges, and their biases), arXiv:2306.05685; Ouyang et al. 2022 (reward models),
arXiv:2203.02155.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.encode import control_pieces, without_control
from ..data.templates import template
from ..errors import RecipeError
from ..models.load import load_config, load_model, load_tokenizer
from ..models.machine import device
from .zero_shot import ZeroShot

BATCH = 8
REWARD = "ForSequenceClassification"


class Judge:
    """The model in `folder`; it is loaded when somebody asks."""

    def __init__(self, folder: Path, prompt: str | None, dtype: str) -> None:
        self.folder, self.prompt, self.dtype = folder, prompt, getattr(torch, dtype)
        self._asked: Any = None

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Of each (question, answer).  Raises: RecipeError if a classifier has more than one output."""
        if is_reward(self.folder):
            return self._rewards(pairs)
        if self._asked is None:
            model = load_model(self.folder, "AutoModelForCausalLM", self.dtype).to(device())
            prompt = self.prompt or template("judge", None)
            self._asked = ZeroShot(model, load_tokenizer(self.folder), ["yes", "no"], prompt=prompt)
        return [float(share) for share in self._asked.log_probs(pairs, BATCH)[:, 0].exp()]

    @torch.inference_mode()
    def _rewards(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        if self._asked is None:
            self._asked = load_model(self.folder, "AutoModelForSequenceClassification", self.dtype).to(
                device()
            )
        model, tokenizer = self._asked, load_tokenizer(self.folder)
        if model.config.num_labels != 1:
            raise RecipeError(
                f"data.judge.model: {self.folder} has {model.config.num_labels} outputs, and a reward model has one; name "
                "another."
            )
        model.config.pad_token_id = tokenizer.pad_token_id
        longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
        rows = [self._read(tokenizer, *pair)[:longest] for pair in pairs]
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
        found = [0.0] * len(rows)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            batch = tokenizer.pad({"input_ids": [rows[number] for number in some]}, return_tensors="pt")
            inputs = {name: batch[name].to(device()) for name in ("input_ids", "attention_mask")}
            for number, score in zip(
                some, model(**inputs).logits[:, 0].double().sigmoid().tolist(), strict=True
            ):
                found[number] = score
        return found

    def _read(self, tokenizer: Any, question: str, answer: str) -> list[int]:
        control = control_pieces(tokenizer)
        question, answer = without_control(question, control), without_control(answer, control)
        if not tokenizer.chat_template:
            return list(tokenizer(question, answer, verbose=False)["input_ids"])
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def is_reward(folder: Path) -> bool:
    """Whether the model in `folder` gives numbers instead of words."""
    return any(REWARD in str(name) for name in load_config(folder).architectures or [])
