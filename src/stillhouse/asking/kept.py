"""Answers as they lie in a ledger, and whose they are."""

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .apart import Apart
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
        """Whether it is known whose it is: neither its place nor who took it is a name that an older ledger has for an address."""
        return all(not one or "://" in one for one in (self.place, self.taken))


def taken_of(place: str, apart: Apart, kept: Sequence[Kept]) -> Kept | None:
    """Which of the answers to one question serves who is asked at `place`: its own; else one that nobody else may claim.

    That is none of a place that ever stood beside a namesake: two such places may both have moved, and nobody knows which is which.
    Nor is it one that a place told apart from this one took over for want of its own.  A refusal, which costs nothing, is not taken
    over by such a place; and an answer goes before any refusal.

    Args: apart: of this model.
    """
    living = {one.place for one in kept if one.status != "refused"}
    needed = set(apart.get(place, ())) - living - {place}
    free = [
        one
        for one in kept
        if one.place == place
        or (
            one.place not in apart
            and one.known
            and one.taken not in needed
            and (place not in apart or one.status != "refused")
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
