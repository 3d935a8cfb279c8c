"""Canonical rows -> token ids, with exactly the positions counted that the student must learn.

Knows tokenizers, and neither models nor losses.  An example is one sequence that a model reads:

    key        hash of everything that decides what a model says about it: ids, borders, counted positions; and of the teacher's
               ids, where a classifier's teacher reads others
    row        id of the (first) row it was made from
    input_ids  [T]
    labels     [T], -100 where nothing is counted; unshifted, as Hugging Face has it.  A classifier's is one number
    starts     positions at which a new document begins: [0] unless several short ones were packed together, or a
               classifier reads a pair; of an encoder–decoder's row, source and target are one after the other
    bytes      UTF-8 bytes of the text that the counted positions stand for
    reasons    places of the counted tokens that give reasons for the answer; mostly none
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from ..errors import DataError
from ..files import atomic, hash_json

IGNORED = -100
ROWS_AT_ONCE = 1024
"""Texts that a tokenizer is handed together."""


@dataclass(frozen=True)
class Example:
    """One sequence that a model reads; see the top of this file."""

    key: str
    row: str
    input_ids: list[int]
    labels: list[int]
    starts: list[int]
    bytes: int
    reasons: list[int] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Positions that a loss counts."""
        if len(self.labels) == 1:
            return 1
        return sum(label != IGNORED for label in self.labels[1:])

    @property
    def asked(self) -> list[int]:
        """What stands before the first counted token: a prompt, or a source; empty for plain text, whose second token counts."""
        first = next((at for at, label in enumerate(self.labels) if label != IGNORED), 0)
        return self.input_ids[:first] if first > 1 or first in self.starts[1:] else []


def example_of(row: str, ids: list[int], labels: list[int], starts: list[int], size: int) -> Example:
    """One with its key."""
    counted = [label != IGNORED for label in labels] if len(labels) > 1 else []
    return Example(hash_json([ids, starts, counted])[:32], row, ids, labels, starts, size)


def remade(example: Example, ids: list[int], labels: list[int], row: str) -> Example:
    """The same kind of example with other tokens and labels."""
    return example_of(row, ids, labels, example.starts, example.bytes)


# ── plain text ──────────────────────────────────────────────────────────────────────────────────────────────────────


