"""A server's log-probabilities of what it answered -> soft targets at the student's positions.

A server tells each token of an answer with a few alternatives.  They can be used where the student's tokenizer cuts the answer
into the very same tokens: then the two stand before the same choice at each of them.  Tokens are compared by their bytes, or by
their ids where the server names those.  Alternatives that are not exactly one token of the student's go to the tail, with all
that was not told.

A position that the server says nothing of keeps its own token with all probability, which makes any term a hard target: the end
of a turn where the server leaves it out, what a template puts around an answer, earlier answers of a conversation, and a whole
row whose tokens differ.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from transformers import PreTrainedTokenizerBase

from ..asking import Answer
from ..asking.messages import Tokens, numbered, spelled
from ..data.alignment import token_bytes
from ..data.encode import IGNORED, Example
from .targets import TopK

Choice = Mapping[int, float]
"""{token: log-probability} of one position, at temperature 1; empty where nothing is known."""


class Names:
    """Which of the student's tokens a server means."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises: RecipeError for a tokenizer whose tokens stand for no certain bytes."""
        self.bytes: list[bytes | None] = token_bytes(tokenizer)
        """By id, those of special tokens too; None for ids that are no token."""
        for piece, token in tokenizer.get_vocab().items():
            if self.bytes[token] is None:
                self.bytes[token] = piece.encode()
        count = Counter(self.bytes)
        self.ids = {piece: token for token, piece in enumerate(self.bytes) if piece and count[piece] == 1}
        """Of bytes that one token alone stands for."""

    def spell(self, name: str) -> bytes | None:
        """The bytes of what a server calls `name`; None if they are not known."""
        token = numbered(name)
        if token is None:
            return spelled(name)
        return self.bytes[token] if token < len(self.bytes) else None

    def find(self, name: str, lead: bytes = b"") -> int | None:
        """The one token that `name` is; None if there is none or more than one.

        Args: lead: the space that the student has before it, and the server does not.
        """
        token = numbered(name)
        if token is not None and not lead:
            return None if self.spell(name) is None else token
        piece = self.spell(name)
        return None if piece is None else self.ids.get(lead + piece)

    def lead(self, name: str, token: int) -> bytes | None:
        """The space that `token` has before what `name` is; b"" if they are the same, None if they differ in more."""
        wanted = numbered(name)
        if wanted == token:
            return b""
        own, piece = self.bytes[token], self.spell(name)
        if not own or not piece or not own.endswith(piece):
            return None
        lead = own.removesuffix(piece)
        return lead if not lead.strip() and (lead or wanted is None) else None


def choices(example: Example, answer: Answer, names: Names, cut: bool) -> list[Choice] | None:
    """What the server says at each counted position of `example`, of which `answer` is the last turn.

    Args: cut: whether the example ends before the answer does.
    Returns: None where the server's tokens are not the student's.
    """
    counted = [label for label in example.labels[1:] if label != IGNORED]
    run = _turns(example.labels)[-1]
    told = _of_the_text(answer, names)
    if told is None:
        return None
    first = _first(run, answer.tokens[:told], names, cut)
    if first is None:
        return None
    found: list[Choice] = [{} for _ in counted]
    at = len(counted) - len(run) + first
    for number, ((name, others), token) in enumerate(zip(answer.tokens, counted[at:], strict=False)):
        lead = names.lead(name, token)
        if lead is None or (lead and number):
            break  # after the text: the server's end token, and the student's has another name
        found[at + number] = _choice(name, others, token, names, lead)
    return found


def has_turns(example: Example, turns: int) -> bool:
    """Whether so many turns of the assistant's are in the example, the last one at least in part."""
    return len(_turns(example.labels)) >= turns


def _turns(labels: Sequence[int]) -> list[list[int]]:
    """The counted tokens of each turn."""
    runs = groupby(labels[1:], lambda label: label != IGNORED)
    return [list(run) for is_counted, run in runs if is_counted]


def _of_the_text(answer: Answer, names: Names) -> int | None:
    """How many of the told tokens make up the answer's text, space around it aside; None if they make up another one."""
    text, said = answer.text.encode().strip(), b""
    for number, (name, _) in enumerate(answer.tokens, 1):
        piece = names.spell(name)
        if piece is None:
            return None
        said += piece
        if len(said) >= len(text) and said.strip() == text:
            return number
    return None


def _first(run: Sequence[int], told: Tokens, names: Names, cut: bool) -> int | None:
    """At which token of the turn the told ones begin: a template may put something before an answer.  None: nowhere."""
    if cut:
        return 0 if _agree(run, told, names) else None
    return next(
        (at for at in range(len(run) - len(told) + 1) if _agree(run[at : at + len(told)], told, names)), None
    )


def _agree(run: Sequence[int], told: Tokens, names: Names) -> bool:
    """Whether both cut the text alike, as far as the shorter one goes; only the first token may have a space more."""
    leads = (names.lead(name, token) for (name, _), token in zip(told, run, strict=False))
    return all(lead is not None and not (lead and number) for number, lead in enumerate(leads))


def _choice(name: str, others: Mapping[str, float], token: int, names: Names, lead: bytes) -> Choice:
    found: dict[int, float] = {}
    for other, log_p in others.items():
        known = token if other == name else names.find(other, lead)
        if known is not None:
            found[known] = max(log_p, found.get(known, -math.inf))
    return found


def told_targets(example: Example, said: Sequence[Choice] | None, k: int) -> TopK:
    """The targets of an example's N counted positions, at temperature 1.

    Args: said: see `choices`; None for the text alone.
        k: places of each position; those that nothing is known for have −inf (see `losses.sparse`).
    """
    counted = [label for label in example.labels[1:] if label != IGNORED]
    ids, log_p = [], []
    for token, choice in zip(counted, said or [{}] * len(counted), strict=True):
        best = sorted((choice or {token: 0.0}).items(), key=lambda one: (-one[1], one[0]))[:k]
        kept = [number for number, _ in best]
        spare = [number for number in range(2 * k) if number not in kept][: k - len(kept)]
        ids.append(kept + spare)
        log_p.append([value for _, value in best] + [-math.inf] * len(spare))
    values = torch.tensor(log_p, dtype=torch.float64).reshape(-1, k)
    values -= values.logsumexp(-1, keepdim=True).clamp_min(0.0)  # rounding may have told more than 1
    return TopK(torch.tensor(ids).reshape(-1, k), values.float(), 1.0)
