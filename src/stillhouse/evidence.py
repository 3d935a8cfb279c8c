"""What was inherited and where teacher and student part, from the statistics that an evaluation has kept.

Errors that the student repeats, gaps between groups of rows, words that go with errors, where the two disagree most, and
how their confidence would be mended.  Everything here reads per-row statistics alone: no model, no torch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .held_out import CHANGED, HALVES, SWAPPED, UNSWAPPED
from .kept import RowIndex
from .measure import (
    FLIPS,
    MOVED,
    REPEATED,
    Metric,
    Rows,
    Share,
    alarms,
    class_table,
    confusions,
    difference,
    flip_rows,
    gap_facts,
    gap_rows,
    group_values,
    in_bits,
    inheritance_in_words,
    interval,
    least_visible,
    mended,
    moved_rows,
    same_answers,
    shift_facts,
    shift_rows,
    words_of_errors,
)

MODELS = ("teacher", "student", "hard_only")
LABEL_RATES = 6
"""Labels up to which the share of answers with each of them is compared between groups."""
QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
FEWEST_ROWS = 10
"""Of a slice in which agreement is measured."""

KeptRows = dict[str, dict[str, Rows]]
"""Model -> data set -> statistics."""


def evidence(
    kept: KeptRows,
    index: dict[str, RowIndex],
    texts: Sequence[str] | None,
    labels: list[str],
    agreement: Metric,
    headline: Metric,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The sections `inheritance`, `groups`, `disagreement`, `classes`, `calibration` and those of changed rows, of results.json.

    Args:
        texts: of the rows of `eval`, for a classifier; None for a language model.
        labels: a classifier's; none for a language model.
    """
    settings: Any = {"resamples": resamples, "seed": seed}
    of_set = {kind: {name: kept[name][kind] for name in MODELS if name in kept} for kind in index}
    found: dict[str, Any] = {
        "inheritance": {
            kind: _inheritance(rows, index[kind], texts if kind == "eval" else None, **settings)
            for kind, rows in of_set.items()
        },
        "groups": {
            kind: gaps
            for kind, rows in of_set.items()
            if (gaps := _gaps(rows, index[kind], labels, headline, **settings))
        },
        "disagreement": list(_disagreement(of_set["eval"]["student"], index["eval"], agreement, **settings)),
        "classes": _classes(of_set["eval"], index["eval"], labels, **settings) if labels else None,
        "calibration": {
            name: mended(rows, index["eval"].units, **settings) for name, rows in of_set["eval"].items()
        },
        "robustness": {
            kind: _robustness(of_set, index, kind, headline, **settings) for kind in CHANGED if kind in of_set
        },
        "counterfactual": _counterfactual(of_set, index, **settings) if SWAPPED in of_set else None,
    }
    return found


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _inheritance(
    models: dict[str, Rows], index: RowIndex, texts: Sequence[str] | None, *, resamples: int, seed: int
) -> dict[str, Any] | None:
    """How many of the teacher's errors come again in the student, and in the control that never saw it."""
    student, control = models["student"], models.get("hard_only")
    if "repeats" not in student:
        return None
    settings: Any = {"resamples": resamples, "seed": seed}
    errors = int(student["teacher_wrong"].sum())
    found: dict[str, Any] = {
        "teacher_errors": errors,
        "models": {
            name: interval(REPEATED, index.units(rows), **settings).as_json()
            for name, rows in models.items()
            if name != "teacher" and errors
        },
        "excess": None,
        "least_visible": None,
        "says": "No control was trained on hard targets alone, so nothing is said of what was inherited.",
        "words": [],
    }
    if control is not None:
        excess = difference(REPEATED, index.units(student), index.units(control), **settings)
        found["excess"] = excess.as_json()
        found["least_visible"] = least_visible(excess.low, excess.high)
        found["says"] = inheritance_in_words(errors, excess)
    if texts is not None:
        found["words"] = words_of_errors(texts, _inherited_errors(student, control))
    return found


def _inherited_errors(student: Rows, control: Rows | None) -> "np.ndarray[Any, Any]":
    """[N] rows on which the student repeats an error of its teacher's that the control does not make."""
    repeated = student["repeats"] > 0
    return repeated if control is None else repeated & ~(control["repeats"] > 0)


