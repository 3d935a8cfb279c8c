"""Judging a trial, also before its end: each checkpoint is looked at as soon as it is there."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..files import hash_json, manifest_fault, read_json
from ..measure import Rows
from ..pipeline import DONE
from ..probe import look
from ..progress import Silent, Watch
from ..recipe import Recipe
from ..steps.aside import rows_aside
from ..steps.prepare import located, task_of
from ..train.checkpoints import all_checkpoints, step_of

LOOKS = 5
"""At a trial, about, while it is trained."""
TIMED = 20
"""Rows read one by one for a latency."""


class Pruned(Exception):
    """The trial is not worth its end."""


class Judge:
    """A watch that reports each new checkpoint's value to an optuna trial, and ends the trial where it should end."""

    def __init__(
        self, watch: Watch, place: Path, value: Callable[[Path, Path | None], float | None], trial: Any
    ) -> None:
        """Args: value: (run folder, a checkpoint in it) -> its value; trial: None if nothing is pruned."""
        self._watch, self._place, self._value, self._trial = watch, place, value, trial
        known = {} if trial is None else trial.storage.get_trial(trial._trial_id).intermediate_values
        self._seen = set(known)

    def go_on(self) -> None:
        """Decide what a kill left open between a report and its decision.  Raises: Pruned."""
        if self._seen and self._trial.should_prune():
            raise Pruned

    def note(self, text: str) -> None:
        """As it is."""
        self._watch.note(text)

    def end(self) -> None:
        """As it is."""
        self._watch.end()

    def step(self, what: str, done: int, total: int, extra: str = "") -> None:
        """Raises: Pruned, from within the training loop; what was trained so far is forgotten."""
        self._watch.step(what, done, total, extra)
        if self._trial is None or what != "train":
            return
        for checkpoint in all_checkpoints(self._place / "train" / "checkpoints"):
            percent = round(100 * step_of(checkpoint) / total)
            if percent in self._seen or step_of(checkpoint) > done or manifest_fault(checkpoint):
                continue
            self._seen.add(percent)
            value = self._value(self._place, checkpoint)
            if value is None or not math.isfinite(value):
                raise Pruned
            self._trial.report(value, percent)
            if self._trial.should_prune():
                raise Pruned


def checkpoint_every(train: dict[str, Any]) -> int:
    """Optimiser steps between looks."""
    steps = train["steps"]
    return int(train["checkpoint_every"] if steps is None else max(1, math.ceil(steps / LOOKS)))


def judged(recipe: Recipe, place: Path, checkpoint: Path | None, watch: Watch) -> Rows:
    """Per-row statistics on the rows set aside, of a run's student or of one of its checkpoints."""
    facts = read_json(place / "prepare" / DONE)["result"]
    folder = checkpoint or _student(place)
    task = task_of(recipe, facts, place / "prepare")
    return look([folder], task, rows_aside(place), recipe.label.batch_size, Silent())


def measured_on(recipe: Recipe, place: Path) -> str:
    """What tells the rows set aside of one run from another's: which they are, and their labels or what is foretold of them, in
    whatever tokens."""
    task = task_of(recipe, read_json(place / "prepare" / DONE)["result"], place / "prepare")
    decode = task.tokenizer.decode
    return hash_json(
        [
            [one.row, one.labels if len(one.labels) == 1 else _said(decode, one.labels)]
            for one in rows_aside(place)
        ]
    )


def _said(decode: Any, labels: Sequence[int]) -> str:
    """The words of what is foretold, without what one tokenizer ends or begins a text with and another does not."""
    return " ".join(str(decode([token for token in labels if token >= 0], skip_special_tokens=True)).split())


def latency(recipe: Recipe, place: Path, watch: Watch) -> float:
    """Milliseconds to read one row alone, the median of some after a warm-up."""
    facts = read_json(place / "prepare" / DONE)["result"]
    task = task_of(recipe, facts, place / "prepare")
    examples = rows_aside(place)[:TIMED]
    from ..models.machine import device, synchronise
    from ..tasks import on_device

    model = task.load(_student(place)).to(device()).eval()
    times = []
    for example in [examples[0], *examples]:
        batch = on_device(task.collate([example]))
        start = time.perf_counter()
        task.scores(model, batch)
        synchronise()
        times.append(1000 * (time.perf_counter() - start))
    return round(median(times[1:]), 3)


def _student(place: Path) -> Path:
    return located(read_json(place / "train" / DONE)["result"]["folder"], place / "train")
