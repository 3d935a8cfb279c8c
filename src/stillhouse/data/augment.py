"""Further rows for the teacher to label, made of the labelled ones: words replaced or mistyped, and halves of two rows joined.

A small student of a large teacher is short of text, not of labels: the teacher can label anything.  Where there is other
text of the kind (`data.unlabelled`), that does as well (dev/LOG.md has the numbers); this is for where there is none.
Sources: Jiao et al. 2019 (TinyBERT), arXiv:1909.10351, section 3.2, for replacing words by neighbours in
an embedding space; Tang et al. 2019, arXiv:1903.12136, section 2.2, for masking and joining pieces.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..recipe.data import Augment
from ..seeds import draw_seed
from .encode import IGNORED, Example, remade
from .formats import Row
from .perturb import typos

MADE = "~"
"""Stands in the row of an example that was made of another's tokens, and in no other."""

NEIGHBOURS = 15
"""Words from which a replacement is drawn (TinyBERT's M)."""
SEEN = 5
"""Times that a word must occur in the rows to be replaced or to replace."""


def augmented(
    examples: Sequence[Example],
    wanted: Augment,
    near: Mapping[int, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    max_length: int | None = None,
) -> Iterator[Example]:
    """`wanted.copies` new examples of each, without labels.  Which words are replaced follows from the seed and the row.

    Args:
        examples: labelled rows of one text each; rows of a pair are left as they are.
        near: token -> tokens of which one may stand in its place (see `neighbours`).
        max_length: tokens that a model reads: a typo makes several tokens of one.
    """
    known = {example.key for example in examples}
    special = set(tokenizer.all_special_ids)
    borders = special - {tokenizer.unk_token_id, tokenizer.mask_token_id}
    single = [
        example
        for example in examples
        if len(example.starts) == 1 and not borders & set(_inner(example.input_ids, special))
    ]  # a pair has a border inside
    for example in single:
        for copy in range(wanted.copies):
            draw = np.random.default_rng(draw_seed(seed, "augment", example.key, copy))
            ids = list(example.input_ids)
            if len(single) > 1 and draw.random() < wanted.splice:
                ids = _spliced(ids, single[int(draw.integers(len(single)))].input_ids, tokenizer, draw)
            else:
                ids = _replaced(ids, wanted, near, tokenizer, draw)
            if wanted.noise:
                apart = np.random.default_rng(draw_seed(seed, "noise", example.key, copy))
                ids = _mistyped(ids, wanted.noise, max_length, tokenizer, apart)
            made = remade(example, ids, [IGNORED], f"{example.row}{MADE}{copy + 1}")
            if made.key not in known:
                known.add(made.key)
                yield made


def rows_made(examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Those of `examples` that were made of others, as text for people and comparisons; tokens that were masked are not in it."""
    return [
        {"id": example.row, "text": str(tokenizer.decode(example.input_ids, skip_special_tokens=True))}
        for example in examples
        if MADE in example.row
    ]


def neighbours(
    embeddings: Tensor, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase
) -> dict[int, list[int]]:
    """The NEIGHBOURS nearest words of each word, by the cosine of the teacher's centred embeddings.

    Args: embeddings: [V, H]; examples: whose words are taken, if they are whole ones and not rare.
    """
    counts = Counter(token for example in examples for token in example.input_ids)
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    marked = any(name.startswith(_MARKS) for name in names)
    words = [
        token
        for token in sorted(counts)
        if counts[token] >= SEEN and token < len(names) and _is_word(names[token], marked)
    ]
    if len(words) < 2:
        return {}
    centred = torch.nn.functional.normalize(
        (embeddings.float() - embeddings.float().mean(0))[torch.tensor(words)], dim=-1
    )
    found: dict[int, list[int]] = {}
    for start in range(0, len(words), 1024):
        cosines = centred[start : start + 1024] @ centred.T
        best = cosines.topk(min(NEIGHBOURS + 1, len(words)), dim=-1).indices.tolist()
        for own, places in zip(range(start, start + len(best)), best, strict=True):
            found[words[own]] = [words[place] for place in places if place != own][:NEIGHBOURS]
    return found


_MARKS = ("Ġ", "▁")
"""How byte-level and SentencePiece tokenizers begin a word."""


def _is_word(name: str, marked: bool) -> bool:
    return name.startswith(_MARKS) and name[1:].isalpha() if marked else name.isalpha()


def _replaced(
    ids: list[int],
    wanted: Augment,
    near: Mapping[int, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    draw: np.random.Generator,
) -> list[int]:
    """Some words by neighbours, and some tokens by the mask, if the tokenizer has one."""
    special, mask = set(tokenizer.all_special_ids), tokenizer.mask_token_id
    chances = draw.random(len(ids))
    found = []
    for token, chance in zip(ids, chances, strict=True):
        if token in near and chance < wanted.replace:
            found.append(int(near[token][int(draw.integers(len(near[token])))]))
        elif (
            token not in special
            and mask is not None
            and wanted.replace <= chance < wanted.replace + wanted.mask
        ):
            found.append(mask)
        else:
            found.append(token)
    return found


def _mistyped(
    ids: list[int],
    share: float,
    most: int | None,
    tokenizer: PreTrainedTokenizerBase,
    draw: np.random.Generator,
) -> list[int]:
    """Typos in the text between special tokens, within `most` tokens; text that its tokens do not spell stays as it is."""
    special = set(tokenizer.all_special_ids)
    found: list[int] = []
    for is_special, run in groupby(ids, key=special.__contains__):
        tokens = list(run)
        if not is_special:
            text = str(tokenizer.decode(tokens))
            if tokenizer(text, add_special_tokens=False)["input_ids"] == tokens:
                changed = typos(text, draw, share, ways=4)
                tokens = list(tokenizer(changed, add_special_tokens=False)["input_ids"])
        found += tokens
    last = ids[len(ids) - _leading(ids[::-1], special) :]
    return found if most is None or len(found) <= most else [*found[: most - len(last)], *last]


def _spliced(
    ids: list[int], other: Sequence[int], tokenizer: PreTrainedTokenizerBase, draw: np.random.Generator
) -> list[int]:
    """The beginning of one row and the end of another, within the longer one's length."""
    special = set(tokenizer.all_special_ids)
    head, tail = _inner(ids, special), _inner(other, special)
    first = ids[: _leading(ids, special)]
    last = ids[len(first) + len(head) :]
    cut = int(draw.integers(len(head) // 3, len(head) + 1))
    begin = int(draw.integers(0, max(1, 2 * len(tail) // 3)))
    room = max(len(ids), len(other)) - len(first) - len(last)
    return [*first, *(head[:cut] + tail[begin:])[:room], *last]


def _inner(ids: Sequence[int], special: set[int]) -> list[int]:
    """The tokens between the special ones at either end."""
    found = list(ids[_leading(ids, special) :])
    return found[: len(found) - _leading(found[::-1], special)]


def _leading(ids: Sequence[int], special: set[int]) -> int:
    """How many special tokens begin the row."""
    return next((number for number, token in enumerate(ids) if token not in special), len(ids))
