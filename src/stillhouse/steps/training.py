"""Teaching the student, training its control, fine-tuning a teacher: one way for all three."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.canaries import PREFIX
from ..data.encode import Example, read_examples
from ..errors import DataError
from ..files import atomic_folder, manifest_fault, write_jsonl
from ..models.machine import device
from ..pipeline import Results
from ..progress import Watch
from ..ranks import any_of_them, rank, size
from ..recipe import TEACHERLESS, Adaptive, EarlyStopping, Finetune, Hard, Rollouts, Term, Train
from ..seeds import draw_seed
from ..stopping import ask, asked, good_moments
from ..tasks import Task
from ..tasks.bilingual import Bilingual, BilingualLM
from ..teachers import Teacher
from ..teachers.cache import CachedTeacher, SoftTargetCache
from ..teachers.cross import CrossTeacher
from ..teachers.ema import Ema
from ..teachers.local import LocalTeacher
from ..train import checkpoints
from ..train.distiller import Distiller
from ..train.early import BEST, SEEN, Chosen, Stopping, ended, looks_in, looks_of
from ..train.forms import Form, forms_of, load_weights
from .aside import prepared, rows_aside
from .fetching import dtype_name
from .prepare import located, task_of

HARD_ONLY: list[Term] = [Hard(weight=1.0)]


def build_teacher(recipe: Any, results: Results, place: Path, watch: Watch) -> Teacher | Ema | None:
    """The kept targets, or the model itself beside the student; None if no term needs it."""
    if all(isinstance(term, TEACHERLESS) for term in recipe.terms):
        return None
    label = results["label"]
    if label["cache"] is not None:
        return CachedTeacher(SoftTargetCache(located(label["cache"], place), label["meta"], watch.note))
    if recipe.teacher.ema is not None:
        return Ema(recipe.teacher.ema)
    facts = results["prepare"]
    task = task_of(recipe, facts, place.parent / "prepare")
    dtype = getattr(torch, dtype_name(recipe.teacher.dtype, facts))
    return beside(task.load(located(results["teacher"]["folder"], place), dtype), task)


def beside(model: PreTrainedModel, task: Task) -> Teacher:
    """The teacher's model as it runs beside the student."""
    return CrossTeacher(model, task) if isinstance(task, BilingualLM) else LocalTeacher(model, task)


def train_student(
    recipe: Any,
    objective: list[Term],
    teacher: Teacher | Ema | None,
    task: Task,
    student: Path,
    facts: dict[str, Any],
    place: Path,
    watch: Watch,
    inside: Path | None = None,
    taught: Path | None = None,
) -> Path:
    """Returns: the folder of the trained student, made in the stage's `place`, or `inside` a folder of it.

    Args: taught: the examples that it learns from, if they are not those that were prepared.

    Without a teacher only rows with a hard target are read, and with one only those that it taught, both for as many steps as the
    prepared rows come to: a control that wasted its budget on rows it cannot learn from, or had another one, would be no control.
    """
    examples = read_examples(taught or place.parent / "prepare" / "train.parquet")
    steps = steps_of(recipe.train, rows_learned(facts))
    if teacher is None:
        examples = labelled(examples)
    rollouts = None if teacher is None else recipe.rollouts
    examples, chosen = set_aside(recipe.train.early_stopping, examples, facts, place)
    looked_at = None
    if rollouts is not None and isinstance(rollouts.share, Adaptive):
        looked_at = read_examples(place.parent / "prepare" / "validation.parquet")
    return _fit(
        recipe.train, steps, training_seed(recipe), objective, teacher, task, student, examples, facts,
        inside or place, watch, rollouts=rollouts, forms=forms_of(recipe.student), chosen=chosen, looked_at=looked_at,
        redraw=recipe.redraws,
    )  # fmt: skip


def taught_by(results: Results, place: Path) -> Path | None:
    """The examples that a teacher behind an API made, for the student; None where the prepared ones are learned."""
    taught = results.get("label", {}).get("train")
    return None if taught is None else located(taught, place)


def finetune(
    wanted: Finetune, seed: int, task: Task, facts: dict[str, Any], place: Path, watch: Watch
) -> Path:
    """Returns: the folder of the teacher, fine-tuned on the hard targets; it reads them in its own tokens."""
    examples = labelled(read_examples(place.parent / "prepare" / "train.parquet"))
    if isinstance(task, Bilingual):
        examples, task = task.as_other(examples), task.other
    train = Train(
        epochs=wanted.epochs,
        batch_size=wanted.batch_size,
        learning_rate=wanted.learning_rate,
        schedule="linear",
    )
    steps = steps_of(train, len(examples))
    base = Path(facts["teacher"]["folder"])
    return _fit(
        train, steps, seed, HARD_ONLY, None, task, base, examples, facts, place, watch, head_seed=seed
    )


