"""One text, two tokenizers: how another model reads an example, and which tokens of both cover the same bytes.

Tokens are compared by the bytes of text that they stand for, so pieces that spell a space as "Ġ" and as "▁" are the same.
Both models stand after the same bytes wherever a token of the one and a token of the other end at the same offset; what
lies between two such places is a span.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import RecipeError
from .encode import IGNORED, Example, encode_chat

Span = tuple[int, int, int, int]
"""(first, end) of my counted positions and (first, end) of theirs, within one example."""


@dataclass(frozen=True)
class Reading:
    """How the other model reads an example, and where both stand at the same byte."""

    example: Example
    """In the other tokenizer; its key is the key of the example that it was made from."""
    spans: list[Span]


class Tongue:
    """A tokenizer, and the bytes that each of its tokens stands for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.bytes = token_bytes(tokenizer)
        """By id; None for a special token."""
        ids = list(tokenizer("a")["input_ids"])
        self.begins: list[int] = ids[:1] if ids and self.bytes[ids[0]] is None else []
        """The token that a text begins with, in a list; an empty one if there is none."""

    def spelled(self, ids: Sequence[int]) -> bytes:
        """The text that `ids` stand for; special tokens stand for none."""
        return b"".join(self.bytes[token] or b"" for token in ids)

    def end_of_turn(self) -> int | None:
        """The special token that ends what an assistant says; None without a chat template."""
        if not self.tokenizer.chat_template:
            return None
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text = self.tokenizer.apply_chat_template(said, tokenize=False)
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return next((int(token) for token in reversed(ids) if self.bytes[token] is None), None)


