"""Rows that are not worth learning from, each with its reason; `data.filter` of a recipe.

`sift` is the whole of it: rules that look at one row (`rules`), near duplicates (`near`), contamination (`contamination`), and
the choice of some rows that stand for all (`diverse`).  What asks a teacher (`min_confidence`) is in `steps/`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ...recipe.filter import Filter
from ..formats import Row
from .contamination import contaminated
from .diverse import diverse
from .near import near_twins
from .rules import rules
from .texts import parts_of

Verdict = str | None
"""Why a row is dropped; None if it stays."""
NEAR_DUPLICATE = "near duplicate"


def sift(
    rows: Sequence[Row],
    wanted: Filter,
    tests: Mapping[str, Sequence[Row]],
    before: Sequence[Row] = (),
    documents: Mapping[str, Sequence[Row]] | None = None,
) -> list[Verdict]:
    """For each of `rows`, in their order, why it is dropped, or None.

    Args:
        tests: what the models are measured on; nothing of it may be in a row that stays.
        before: rows that stay whatever is said here, and that no row may nearly repeat.
        documents: task -> further texts that models are asked about; each task has a template of its own.
    """
    verdicts: list[Verdict] = [None] * len(rows)
    for rule in rules(wanted):
        _judge(verdicts, lambda some, rule=rule: [rule(row) for row in some], rows)  # type: ignore[misc]
    if wanted.contamination is not None:
        for sets in (tests, *({name: some} for name, some in (documents or {}).items())):
            look = partial(contaminated, tests=sets, length=wanted.contamination)
            _judge(verdicts, lambda some, look=look: [*map(_given_away, look(some))], rows)  # type: ignore[misc]
    if wanted.near_duplicates is not None:
        threshold, first = wanted.near_duplicates, [_text(row) for row in before]
        _judge(verdicts, lambda some: _repeats(first, some, threshold), rows)
    return verdicts


def choose(rows: Sequence[Row], count: int) -> list[Verdict]:
    """For each of `rows` None if it is one of the `count` that stand for all."""
    chosen = set(diverse([_text(row) for row in rows], count))
    return [None if number in chosen else "not selected" for number in range(len(rows))]


def _judge(verdicts: list[Verdict], judge: Callable[[list[Row]], list[Verdict]], rows: Sequence[Row]) -> None:
    """Let `judge` look at the rows that nothing was said against yet."""
    left = [number for number, verdict in enumerate(verdicts) if verdict is None]
    for number, verdict in zip(left, judge([rows[number] for number in left]), strict=True):
        verdicts[number] = verdict


def _repeats(before: list[str], rows: Sequence[Row], threshold: float) -> list[Verdict]:
    twins = near_twins([*before, *map(_text, rows)], threshold)
    return [None if twin is None else NEAR_DUPLICATE for twin in twins[len(before) :]]


def _given_away(name: str | None) -> Verdict:
    return None if name is None else f"contains {name}"


def _text(row: Row) -> str:
    return "\n".join(parts_of(row))
