"""What the evaluation of a run will take: models that are opened, read, write and are timed, each as often as the code does it."""

from pathlib import Path
from typing import Any

from ..cost import batch_rows
from ..data.encode import Example
from ..files import read_json
from ..latency import batches_take, requests_take, together_take
from ..models.machine import cores
from ..pipeline import DONE
from ..recipe import Baseline
from ..samples import NEW_TOKENS as SAMPLE_TOKENS
from ..tasks import Task
from ..tasks.writing import SLOTS

LOADING = 4.0
"""Seconds to start a process that imports torch and loads a small model, at least."""
OPENING = 0.7
"""Seconds to load a small model, and to see that its head is known."""
TOGETHER = 1.8
"""How many times as long as a single one the next tokens of a few texts take, written together."""


def evaluation_takes(
    recipe: Any, task: Task, held: dict[str, list[Example]], speed: dict[str, Any], control: bool
) -> float:
    """Every model is loaded, reads, and is measured on what it read; some write samples, and two are timed.

    Args: control: whether one is trained on hard targets alone.
    """
    tokens = sum(tokens_in(examples) for examples in held.values())
    positions = sum(example.counted for examples in held.values() for example in examples)
    students = 2 + int(control) + sum(isinstance(one, Baseline) for one in recipe.evaluate.baselines)
    reading = tokens * (speed["teacher_read"] + students * speed["student_read"])
    measuring = positions * (1 + students) * speed["compare"]
    writing = 0.0
    if task.writes:
        steps = SAMPLE_TOKENS * -(-recipe.report.samples // SLOTS) * TOGETHER
        writing = steps * (speed["teacher_step"] + (1 + int(control)) * speed["student_step"])
    timing = _trying_out(recipe, task, held.get("eval", []), speed) if recipe.evaluate.speed else 0.0
    return float((1 + students) * OPENING + reading + measuring + writing + timing)


def _trying_out(recipe: Any, task: Task, rows: list[Example], speed: dict[str, Any]) -> float:
    """Measuring the speeds and the memory of teacher and student on the held-out rows, where numbers settle at once."""
    sizes = batch_rows(task, recipe.evaluate.speed_batch)
    lengths = sorted(len(example.input_ids) for example in rows) or [recipe.data.max_length]
    known = [who for who in ("teacher", "student") if speed[f"{who}_first"]]
    timing = processes = 0.0
    for who in known:
        read, first, following = (float(speed[f"{who}_{what}"]) for what in ("read", "first", "next"))
        tokens = (
            sizes["prefill"] * lengths[-1] if task.writes else sizes["rows"] * sum(lengths) / len(lengths)
        )
        once = max(first, tokens * read)  # a small batch takes as long as one row
        timing += requests_take(first, following) + batches_take(once)
        if task.writes:
            asked = sizes["generate_batch"] * lengths[len(lengths) // 2] / 2
            timing += together_take(max(first, asked * read), TOGETHER * following)
        processes += speed["process"] + once + first
    return timing + processes / max(1, min(len(known), cores()))


def start_up(run: Path) -> float:
    """Seconds to start a process that loads a model: as many as the command of the run in `run` needed before its first stage, for
    a machine that is busy, or reads from a slow disk, takes minutes for what takes another one LOADING."""
    done = run / "prepare" / DONE
    before = read_json(done).get("seconds_before") if done.exists() else None
    return max(LOADING, before or 0.0)


def tokens_in(examples: list[Example]) -> int:
    """Of all of them."""
    return sum(len(example.input_ids) for example in examples)
