"""Measuring students of a teacher that is not here: what it said about the held-out rows stands in for its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .data.encode import Example
from .evaluate import Evaluation, Source
from .files import hash_bytes, hash_json
from .kept import RowIndex
from .losses import Head
from .measure import Rows, classification_rows
from .progress import Watch
from .store import Store
from .tasks import Scores, Task

Array = np.ndarray[Any, Any]
OF_A_NAME = ("texts", "correct", "tp", "pred", "true", "agree", "teacher_wrong", "repeats")
"""Statistics of a classifier that the names of its labels tell; the others need its probabilities."""
AGAINST_SHARES = ("kl", "reverse_kl", "rank", "top3")
"""Statistics of a student that compare with its teacher's probabilities."""
AGAINST_ITSELF = ("agree", "kl", "agree_at", "count_at", "teacher_wrong", "repeats", "reverse_kl", "rank")
"""Statistics of a language model that compare with a teacher, taken without one."""
UNKNOWN = "the teacher is behind an API and gave no probabilities of these texts"


class BlackBoxEvaluation(Evaluation):
    """As `Evaluation`, with a teacher that was asked instead of run.

    Args:
        heard: data set -> the teacher's statistics by name: of a classifier `log_p` [rows, C]; of a language model `nll` and
            `bytes` [rows], both 0 for a text that is not compared, or nothing.
        graded: whether a classifier's `log_p` are probabilities, and not just the label that it named.
        why: nothing can be said of what was kept where the teacher says nothing.
    """

    def __init__(
        self,
        task: Task,
        sets: dict[str, list[Example]],
        index: dict[str, RowIndex],
        folder: Path,
        batch_size: int,
        watch: Watch,
        heard: Mapping[str, Mapping[str, Array]],
        graded: bool,
        why: str = UNKNOWN,
        store: Store | None = None,
        contents: Mapping[str, str] = {},
    ) -> None:
        super().__init__(task, sets, index, folder, batch_size, watch, store, contents)
        self.heard, self.graded, self.why = heard, graded, why
        self.know("teacher", Source(f"heard:{_content(heard)}", folder))
        self._admit("teacher", {kind: self._teacher_rows(kind) for kind in sets})

    def _teacher_rows(self, kind: str) -> Rows:
        heard = self.heard.get(kind, {})
        if "log_p" not in heard:
            return {name: values.astype(np.float64) for name, values in heard.items()}
        said = np.exp(heard["log_p"].astype(np.float64))
        said /= said.sum(1, keepdims=True)
        labels = [example.labels[0] for example in self.sets[kind]]
        rows = classification_rows(said, labels, said)
        return rows if self.graded else {name: rows[name] for name in OF_A_NAME}

    def recall(self, name: str) -> None:
        """Take what a model was found to say, less what compares it with things that this teacher does not say."""
        super().recall(name)
        hidden: tuple[str, ...] = AGAINST_SHARES if self.task.name == "classification" else AGAINST_ITSELF
        hidden = () if self.graded else hidden
        known = {
            kind: {column: values for column, values in rows.items() if column not in hidden}
            for kind, rows in self.rows[name].items()
        }
        self._admit(name, known)

    def _admit(self, name: str, rows: dict[str, Rows]) -> None:
        self.rows[name] = rows
        beside = (
            self._beside_teacher if name == "teacher" else lambda kind, some: self.index[kind].units(some)
        )
        self.units[name] = {kind: beside(kind, some) if some else {} for kind, some in rows.items()}

    def _beside_teacher(self, kind: str, rows: Rows) -> Rows:
        """Without the texts of which the teacher said no byte: what a student makes of them is compared with nothing."""
        sizes = self.heard.get(kind, {}).get("bytes")
        if sizes is None or sizes.all():
            return super()._beside_teacher(kind, rows)
        at = np.flatnonzero(sizes)
        return self.index[kind].some(at).units({name: values[at] for name, values in rows.items()})

    def _teacher(self, kind: str, number: int, batch: list[int], student: Scores) -> Scores | None:
        if self.task.name != "classification":
            return None
        log_p = self.heard[kind]["log_p"][batch]
        said = torch.from_numpy(np.ascontiguousarray(log_p)).to(student.hidden.device)
        return Scores(said, Head(None, vocabulary=self.task.outcomes), student.labels, student.rows)

    def retention(self, kind: str, floor: Rows, resamples: int, seed: int) -> dict[str, Any]:
        """Of the headline metric on one set, where the teacher has it."""
        metric = self.task.metrics[self.task.headline]
        if set(metric.columns) <= set(self.units["teacher"][kind]):
            return super().retention(kind, floor, resamples, seed)
        return {"value": None, "low": None, "high": None, "note": self.why}


def _content(heard: Mapping[str, Mapping[str, Array]]) -> str:
    """Hash of what the teacher was heard to say."""
    return hash_json(
        {
            kind: {name: hash_bytes(np.ascontiguousarray(values).tobytes()) for name, values in said.items()}
            for kind, said in heard.items()
        }
    )
