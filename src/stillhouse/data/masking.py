"""Rows of a masked language model: some tokens are hidden, and only these are counted.

Of the tokens of a text 15 % are drawn; of these 80 % become the mask token, 10 % any other token, and 10 % stay as they are
(Devlin et al. 2019, arXiv:1810.04805, section 3.1).  As there, a row has exactly round(0.15 · its tokens) of them, and at least
one: how many positions a step counts does not depend on the epoch.

What is drawn follows from (seed, epoch, tokens of the row) alone.  An example holds what the models read, and its labels
the tokens that were there: so it can be masked anew from itself.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import RecipeError
from ..files import hash_json
from ..seeds import draw_seed
from .encode import IGNORED, ROWS_AT_ONCE, Example, remade

SHARE = 0.15
"""Of a row's tokens that are counted."""
HIDDEN, SWAPPED = 0.8, 0.1
"""Of these, how many become the mask token, and how many any token."""


class Masking:
    """How rows are cut and masked in the tokens of one tokenizer.  Raises: RecipeError if it has no mask token, or is a slow one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        if tokenizer.mask_token_id is None:
            raise RecipeError(
                f"task: masked_lm needs a mask token, and {type(tokenizer).__name__} of the teacher has none; name a masked "
                "language model, or set task: causal_lm."
            )
        if not tokenizer.is_fast:
            raise RecipeError(
                f"task: masked_lm cuts long texts with a fast tokenizer, and {type(tokenizer).__name__} of the teacher is a slow one; "
                "save it with a tokenizer.json, or name another model."
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.special = set(tokenizer.all_special_ids)
        self._mask = int(tokenizer.mask_token_id)
        self._tokens = np.array(sorted(set(tokenizer.get_vocab().values()) - self.special))

    def encode(self, rows: Sequence[dict[str, Any]]) -> Iterator[Example]:
        """Each text by itself, a long one in pieces of at most `max_length` tokens, each with its special tokens; masked for seed
        and epoch 0."""
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            cut = self.tokenizer(
                [row["text"] for row in some],
                truncation=True,
                max_length=self.max_length,
                return_overflowing_tokens=True,
                verbose=False,
            )
            for ids, at in zip(cut["input_ids"], cut["overflow_to_sample_mapping"], strict=True):
                if self._places(ids):
                    yield self._masked(list(ids), some[at]["id"], 0, 0)

    def drawn(self, example: Example, seed: int, epoch: int) -> Example:
        """The same row, masked for that seed and epoch."""
        return self._masked(unmasked(example), example.row, seed, epoch)

    def _places(self, ids: Sequence[int]) -> list[int]:
        """Where a token may be masked: nowhere special, and not first, which is never counted (see `Example.counted`)."""
        return [at for at, token in enumerate(ids) if at and token not in self.special]

    def _masked(self, ids: list[int], row: str, seed: int, epoch: int) -> Example:
        generator = np.random.default_rng(draw_seed(seed, "mask", epoch, hash_json(ids)))
        places = self._places(ids)
        count = max(1, round(SHARE * len(places)))
        chosen = generator.permutation(places)[:count].tolist()
        labels = [IGNORED] * len(ids)
        read = list(ids)
        for at, draw, other in zip(
            chosen, generator.random(count), generator.choice(self._tokens, count), strict=True
        ):
            labels[at] = ids[at]
            if draw < HIDDEN:
                read[at] = self._mask
            elif draw < HIDDEN + SWAPPED:
                read[at] = int(other)
        return remade(Example("", row, [], [], [0], 0), read, labels, row)


def unmasked(example: Example) -> list[int]:
    """[T] the tokens of the text, as they were before some were hidden."""
    return [
        token if label == IGNORED else label
        for token, label in zip(example.input_ids, example.labels, strict=True)
    ]