class Alignment:
    """My examples as the other model reads them."""

    def __init__(self, mine: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
        self.mine, self.theirs = Tongue(mine), Tongue(theirs)

    def read(self, example: Example, messages: list[dict[str, str]] | None = None) -> Reading:
        """The same text in the other tokenizer, document by document; a conversation in the other model's own template.

        Args: messages: of the conversation that the example was made from; None for plain texts and completions.
        """
        return self._text(example) if messages is None else self._chat(example, messages)

    def _text(self, example: Example) -> Reading:
        """Each document again: its text, with the other side's beginning and end token."""
        order = _ordinals(example.labels)
        ids: list[int] = []
        labels: list[int] = []
        starts, spans, size = [], [], 0
        for start, end in zip(example.starts, [*example.starts[1:], len(example.input_ids)], strict=True):
            starts.append(len(ids))
            own = _Stretch.of(example.input_ids[start:end], order[start:end], self.mine)
            text = _whole_characters(own.text)
            if text is None:
                ids.append(self._filler())
                labels.append(IGNORED)
                continue
            lead, words = text
            read = [*self.theirs.begins, *self.theirs.tokenizer(words, add_special_tokens=False)["input_ids"]]
            if own.ended and self.theirs.tokenizer.eos_token_id is not None:
                read.append(self.theirs.tokenizer.eos_token_id)
            counted = _counted_from(read, self.theirs, own.first - lead)
            first = sum(label != IGNORED for label in labels)
            ids += read
            labels += [token if here else IGNORED for token, here in zip(read, counted, strict=True)]
            size += sum(len(self.theirs.bytes[t] or b"") for t, c in zip(read, counted, strict=True) if c)
            numbers = _numbered(counted, first)
            other = _Stretch.of(read, numbers, self.theirs)
            if other.text == words.encode():
                spans += _common(own, other.shifted(lead))
        return Reading(Example(example.key, example.row, ids, labels, starts, size), spans)

    def _filler(self) -> int:
        """A token for a document of which not even one character is whole."""
        return (self.theirs.begins or [0])[0]

    def _chat(self, example: Example, messages: list[dict[str, str]]) -> Reading:
        """The other template's rendering; the k-th answer of the one beside the k-th of the other."""
        room = 2 * len(example.input_ids) + 64
        row = {"id": example.row, "where": f"row {example.row}", "messages": messages}
        made = encode_chat(row, self.theirs.tokenizer, room)
        if isinstance(made, str):  # no answer within reach: it is read, and nothing is compared
            return Reading(self._text(example).example, [])
        spans: list[Span] = []
        for own, other in zip(_answers(example, self.mine), _answers(made, self.theirs), strict=False):
            spans += _common(own.stripped(), other.stripped())
        found = Example(example.key, example.row, made.input_ids, made.labels, made.starts, made.bytes)
        return Reading(found, spans)


# ── where both stand at the same byte ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Stretch:
    """Tokens of one document or answer: where each ends, in bytes, and which counted position it is."""

    text: bytes
    ends: list[int]
    """Of the tokens that stand for bytes."""
    places: list[int]
    """The counted position of each of them; −1 where none is counted."""
    end_place: int
    """The counted position of the token that ends it; −1 if there is none."""
    offset: int = 0
    """What to add to `ends`, to speak of the same text as another stretch."""

    @classmethod
    def of(cls, ids: Sequence[int], places: Sequence[int], tongue: Tongue) -> "_Stretch":
        ends, kept, at, last = [], [], 0, -1
        for token, place in zip(ids, places, strict=True):
            piece = tongue.bytes[token]
            if piece:
                at += len(piece)
                ends.append(at)
                kept.append(place)
                last = -1
            elif piece is None and at and last < 0:
                last = place
        return cls(tongue.spelled(ids), ends, kept, last)

    @property
    def ended(self) -> bool:
        """Whether a counted special token follows the text."""
        return self.end_place >= 0

    @property
    def first(self) -> int:
        """The byte at which the first counted token begins; the end if none is counted."""
        number = next((n for n, place in enumerate(self.places) if place >= 0), len(self.ends))
        return self.ends[number - 1] if number else 0

    def shifted(self, by: int) -> "_Stretch":
        return _Stretch(self.text, self.ends, self.places, self.end_place, by)

    def stripped(self) -> "_Stretch":
        """Counted from the first byte that is no space: templates trim, each in its own way."""
        return self.shifted(-(len(self.text) - len(self.text.lstrip())))

    @property
    def borders(self) -> dict[int, int]:
        """Byte -> number of the token that begins there, for each counted token and the end of the last one."""
        begins = [0, *self.ends]
        return {
            begins[n] + self.offset: n
            for n in range(len(begins))
            if (n < len(self.places) and self.places[n] >= 0) or (n and self.places[n - 1] >= 0)
        }

    def body(self) -> bytes:
        """The text without the space around it."""
        return self.text.strip()


def _common(own: _Stretch, other: _Stretch) -> list[Span]:
    """The spans between borders that both have; the end tokens are one more, where both say the whole text."""
    same = _agreeing(own, other)
    mine, theirs = own.borders, other.borders
    common = sorted(at for at in mine.keys() & theirs.keys() if at <= same)
    spans = [
        (
            own.places[mine[a]],
            own.places[mine[b] - 1] + 1,
            other.places[theirs[a]],
            other.places[theirs[b] - 1] + 1,
        )
        for a, b in pairwise(common)
        if own.places[mine[a]] >= 0 and other.places[theirs[a]] >= 0
    ]
    if own.ended and other.ended and own.body() == other.body():
        spans.append((own.end_place, own.end_place + 1, other.end_place, other.end_place + 1))
    return spans


def _agreeing(own: _Stretch, other: _Stretch) -> int:
    """Up to which byte both texts are the same, in the coordinates that `offset` makes common."""
    low = max(own.offset, other.offset)
    mine, theirs = own.text[low - own.offset :], other.text[low - other.offset :]
    differ = next(
        (n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    return low + differ


def _answers(example: Example, tongue: Tongue) -> Iterator[_Stretch]:
    """Each run of counted tokens."""
    order = _ordinals(example.labels)
    start = 0
    while start < len(order):
        if order[start] < 0:
            start += 1
            continue
        end = start
        while end < len(order) and order[end] >= 0:
            end += 1
        yield _Stretch.of(example.input_ids[start:end], order[start:end], tongue)
        start = end


def _ordinals(labels: Sequence[int]) -> list[int]:
    """Which counted position each token is, −1 where it is not counted; the first token of a row never is."""
    return _numbered([number > 0 and label != IGNORED for number, label in enumerate(labels)], 0)


def _numbered(counted: Sequence[bool], first: int) -> list[int]:
    found = []
    for here in counted:
        found.append(first if here else -1)
        first += here
    return found


def _counted_from(ids: Sequence[int], tongue: Tongue, byte: int) -> list[bool]:
    """Which tokens are counted: those that begin at `byte` or later, but none that nothing predicts."""
    found, at = [], 0
    for number, token in enumerate(ids):
        piece = tongue.bytes[token]
        found.append(number > 0 and at >= byte and (piece is not None or at > 0))
        at += len(piece or b"")
    return found


def _whole_characters(data: bytes) -> tuple[int, str] | None:
    """(bytes left out in front, text) without the halves of characters that a cut left at both ends; None if none is left."""
    lead = next((n for n, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    try:
        text = data[lead:].decode()
    except UnicodeDecodeError as error:
        text = data[lead : lead + error.start].decode()
    return (lead, text) if text else None


# ── tokens as bytes ─────────────────────────────────────────────────────────────────────────────────────────────────


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes | None]:
    """The bytes of text that each token stands for, by id; None for special tokens and for ids that are none.

    Raises: RecipeError for a tokenizer that loses spaces or letters (WordPiece), whose tokens stand for no certain bytes.
    """
    vocabulary = tokenizer.get_vocab()
    table: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    spell = _speller(tokenizer)
    added = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    for piece, number in vocabulary.items():
        if number in special or (number in added and added[number].special):
            continue
        table[number] = piece.encode() if number in added else spell(piece)
    probe = "It's naïve, 東京 — 12 \t tabs!\n"
    ids = tokenizer(probe, add_special_tokens=False)["input_ids"]
    spelled = b"".join(table[token] or b"" for token in ids)
    if spelled.removeprefix(b" ") != probe.encode():
        raise RecipeError(
            "student.model: its tokenizer is not the teacher's, and one of the two does not keep every byte of a text, "
            "so that their tokens cannot be aligned; choose models with byte-level or SentencePiece tokenizers."
        )
    return table


def _speller(tokenizer: Any) -> Any:
    """Piece of the vocabulary -> bytes, by what the tokenizer's own decoder says of itself."""
    decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {})
    return _byte_level if '"ByteLevel"' in decoder else _sentencepiece


def _byte_level(piece: str) -> bytes:
    """GPT-2's way: each byte is written as one letter."""
    if any(letter not in _LETTERS for letter in piece):
        return piece.encode()
    return bytes(_LETTERS[letter] for letter in piece)


def _sentencepiece(piece: str) -> bytes:
    """SentencePiece's way: "▁" is a space, and <0x0A> a byte."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


def _letters() -> dict[str, int]:
    """Letter -> byte: printable ones stand for themselves, the others for the letters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    return table | {chr(0x100 + number): byte for number, byte in enumerate(hidden)}


_LETTERS = _letters()
