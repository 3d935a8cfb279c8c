"""A tiny real language model as what answers behind `endpoint.Endpoint`: its texts, and its own log-probabilities of them."""

from pathlib import Path
from typing import Any

import torch

import tiny
from endpoint import Said, Tokens
from stillhouse.data.encode import Example
from stillhouse.models.load import load_model, load_tokenizer
from stillhouse.teachers.told import Names


class Speaker:
    """Called with a request's body.

    It says the most probable of `words`, one after the other, each of which is one token: so its text is cut into the tokens that
    it said, which those of a model without training hardly ever are.  What it tells is the model's own, of all its tokens.
    """

    def __init__(self, folder: Path, tokens: int = 6, ends: bool = False) -> None:
        """Args: tokens: how many it says; ends: whether it tells the end of its turn too, as some servers do."""
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, "AutoModelForCausalLM", torch.float32).eval()
        self.names = Names(self.tokenizer)
        self.outcomes = len(self.tokenizer)
        self.tokens, self.ends = tokens, ends
        pieces = [self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in tiny.WORDS]
        self.words = torch.tensor([ids[0] for ids in pieces if len(ids) == 1])
        assert len(self.words) > 10

    def __call__(self, body: dict[str, Any]) -> Said:
        ids = self.prompt(body)
        start = len(ids)
        for number in range(self.tokens):
            log_p = self.log_p(ids)[-1]
            # no word twice: a model without training says the same for ever
            fresh = self.words[~torch.isin(self.words, torch.tensor(ids[start:]))] if number else self.words
            ids.append(int(fresh[log_p[fresh].argmax()]))
        text = self.tokenizer.decode(ids[start:])
        if self.ends:
            ids.append(self.tokenizer.eos_token_id)
        k = body.get("top_logprobs") or body.get("logprobs")
        return text if not k else (text, self.told(ids, start, k))

    def prompt(self, body: dict[str, Any]) -> list[int]:
        """As a server renders it."""
        if "messages" not in body:
            return list(self.tokenizer(body["prompt"])["input_ids"])
        text = self.tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.no_grad()
    def log_p(self, ids: list[int]) -> torch.Tensor:
        """[T, V] of what comes after each token."""
        logits = self.model(input_ids=torch.tensor([ids])).logits[0, :, : self.outcomes]
        return logits.log_softmax(-1)

    def told(self, ids: list[int], start: int, k: int) -> Tokens:
        """Each token from `start` on with the k most probable ones in its place, and itself."""
        found: Tokens = []
        for token, log_p in zip(ids[start:], self.log_p(ids)[start - 1 : -1], strict=True):
            best = log_p.topk(k)
            said = {self.spelled(int(n)): float(p) for p, n in zip(*best, strict=True)}
            found.append((self.spelled(token), said | {self.spelled(token): float(log_p[token])}))
        return found

    def spelled(self, token: int) -> bytes:
        """A token's bytes."""
        piece = self.names.bytes[token]
        assert piece is not None
        return piece

    def own(self, example: Example) -> torch.Tensor:
        """[N, V]: the model's log-probabilities at the counted positions of an example."""
        counted = torch.tensor(example.labels[1:]) != -100
        return self.log_p(example.input_ids)[:-1][counted]