def encode_text(
    rows: Iterable[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[Example]:
    """Documents packed into sequences of `max_length`: long ones are cut, short ones share a sequence, none is padded.

    Each document ends with the end token, which is counted: it is learned.  The first position of a document is not
    counted in a new sequence's `starts`, for it has nothing to be predicted from.
    """
    ids: list[int] = []
    sizes: list[int] = []
    starts: list[int] = []
    first = ""
    for row in rows:
        document, lengths = _with_sizes(row["text"], tokenizer)
        at = 0
        while at < len(document):
            if not ids:
                first = row["id"]
            starts.append(len(ids))
            take = min(max_length - len(ids), len(document) - at)
            ids += document[at : at + take]
            sizes += lengths[at : at + take]
            at += take
            if len(ids) == max_length:
                yield from _packed(first, ids, sizes, starts)
                ids, sizes, starts = [], [], []
    yield from _packed(first, ids, sizes, starts)


def runs(text: str, tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """`text` cut into runs of `tokens` tokens each, the last one of what is left; nothing of it is lost."""
    cut = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    ends = [end for _, end in cut["offset_mapping"][tokens - 1 :: tokens]]
    borders = sorted({0, *ends, len(text)})
    return [text[low:high] for low, high in pairwise(borders)]


def _packed(row: str, ids: list[int], sizes: list[int], starts: list[int]) -> Iterator[Example]:
    """One example; none if nothing in it is counted."""
    begins = set(starts)
    if len(begins) == len(ids):
        return
    labels = [IGNORED if position in begins else token for position, token in enumerate(ids)]
    size = sum(length for position, length in enumerate(sizes) if position not in begins)
    yield example_of(row, ids, labels, starts, size)


def _with_sizes(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """(token ids of a document with its end token, bytes of text that each stands for)."""
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    ids = list(encoded["input_ids"])
    sizes = _sizes(text, ids, encoded["offset_mapping"], tokenizer)
    if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
        ids.append(tokenizer.eos_token_id)
        sizes.append(0)
    return ids, sizes


def _sizes(
    text: str, ids: list[int], offsets: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase
) -> list[int]:
    """Bytes of text that each token stands for; a special token stands for none.

    Byte-level tokenizers give each piece of a multi-byte character that whole character's place: its bytes are counted
    once, at the first piece.
    """
    special, sizes, before = set(tokenizer.all_special_ids), [], 0
    for token, (_, end) in zip(ids, offsets, strict=True):
        sizes.append(len(text[before:end].encode()) if end > before and token not in special else 0)
        before = max(before, end)
    return sizes


# ── chat and completions ────────────────────────────────────────────────────────────────────────────────────────────


def encode_chat(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Example | str:
    """One conversation; only what the assistant says is counted, the end of each of its turns included.

    Returns: the example, or the reason why the row cannot be used.
    Raises: DataError where the tokenizer's chat template cannot tell the turns apart.
    """
    if not tokenizer.chat_template:
        raise DataError(
            f"{row['where']}: holds chat messages, but the tokenizer has no chat template; "
            "use prompt and completion columns, or a teacher with a template."
        )
    messages = row["messages"]
    text = _render(messages, tokenizer, row)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        after = _render(messages[: number + 1], tokenizer, row)
        before = (
            _render(messages[:number], tokenizer, row, prompt=True)
            if number
            else _opening(after, tokenizer, row)
        )
        if not (after.startswith(before) and text.startswith(after)):
            raise DataError(
                f"{row['where']}: the chat template rewrites earlier turns, so the assistant's words cannot be told "
                "apart; give the rows as prompt and completion."
            )
        spans.append((len(before), len(after.rstrip())))
    reasons = _reasons(row, text, *spans[-1]) if spans else None
    return _spans_to_example(row["id"], text, spans, tokenizer, max_length, special=False, reasons=reasons)


def _opening(conversation: str, tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> str:
    """What stands before the words of an assistant who speaks first, such as "<|im_start|>assistant"."""
    asked = [{"role": "user", "content": "?"}]
    role = _render(asked, tokenizer, row, prompt=True).removeprefix(_render(asked, tokenizer, row))
    at = conversation.find(role)
    return conversation[: at + len(role)] if at >= 0 else ""


def encode_completion(
    row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Example | str:
    """A prompt and its completion; only the completion and its end token, if it has one, are counted."""
    text = row["prompt"] + row["completion"]
    if tokenizer.eos_token and not row.get("unended"):
        text += str(tokenizer.eos_token)
    span = (len(row["prompt"]), len(text))
    return _spans_to_example(
        row["id"], text, [span], tokenizer, max_length, special=True, reasons=_reasons(row, text, *span)
    )


def _reasons(row: dict[str, Any], text: str, low: int, high: int) -> tuple[int, int] | None:
    """The characters of the answer text[low:high] that give its reasons; None if the row has none."""
    reasons = row.get("rationale")
    if not reasons:
        return None
    at = text.find(reasons, low, high)
    if at < 0:
        raise DataError(
            f"{row['where']}: the chat template rewrites the answer, so its rationale cannot be told apart; give the rows as "
            "prompt, completion and rationale."
        )
    return low, at + len(reasons)


def _render(
    messages: list[dict[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    row: dict[str, Any],
    prompt: bool = False,
) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
    except Exception as error:  # a template is a program of the tokenizer's; it raises what it likes
        raise DataError(f"{row['where']}: the chat template refuses this conversation: {error}") from error


def _spans_to_example(
    row: str,
    text: str,
    spans: list[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special: bool,
    reasons: tuple[int, int] | None = None,
) -> Example | str:
    """Tokens that overlap one of the character `spans` are counted, but the first of all: nothing predicts it.

    Those of them that overlap the characters `reasons` are the rationale's.
    """
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special, verbose=False)
    whole, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    sizes = _sizes(text, whole, offsets, tokenizer)
    ids = whole[:max_length]
    inside = [
        number > 0 and end > start and any(low < end and start < high for low, high in spans)
        for number, (start, end) in enumerate(offsets[:max_length])
    ]
    low, high = reasons or (0, 0)
    given = [
        number
        for number, (start, end) in enumerate(offsets[:max_length])
        if inside[number] and low < end and start < high
    ]
    if sum(inside) == len(given):
        return "no answer within max_length"
    labels = [token if counted else IGNORED for token, counted in zip(ids, inside, strict=True)]
    size = sum(length for length, counted in zip(sizes, inside, strict=False) if counted)
    return replace(example_of(row, ids, labels, [0], size), reasons=given)


COMMON_CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\s]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
)
"""Control tokens of the language models that are most asked (ChatML, Llama, DeepSeek, Mistral, Gemma), where theirs are unknown."""


def control_pieces(*tokenizers: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What one of the tokenizers takes for a control token wherever it stands in a text, such as "<|im_end|>"."""
    found: set[str] = set()
    for tokenizer in tokenizers:
        found |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        found |= set(map(str, tokenizer.all_special_tokens))
    pieces = {piece for piece in found if len(piece) > 1}
    longest_first = sorted(pieces, key=lambda piece: (-len(piece), piece))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def without_control(text: str, control: re.Pattern[str]) -> str:
    """`text` with a space inside each control piece, which makes it plain text ("<|im_end|>" -> "< |im_end|>").

    For what models and strangers write: it is data, and must neither end a turn nor begin one.
    """
    return control.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


# ── classification ──────────────────────────────────────────────────────────────────────────────────────────────────


def encode_labelled(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labels: list[str]
) -> Iterator[Example]:
    """Texts (and perhaps a second one each) with their label's number, or -100 where nobody labelled it."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        for row, (ids, segments) in zip(some, _cut(some, tokenizer, max_length), strict=True):
            label = labels.index(row["label"]) if row.get("label") is not None else IGNORED
            starts = [0, segments.index(1)] if 1 in segments else [0]
            yield example_of(row["id"], ids, [label], starts, len(row["text"].encode()))


def _cut(
    rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[list[int], list[int]]]:
    """(token ids, which of the two texts each is of) of each row; a tokenizer cuts many rows faster than one after the other."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for paired in (False, True):
        at = [number for number, row in enumerate(rows) if (row.get("pair") is not None) == paired]
        if at:
            texts = [rows[number]["text"] for number in at]
            pairs = [rows[number]["pair"] for number in at] if paired else None
            made = tokenizer(texts, pairs, truncation=True, max_length=max_length, verbose=False)
            segments = made.get("token_type_ids") or [[]] * len(at)
            found |= dict(zip(at, zip(made["input_ids"], segments, strict=True), strict=True))
    return [found[number] for number in range(len(rows))]


# ── on disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_examples(path: Path, examples: list[Example]) -> dict[str, Any]:
    """Keep examples as Parquet.  Returns: how many rows, tokens and counted positions, and a hash of the content."""
    columns = {
        name: [getattr(example, name) for example in examples] for name in Example.__dataclass_fields__
    }
    with atomic(path) as part:
        pq.write_table(pa.table(columns, schema=_SCHEMA), part, compression="zstd")
    return {
        "rows": len(examples),
        "tokens": sum(len(example.input_ids) for example in examples),
        "counted": sum(example.counted for example in examples),
        "content": hash_json(
            [
                [example.key, example.labels[:1], *([example.reasons] * bool(example.reasons))]
                for example in examples
            ]
        ),
    }


def read_examples(path: Path) -> list[Example]:
    """What `write_examples` kept."""
    table = pq.read_table(path)
    columns = [_values(table.column(name)) for name in Example.__dataclass_fields__]
    return [Example(*values) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """As `to_pylist`, but equal numbers in lists are one object: a token costs 8 bytes instead of about 40."""
    if not pa.types.is_list(column.type):
        values: list[Any] = column.to_pylist()
        return values
    lists = column.combine_chunks()
    numbers, borders = lists.flatten().to_numpy(), np.cumsum([0, *lists.value_lengths().to_numpy()])
    if not len(numbers):
        return [[] for _ in range(len(lists))]
    least = int(numbers.min())
    objects = np.arange(least, int(numbers.max()) + 1).astype(object)
    shared = objects[numbers - least].tolist()
    return [shared[low:high] for low, high in pairwise(borders.tolist())]


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("row", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("starts", pa.list_(pa.int32())),
        ("bytes", pa.int32()),
        ("reasons", pa.list_(pa.int32())),
    ]
)
