"""A panel of three teachers, one of them bad on one class: which pool teaches the better student?

Three MiniLM classifiers learn film-review sentences, each on rows of its own; the third saw most of its positive rows
called negative.  The students start alike and take the same steps on the same rows; they differ in how the panel's opinions
became one.  Weights and tables are judged on labelled rows that no member saw.  Accuracy on held-out rows, with
intervals over rows.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import arguments
from transformers import PreTrainedModel, TrainingArguments

from models import minilm, reviews
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import Example
from stillhouse.losses import log_softmax
from stillhouse.losses.pooling import learned_weights, reliability_table
from stillhouse.measure import CLASSIFICATION_METRICS, difference, interval
from stillhouse.models.load import load_tokenizer
from stillhouse.models.shrink import keep_layers
from stillhouse.tasks import Task, make_task
from stillhouse.tasks.panel import Panel

METRIC = CLASSIFICATION_METRICS["accuracy"]
FLIPPED = 0.7
"""Share of the third member's positive rows that it was told are negative."""


def main() -> None:
    """Train the members, then a student for each pool."""
    asked = arguments(str(__doc__), rows=1200, student_rows=2400, judged=400, held_out=2000, seed=0)
    torch.manual_seed(asked.seed)
    task = make_task("classification", load_tokenizer(minilm()), 64, ["0", "1"])
    texts = reviews("rotten_tomatoes")
    order = np.random.default_rng(asked.seed).permutation(len(texts))
    rows = [{"id": str(n), "where": str(n), **texts[n]} for n in order]
    cuts = np.cumsum([asked.rows] * 3 + [asked.judged, asked.student_rows, asked.held_out])
    *parts, judged, learned, held = (
        task.encode(rows[start:end])[0] for start, end in zip([0, *cuts[:-1]], cuts, strict=True)
    )
    members = []
    for number, part in enumerate(parts):
        start = time.perf_counter()
        members.append(fitted(task, part if number < 2 else spoilt(part, asked.seed), asked.seed + number))
        print(f"member {number + 1}: {time.perf_counter() - start:.0f} s", flush=True)
    said, labels = opinions(task, members, judged)
    table, weights = (
        reliability_table(said, labels),
        learned_weights(said.gather(-1, labels.expand(3, -1).unsqueeze(-1)).squeeze(-1).T),
    )
    print(
        "reliability, by what a member says (0, 1):", [[round(v, 2) for v in row] for row in table.tolist()]
    )
    print("learned weights:", [round(weight, 3) for weight in weights.tolist()])
    panels = {
        "mean": Panel(members),
        "geometric": Panel(members, "geometric"),
        "confidence": Panel(members, "confidence"),
        "learned weights": Panel(members, "mean", weights=weights.tolist()),
        "validation table": Panel(members, "table", table=table.tolist()),
    }
    found = {f"member {n + 1}": measured(task, member, held) for n, member in enumerate(members)}
    found |= {f"panel: {name}": measured(task, panel, held) for name, panel in panels.items()}
    for name, panel in panels.items():
        student = taught(task, panel, learned, asked.seed)
        found[f"student of: {name}"] = measured(task, student, held)
        show(f"student of: {name}", found, asked.seed)
    found["student of labels"] = measured(task, taught(task, None, learned, asked.seed), held)
    print()
    for name in found:
        show(name, found, asked.seed)
    for name in list(panels)[1:]:
        gap = difference(
            METRIC, found[f"student of: {name}"], found["student of: mean"], resamples=2000, seed=asked.seed
        )
        print(
            f"  student of {name} − of the mean: {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.4f}"
        )


def spoilt(part: list[Example], seed: int) -> list[Example]:
    """The rows with most positive labels turned to negative."""
    draw = np.random.default_rng(seed)
    turned = [example.labels == [1] and draw.random() < FLIPPED for example in part]
    return [
        Example(e.key, e.row, e.input_ids, [0] if flip else e.labels, e.starts, e.bytes)
        for e, flip in zip(part, turned, strict=True)
    ]


def fitted(task: Task, part: list[Example], seed: int) -> PreTrainedModel:
    """MiniLM with a new head, fine-tuned for an epoch and a half."""
    model = task.load(minilm(), head_seed=seed)
    train(task, model, None, [kd.hard(1.0)], part, 1e-4, 1.5, seed)
    return model.eval()


def taught(task: Task, panel: Panel | None, rows: list[Example], seed: int) -> PreTrainedModel:
    """A third of MiniLM's layers, taught by the panel (or by the labels) for two epochs."""
    student = keep_layers(task.load(minilm(), head_seed=seed), [0, 3])
    objective = [kd.hard(1.0)] if panel is None else [kd.forward_kl(1.0, temperature=2.0)]
    train(task, student, panel, objective, rows, 2e-4, 2.0, seed)
    return student.eval()


def train(
    task: Task,
    model: Any,
    teacher: Any,
    objective: Any,
    rows: list[Example],
    rate: float,
    epochs: float,
    seed: int,
) -> None:
    """The same settings for all."""
    from stillhouse.teachers.local import LocalTeacher

    with TemporaryDirectory() as place:
        args = TrainingArguments(
            output_dir=str(Path(place)), num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=rate,
            lr_scheduler_type="linear", warmup_steps=5, use_cpu=not torch.cuda.is_available(), seed=seed,
            save_strategy="no", logging_steps=1000, report_to=[], disable_tqdm=True,
        )  # fmt: skip
        Distiller(
            model=model.train(),
            teacher=None if teacher is None else LocalTeacher(teacher, task),
            objective=objective,
            args=args,
            train_dataset=rows,
            processing_class=task.tokenizer,
            task=task,
        ).train()


@torch.no_grad()
def opinions(task: Task, members: list[PreTrainedModel], rows: list[Example]) -> tuple[Any, Any]:
    """(log-probabilities [M, N, C], labels [N])."""
    batches = [task.collate(rows[start : start + 64]) for start in range(0, len(rows), 64)]
    said = [torch.cat([log_softmax(task.scores(one, batch).hidden) for batch in batches]) for one in members]
    return torch.stack(said), torch.cat([batch["labels"] for batch in batches])


@torch.no_grad()
def measured(task: Task, model: Any, held: list[Example]) -> dict[str, Any]:
    """Per-row sums on the held-out rows."""
    parts = []
    for start in range(0, len(held), 64):
        some = held[start : start + 64]
        scores = task.scores(model, task.collate(some))
        parts.append(task.statistics(scores, scores, some))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def show(name: str, found: dict[str, Any], seed: int) -> None:
    """One line."""
    value = interval(METRIC, found[name], resamples=2000, seed=seed)
    print(f"  {name:<28} {value.value:.4f} [{value.low:.4f}, {value.high:.4f}] accuracy", flush=True)


if __name__ == "__main__":
    main()
