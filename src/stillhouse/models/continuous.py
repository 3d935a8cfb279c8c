"""Many prompts at speed: a batch whose slots never wait for the longest answer.

Prompts go through the model in order of their length, the longest first; when answers end, their slots go to the next prompts
at once (Yu et al. 2022, Orca, OSDI: iteration-level scheduling).  Rows lie flush right in the key-value cache, so that each step
adds one column for all of them, and what only ended rows needed is cut off on the left.

What is written after a prompt follows from the prompt, the settings and its own seed, not from its neighbours; only the last
bits of the arithmetic may differ from batch to batch, as they do everywhere, and where two tokens are as good as even, the other
one may come.
"""

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as padded
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicLayer

REFILL = 4
"""One part in so many of the slots must be free before they are filled: reading prompts in one go is cheaper than one by one."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    max_new_tokens: int
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0


@dataclass
class _Row:
    """A prompt in a slot, and what was written after it."""

    number: int
    prompt: list[int]
    uniform: np.ndarray[Any, Any]
    tokens: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens in the cache: the last one that was written is not there yet."""
        return len(self.prompt) + max(0, len(self.tokens) - 1)


@torch.inference_mode()
def write_all(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    ends: Sequence[int],
    vocabulary: int,
    seeds: Sequence[int],
    slots: int,
) -> Iterator[tuple[int, list[int]]]:
    """(number of the prompt, tokens written after it, its end token included) as they are finished, in any order.

    Args:
        ends: tokens that end an answer.
        vocabulary: tokens that the tokenizer has; the head's further rows are never chosen.
        seeds: one a prompt, for drawing.
        slots: prompts in the batch.
    """
    longest = model.config.get_text_config().to_dict().get("max_position_embeddings")
    room = None if longest is None else max(1, longest - sampling.max_new_tokens)
    waiting = deque(
        _Row(number, list(prompts[number])[-room:] if room else list(prompts[number]), _draws(seeds[number], sampling))
        for number in sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), number))
    )  # fmt: skip
    model.eval()
    if not refillable(model):
        yield from _in_fixed_batches(model, list(waiting), sampling, list(ends), vocabulary, slots)
        return
    active: list[_Row] = []
    cache: Any = None
    while waiting or any(not row.done for row in active):
        free = slots - sum(not row.done for row in active)
        ended = sum(row.done for row in active)
        if waiting and free >= max(1, slots // REFILL):
            new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            fresh, logits = _read(model, new)
            active, cache = _joined(active, cache, new, fresh)
            _choose(new, logits, sampling, ends, vocabulary)
        else:
            if ended * REFILL >= len(active):
                active, cache = _joined(active, cache, [], None)
            logits = _step(model, active, cache)
            _choose(active, logits, sampling, ends, vocabulary)
        yield from _finished(active)


def refillable(model: PreTrainedModel) -> bool:
    """Whether the model's cache is plain keys and values of all positions, and it lets us say which position a token has."""
    layers = DynamicCache(config=model.config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return plain and {"position_ids", "logits_to_keep"} <= set(inspect.signature(model.forward).parameters)


def _finished(rows: list[_Row]) -> Iterator[tuple[int, list[int]]]:
    """The rows that ended since somebody asked; their slots are free."""
    for row in rows:
        if row.done and row.number >= 0:
            yield row.number, row.tokens
            row.number = -1


def _read(model: PreTrainedModel, rows: list[_Row]) -> tuple[Any, Tensor]:
    """(cache, logits [rows, V] after each prompt); prompts are padded on the left."""
    width = max(len(row.prompt) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row.prompt) :] = torch.tensor(row.prompt)
    cache = DynamicCache(config=model.config)
    mask = _mask(rows, width)
    output = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=(mask.cumsum(-1) - 1).clamp_min(0).to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache, output.logits[:, -1]


def _step(model: PreTrainedModel, rows: list[_Row], cache: Any) -> Tensor:
    """Logits [rows, V] after the last token of each row; ended rows are carried along."""
    place = model.device
    mask = padded(_mask(rows, cache.get_seq_length()), (0, 1), value=1)
    output = model(
        input_ids=torch.tensor([[row.tokens[-1]] for row in rows], device=place),
        attention_mask=mask.to(place),
        position_ids=torch.tensor([[row.length] for row in rows], device=place),
        past_key_values=cache,
        use_cache=True,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _mask(rows: list[_Row], width: int) -> Tensor:
    """[rows, width]: 1 where a row's own tokens lie, flush right."""
    lengths = torch.tensor([row.length for row in rows]).unsqueeze(1)
    return (torch.arange(width) >= width - lengths).long()


def _joined(active: list[_Row], cache: Any, new: list[_Row], fresh: Any) -> tuple[list[_Row], Any]:
    """The rows that go on and the new ones, in one cache as wide as the longest of them."""
    left = [number for number, row in enumerate(active) if not row.done]
    rows = [*(active[number] for number in left), *new]
    if not left:
        return rows, fresh
    width = max(row.length for row in rows)
    parts = [(cache, torch.tensor(left)), (fresh, torch.arange(len(new)))]
    joined = DynamicCache()
    for number in range(len(cache.layers)):
        pairs = [
            (one.layers[number].keys[which], one.layers[number].values[which])
            for one, which in parts
            if one is not None
        ]
        keys, values = (
            torch.cat([_flush(states, width) for states in some]) for some in zip(*pairs, strict=True)
        )
        joined.update(keys, values, number)
    return rows, joined


def _flush(states: Tensor, width: int) -> Tensor:
    """[B, H, T, D] -> [B, H, width, D], cut off or filled up on the left."""
    return padded(states, (0, 0, width - states.shape[2], 0))


def _choose(
    rows: list[_Row], logits: Tensor, sampling: Sampling, ends: Sequence[int], vocabulary: int
) -> None:
    """Write one token more in each row that has not ended."""
    at = [len(row.tokens) for row in rows]
    uniform = [row.uniform[min(number, len(row.uniform) - 1)] for row, number in zip(rows, at, strict=True)]
    for row, token in zip(rows, chosen(logits[:, :vocabulary], sampling, np.array(uniform)), strict=True):
        row.tokens += [] if row.done and row.tokens else [token]
        row.done = row.done or token in ends or len(row.tokens) >= sampling.max_new_tokens


def chosen(logits: Tensor, sampling: Sampling, uniform: np.ndarray[Any, Any]) -> list[int]:
    """One token a row of `logits` [B, V]; `uniform` [B] in [0, 1) decides the draw, by the inverse of the distribution."""
    if sampling.temperature == 0:
        return [int(token) for token in logits.argmax(-1)]
    shares, tokens = (logits.double() / sampling.temperature).softmax(-1).sort(-1, descending=True)
    kept = (
        shares.cumsum(-1) - shares < sampling.top_p
    )  # the fewest tokens that together have this probability
    sums = (shares * kept).cumsum(-1)
    wanted = torch.as_tensor(uniform, device=logits.device).unsqueeze(1) * sums[:, -1:]
    places = torch.searchsorted(sums, wanted, right=True).clamp_max(logits.shape[1] - 1)
    places = torch.minimum(places, kept.sum(-1, keepdim=True) - 1)
    return [int(token) for token in tokens.gather(-1, places)]


def _draws(seed: int, sampling: Sampling) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(sampling.max_new_tokens if sampling.temperature else 1)


def _in_fixed_batches(
    model: PreTrainedModel,
    rows: list[_Row],
    sampling: Sampling,
    ends: list[int],
    vocabulary: int,
    slots: int,
) -> Iterator[tuple[int, list[int]]]:
    """The same by `generate`, for models whose cache is of another kind (sliding windows, states)."""
    for start in range(0, len(rows), slots):
        batch = rows[start : start + slots]
        width = max(len(row.prompt) for row in batch)
        ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in batch])
        made: Any = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=_mask(batch, width).to(model.device),
            generation_config=GenerationConfig(
                max_new_tokens=sampling.max_new_tokens, eos_token_id=ends, pad_token_id=0, do_sample=False
            ),
            logits_processor=LogitsProcessorList([_OwnDraws(batch, sampling, vocabulary, width)]),
        )
        for row, tokens in zip(batch, made[:, width:].tolist(), strict=True):
            stop = next((at + 1 for at, token in enumerate(tokens) if token in ends), len(tokens))
            yield row.number, tokens[:stop]


class _OwnDraws(LogitsProcessor):
    """Leaves each row of a batch that `generate` writes the one token that its own seed chooses."""

    def __init__(self, rows: list[_Row], sampling: Sampling, vocabulary: int, width: int) -> None:
        self.uniform = np.stack([row.uniform for row in rows])
        self.sampling, self.vocabulary, self.width = sampling, vocabulary, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Args: input_ids: [B, T], prompts included; scores: [B, V]."""
        at = min(input_ids.shape[1] - self.width, self.uniform.shape[1] - 1)
        tokens = chosen(scores[:, : self.vocabulary], self.sampling, self.uniform[:, at])
        places = torch.tensor(tokens, device=scores.device).unsqueeze(1)
        return torch.full_like(scores, -torch.inf).scatter(1, places, 0.0)
