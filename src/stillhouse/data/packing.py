"""Ragged rows side by side in one sequence, so that a batch has next to no padding.

The rows must not see one another: position ids restart at each (see `tasks/causal_lm.py: collate`), and a model that
does not heed them must not be given such rows (`packs` there).
"""

from collections.abc import Iterator, Sequence

from .encode import IGNORED, Example


def packed(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """First-fit decreasing: rows into as few sequences of the longest row's length as a greedy choice finds.

    Returns: (sequences, the rows in the order in which their positions now come).  A sequence has no key of its own.
    """
    room = max(len(example.input_ids) for example in examples)
    bins: list[list[Example]] = []
    left: list[int] = []
    for example in sorted(examples, key=lambda example: -len(example.input_ids)):
        size = len(example.input_ids)
        place = next((number for number, free in enumerate(left) if free >= size), len(bins))
        if place == len(bins):
            bins.append([])
            left.append(room)
        bins[place].append(example)
        left[place] -= size
    return [_joined(rows) for rows in bins], [example for rows in bins for example in rows]


def _joined(rows: list[Example]) -> Example:
    if len(rows) == 1:
        return rows[0]
    return Example(
        key="",
        row=rows[0].row,
        input_ids=[token for row in rows for token in row.input_ids],
        labels=[
            label for row in rows for label in (IGNORED, *row.labels[1:])
        ],  # the row before predicts no row's first
        starts=list(_starts(rows)),
        bytes=sum(row.bytes for row in rows),
        reasons=list(_reasons(rows)),
    )


def _starts(rows: list[Example]) -> Iterator[int]:
    """Where each document of each row begins in the sequence."""
    at = 0
    for row in rows:
        yield from (at + start for start in row.starts)
        at += len(row.input_ids)


def _reasons(rows: list[Example]) -> Iterator[int]:
    """Where the reasons of each row lie in the sequence."""
    at = 0
    for row in rows:
        yield from (at + place for place in row.reasons)
        at += len(row.input_ids)
