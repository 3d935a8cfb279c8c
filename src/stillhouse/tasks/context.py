"""A prompt that the teacher sees and the student does not: what it does to the teacher moves into the student's weights.

Source: Snell et al. 2022, "Learning by Distilling Context", arXiv:2209.15189.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.encode import IGNORED, Example
from ..files import hash_json
from .base import Batch, Task


def in_context(task: Task, batch: Batch, contexts: Sequence[str]) -> Batch:
    """The batch with a context before every document; its counted positions are the same, in the same order.

    Args: contexts: one a row.
    """
    made = {context: prefixes(task.tokenizer, context) for context in set(contexts)}
    keys = [*batch["keys"], *[""] * len(batch["labels"])]
    examples = [
        _after(row, *made[context], key)
        for row, context, key in zip(_rows(batch), contexts, keys, strict=False)
    ]
    place, read = batch["labels"].device, task.collate(examples)
    return {name: value.to(place) if isinstance(value, Tensor) else value for name, value in read.items()}


def longest_in_context(example: Example, before: list[int], instead_of: list[int]) -> int:
    """Tokens of the example's longest document after a context; see `prefixes`."""
    borders = [*example.starts, len(example.input_ids)]
    documents = [(example.input_ids[a:b], example.labels[a:b]) for a, b in pairwise(borders)]
    read = _after(documents, before, instead_of, "")
    return max(b - a for a, b in pairwise([*read.starts, len(read.input_ids)]))


def prompt_key(ids: Sequence[int]) -> str:
    """What a prompt's context is found by, where nothing but its tokens is known."""
    return hash_json(list(ids))


def prefixes(tokenizer: PreTrainedTokenizerBase, context: str) -> tuple[list[int], list[int]]:
    """(tokens of the context, tokens that a row begins with which it takes the place of).

    With a chat template the context is the system's turn, instead of the one that the template adds by itself, if any;
    without one it stands before the text as it is.
    """
    if not tokenizer.chat_template:
        return list(tokenizer(context, verbose=False)["input_ids"]), _beginning(tokenizer)
    asked = [{"role": "user", "content": "?"}]
    said, bare = (
        str(tokenizer.apply_chat_template(messages, tokenize=False))
        for messages in ([{"role": "system", "content": context}, *asked], asked)
    )
    same = next(
        (n for n in range(min(len(said), len(bare))) if said[-n - 1] != bare[-n - 1]),
        min(len(said), len(bare)),
    )
    before, instead_of = (text[: len(text) - same] for text in (said, bare))
    return (
        list(tokenizer(before, add_special_tokens=False, verbose=False)["input_ids"]),
        list(tokenizer(instead_of, add_special_tokens=False, verbose=False)["input_ids"]),
    )


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that every text begins with, in a list; empty if there is none."""
    ids = list(tokenizer("a")["input_ids"])
    return ids[:1] if ids and ids[0] in tokenizer.all_special_ids else []


def _rows(batch: Batch) -> list[list[tuple[list[int], list[int]]]]:
    """Of each row its documents: (token ids, labels)."""
    length = batch["labels"].shape[1]
    places = batch.get("position_ids", torch.arange(length).expand(len(batch["labels"]), -1))
    found = []
    for ids, labels, at, used in zip(
        batch["input_ids"].tolist(),
        batch["labels"].tolist(),
        places.tolist(),
        batch["lengths"].tolist(),
        strict=True,
    ):
        starts = [number for number in range(used) if at[number] == 0]
        ends = [*starts[1:], used]
        found.append([(ids[a:b], labels[a:b]) for a, b in zip(starts, ends, strict=True)])
    return found


def _after(
    documents: list[tuple[list[int], list[int]]], before: list[int], instead_of: list[int], key: str
) -> Example:
    """Documents after the context, each by itself."""
    ids: list[int] = []
    labels: list[int] = []
    starts = []
    for own, wanted in documents:
        starts.append(len(ids))
        counted = next((n for n, label in enumerate(wanted) if n and label != IGNORED), len(own))
        skip = len(instead_of) if own[: len(instead_of)] == instead_of and len(instead_of) < counted else 0
        ids += before + own[skip:]
        labels += [IGNORED] * len(before) + [IGNORED if n == 0 else wanted[n] for n in range(skip, len(own))]
    return Example(key, "", ids, labels, starts, 0)
