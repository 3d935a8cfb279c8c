"""A tiny classification recipe that plans are made of, and a count of what the teacher is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
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
