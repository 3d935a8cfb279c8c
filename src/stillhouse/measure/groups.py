"""Gaps between groups of rows, in the teacher and in what the student made of them.

A gap is a metric inside a group less the same metric on all other rows.  It is a function of sums too, so its intervals
and tests are the paired ones of `intervals`.  A gap alone does not say where it comes from: the group's rows may be
harder for everybody.  What is inherited shows against the control, which read the same rows and never saw the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .intervals import difference, interval
from .metrics import FloatArray, Metric, Rows, ratio
from .multiple import holm

FEWEST = 20
"""Rows of a group, and outside it, below which no gap is measured."""
MOST = 12
"""Values of one column that are looked at, the most frequent ones."""


@dataclass(frozen=True)
class Share:
    """A metric of the form sum(part) / sum(whole) between whose groups gaps are taken."""

    name: str
    title: str
    part: str
    whole: str
    higher_is_better: bool
    column: int | None = None
    """Of `part`, where that is a table [N, C]."""


def group_values(values: Sequence[str | None]) -> list[str]:
    """The values of a column that are frequent enough to be measured, the most frequent first."""
    known = [value for value in values if value]
    counts = {value: known.count(value) for value in dict.fromkeys(known)}
    frequent = [value for value, count in counts.items() if FEWEST <= count <= len(values) - FEWEST]
    return sorted(frequent, key=lambda value: (-counts[value], value))[:MOST]


def gap_rows(rows: Rows, share: Share, inside: "np.ndarray[Any, Any]") -> Rows:
    """The statistics of a gap: part and whole of the metric, inside the group and outside it.  inside: [N] of bool."""
    part = rows[share.part] if share.column is None else rows[share.part][:, share.column]
    mask = inside.astype(np.float64)
    return {
        "part_in": part * mask,
        "whole_in": rows[share.whole] * mask,
        "part_out": part * (1 - mask),
        "whole_out": rows[share.whole] * (1 - mask),
    }


def _gap(sums: dict[str, FloatArray]) -> FloatArray:
    return ratio(sums["part_in"], sums["whole_in"]) - ratio(sums["part_out"], sums["whole_out"])


def _size(sums: dict[str, FloatArray]) -> FloatArray:
    return np.abs(_gap(sums))


COLUMNS = ("part_in", "whole_in", "part_out", "whole_out")
GAP = Metric("gap", COLUMNS, _gap, True, "", "gap")
GAP_SIZE = Metric("gap_size", COLUMNS, _size, False, "", "size of the gap")


def gap_facts(models: dict[str, Rows], *, resamples: int, seed: int) -> dict[str, Any]:
    """Everything about one gap.

    Args: models: teacher, student and, if there is one, hard_only -> statistics of `gap_rows`.
    Returns: {"models": name -> interval of the gap; "drift": student − teacher; "growth": |student| − |teacher|;
        "inherited": student − control and "teacher_excess": teacher − control, None without a control}.
    """
    settings: Any = {"resamples": resamples, "seed": seed}
    control = models.get("hard_only")
    student, teacher = models["student"], models["teacher"]
    return {
        "models": {name: interval(GAP, rows, **settings).as_json() for name, rows in models.items()},
        "drift": difference(GAP, student, teacher, **settings).as_json(),
        "growth": difference(GAP_SIZE, student, teacher, **settings).as_json(),
        "inherited": None if control is None else difference(GAP, student, control, **settings).as_json(),
        "teacher_excess": None
        if control is None
        else difference(GAP, teacher, control, **settings).as_json(),
    }


def alarms(gaps: list[dict[str, Any]], level: float = 0.05) -> list[dict[str, Any]]:
    """`gaps` with "alarm": whether the student has a gap from its teacher that it would not have without.

    Both the teacher and the student must differ from the control, in the same direction, after all gaps that were
    looked at share one error rate (Holm); and the student's gap must be larger than the control's, for one that teaching
    has narrowed is no bias that came through.  Without a control nothing is claimed.
    """
    tested = [gap for gap in gaps if gap["inherited"] and gap["inherited"]["p"] is not None]
    student = holm([gap["inherited"]["p"] for gap in tested])
    teacher = holm([gap["teacher_excess"]["p"] for gap in tested])
    p_of = {id(gap): max(pair) for gap, pair in zip(tested, zip(student, teacher, strict=True), strict=True)}
    found = []
    for gap in gaps:
        p = p_of.get(id(gap))
        found.append({**gap, "p_holm": p, "alarm": bool(p is not None and p <= level and _passed_on(gap))})
    return found


def _passed_on(gap: dict[str, Any]) -> bool:
    """Whether teacher and student depart from the control to the same side, and the student's gap is the wider for it."""
    moved, wanted = gap["inherited"]["value"], gap["teacher_excess"]["value"]
    student, control = (gap["models"][name]["value"] for name in ("student", "hard_only"))
    return bool(moved * wanted > 0 and moved * student > 0 and abs(student) > abs(control))