# ── changed rows ────────────────────────────────────────────────────────────────────────────────────────────────────


Pairs = tuple[dict[str, tuple[Rows, Rows]], RowIndex]
"""(model -> statistics of the clean rows and of the changed ones, in the same order; which rows these are)"""


def _pairs(of_set: dict[str, dict[str, Rows]], index: dict[str, RowIndex], clean: str, changed: str) -> Pairs:
    """The rows that are on both sides, by their ids; one that a side could not use is on neither."""
    before, after = index[clean], index[changed]
    place = {row: number for number, row in enumerate(before.rows)}
    at_after = np.array([n for n, row in enumerate(after.rows) if row in place], dtype=np.int64)
    at_before = np.array([place[after.rows[n]] for n in at_after], dtype=np.int64)
    return {
        name: (_at(of_set[clean][name], at_before), _at(rows, at_after))
        for name, rows in of_set[changed].items()
        if name in of_set[clean]
    }, after.some(at_after)


def _at(rows: Rows, at: "np.ndarray[Any, Any]") -> Rows:
    return {name: column[at] for name, column in rows.items()}


def _robustness(
    of_set: dict[str, dict[str, Rows]],
    index: dict[str, RowIndex],
    changed: str,
    headline: Metric,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What a change of the rows costs each model, over rows on which all count the same answer whole; see `shift_facts`.

    `left_out` counts the other clean rows: the changed one was refused, was not made, or its answer was cut.
    """
    clean = HALVES if HALVES in of_set else "eval"
    pairs, rows = _pairs(of_set, index, clean, changed)
    whole = np.flatnonzero(np.logical_and.reduce([same_answers(*pair) for pair in pairs.values()]))
    left_out = len(index[clean].rows) - len(whole)
    if not len(whole):
        return {"rows": 0, "left_out": left_out, "models": {}, "extra": None}
    mine, units = rows.some(whole), {}
    for name, (before, after) in pairs.items():
        columns = shift_rows(_at(before, whole), _at(after, whole), headline)
        if headline.unit == "bits":
            columns |= {part: in_bits(columns[part]) for part in ("part_in", "part_out")}
        units[name] = mine.units(columns)
    facts = shift_facts(units, resamples=resamples, seed=seed)
    return {"rows": len(whole), "left_out": left_out, **facts}


def _counterfactual(
    of_set: dict[str, dict[str, Rows]], index: dict[str, RowIndex], *, resamples: int, seed: int
) -> dict[str, Any]:
    """What swapping a term changes in teacher, student and control, and their differences: the share of answers that become
    others, or of a language model how far the likelihood of the same answer, or of the text, moves.

    Where no swapped row has its clean one beside it, there are 0 rows and no numbers.
    """
    settings: Any = {"resamples": resamples, "seed": seed}
    pairs, rows = _pairs(of_set, index, UNSWAPPED if UNSWAPPED in of_set else "eval", SWAPPED)
    classifies = "pred" in pairs["student"][0]
    metric, paired = (FLIPS, flip_rows) if classifies else (MOVED, moved_rows)
    about = {"rows": len(rows.rows), "metric": metric.name, "title": metric.title}
    if not rows.rows:
        return {**about, "models": {}, "drift": None, "inherited": None}
    units = {name: rows.units(paired(*pair)) for name, pair in pairs.items()}
    student, control = units["student"], units.get("hard_only")
    return {
        **about,
        "models": {name: interval(metric, each, **settings).as_json() for name, each in units.items()},
        "drift": difference(metric, student, units["teacher"], **settings).as_json(),
        "inherited": None if control is None else difference(metric, student, control, **settings).as_json(),
    }


# ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _shares(labels: list[str], headline: Metric) -> list[Share]:
    """Between groups of which gaps are looked for."""
    if not labels:
        return [
            Share(headline.name, headline.title, "bits", headline.columns[1], False),
            Share("token_accuracy", "token accuracy", "correct", "tokens", True),
        ]
    rates = range(len(labels)) if len(labels) > 2 else range(1, 2)
    return [
        Share("accuracy", "accuracy", "correct", "texts", True),
        *(
            Share(f"rate_{labels[number]}", f"share answered {labels[number]}", "pred", "texts", True, number)
            for number in rates
            if len(labels) <= LABEL_RATES
        ),
    ]


def _gaps(
    models: dict[str, Rows],
    index: RowIndex,
    labels: list[str],
    headline: Metric,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Every gap in every column of `evaluate.groups`, and what was too rare to be looked at."""
    if not index.groups:
        return None
    gaps, rare = [], {}
    for column, values in index.groups.items():
        frequent = group_values(values)
        if left_out := sorted({value for value in values if value} - set(frequent)):
            rare[column] = left_out[:20]
        for group in frequent:
            inside = np.array([value == group for value in values])
            for share in _shares(labels, headline):
                units = {
                    name: index.units(gap_rows(_with_bits(rows), share, inside))
                    for name, rows in models.items()
                }
                facts = gap_facts(units, resamples=resamples, seed=seed)
                about = {"column": column, "group": group, "metric": share.name, "title": share.title}
                gaps.append({**about, "rows": int(inside.sum()), **facts})
    return {"gaps": alarms(gaps), "rare": rare}


def _with_bits(rows: Rows) -> Rows:
    return rows | {"bits": in_bits(rows["nll"])} if "tokens" in rows else rows


# ── classes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _classes(
    models: dict[str, Rows], index: RowIndex, labels: list[str], *, resamples: int, seed: int
) -> dict[str, Any]:
    """The table of classes, and what is taken for what; of a teacher that named only labels, too."""
    told = {name: rows for name, rows in models.items() if {"tp", "pred", "true"} <= set(rows)}
    return {
        "table": class_table(
            {name: index.units(rows) for name, rows in told.items()}, labels, resamples=resamples, seed=seed
        ),
        "confusions": confusions(
            {name: rows for name, rows in told.items() if name in ("teacher", "student")},
            labels,
            index.units,
            resamples=resamples,
            seed=seed,
        ),
    }


