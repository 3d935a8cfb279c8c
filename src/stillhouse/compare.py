"""Students of several runs on the same rows, by what the runs have kept: no model is loaded.

The first run is the reference; each other student is compared with it row by row, with a paired interval and a paired
permutation test, and all tests but that of the headline metric share one error rate.  Runs that did not read the same
rows are not compared: a difference between two sets of rows looks like one between two students.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .errors import RecipeError
from .finished import read_results
from .kept import FOLDER, RowIndex, read_index, read_rows, rows_path
from .measure import TASK_METRICS, Metric, Rows, claimed, difference, interval

OF_THE_TEACHER = "teacher_"
"""Metrics that begin so compare with the run's own teacher."""


def compare(
    runs: list[Path], *, model: str = "student", resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """{"metric", "runs": [what each reached], "differences": [each later run − the first], "notes"}.

    Raises: RecipeError if one is not finished, tells no statistics, or was not measured on the same rows.
    """
    if len(runs) < 2:
        raise RecipeError("compare: name at least two run folders, such as runs/a runs/b.")
    found = {run: read_results(run) for run in runs}
    first = runs[0]
    for run in runs[1:]:
        if found[run]["task"] != found[first]["task"]:
            raise RecipeError(
                f"{run}: its task is {found[run]['task']} and that of {first} is {found[first]['task']}; "
                "compare runs of one task."
            )
    sets = [
        kind for kind in found[first]["datasets"] if all(kind in each["datasets"] for each in found.values())
    ]
    units, notes = _units(runs, sets, model)
    metric, metrics = found[first]["metric"], TASK_METRICS[found[first]["task"]]
    return {
        "metric": metric,
        "metrics": found[first]["metrics"],
        "model": model,
        "runs": [
            {
                "run": str(run),
                "parameters": found[run]["student"]["parameters"],
                "metrics": _levels(metrics, units[run], resamples, seed),
            }
            for run in runs
        ],
        "differences": [
            {
                "run": str(run),
                "against": str(first),
                "sets": _differences(
                    metrics,
                    units[run],
                    units[first],
                    metric,
                    _same_teacher(found[run], found[first]),
                    resamples,
                    seed,
                ),
            }
            for run in runs[1:]
        ],
        "notes": notes,
    }


def _units(
    runs: list[Path], sets: list[str], model: str
) -> tuple[dict[Path, dict[str, Rows]], dict[str, str]]:
    """(run -> data set -> statistics in the order of the first run, data set -> what must be said of its rows)."""
    units: dict[Path, dict[str, Rows]] = {run: {} for run in runs}
    notes = {}
    for kind in sets:
        reference = read_index(runs[0], kind)
        if note := reference.note():
            notes[kind] = note
        for run in runs:
            order = _order(reference, read_index(run, kind), runs[0], run, kind)
            path = rows_path(run / FOLDER, model, kind)
            if not path.exists():
                raise RecipeError(f"{run}: has no {model} to compare; it was not trained in that run.")
            units[run][kind] = reference.units(
                {name: column[order] for name, column in read_rows(path).items()}
            )
    return units, notes


def _order(reference: RowIndex, other: RowIndex, first: Path, run: Path, kind: str) -> "np.ndarray[Any, Any]":
    """See `RowIndex.places`.  Raises: RecipeError if they are not the same rows."""
    order = reference.places(other)
    if order is None:
        apart = len(set(reference.rows) ^ set(other.rows)) or len(set(reference.keys) ^ set(other.keys))
        raise RecipeError(
            f"{run} and {first} were not measured on the same rows of {kind} ({len(other.rows):,} and "
            f"{len(reference.rows):,} rows, {apart:,} of them in one run only); give both recipes the same data.eval, "
            "max_length and evaluate.rows."
        )
    return order


def _levels(
    metrics: dict[str, Metric], units: dict[str, Rows], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    return {
        kind: {
            metric.name: interval(metric, rows, resamples=resamples, seed=seed).as_json()
            for metric in metrics.values()
            if set(metric.columns) <= set(rows)
        }
        for kind, rows in units.items()
    }


def _differences(
    metrics: dict[str, Metric],
    mine: dict[str, Rows],
    theirs: dict[str, Rows],
    headline: str,
    same_teacher: bool,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    found = {
        kind: {
            metric.name: difference(metric, rows, theirs[kind], resamples=resamples, seed=seed).as_json()
            for metric in metrics.values()
            if set(metric.columns) <= set(rows) & set(theirs[kind])
            and (same_teacher or not metric.name.startswith(OF_THE_TEACHER))
        }
        for kind, rows in mine.items()
    }
    return claimed(found, headline)


def _same_teacher(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["teacher"]["identity"] == other["teacher"]["identity"])
