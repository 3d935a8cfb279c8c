"""A tiny classification recipe that plans are made of, and a count of what the teacher is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
from stillhouse import stages
from stillhouse.plans import rounds
from stillhouse.teachers import labelling


def classifier(folder: Path, **changes: Any) -> dict[str, Any]:
    """Plain values of a recipe whose runs take about a second each; its files are written into `folder`."""
    if not (folder / "teacher").exists():
        tiny.save_classifier(folder / "teacher", layers=2)
        tiny.labelled_file(folder / "rows.csv", rows=120)
    values: dict[str, Any] = {
        "name": "toy",
        "task": "classification",
        "teacher": {"model": str(folder / "teacher"), "dtype": "float32", "finetune": {"epochs": 1, "learning_rate": 1e-3}},
        "student": {"from_teacher": {"layers": 1, "by": "every_nth"}},
        "data": {"train": {"source": str(folder / "rows.csv")}, "split": 30, "max_length": 32},
        "label": {"top_k": 2, "batch_size": 16},
        "objective": [{"kind": "forward_kl", "weight": 0.9, "temperature": 2.0}, {"kind": "hard", "weight": 0.1}],
        "train": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "precision": "float32"},
        "evaluate": {"resamples": 200, "hard_only": False, "speed": False},
        "report": {"samples": 0},
    }  # fmt: skip
    return {**values, **changes}


@contextmanager
def asked() -> Iterator[list[int]]:
    """How many examples the teacher labels in here, batch by batch."""
    counts: list[int] = []
    real = labelling.label_batch

    def counting(teacher: Any, task: Any, batch: Any, meta: Any) -> Any:
        counts.append(len(batch))
        return real(teacher, task, batch, meta)

    with mock.patch.object(labelling, "label_batch", counting):
        yield counts


@contextmanager
def trained(killed_at: int | None = None) -> Iterator[list[str]]:
    """Names of the runs whose students finish their training in here; the `killed_at`-th one is stopped as by Ctrl-C."""
    names: list[str] = []
    real = stages._trained

    def counting(recipe: Any, objective: Any, teacher: Any, place: Path, *rest: Any) -> Any:
        if len(names) + 1 == killed_at:
            raise KeyboardInterrupt
        done = real(recipe, objective, teacher, place, *rest)
        names.append(place.parent.name)
        return done

    with mock.patch.object(stages, "_trained", counting):
        yield names


@contextmanager
def always_better() -> Iterator[None]:
    """Every round gains something, so that the next one is begun."""
    real = rounds.difference_over_seeds
    with mock.patch.object(
        rounds, "difference_over_seeds", lambda *args: {**real(*args), "better": True, "value": 1.0}
    ):
        yield
