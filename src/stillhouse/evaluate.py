"""Models and held-out examples -> numbers with intervals, against the teacher, the floor and the controls.

Every number is a function of per-row sums, so that intervals and tests are paired: all models read the same rows.  A model
reads them once, and what it said is kept as hidden states; then all who have read are measured side by side, so that the
teacher's whole distribution is made once for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from transformers import PreTrainedModel

from .answers import answer_rows, write_answers
from .data.batches import in_order, like_lengths
from .data.encode import Example
from .files import atomic
from .kept import RowIndex, read_rows, rows_path, write_rows
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
    with_merged_bins,
)
from .measure import evaluate as value
from .models.machine import device
from .progress import Watch
from .recipe import Answers
from .tasks import Scores, Task, on_device

ENOUGH = 2 * 2**30
"""Bytes of what students said beyond which they are measured before the next one reads: a disk has its limits, too."""


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
        self.answers: dict[str, list[dict[str, Any]]] = {}
        """Model -> its answers to prompts of `eval`, as `answers.write_answers` has them."""
        self.written: dict[str, Rows] = {}
        """Model -> statistics of these answers."""
        for kind, one in index.items():
            one.write(folder, kind)
        self._heads: dict[str, Scores] = {}
        """Of the teacher, and of who has read and is not measured yet: scores of no positions, which know the head."""
        self._late: list[str] = []
        """Who has read and is not measured yet."""
        self._waiting = 0
        """Bytes of what they said, on disk."""

    def read(self, name: str, model: PreTrainedModel) -> None:
        """Let a model read every set, and measure it; the teacher must be the first."""
        self.listen(name, model)
        self.measure()

    def listen(self, name: str, model: PreTrainedModel) -> None:
        """Let a model read every set, and keep what it says for `measure`; the teacher must be the first."""
        model.to(device()).eval()
        self._late.append(name)
        new = [kind for kind in self.sets if not rows_path(self.folder, name, kind).exists()]
        for kind in self.sets if name == "teacher" else new:
            self._hear(name, model, kind)
        if self._waiting > ENOUGH:
            self.measure()

    def measure(self) -> None:
        """Statistics of all who have read since the last time, side by side."""
        for kind in self.sets:
            new = [name for name in self._late if not rows_path(self.folder, name, kind).exists()]
            for name, rows in self._statistics(new, kind).items() if new else ():
                write_rows(rows_path(self.folder, name, kind), with_merged_bins(rows))
        for name in self._late:
            self.recall(name)
            if name != "teacher":
                self._forget(name)
        self._late, self._waiting = [], 0

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
        self.answers[name], self.written[name] = made, answer_rows(made, rows, wanted, reasons)

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
        for number, run in enumerate(runs, 1):
            for name, called in names.items():
                self.listen(called[number], self.task.load(place.parent / run[name]))
            self.measure()
        reached = {
            name: [value(metric, self.rows[each]["eval"]) for each in all_] for name, all_ in names.items()
        }
        if "hard_only" in reached:
            pairs = zip(reached["student"], reached["hard_only"], strict=True)
            reached["gain"] = [mine - theirs for mine, theirs in pairs]
        return {"count": 1 + len(runs), **{name: spread(values) for name, values in reached.items()}}

    def forget(self) -> None:
        """Remove what the teacher said; the rows' statistics stay."""
        self._forget("teacher")

    def _forget(self, name: str) -> None:
        self._heads.pop(name, None)
        for kind in self.sets:
            for number, _ in enumerate(self._batches(kind)):
                self._kept(name, kind, number).unlink(missing_ok=True)

    def _kept(self, name: str, kind: str, number: int) -> Path:
        """Where the hidden states of a batch lie, with what they are to be compared with."""
        return self.folder / f"said-{name}-{kind}-{number:06d}.safetensors"

    def _batches(self, kind: str) -> list[list[int]]:
        """Places of the set's rows, batch by batch; see `like_lengths`."""
        return like_lengths(self.sets[kind], self.batch_size)

    def _at(self, kind: str, batch: list[int]) -> list[Example]:
        return [self.sets[kind][at] for at in batch]

    @torch.no_grad()
    def _scores(self, model: PreTrainedModel, batch: list[Example]) -> Scores:
        return self.task.scores(model, on_device(self.task.collate(batch)))

    def _hear(self, name: str, model: PreTrainedModel, kind: str) -> None:
        """Keep what a model says of a set, batch by batch; those that were kept before a stop are not read again, but for
        one, which tells the model's head."""
        read = 0
        for number, batch in enumerate(self._batches(kind)):
            read += len(batch)
            if not (path := self._kept(name, kind, number)).exists() or name not in self._heads:
                said = self._scores(model, self._at(kind, batch))
                self._heads.setdefault(name, _silent(said))
                parts = {"hidden": said.hidden.float(), "labels": said.labels, "rows": said.rows}
                with atomic(path) as part:
                    save_tensors({key: value.cpu().contiguous() for key, value in parts.items()}, part)
                self.watch.step(f"{name} reads {kind}", read, len(self.sets[kind]))
            self._waiting += path.stat().st_size if name != "teacher" else 0

    def _said(self, name: str, kind: str, number: int) -> Scores:
        kept = load_tensors(self._kept(name, kind, number))
        hidden, labels, rows = (kept[key].to(device()) for key in ("hidden", "labels", "rows"))
        return replace(self._heads[name], hidden=hidden, labels=labels, rows=rows)

    def _teacher(self, kind: str, number: int, batch: list[int], student: Scores) -> Scores | None:
        """What the teacher says of the batch that `student` is about; None: there is nothing to compare with."""
        return self._said("teacher", kind, number)

    def _statistics(self, names: Sequence[str], kind: str) -> dict[str, dict[str, Any]]:
        """Model -> column -> [rows, …] of a set, in the order of the set."""
        parts: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in names}
        batches, read = self._batches(kind), 0
        for number, batch in enumerate(batches):
            said = {name: self._said(name, kind, number) for name in names}
            teacher = said.get("teacher") or self._teacher(kind, number, batch, said[names[0]])
            found = self.task.side_by_side(list(said.values()), teacher, self._at(kind, batch))
            for name, columns in zip(names, found, strict=True):
                parts[name].append(columns)
            read += len(batch)
            self.watch.step(f"measuring {', '.join(names)} on {kind}", read, len(self.sets[kind]))
        return {name: in_order(some, batches) for name, some in parts.items()}

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
        """Confidence against accuracy on the main set, from the bins that the rows carry; None where a teacher behind an API gave no
        probabilities to put into bins."""
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


def _silent(scores: Scores) -> Scores:
    """The scores of no position: their kind, and their head, without gradients."""
    none = torch.empty(0)
    return replace(scores, hidden=none, head=scores.head.detached(), labels=none, rows=none, reasons=None)


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
    known = {row["id"]: text_read(row) for row in rows}
    return [known[example.row] for example in examples]


def text_read(row: Mapping[str, Any]) -> str:
    """What a classifier reads of a row, a pair in one piece."""
    return f"{row['text']} {row.get('pair', '')}".strip()
