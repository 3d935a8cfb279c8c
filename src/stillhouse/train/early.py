"""Ending training when the task's metric on validation rows gets no better, and going back to where it was best.

What was seen stands in the Trainer's log, so that it comes back with a checkpoint; the best weights lie in the folder `best`
beside the checkpoints, and a checkpoint holds them too (a second name of the same file, where the disk has such a thing): what a
resumed run knows is what it knew when that checkpoint was written, to the last bit.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from ..data.batches import like_lengths
from ..data.encode import Example
from ..files import MANIFEST, atomic_folder, link_or_copy, read_json, write_json
from ..measure import Metric, evaluate
from ..models.machine import device
from ..recipe import EarlyStopping
from ..tasks import Task, on_device, unwrap
from .callbacks import Companion

SEEN = "validation"
"""The value's name in the log and in metrics.jsonl."""
BEST, LOOKS = "best", "early_stopping.json"
Looks = list[tuple[int, float]]
"""(optimiser step, value), in the order of the steps."""


def looks_in(log: Iterable[Mapping[str, Any]]) -> Looks:
    """Those that a Trainer's log holds."""
    return [(int(row["step"]), float(row[SEEN])) for row in log if SEEN in row]


def best_of(looks: Looks, metric: Metric) -> tuple[int, float]:
    """The first of the best."""
    sign = 1.0 if metric.higher_is_better else -1.0
    return max(looks, key=lambda look: (sign * look[1], -look[0]))


def ended(looks: Looks, metric: Metric, patience: int) -> bool:
    """Whether the last `patience` looks brought nothing better."""
    if not looks:
        return False
    best, _ = best_of(looks, metric)
    return sum(step > best for step, _ in looks) >= patience


def looks_of(checkpoint: Path) -> Looks:
    """What had been seen when a checkpoint was written."""
    return looks_in(read_json(checkpoint / "trainer_state.json")["log_history"])


@torch.no_grad()
def value_of(model: PreTrainedModel, task: Task, examples: list[Example], batch_size: int) -> float:
    """The task's headline metric; the model reads as it would when it is used, and learns on as if nobody had looked."""
    was_training = model.training
    model.eval()
    parts: list[dict[str, torch.Tensor]] = []
    for places in like_lengths(examples, batch_size):
        some = [examples[at] for at in places]
        mine = task.scores(model, on_device(task.collate(some)))
        parts.append(task.statistics(mine, mine, some))
    model.train(was_training)
    metric = task.metrics[task.headline]
    columns = {name: torch.cat([part[name] for part in parts]).numpy() for name in metric.columns}
    return evaluate(metric, {name: column.astype(np.float64) for name, column in columns.items()})


@dataclass(frozen=True)
class Chosen:
    """The rows that the best student is chosen on."""

    wanted: EarlyStopping
    examples: list[Example]
    of: str
    """Where they come from."""

    def write(self, place: Path, looks: Looks, metric: Metric, steps: int) -> None:
        """Keep what was seen beside the student; `steps` is how long training might have been."""
        step, value = best_of(looks, metric)
        kept = {
            "metric": metric.name, "rows": len(self.examples), "of": self.of, "steps": steps, "ended_at": looks[-1][0],
            "best_step": step, "best": value, "looks": [list(look) for look in looks],
        }  # fmt: skip
        write_json(place / LOOKS, kept)


def looks_beside(folder: Path) -> dict[str, Any] | None:
    """What `Chosen.write` kept beside a student's folder; None where its last step was taken unseen."""
    path = folder.parent / LOOKS
    return read_json(path) if path.exists() else None


class Stopping(Companion):
    """Looks every so many steps, keeps the best weights, and ends training.

    Args:
        folder: where `best` lies.
        tell: is handed each look as a row of the log.
    """

    def __init__(
        self,
        chosen: Chosen,
        task: Task,
        batch_size: int,
        folder: Path,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self.wanted, self.examples = chosen.wanted, chosen.examples
        self.task, self.batch_size = task, batch_size
        self.folder, self.tell = folder, tell
        self.metric = task.metrics[task.headline]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before a checkpoint of this step is written; the last step is always looked at."""
        step = state.global_step
        if step % self.wanted.every and step < state.max_steps:
            return
        model = unwrap(kwargs["model"])
        row = {"step": step, SEEN: value_of(model.to(device()), self.task, self.examples, self.batch_size)}
        state.log_history.append(row)
        self.tell(row)
        looks = looks_in(state.log_history)
        if best_of(looks, self.metric)[0] == step and state.is_world_process_zero:
            with atomic_folder(self.folder / BEST) as part:
                model.save_pretrained(part)
        if ended(looks, self.metric, self.wanted.patience):
            control.should_training_stop = True

    def save(self, folder: Path) -> None:
        """The best weights so far, into a checkpoint."""
        if (self.folder / BEST).exists():
            shutil.copytree(self.folder / BEST, folder / BEST, copy_function=link_or_copy)

    def restore(self, folder: Path) -> None:
        """As it was when a checkpoint was written."""
        if not (folder / BEST).exists():
            shutil.rmtree(self.folder / BEST, ignore_errors=True)
            return
        with atomic_folder(self.folder / BEST) as part:
            shutil.copytree(
                folder / BEST,
                part,
                copy_function=link_or_copy,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns(MANIFEST),
            )
