"""SmolLM2 (some of its layers) learns from Gemma-3-270m, whose tokenizer is another one: does the teacher help?

Every student begins as the same layers of SmolLM2-135M and takes the same steps on the same rows; they differ in their
objective alone.  Bits per byte on held-out reviews, with paired bootstrap intervals over rows.  No student is kept.
"""

import time
from typing import Any

import numpy as np
import torch
from common import arguments
from transformers import TrainingArguments

from models import gemma, reviews, smollm2
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.data.encode import Example
from stillhouse.measure import LM_METRICS, difference, interval
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import bfloat16_pays
from stillhouse.progress import Silent
from stillhouse.recipe import FromTeacher, Student, Term
from stillhouse.steps.shrinking import Shrinking
from stillhouse.tasks import make_task, on_device
from stillhouse.tasks.bilingual import BilingualLM
from stillhouse.teachers.cross import CrossTeacher

METRIC = LM_METRICS["bits_per_byte"]


def main() -> None:
    """Train each student in turn, and measure it."""
    asked = arguments(
        str(__doc__), steps=60, rows=4, length=128, layers=15, held_out=64, learning_rate=5e-4, share=0.5,
        seed=0, methods="hybrid,uld,min_edit",
    )  # fmt: skip
    mine, theirs = load_tokenizer(smollm2()), load_tokenizer(gemma())
    task = BilingualLM(mine, theirs, asked.length)
    texts = reviews("imdb")
    chosen = np.random.default_rng(asked.seed).permutation(len(texts))[: asked.steps * asked.rows]
    documents = [{"id": str(n), "where": str(n), "text": texts[n]["text"]} for n in chosen]
    examples, _ = task.encode(documents)
    alone = make_task("causal_lm", mine, asked.length)
    cut = Student(from_teacher=FromTeacher(layers=asked.layers, rows=32))
    cutting = Shrinking(cut, alone, smollm2(), alone.encode(documents[:64])[0], Silent())
    shape = cutting.shapes()[0]
    held, train = examples[: asked.held_out], examples[asked.held_out :][: asked.steps * asked.rows]
    fast = bfloat16_pays()
    teacher = CrossTeacher(task.load(gemma(), torch.bfloat16 if fast else torch.float32), task)
    found = {"teacher (Gemma-3-270m)": measured(task.load(gemma()), task, held)}
    objectives: dict[str, list[Term]] = {"hard targets only": [kd.hard(1.0)]}
    for method in asked.methods.split(","):
        objectives[method] = [kd.hard(1.0 - asked.share), kd.cross_tokenizer(asked.share, method=method)]
    for name, objective in objectives.items():
        student = cutting.student(shape)[0]
        if name == "hard targets only":
            found["student before"] = measured(student, task, held)
        start = time.perf_counter()
        Distiller(
            model=student,
            teacher=None if name == "hard targets only" else teacher,
            objective=objective,
            args=settings(asked, fast),
            train_dataset=train,
            processing_class=mine,
            task=task,
        ).train()
        found[name] = measured(student.eval(), task, held)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    for name, rows in found.items():
        value = interval(METRIC, rows, resamples=2000, seed=asked.seed)
        print(f"  {name:<24} {value.value:.4f} [{value.low:.4f}, {value.high:.4f}] bits per byte")
    for name in list(objectives)[1:]:
        gap = difference(METRIC, found[name], found["hard targets only"], resamples=2000, seed=asked.seed)
        print(
            f"  {name:<24} − hard targets only: {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.4f}"
        )


def settings(asked: Any, fast: bool) -> TrainingArguments:
    """The same for every student."""
    return TrainingArguments(
        output_dir="unused", max_steps=asked.steps, per_device_train_batch_size=asked.rows,
        learning_rate=asked.learning_rate, lr_scheduler_type="cosine", warmup_steps=asked.steps // 10, bf16=fast,
        use_cpu=not torch.cuda.is_available(), seed=asked.seed, save_strategy="no", logging_steps=10, report_to=[],
        disable_tqdm=True,
    )  # fmt: skip


@torch.no_grad()
def measured(model: Any, task: BilingualLM, held: list[Example]) -> dict[str, Any]:
    """Per-row sums on the held-out rows, each model reading them in its own tokens."""
    parts = []
    for start in range(0, len(held), 8):
        some = held[start : start + 8]
        scores = task.scores(model, on_device(task.collate(some)))
        parts.append(task.statistics(scores, scores, some))
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


if __name__ == "__main__":
    main()
