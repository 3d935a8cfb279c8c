"""A whole training step, ours beside plain fine-tuning and TRL's GKDTrainer: same student, same batches, same dtype.

python benchmarks/training_step.py --side kept        one side, alone in its process, for its peak memory
python benchmarks/training_step.py                    all sides, each in a process of its own, in turn
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, peak_memory, report
from transformers import Trainer, TrainerCallback, TrainingArguments

from models import smollm2
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device, synchronise
from stillhouse.models.shrink.cut import every_nth, keep_layers
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.teachers.cache import CachedTeacher, SoftTargetCache
from stillhouse.teachers.labelling import ask
from stillhouse.teachers.local import LocalTeacher

SIDES = ("plain", "hard", "kept", "drawn", "beside", "trl")


class Clock(TrainerCallback):
    """Seconds of each step, data loading included."""

    def __init__(self) -> None:
        self.at = [0.0]
        self.steps: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        synchronise()
        self.at.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronise()
        self.steps.append(time.perf_counter() - self.at[-1])


def one_side(side: str, steps: int, rows: int, length: int, layers: int, dtype: str, kept: str) -> None:
    """Train for some steps, and print seconds of each and the peak memory."""
    folder = smollm2()
    tokenizer = load_tokenizer(folder)
    task = make_task("causal_lm", tokenizer, length)
    generator = torch.Generator().manual_seed(0)
    texts = [
        {
            "id": str(n),
            "where": "",
            "text": tokenizer.decode(torch.randint(1000, 40_000, (length,), generator=generator)),
        }
        for n in range(rows * (steps + 1))
    ]
    examples = [e for e in task.encode(texts)[0] if len(e.input_ids) == length][: rows * steps]
    forms: dict[str, dict[str, Any]] = {
        "kept": {"top_k": 64, "samples": None},
        "drawn": {"top_k": None, "samples": 30},
    }
    caches = {
        name: partial(
            SoftTargetCache,
            Path(kept, name),
            {"temperature": 1.0, "outcomes": task.outcomes, "seed": 0, **form},
        )
        for name, form in forms.items()
    }
    if side == "label":
        quick = LocalTeacher(task.load(folder, getattr(torch, dtype)).to(device()), task)
        for make in caches.values():
            ask(make(), quick, task, examples, 4, Silent())
        return
    student = keep_layers(task.load(folder), every_nth(30, layers))
    clock = Clock()
    with tempfile.TemporaryDirectory() as place:
        args: dict[str, Any] = {
            "output_dir": place, "max_steps": steps, "per_device_train_batch_size": rows, "learning_rate": 1e-5,
            "report_to": [], "save_strategy": "no", "logging_strategy": "no", "use_cpu": not torch.cuda.is_available(),
            "bf16": dtype == "bfloat16", "disable_tqdm": True, "remove_unused_columns": False, "seed": 0,
        }  # fmt: skip
        batch = [{"input_ids": e.input_ids, "labels": e.input_ids} for e in examples]
        if side == "plain":
            made: Trainer = Trainer(
                model=student, args=TrainingArguments(**args), train_dataset=batch, data_collator=_stacked,
                callbacks=[clock],
            )  # fmt: skip
        elif side == "trl":
            from trl.experimental.gkd import GKDConfig, GKDTrainer

            config = GKDConfig(
                **args, lmbda=0.0, beta=0.0, temperature=1.0, seq_kd=False, max_length=length,
                gradient_checkpointing=False,
            )  # fmt: skip
            rows_of_theirs = [{**row, "prompts": row["input_ids"][:1]} for row in batch]
            made = GKDTrainer(
                model=student, teacher_model=task.load(folder, getattr(torch, dtype)), args=config, train_dataset=_dataset(rows_of_theirs),
                processing_class=tokenizer, data_collator=_with_prompts, callbacks=[clock],
            )  # fmt: skip
        else:
            teacher: Any = None
            objective = [kd.hard()] if side == "hard" else [kd.forward_kl()]
            if side == "beside":
                teacher = LocalTeacher(task.load(folder, getattr(torch, dtype)), task)
            if side in caches:
                teacher = CachedTeacher(caches[side]())
            made = Distiller(
                model=student, teacher=teacher, objective=objective, args=TrainingArguments(**args),
                train_dataset=examples, processing_class=tokenizer, task=task, callbacks=[clock],
            )  # fmt: skip
        made.train()
    print(json.dumps({"steps": clock.steps, "peak": peak_memory()}))


def _stacked(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")}


def _with_prompts(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    batch = {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels", "prompts")}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["labels"][:, :1] = -100
    return batch


def _dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def main() -> None:
    asked = arguments(
        __doc__ or "", side="", kept="", steps=6, rows=4, length=256, layers=10, dtype="float32", rounds=2,
        sides=",".join(SIDES),
    )  # fmt: skip
    shape = {name: getattr(asked, name) for name in ("steps", "rows", "length", "layers", "dtype")}
    if asked.side:
        one_side(asked.side, **shape, kept=asked.kept)
        return
    sides = asked.sides.split(",")
    times: dict[str, list[float]] = {side: [] for side in sides}
    peaks: dict[str, list[int]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as kept:
        if {"kept", "drawn"} & set(sides):
            run("label", shape, kept)
        for _ in range(asked.rounds):
            for side in sides:
                found = json.loads(run(side, shape, kept).strip().splitlines()[-1])
                times[side].append(statistics.median(found["steps"][1:]))
                peaks[side].append(found["peak"])
    plain = max(peaks["plain"])
    memory = {
        f"peak memory of {side}": f"{max(own) / 1e9:.2f} GB, {max(own) / plain:.2f} × plain"
        for side, own in peaks.items()
    }
    title = f"a training step, {asked.layers} of 30 layers of SmolLM2, {asked.rows} × {asked.length} tokens, {asked.dtype}"
    report(title, times, "plain", **memory)


def run(side: str, shape: dict[str, Any], kept: str) -> str:
    """One side in a process of its own."""
    options = [f"--{name}={value}" for name, value in shape.items()]
    command = [sys.executable, __file__, "--side", side, "--kept", kept, *options]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(f"{side}: {made.stderr.strip().splitlines()[-1:]}")
    return made.stdout


if __name__ == "__main__":
    main()