def _fit(
    train: Train,
    steps: int,
    seed: int,
    objective: list[Term],
    teacher: Teacher | Ema | None,
    task: Task,
    start: Path,
    examples: list[Example],
    facts: dict[str, Any],
    place: Path,
    watch: Watch,
    head_seed: int | None = None,
    rollouts: Rollouts | None = None,
    forms: Sequence[Form] = (),
    chosen: Chosen | None = None,
    looked_at: list[Example] | None = None,
    redraw: bool = True,
) -> Path:
    """Train from `start` until `steps`, or until `chosen` rows tell no gain, from the newest sound checkpoint in `place` on; all
    processes of a run together, of which rank 0 alone writes.

    Args: looked_at: validation rows, where something follows the loss on them.
    """
    done = place / "model"
    if done.exists() and manifest_fault(done) is None:
        return done
    reached = checkpoints.newest_sound(place / "checkpoints", watch.note)
    any_of_them(False)  # all have looked before one writes
    metric = task.metrics[task.headline]
    seen = looks_of(reached) if chosen and reached else []
    over = chosen is not None and ended(seen, metric, chosen.wanted.patience)
    if reached is not None and (
        over or checkpoints.step_of(reached) >= steps
    ):  # it stopped between the last step and here
        student = _begun(task, start, head_seed, forms)
        load_weights(student, reached / BEST if chosen else reached)
        if chosen:
            chosen.write(place, seen, metric, steps)
        return _finished(student, task, forms, place)
    student = _begun(task, start, head_seed, forms)
    attend_fast(student, examples)
    curves = Curves(place / "metrics.jsonl", place.name, watch, steps)
    stopping = [Stopping(chosen, task, train.batch_size, place, curves.write)] if chosen else []
    distiller = Distiller(
        model=student,
        teacher=teacher,
        objective=objective,
        args=arguments(train, steps, seed, place, facts),
        train_dataset=examples,
        eval_dataset=looked_at,
        processing_class=task.tokenizer,
        task=task,
        rollouts=rollouts,
        rationale_weight=train.rationale_weight,
        redraw=redraw,
        callbacks=[*(one for form in forms if (one := form.callback()) is not None), *stopping, curves],
        say=watch.note,
    )
    with good_moments():
        distiller.train(resume_from_checkpoint=str(reached) if reached else None)
    curves.close()
    if chosen:
        load_weights(student, place / BEST)
        chosen.write(place, looks_in(distiller.state.log_history), metric, steps)
    return _finished(student, task, forms, place)


def _finished(student: PreTrainedModel, task: Task, forms: Sequence[Form], place: Path) -> Path:
    """The student as an ordinary model in `place`/model; there for all processes when this returns."""
    done = place / "model"
    if rank() == 0:
        student.to(
            "cpu"
        )  # what comes of weights and adapters rounds alike wherever it was trained, and after a stop
        for form in reversed(forms):
            form.finish(student, place)
        with atomic_folder(done) as part:
            student.save_pretrained(part)
            task.tokenizer.save_pretrained(part)
    any_of_them(False)
    return done


def _begun(task: Task, start: Path, head_seed: int | None, forms: Sequence[Form]) -> PreTrainedModel:
    """The student as it begins, in the form in which it learns."""
    student = task.load(start, head_seed=head_seed)
    for form in forms:
        form.begin(student)
    return student


def attend_fast(model: Any, examples: list[Example]) -> None:
    """On a processor, short rows learn faster with attention written out: its fused backward pass is slow there."""
    if device().type == "cpu" and max(len(example.input_ids) for example in examples) <= SHORT:
        model.set_attn_implementation("eager")


SHORT = 128
"""Tokens; measured at 28 tokens, bfloat16, 2 layers of 96: 39 ms a step written out, 69 ms fused."""


