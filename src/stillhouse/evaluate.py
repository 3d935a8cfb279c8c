"""Models and held-out examples -> numbers with intervals, against the teacher, the floor and the controls.

Every number is a function of per-row sums, so that intervals and tests are paired: all models read the same rows.  The
teacher reads them once; what it said is kept as hidden states and projected again where a comparison needs its whole
distribution.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from transformers import PreTrainedModel

from .answers import answer_rows, write_answers
from .data.encode import Example
from .files import atomic
from .kept import RowIndex, read_rows, rows_path, write_rows
from .losses import Head
from .measure import (
    ANSWER_METRICS,
    Metric,
    Rows,
    bars,
    claimed,
    difference,
    interval,
    retention,
    spread,
)
from .measure import evaluate as value
from .models.machine import device
from .progress import Watch
from .recipe import Answers
from .tasks import Scores, Task, on_device


class Evaluation:
    """Per-row statistics of several models on several data sets, kept in a folder."""

    def __init__(
        self,
        task: Task,
        sets: dict[str, list[Example]],
        index: dict[str, RowIndex],
        folder: Path,
        batch_size: int,
        watch: Watch,
    ) -> None:
        self.task, self.sets, self.folder, self.batch_size, self.watch = task, sets, folder, batch_size, watch
        self.index = index
        self.rows: dict[str, dict[str, Rows]] = {}
        self.units: dict[str, dict[str, Rows]] = {}
        """The same, summed over the rows that are resampled together."""
        self.written: dict[str, Rows] = {}
        """Model -> statistics of its answers to prompts of `eval`."""
        for kind, one in index.items():
            one.write(folder, kind)
        self._teacher_head: Head | None = None

    def read(self, name: str, model: PreTrainedModel) -> None:
        """Let a model read every set; the teacher must be the first."""
        model.to(device()).eval()
        for kind, examples in self.sets.items():
            kept = rows_path(self.folder, name, kind)
            if not kept.exists() or (name == "teacher" and not self._remembers(kind)):
                write_rows(kept, self._statistics(name, model, kind, examples))
        self.recall(name)
        if name == "teacher":
            self._teacher_head = self._head(model)

    def recall(self, name: str) -> None:
        """Take what a model was found to say when it read every set."""
        self.rows[name] = {kind: read_rows(rows_path(self.folder, name, kind)) for kind in self.sets}
        self.units[name] = {kind: self.index[kind].units(rows) for kind, rows in self.rows[name].items()}

    def let_answer(
        self,
        name: str,
        model: PreTrainedModel,
        rows: list[dict[str, Any]],
        wanted: Answers | None,
        reasons: bool = False,
    ) -> None:
        """Let a model answer held-out prompts; the untrained student is spared.

        Args: reasons: whether the student learned to give reasons before its answers, which are no part of these.
        """
        if wanted is None or name == "initial":
            return
        made = write_answers(name, model, self.task, self.sets["eval"], rows, wanted, self.folder, self.watch)
        self.written[name] = answer_rows(made, rows, wanted, reasons)

    def read_seeds(self, runs: list[dict[str, Any]], place: Path) -> dict[str, Any] | None:
        """Headline metric on `eval` of student and control over all seeds; None where there is but one.

        Returns: {"count", "student": spread, "hard_only": spread, "gain": spread of student − control}.
        """
        if not runs:
            return None
        metric = self.task.metrics[self.task.headline]
        names: dict[str, list[str]] = {}
        for name in ("student", "hard_only"):
            if name in runs[0]:
                names[name] = [name, *(f"{name}-{run['seed']}" for run in runs)]
                for run, called in zip(runs, names[name][1:], strict=True):
                    self.read(called, self.task.load(place.parent / run[name]))
        reached = {
            name: [value(metric, self.rows[each]["eval"]) for each in all_] for name, all_ in names.items()
        }
        if "hard_only" in reached:
            pairs = zip(reached["student"], reached["hard_only"], strict=True)
            reached["gain"] = [mine - theirs for mine, theirs in pairs]
        return {"count": 1 + len(runs), **{name: spread(values) for name, values in reached.items()}}

    def forget(self) -> None:
        """Remove what the teacher said; the rows' statistics stay."""
        for path in self.folder.glob("teacher-*.safetensors"):
            path.unlink()

    def _memory(self, kind: str, number: int) -> Path:
        return self.folder / f"teacher-{kind}-{number:06d}.safetensors"

    def _remembers(self, kind: str) -> bool:
        """Whether what the teacher said about a set is still there, or not needed any more."""
        batches = -(-len(self.sets[kind]) // self.batch_size)
        return self._memory(kind, batches - 1).exists()

    def _head(self, model: PreTrainedModel) -> Head:
        example = next(iter(self.sets.values()))[:1]
        with torch.inference_mode():
            return self.task.scores(model, on_device(self.task.collate(example))).head.detached()

    @torch.no_grad()
    def _statistics(
        self, name: str, model: PreTrainedModel, kind: str, examples: list[Example]
    ) -> dict[str, Any]:
        parts: list[dict[str, torch.Tensor]] = []
        for number, start in enumerate(range(0, len(examples), self.batch_size)):
            batch = examples[start : start + self.batch_size]
            mine = self.task.scores(model, on_device(self.task.collate(batch)))
            if name == "teacher":
                with atomic(self._memory(kind, number)) as part:
                    save_tensors({"hidden": mine.hidden.float().cpu().contiguous()}, part)
                teacher = mine
            else:
                teacher = self._remember(kind, number, mine)
            parts.append(self.task.statistics(mine, teacher, batch))
            self.watch.step(f"{name} reads {kind}", start + len(batch), len(examples))
        return {key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]}

    def _remember(self, kind: str, number: int, mine: Scores) -> Scores:
        assert self._teacher_head is not None, "the teacher reads first"
        hidden = load_tensors(self._memory(kind, number))["hidden"].to(mine.hidden.device)
        return Scores(hidden, self._teacher_head, mine.labels, mine.rows)

    # ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _measured(self, name: str, kind: str) -> Iterator[tuple[Metric, Rows]]:
        """Every metric that a model has the statistics for, those of its answers on `eval` included."""
        for metrics, rows in (
            (self.task.metrics, self.units[name][kind]),
            (ANSWER_METRICS, self.written.get(name, {}) if kind == "eval" else {}),
        ):
            yield from ((metric, rows) for metric in metrics.values() if set(metric.columns) <= set(rows))

    def metrics(self, name: str, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """data set -> metric -> {value, low, high} of one model."""
        return {
            kind: {
                metric.name: interval(metric, rows, resamples=resamples, seed=seed).as_json()
                for metric, rows in self._measured(name, kind)
            }
            for kind in self.sets
        }

    def gains(self, one: str, other: str, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """data set -> metric -> {value, low, high, p, better, p_holm} of `one` − `other`, paired; see `claimed`."""
        found = {}
        for kind in self.sets:
            theirs = {metric.name: rows for metric, rows in self._measured(other, kind)}
            found[kind] = {
                metric.name: difference(
                    metric, mine, theirs[metric.name], resamples=resamples, seed=seed
                ).as_json()
                for metric, mine in self._measured(one, kind)
                if metric.name in theirs
            }
        return claimed(found, self.task.headline)

    def reliabilities(self) -> dict[str, Any] | None:
        """Confidence against accuracy on the main set, from the bins that the rows carry; None for language models."""
        if "bin_count" not in self.rows["teacher"]["eval"]:
            return None
        return {
            name: bars(
                *(self.rows[name]["eval"][column].sum(0) for column in ("bin_count", "bin_conf", "bin_acc"))
            )
            for name in ("teacher", "student")
        }

    def retentions(
        self, train: list[Example], resamples: int, seed: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """(data set -> retention of the headline metric, data set -> the floor's metrics)."""
        kept, floors = {}, {}
        for kind, examples in self.sets.items():
            floor = self.index[kind].units(self.task.floor(train, examples))
            kept[kind] = self.retention(kind, floor, resamples, seed)
            floors[kind] = {
                known.name: interval(known, floor, resamples=resamples, seed=seed).as_json()
                for known in self.task.metrics.values()
                if set(known.columns) <= set(floor)
            }
        return kept, floors

    def retention(self, kind: str, floor: Rows, resamples: int, seed: int) -> dict[str, Any]:
        """Of the headline metric on one set."""
        metric = self.task.metrics[self.task.headline]
        student, teacher = (self.units[name][kind] for name in ("student", "teacher"))
        return retention(metric, student, teacher, floor, resamples=resamples, seed=seed).as_json()


def index_of(task: Task, examples: list[Example], rows: list[dict[str, Any]]) -> RowIndex:
    """Which rows `examples` were made from; `rows` are the rows of data."""
    known = {row["id"]: row for row in rows}
    mine = [known[example.row] for example in examples]
    columns = {name: None for row in mine for name in row.get("groups", {})}
    return RowIndex(
        keys=[example.key for example in examples],
        rows=[example.row for example in examples],
        clusters=[row.get("group", row["id"]) for row in mine],
        tokens=[len(example.input_ids) for example in examples],
        labels=[
            task.labels[example.labels[0]] if task.labels and example.labels[0] >= 0 else None
            for example in examples
        ],
        groups={name: [row.get("groups", {}).get(name) or None for row in mine] for name in columns},
    )


def texts_of(task: Task, examples: list[Example], rows: list[dict[str, Any]]) -> list[str] | None:
    """The text of each row that a classifier reads; None for a language model, whose rows are windows."""
    if not task.labels:
        return None
    known = {row["id"]: f"{row['text']} {row.get('pair', '')}".strip() for row in rows}
    return [known[example.row] for example in examples]
