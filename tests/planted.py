"""Finished runs without any training: predictions that are drawn, and the files that an evaluation leaves."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.files import write_json
from stillhouse.kept import FOLDER, RowIndex, rows_path, write_rows
from stillhouse.measure import TASK_METRICS, classification_rows, interval, retention

FLOORS = {"classification": 0.5, "causal_lm": 2.0, "seq2seq": 2.0, "masked_lm": 6.0}


def table(generator: Any, labels: Any, accuracy: float, sure: float = 0.9, classes: int = 2) -> Any:
    """Probabilities [N, C] of a model that is right on about `accuracy` of the rows, and always as sure."""
    guess = np.where(
        generator.random(len(labels)) < accuracy,
        labels,
        (labels + generator.integers(1, classes, len(labels))) % classes,
    )
    shares = np.full((len(labels), classes), (1 - sure) / (classes - 1))
    shares[np.arange(len(labels)), guess] = sure
    return shares


def run(
    folder: Path, seed: int = 0, rows: int = 400, student: float = 0.85, sure: float = 0.9, **more: Any
) -> Path:
    """A run whose teacher is right on 90 % of the rows; `more` goes into results.json."""
    labels = np.random.default_rng(1).integers(0, 2, rows)  # the same data in every run
    generator = np.random.default_rng([2, seed])
    teacher = table(generator, labels, 0.9)
    tables = {"teacher": teacher, "student": table(generator, labels, student, sure)}
    kept = {name: classification_rows(each, labels, teacher) for name, each in tables.items()}
    return written(folder, "classification", "accuracy", kept, [str(label) for label in labels], seed, **more)


def language_run(
    folder: Path, task: str, seed: int = 0, rows: int = 200, nats: float = 2.0, **more: Any
) -> Path:
    """A run of a language model whose student needs `nats` a token, about, and its teacher 1.5."""
    tokens = np.random.default_rng(1).integers(5, 50, rows).astype(np.float64)  # the same data in every run
    generator = np.random.default_rng([2, seed])
    kept = {
        name: {
            "tokens": tokens,
            "nll": tokens * (level + 0.3 * generator.random(rows)),
            "correct": np.round(tokens * 0.4),
            **({} if task == "masked_lm" else {"bytes": 4 * tokens}),
        }
        for name, level in (("teacher", 1.5), ("student", nats))
    }
    headline = "bits_per_token" if task == "masked_lm" else "bits_per_byte"
    return written(folder, task, headline, kept, [None] * rows, seed, **more)


def written(
    folder: Path, task: str, headline: str, kept: dict[str, Any], labels: list[Any], seed: int, /, **more: Any
) -> Path:
    """The files of a finished run in which teacher and student have the statistics `kept`."""
    rows, known = len(labels), TASK_METRICS[task]
    names = [f"row{number}" for number in range(rows)]
    place = folder / FOLDER
    place.mkdir(parents=True)
    RowIndex(names, names, names, [9] * rows, labels).write(place, "eval")
    for name, statistics in kept.items():
        write_rows(rows_path(place, name, "eval"), statistics)
    metrics = {
        name: {
            "eval": {
                metric.name: interval(metric, statistics, resamples=200).as_json()
                for metric in known.values()
                if set(metric.columns) <= set(statistics)
            }
        }
        for name, statistics in kept.items()
    }
    share = retention(
        known[headline], kept["student"], kept["teacher"], FLOORS[task], resamples=200
    ).as_json()
    results = {
        "name": folder.name, "task": task, "metric": headline, "created": f"2026-01-0{seed + 1}T00:00:00Z",
        "version": "0", "metrics": {
            metric.name: {"title": metric.title, "unit": metric.unit, "higher_is_better": metric.higher_is_better}
            for metric in known.values()
        },
        "teacher": {"name": "big", "identity": "big", "metrics": metrics["teacher"], "parameters": 100},
        "student": {"name": "small", "metrics": metrics["student"], "parameters": 10},
        "controls": {}, "retention": share, "retentions": {"eval": share}, "gains": None, "gain_over_hard_only": None,
        "datasets": {"eval": {"rows": rows}}, "stages": {"train": {"seconds": 1.0}}, **more,
    }  # fmt: skip
    write_json(folder / "results.json", json.loads(json.dumps(results)))
    write_json(
        folder / "recipe.json", {"name": folder.name, "gate": {"min_retention": None, "min_gain": None}}
    )
    return folder


def two_runs(place: Path, task: str) -> list[Path]:
    """A run of `task`, and one whose student is surely worse."""
    if task == "classification":
        return [run(place / "good", student=0.9), run(place / "bad", 1, student=0.7)]
    return [language_run(place / "good", task), language_run(place / "bad", task, 1, nats=2.5)]
