"""Three candidate teachers of known order: does `stillhouse teachers` find it, and for what share of a full run?

The candidates are MiniLM fine-tuned on film-review sentences for two epochs, for 60 steps and for 10.  Each is then tried out by the
command, on sentences that none of them has seen, for a student of three of its layers; the full run's time is what `stillhouse
plan` predicts for the best of them, on this machine.  About five minutes on two cores.  Prints one line of JSON.
"""

import json
import random
import subprocess
import sys
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import arguments
from transformers import TrainingArguments

from models import minilm, reviews
from stillhouse import Distiller
from stillhouse import objectives as kd
from stillhouse.files import read_json, write_json, write_jsonl
from stillhouse.models.load import load_tokenizer
from stillhouse.steps.training import attend_fast
from stillhouse.tasks import make_task

TEACHING = ("teacher", "label", "train", "control")
"""Stages that a candidate costs; the others take as long whatever is learned."""


def candidate(folder: Path, rows: list[dict[str, str]], steps: int, seed: int) -> None:
    """MiniLM after `steps` steps of 32 rows."""
    tokenizer = load_tokenizer(minilm())
    task = make_task("classification", tokenizer, 64, ["0", "1"])
    model = task.load(minilm(), head_seed=seed)
    named = [{"id": str(number), "where": f"{number}", **row} for number, row in enumerate(rows)]
    args = TrainingArguments(
        output_dir=str(folder / "x"), max_steps=steps, per_device_train_batch_size=32, learning_rate=1e-4,
        warmup_steps=round(0.1 * steps), lr_scheduler_type="linear", seed=seed, use_cpu=not torch.cuda.is_available(),
        report_to=[], disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    examples = task.encode(named)[0]
    attend_fast(model, examples)
    made = Distiller(
        model=model, objective=[kd.hard()], args=args, train_dataset=examples, processing_class=tokenizer, task=task,
    )  # fmt: skip
    made.train()
    made.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe_of(place: Path, teacher: Path, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """The full run."""
    return {
        "name": "selection", "task": "classification", "seed": seed,
        "teacher": {"model": str(teacher)}, "student": {"from_teacher": {"layers": 3, "by": "every_nth"}},
        "data": {"train": {"source": str(place / "train.jsonl")}, "eval": {"source": str(place / "eval.jsonl")}, "max_length": 64},
        "label": {"top_k": "all", "batch_size": 32}, "objective": [{"kind": "forward_kl", "temperature": 2.0}],
        "train": {"steps": steps, "batch_size": batch, "learning_rate": 1e-4, "schedule": "linear"},
    }  # fmt: skip


def command(*words: object) -> str:
    """`stillhouse WORDS`; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "stillhouse", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Make the candidates, rank them, and say what it cost."""
    asked = arguments(
        __doc__ or "", taught=6000, held=500, epochs=2.0, middle=60, short=10, steps=3000, batch=64, seed=0
    )
    rows = reviews("rotten_tomatoes")
    random.Random(asked.seed).shuffle(rows)
    taught, rest = rows[: asked.taught], rows[asked.taught :]
    known = {"long": ceil(asked.epochs * len(taught) / 32), "middle": asked.middle, "short": asked.short}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        write_jsonl(place / "eval.jsonl", rest[: asked.held])
        write_jsonl(place / "train.jsonl", rest[asked.held :])
        for name, steps in known.items():
            print(f"{name}: {steps} steps", file=sys.stderr, flush=True)
            candidate(place / name, taught, steps, asked.seed)
        write_json(
            place / "recipe.json", recipe_of(place, place / "long", asked.steps, asked.batch, asked.seed)
        )
        names = ",".join(str(place / name) for name in ("short", "long", "middle"))
        tried = ("teachers", place / "recipe.json", "--candidates", names, "--folder", place / "tried")
        found = json.loads(command(*tried, "--format", "json"))
        command("run", place / "recipe.json", "--folder", place / "full", "--until", "plan")
        predicted = read_json(place / "full" / "plan" / "plan.json")
    full = sum(predicted["seconds"][name] for name in TEACHING)
    candidates = found["candidates"]
    order = [Path(row["candidate"]).name for row in candidates]
    print(
        json.dumps(
            {
                "order": order,
                "right": order == list(known),
                "teachers": [round(row["quality"]["value"], 4) for row in candidates],
                "students": [round(row["student"]["value"], 4) for row in candidates],
                "behind": [row.get("behind") for row in candidates[1:]],
                "because": found["because"],
                "steps": f"{found['steps']} of {found['of_steps']}",
                "seconds_teaching": [round(row["seconds_teaching"], 1) for row in candidates],
                "seconds_in_all": [round(row["seconds"], 1) for row in candidates],
                "full_run_predicted": {"teaching": round(full, 1), "in_all": predicted["total_seconds"]},
                "share_of_teaching": round(max(row["seconds_teaching"] for row in candidates) / full, 4),
                "share_in_all": round(
                    max(row["seconds"] for row in candidates) / predicted["total_seconds"], 4
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
