"""A source and a target -> token ids, with the target counted: what an encoder–decoder reads."""

from dataclasses import replace
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from .encode import IGNORED, Example, example_of


def encode_pair(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example | str:
    """A source for the encoder and a target for the decoder, each cut at `max_length`; `starts` says where the target begins.

    The target is counted, its end token too, unless it was cut.  A tokenizer that writes targets in another way than it reads
    sources does so (`text_target`: Marian).

    Returns: the example, or the reason why the row cannot be used.
    """
    if row.get("rationale", "") not in row["completion"]:
        return "answer without its reasons"
    source = tokenizer(row["prompt"], truncation=True, max_length=max_length, verbose=False)["input_ids"]
    whole = _written(row["completion"], tokenizer)
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)  # BERT's texts end with [SEP]
    end = whole.pop() if whole and whole[-1] in ends else ends[0]
    reasons = _reasons(row, whole, tokenizer)
    whole += [] if end is None or row.get("unended") else [end]
    target = whole[:max_length]
    if not source:
        return "empty prompt"
    if len(target) <= reasons.stop:
        return "no answer within max_length"
    said = row["completion"]
    if len(target) < len(whole):  # without places of its tokens, for not every such tokenizer tells them
        said = str(tokenizer.decode(target, skip_special_tokens=True))
    labels = [IGNORED] * len(source) + target
    made = example_of(row["id"], [*source, *target], labels, [0, len(source)], len(said.encode()))
    return replace(made, reasons=[len(source) + place for place in reasons])


def _written(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """As the decoder writes it."""
    return list(tokenizer(text_target=text, verbose=False)["input_ids"])


def _reasons(row: dict[str, Any], target: list[int], tokenizer: PreTrainedTokenizerBase) -> range:
    """Places of the target's tokens that give the reasons which it begins with; none if the row has none.

    They are those with which the target up to there begins, too, but for what stands before every target (BART's <s>).
    """
    if not row.get("rationale"):
        return range(0)
    until = row["completion"].index(row["rationale"]) + len(row["rationale"])
    first, last = (_alike(target, _written(text, tokenizer)) for text in ("", row["completion"][:until]))
    return range(first, last)


def _alike(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