def arguments(train: Train, steps: int, seed: int, place: Path, facts: dict[str, Any]) -> TrainingArguments:
    """The recipe's `train:` in the Trainer's words."""
    warm = round(train.warmup * steps)
    return TrainingArguments(
        output_dir=str(place / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        gradient_accumulation_steps=train.accumulate,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        lr_scheduler_kwargs=cooldown(steps, warm) if train.schedule == "warmup_stable_decay" else None,
        warmup_steps=warm,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=dtype_name(train.precision, facts) == "bfloat16",
        use_cpu=device().type == "cpu",
        ddp_backend="gloo" if size() > 1 and device().type == "cpu" else None,
        seed=seed,
        save_strategy="steps",
        save_steps=train.checkpoint_every,
        save_total_limit=train.keep_checkpoints,
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        report_to=list(train.report_to),
        disable_tqdm=True,
        remove_unused_columns=False,
    )


COOLDOWN = 0.2
"""Share of the steps at whose end `warmup_stable_decay` lets the rate fall, as 1 − √; with it a constant rate comes level with
a cosine, Hägele et al. 2024 (arXiv:2405.18392)."""


def cooldown(steps: int, warm: int) -> dict[str, Any]:
    """What `warmup_stable_decay` needs beside `warm`, the steps of its warm-up; these go first where there are few."""
    return {"num_decay_steps": min(round(COOLDOWN * steps), steps - warm), "decay_type": "1-sqrt"}


def set_aside(
    wanted: EarlyStopping | None, examples: list[Example], facts: dict[str, Any], place: Path
) -> tuple[list[Example], Chosen | None]:
    """(what to learn from, what to choose the best student on); the second is None unless the recipe asks.

    Rows of `data.validation` if there are some, with the teacher's answers if none has its own; otherwise labelled training rows, the same ones for student and control.
    At most half of them.  Raises: DataError if none can be judged.
    """
    if wanted is None:
        return examples, None
    if facts["validation"] is not None:
        held = labelled(prepared(place)) or labelled(rows_aside(place.parent))
        if held:
            return examples, Chosen(wanted, held[: wanted.rows], "data.validation")
    known = [example for example in labelled(examples) if not example.row.startswith(PREFIX)]
    if len(known) < 2:
        raise DataError(
            "train.early_stopping: no training row has an answer to be judged by; give data.validation with answers, or remove it."
        )
    most = min(wanted.rows, len(known) // 2)
    # by the row, not by its tokens: a teacher's answer in the place of the data's must not choose other rows
    chosen = sorted(known, key=lambda example: draw_seed(0, "validation", example.row))[:most]
    keys = {example.key for example in chosen}
    rows = {example.row for example in chosen if len(example.labels) == 1}  # and what was made of them
    kept = [one for one in examples if one.key not in keys and one.row.partition("~")[0] not in rows]
    return kept, Chosen(wanted, chosen, "the training rows")


def rows_learned(facts: dict[str, Any]) -> int:
    """Rows that the student's epochs are counted in: the prepared ones, those that a teacher is yet to answer with them."""
    prepared = facts["sets"]["train"]
    return int(prepared.get("asked", prepared["rows"]))


def steps_of(train: Train, examples: int) -> int:
    """Optimiser steps that `steps` or `epochs` come to."""
    in_a_step = train.batch_size * train.accumulate * size()
    return train.steps or max(1, math.ceil((train.epochs or 1.0) * examples / in_a_step))


def training_seed(recipe: Any) -> int:
    """The seed of the student: of its new weights, of its rows' order, of its dropout."""
    seed: int = recipe.seed if recipe.train.seed is None else recipe.train.seed
    return seed


def labelled(examples: list[Example]) -> list[Example]:
    """Those with a hard target."""
    return [example for example in examples if len(example.labels) > 1 or example.labels[0] >= 0]


class Curves(TrainerCallback):
    """metrics.jsonl: what the Trainer logs, one JSON object a line, without repeats after a resume."""

    def __init__(self, path: Path, run: str, watch: Watch, steps: int) -> None:
        self.path, self.run, self.watch, self.steps = path, run, watch, steps
        self._handle: TextIO | None = None
        self._loss = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """What was logged before the checkpoint stays; what came after it is dropped, for it comes again."""
        if rank() > 0:
            return
        kept = [row for row in state.log_history if "loss" in row or SEEN in row]
        write_jsonl(self.path, [{"run": self.run, **row} for row in kept])
        self._handle = self.path.open("a", encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **_: Any,
    ) -> None:
        """One line."""
        if "loss" not in logs or self._handle is None:
            return
        self.write({"step": state.global_step, **logs})
        self._loss = f"loss {logs['loss']:.3f}"

    def write(self, row: dict[str, Any]) -> None:
        """One line."""
        if self._handle is not None:
            self._handle.write(json.dumps({"run": self.run, **row}) + "\n")
            self._handle.flush()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the bar; if somebody asked one of the processes to stop, all save a checkpoint first."""
        self.watch.step(self.run, state.global_step, self.steps, self._loss)
        stop = any_of_them(asked())
        if stop and not asked():
            ask()
        if stop and state.global_step < self.steps:
            self.watch.note(f"  stopping after step {state.global_step}, which is saved")
            control.should_save = control.should_training_stop = True

    def close(self) -> None:
        """Flush to disk."""
        if self._handle is not None:
            self._handle.close()
