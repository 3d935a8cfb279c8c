"""Models and held-out examples -> numbers with intervals, against the teacher, the floor and the controls.

Every number is a function of per-row sums, so that intervals and tests are paired: all models read the same rows.  The
teacher reads them once; what it said is kept as hidden states and projected again where a comparison needs its whole
distribution.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from transformers import PreTrainedModel

from .data.encode import Example
from .files import atomic
from .losses import Head
from .measure import Rows, bars, difference, interval, retention
from .models.machine import device
from .progress import Watch
from .tasks import Scores, Task, on_device


class Evaluation:
    """Per-row statistics of several models on several data sets, kept in a folder."""

    def __init__(
        self, task: Task, sets: dict[str, list[Example]], folder: Path, batch_size: int, watch: Watch
    ) -> None:
        self.task, self.sets, self.folder, self.batch_size, self.watch = task, sets, folder, batch_size, watch
        self.rows: dict[str, dict[str, Rows]] = {}
        self._teacher_head: Head | None = None

    def read(self, name: str, model: PreTrainedModel) -> None:
        """Let a model read every set; the teacher must be the first."""
        model.to(device()).eval()
        self.rows[name] = {}
        for kind, examples in self.sets.items():
            kept = self.folder / f"rows-{name}-{kind}.safetensors"
            if not kept.exists() or (name == "teacher" and not self._remembers(kind)):
                rows = self._statistics(name, model, kind, examples)
                with atomic(kept) as part:
                    save_file(rows, part)
            self.rows[name][kind] = {key: value.astype(np.float64) for key, value in load_file(kept).items()}
        if name == "teacher":
            self._teacher_head = self._head(model)

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

    def metrics(self, name: str, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """data set -> metric -> {value, low, high} of one model."""
        return {
            kind: {
                metric.name: interval(metric, rows, resamples=resamples, seed=seed).as_json()
                for metric in self.task.metrics.values()
                if set(metric.columns) <= set(rows)
            }
            for kind, rows in self.rows[name].items()
        }

    def gains(self, one: str, other: str, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """data set -> metric -> {value, low, high, p, better} of `one` − `other`, paired."""
        return {
            kind: {
                metric.name: difference(
                    metric, self.rows[one][kind], self.rows[other][kind], resamples=resamples, seed=seed
                ).as_json()
                for metric in self.task.metrics.values()
                if set(metric.columns) <= set(self.rows[one][kind])
            }
            for kind in self.sets
        }

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
            floor = self.task.floor(train, examples)
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
        student, teacher = (self.rows[name][kind] for name in ("student", "teacher"))
        return retention(metric, student, teacher, floor, resamples=resamples, seed=seed).as_json()
