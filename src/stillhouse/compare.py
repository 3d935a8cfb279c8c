"""Students of several runs on the same rows, by what the runs have kept: no model is loaded.

The first run is the reference; each other student is compared with it row by row, with a paired interval and a paired
permutation test, and all tests but that of the headline metric share one error rate.  Runs that did not read the same
rows are not compared: a difference between two sets of rows looks like one between two students.  Answers to other prompts, and
other documents of the lm-evaluation-harness, are left out, and the notes say so.
"""

from pathlib import Path
from typing import Any

import numpy as np

from .errors import RecipeError
from .files import read_json
from .finished import read_results
from .kept import (
    ANSWERS,
    FOLDER,
    Answered,
    RowIndex,
    harness_path,
    places_of,
    read_answered,
    read_index,
    read_rows,
    rows_path,
)
from .measure import (
    ANSWER_METRICS,
    TASK_METRICS,
    Metric,
    Rows,
    claimed,
    difference,
    document_metric,
    document_rows,
    interval,
)

OF_THE_TEACHER = "teacher_"
"""Metrics that begin so compare with the run's own teacher."""
HARNESS = "tasks of the lm-evaluation-harness"
"""In the place of a data set, which cannot have such a name."""

Measured = dict[str, dict[str, tuple[Metric, Rows]]]
"""Data set -> metric -> it and its statistics, in the order of the first run."""
Notes = dict[str, str]
"""Data set -> what must be said of its rows."""


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
    metric = found[first]["metric"]
    measured, notes = _measured(found, sets, model, TASK_METRICS[found[first]["task"]])
    notes |= _add_answers(measured, model) | _add_harness(measured, model)
    known = {
        name: one for each in measured.values() for kind in each.values() for name, (one, _) in kind.items()
    }
    return {
        "metric": metric,
        "metrics": {
            name: {"title": one.title, "unit": one.unit, "higher_is_better": one.higher_is_better}
            for name, one in known.items()
        },
        "model": model,
        "runs": [
            {
                "run": str(run),
                "parameters": found[run]["student"]["parameters"],
                "metrics": _levels(measured[run], resamples, seed),
            }
            for run in runs
        ],
        "differences": [
            {
                "run": str(run),
                "against": str(first),
                "sets": _differences(
                    measured[run],
                    measured[first],
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


def _measured(
    results: dict[Path, dict[str, Any]], sets: list[str], model: str, metrics: dict[str, Metric]
) -> tuple[dict[Path, Measured], Notes]:
    """What every run has measured of a model on its data sets, and told in its results: its rows may know more than can be said
    of a teacher that only names labels, or none."""
    runs = list(results)
    found: dict[Path, Measured] = {run: {} for run in runs}
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
            rows = reference.units({name: column[order] for name, column in read_rows(path).items()})
            told = _told(results[run], model).get(kind, metrics)
            found[run][kind] = _of({name: one for name, one in metrics.items() if name in told}, rows)
    return found, notes


def _told(results: dict[str, Any], model: str) -> dict[str, Any]:
    """Data set -> the metrics of a model that stand in a run's results."""
    own = results.get(model) or (results.get("controls") or {}).get(model) or {}
    return own.get("metrics") or {}


def _of(metrics: dict[str, Metric], rows: Rows) -> dict[str, tuple[Metric, Rows]]:
    """Those of the metrics that the rows tell."""
    return {name: (one, rows) for name, one in metrics.items() if set(one.columns) <= set(rows)}


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


# ── written answers, and the harness ────────────────────────────────────────────────────────────────────────────────


def _add_answers(measured: dict[Path, Measured], model: str) -> Notes:
    """Put the metrics of answers to those of `eval`, of runs that answered the first one's prompts.  Returns: why others did not."""
    runs = list(measured)
    kept = {run: read_answered(run, model) for run in runs}
    reference = kept[runs[0]]
    if not any(kept.values()):
        return {}
    if reference is None:
        return {ANSWERS: f"not compared, for {runs[0]} has kept none"}
    said = []
    for run, own in kept.items():
        order = None if own is None else _asked_the_same(reference, own)
        if own is None or order is None:
            said.append(
                f"those of {run} are left out: {'it has kept none' if own is None else OTHER_PROMPTS}"
            )
            continue
        rows = {name: column[order] for name, column in own.rows.items()}
        if "passed" in rows and own.checker != reference.checker:
            del rows["passed"]
            said.append(f"pass rates of {run} are left out: its checker is another one")
        measured[run].setdefault("eval", {}).update(_of(ANSWER_METRICS, reference.index.units(rows)))
    return {ANSWERS: "; ".join(said)} if said else {}


OTHER_PROMPTS = "they answer other prompts, or may have another number of tokens"


def _asked_the_same(one: Answered, other: Answered) -> "np.ndarray[Any, Any] | None":
    """Where the prompts of one stand among the other's; None if they are not the same, asked in the same way."""
    if one.max_new_tokens != other.max_new_tokens:
        return None
    return places_of(one.index.rows, other.index.rows)


def _add_harness(measured: dict[Path, Measured], model: str) -> Notes:
    """Put every task of the harness under HARNESS, of runs that were asked about the first one's documents.  Returns: as before."""
    runs = list(measured)
    paths = {run: harness_path(run / FOLDER, model) for run in runs}
    kept = {run: read_json(path) for run, path in paths.items() if path.exists()}
    if not kept:
        return {}
    if runs[0] not in kept:
        return {HARNESS: f"not compared, for {runs[0]} was not asked"}
    said = []
    for run in runs:
        scores, missed = _scores(kept[runs[0]], kept.get(run, {}))
        measured[run][HARNESS] = scores
        if missed:
            said.append(
                f"{', '.join(missed)} of {run} left out: not asked about the same documents in the same way"
            )
    return {HARNESS: "; ".join(said)} if said else {}


def _scores(
    reference: dict[str, Any], own: dict[str, Any]
) -> tuple[dict[str, tuple[Metric, Rows]], list[str]]:
    """("task:metric" -> it and its statistics in the order of the reference; tasks whose documents are not the same)"""
    found, missed = {}, []
    for task, metrics in reference["scores"].items():
        asked = [each.get("documents", {}).get(task) for each in (reference, own)]
        order = None if None in asked else places_of(*asked)
        if order is None:
            missed.append(task)
            continue
        for name in metrics:
            values = np.array(own["scores"][task].get(name, []))
            if len(values) == len(order):
                up = reference["higher_is_better"][task].get(name, True)
                found[f"{task}:{name}"] = document_metric(f"{task}:{name}", up), document_rows(values[order])
    return found, missed


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _levels(measured: Measured, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
    return {
        kind: {
            name: interval(metric, rows, resamples=resamples, seed=seed).as_json()
            for name, (metric, rows) in each.items()
        }
        for kind, each in measured.items()
    }


def _differences(
    mine: Measured, theirs: Measured, headline: str, same_teacher: bool, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    found = {
        kind: {
            name: difference(metric, rows, theirs[kind][name][1], resamples=resamples, seed=seed).as_json()
            for name, (metric, rows) in each.items()
            if name in theirs.get(kind, {})
            and (same_teacher or kind == HARNESS or not name.startswith(OF_THE_TEACHER))
        }
        for kind, each in mine.items()
    }
    return claimed(found, headline)


def _same_teacher(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one["teacher"]["identity"] == other["teacher"]["identity"])
