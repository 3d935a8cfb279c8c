"""Models and held-out examples -> numbers with intervals, against the teacher, the floor and the controls.

Every number is a function of per-row sums, so that intervals and tests are paired: all models read the same rows.  A model
reads them once, and what it said is kept as hidden states; then all who have read are measured side by side, so that the
teacher's whole distribution is made once for all of them.  Statistics, the teacher's hidden states and what was written lie in a
store, where a later evaluation finds them, of this run or of another one of its plan.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from transformers import PreTrainedModel

from .answers import Writer, answer_rows, remembering, write_answers
from .data.batches import in_order, like_lengths
from .data.encode import Example
from .files import atomic, hash_json, hash_path
from .kept import Answered, RowIndex, read_rows, rows_path, write_rows
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
from .registry import source_of
from .store import Store
from .tasks import Scores, Task, on_device
from .tasks.writing import greedy

ENOUGH = 2 * 2**30
"""Bytes of what students said beyond which they are measured before the next one reads: a disk has its limits, too."""
VERSION = 4
"""Raise it when other things are found out of the same models: what was kept is another version's then."""
ROWS = "rows.safetensors"


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    identity: str
    """By its content."""
    folder: Path


class Evaluation:
    """Per-row statistics of several models on several data sets, kept in a folder.

    Args:
        store: keeps what models said beyond this evaluation.
        contents: data set -> `content_of` its rows.
    """

    def __init__(
        self,
        task: Task,
        sets: dict[str, list[Example]],
        index: dict[str, RowIndex],
        folder: Path,
        batch_size: int,
        watch: Watch,
        store: Store | None = None,
        contents: Mapping[str, str] = {},
    ) -> None:
        self.task, self.sets, self.folder, self.batch_size, self.watch = task, sets, folder, batch_size, watch
        self.index, self.store, self.contents = index, store or Store(), contents
        self.rows: dict[str, dict[str, Rows]] = {}
        self.units: dict[str, dict[str, Rows]] = {}
        """The same, summed over the rows that are resampled together."""
        self.answers: dict[str, list[dict[str, Any]]] = {}
        """Model -> its answers to prompts of `eval`, as `answers.write_answers` has them."""
        self.written: dict[str, Rows] = {}
        """Model -> statistics of these answers."""
        self.asked: RowIndex | None = None
        """The rows that were answered."""
        for kind, one in index.items():
            one.write(folder, kind)
        self._heads: dict[str, Scores] = {}
        """Of the teacher, and of who has read and is not measured yet: scores of no positions, which know the head."""
        self._late: list[str] = []
        """Who has read and is not measured yet."""
        self._waiting = 0
        """Bytes of what they said, on disk."""
        self._sources: dict[str, Source] = {}
        self._offered: set[str] = set()
        """Sets of which the teacher's hidden states were offered to the store."""

    def read(self, name: str, model: PreTrainedModel, source: Source | None = None) -> None:
        """Let a model read every set, and measure it; the teacher must be the first."""
        self.listen(name, model, source)
        self.measure()

    def listen(self, name: str, model: PreTrainedModel, source: Source | None = None) -> None:
        """Let a model read every set of which it is not known what it says, and keep that for `measure`; the teacher must be the
        first.  What is said by who comes from nowhere is not kept for another evaluation."""
        model.to(device()).eval()
        self._late.append(name)
        self.know(name, source)
        self._heads[name] = self.task.silent(model)
        new = [kind for kind in self.sets if not self.has(name, kind)]
        # a teacher from nowhere could not be called later, when somebody is to be compared with it
        at_once = name == "teacher" and source is None
        for kind in self.sets if at_once else new:
            self._hear(name, lambda: model, kind)
        if self._waiting > ENOUGH:
            self.measure()

    def know(self, name: str, source: Source | None) -> None:
        """Say who a model is."""
        if source is not None:
            self._sources[name] = source

    def has(self, name: str, kind: str) -> bool:
        """Whether a model's statistics are there; they are taken from the store if they lie in it."""
        path = rows_path(self.folder, name, kind)
        if not path.exists() and (of := self._of(name, kind)) is not None:
            self.store.take("rows", of, {ROWS: path})
        return path.exists()

    def keep(self, name: str, kind: str, rows: Rows) -> None:
        """Write a model's statistics, for a later evaluation too."""
        path = rows_path(self.folder, name, kind)
        write_rows(path, rows)
        if (of := self._of(name, kind)) is not None:
            self.store.give("rows", of, {ROWS: path})

    def measure(self) -> None:
        """Statistics of all who have read since the last time, side by side."""
        again = cache(self._call_teacher)
        for kind in self.sets:
            new = [name for name in self._late if not rows_path(self.folder, name, kind).exists()]
            if new and "teacher" in self._heads:
                self._hear("teacher", again, kind)
            for name, rows in self._statistics(new, kind).items() if new else ():
                self.keep(name, kind, with_merged_bins(rows))
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
        made = write_answers(
            name,
            model,
            self.task,
            self.sets["eval"],
            rows,
            wanted,
            self.folder,
            self.watch,
            self.writer(name),
        )
        self.answers[name], self.written[name] = made, answer_rows(made, rows, wanted, reasons)
        place = {row: number for number, row in enumerate(self.index["eval"].rows)}
        self.asked = self.index["eval"].some(np.array([place[one["row"]] for one in made]))
        checker = wanted.checker and hash_json([wanted.checker, hash_path(source_of(wanted.checker))])
        Answered(self.asked, self.written[name], wanted.max_new_tokens, checker).write(self.folder, name)

    def writer(self, name: str) -> Writer:
        """`greedy` of this model, which writes nothing twice."""
        source = self._sources.get(name)
        return greedy if source is None else remembering(self.store, source.identity)

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
                source = Source(run[f"{name}_identity"], place.parent / run[name])
                self.listen(called[number], self.task.load(source.folder), source)
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

    def _hear(self, name: str, model: Callable[[], PreTrainedModel], kind: str) -> None:
        """Keep what a model says of a set, batch by batch; those that were kept before a stop are not read again, nor what lies in
        the store."""
        read, batches = 0, self._batches(kind)
        paths = [self._kept(name, kind, number) for number in range(len(batches))]
        of = self._of(name, kind) if name == "teacher" else None
        files = {path.name.rpartition("-")[2]: path for path in paths}
        if of is not None and not all(path.exists() for path in paths):
            self.store.take("hidden", of, files)
        for path, batch in zip(paths, batches, strict=True):
            read += len(batch)
            if not path.exists():
                said = self._scores(model(), self._at(kind, batch))
                parts = {"hidden": said.hidden.float(), "labels": said.labels, "rows": said.rows}
                with atomic(path) as part:
                    save_tensors({key: value.cpu().contiguous() for key, value in parts.items()}, part)
                self.watch.step(f"{name} reads {kind}", read, len(self.sets[kind]))
            self._waiting += path.stat().st_size if name != "teacher" else 0
        if of is not None and kind not in self._offered:
            self._offered.add(kind)
            if not self.store.give("hidden", of, files, bounded=True):
                size = sum(path.stat().st_size for path in paths) / 1e9
                self.watch.note(
                    f"  what the teacher says of {kind} takes {size:.1f} GB and is not kept: for another student it reads again"
                )

    def _call_teacher(self) -> PreTrainedModel:
        """It was let go, for it was known what it says."""
        model: PreTrainedModel = self.task.load(self._sources["teacher"].folder).to(device()).eval()
        return model

    def _of(self, name: str, kind: str) -> list[Any] | None:
        """What the statistics of a model on a set follow from; None if that is not known."""
        if not {name, "teacher"} <= set(self._sources) or kind not in self.contents:
            return None
        who = [self._sources[one].identity for one in ("teacher", name)]
        return [*who, name == "teacher", self.contents[kind], self.batch_size]

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
        answers = {}
        if kind == "eval" and self.asked is not None and name in self.written:
            answers = self.asked.units(self.written[name])
        for metrics, rows in ((self.task.metrics, self.units[name][kind]), (ANSWER_METRICS, answers)):
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
            known_only = self.task.floor(train, examples)
            kept[kind] = self.retention(kind, known_only, resamples, seed)
            floor = self.index[kind].units(known_only)
            floors[kind] = {
                known.name: interval(known, floor, resamples=resamples, seed=seed).as_json()
                for known in self.task.metrics.values()
                if set(known.columns) <= set(floor)
            }
        return kept, floors

    def retention(self, kind: str, floor: Rows, resamples: int, seed: int) -> dict[str, Any]:
        """Of the headline metric on one set.  Args: floor: [rows] of who knows only what is common."""
        metric = self.task.metrics[self.task.headline]
        sides = [self.rows[name][kind] for name in ("student", "teacher")]
        student, teacher, least = (self._beside_teacher(kind, rows) for rows in (*sides, floor))
        return retention(metric, student, teacher, least, resamples=resamples, seed=seed).as_json()

    def _beside_teacher(self, kind: str, rows: Rows) -> Rows:
        """Statistics [rows] of a set as they are compared with the teacher's: summed over the rows that are resampled together."""
        return self.index[kind].units(rows)


def texts_of(task: Task, examples: list[Example], rows: list[dict[str, Any]]) -> list[str] | None:
    """The text of each row that a classifier reads; None for a language model, whose rows are windows."""
    if not task.labels:
        return None
    known = {row["id"]: text_read(row) for row in rows}
    return [known[example.row] for example in examples]


def text_read(row: Mapping[str, Any]) -> str:
    """What a classifier reads of a row, a pair in one piece."""
    return f"{row['text']} {row.get('pair', '')}".strip()
