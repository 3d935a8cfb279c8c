"""Answers as they lie in a ledger, and whose they are."""

import json
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .messages import Answer, Tokens


@dataclass
class Kept:
    """An answer that lies in the ledger."""

    place: str
    taken: str
    status: str
    cost: float | None
    at: float
    said: tuple[Any, ...] = ()
    """What it says, where that was asked for: the columns of `ANSWER`."""

    @property
    def known(self) -> bool:
        """Whether its place is an address, or none; not the name that an older ledger has for one."""
        return not self.place or "://" in self.place


def taken_of(place: str, apart: Collection[str], kept: Sequence[Kept]) -> Kept | None:
    """Which of the answers to one question serves who is asked at `place`: its own; else one that nobody else may claim.

    That is none of a place in `apart`, where a model of its name is another one, and none that such a place took over for want of its
    own.  A refusal, which costs nothing, is not taken over beside such places, nor is what may be theirs; and an answer goes before any
    refusal.
    """
    living = {one.place for one in kept if one.status != "refused"}
    needed = set(apart) - living
    free = [
        one
        for one in kept
        if one.place == place
        or (
            one.place not in apart
            and one.taken not in needed
            and (not apart or (one.status != "refused" and one.known))
        )
    ]
    return min(
        free,
        key=lambda one: (one.status == "refused", one.place != place, one.taken != place, one.at, one.place),
        default=None,
    )


def by_question(rows: Iterable[Sequence[Any]]) -> dict[str, list[Kept]]:
    """(key, …) -> by key."""
    found: dict[str, list[Kept]] = {}
    for key, place, taken, status, cost, at, *said in rows:
        found.setdefault(key, []).append(Kept(place, taken, status, cost, at, tuple(said)))
    return found


def answer_of(values: Sequence[Any]) -> Answer:
    """What the columns `ANSWER` hold."""
    status, text, reason, tokens, *rest = values
    return Answer(status, text, reason, unpacked(tokens), *rest)


def packed(tokens: Tokens) -> str | bytes:
    """Log-probabilities to 1e-5 nat, by zlib: 20 alternatives of a token take about 150 bytes, and 630 as plain JSON."""
    if not tokens:
        return "[]"
    rounded = [
        [token, {other: round(log_p, 5) for other, log_p in others.items()}] for token, others in tokens
    ]
    return zlib.compress(json.dumps(rounded, ensure_ascii=False, separators=(",", ":")).encode())


def unpacked(kept: str | bytes) -> Tokens:
    """What `packed` made; ledgers from before it have JSON."""
    text = zlib.decompress(kept) if isinstance(kept, bytes) else kept
    return tuple((token, dict(others)) for token, others in json.loads(text))