# ── disagreement ────────────────────────────────────────────────────────────────────────────────────────────────────


def _disagreement(
    student: Rows, index: RowIndex, agreement: Metric, *, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Agreement with the teacher in slices of the rows: by label, by length, by group, and by position in a text."""
    if not set(agreement.columns) <= set(student):  # a teacher behind an API says no tokens to agree with
        return
    for by, value, inside in _slices(index):
        some = {name: column[inside] for name, column in student.items() if name in agreement.columns}
        if inside.sum() >= FEWEST_ROWS:
            measured = interval(agreement, some, resamples=resamples, seed=seed).as_json()
            yield {"by": by, "value": value, "rows": int(inside.sum()), "agreement": measured}
    for bucket, counts in enumerate(student.get("count_at", np.zeros((1, 0))).T):
        if counts.sum():
            some = {"agree": student["agree_at"][:, bucket], "tokens": counts}
            first, last = 2**bucket, 2 ** (bucket + 1) - 1
            measured = interval(agreement, some, resamples=resamples, seed=seed).as_json()
            where = f"{first}" if first == last else f"{first}–{last}"
            yield {"by": "position", "value": where, "rows": int(counts.sum()), "agreement": measured}


def _windows(index: RowIndex) -> bool:
    """Whether the rows are windows of packed text, whose lengths say where a text was cut: most are as long as the longest."""
    lengths = np.array(index.tokens)
    whole = (lengths == lengths.max()).mean() > 0.5
    return bool(whole) and all(label is None for label in index.labels)


def _slices(index: RowIndex) -> Iterator[tuple[str, str, "np.ndarray[Any, Any]"]]:
    """(what the rows are cut by, the slice, which rows are in it)."""
    for label in sorted({label for label in index.labels if label is not None}):
        yield "label", label, np.array([each == label for each in index.labels])
    lengths = np.array(index.tokens)
    edges = np.quantile(lengths, (0.25, 0.5, 0.75))
    if len(set(edges.tolist())) == 3 and not _windows(index):
        quarter = np.searchsorted(edges, lengths, side="left")
        for number, name in enumerate(QUARTERS):
            yield "length", name, quarter == number
    for column, values in index.groups.items():
        for group in group_values(values):
            yield column, group, np.array([value == group for value in values])
