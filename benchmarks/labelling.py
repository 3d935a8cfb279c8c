"""Labelling beside the bare teacher: how much of the time goes into what is kept, and how many bytes it takes.

Bare: the teacher's forward pass with its logits, nothing done with them.  Ours: `stillhouse.teachers.labelling`, with
top-k or sampled targets, shards written and checksummed.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, in_turn, report

from models import book, smollm2
from stillhouse.losses.fused import chunks
from stillhouse.models.load import load_tokenizer
from stillhouse.models.machine import device
from stillhouse.progress import Silent
from stillhouse.tasks import make_task
from stillhouse.tasks.base import on_device
from stillhouse.teachers.cache import SoftTargetCache
from stillhouse.teachers.labelling import ask
from stillhouse.teachers.local import LocalTeacher


def main() -> None:
    asked = arguments(__doc__ or "", rows=32, length=256, batch=8, rounds=2, dtype="float32", only="")
    folder = smollm2()
    task = make_task("causal_lm", load_tokenizer(folder), asked.length)
    examples = task.encode([{"id": "book", "where": "", "text": book()}])[0][: asked.rows]
    teacher = LocalTeacher(task.load(folder, getattr(torch, asked.dtype)).to(device()), task)
    tokens = sum(example.counted for example in examples)

    @torch.no_grad()
    def bare() -> None:
        for start in range(0, len(examples), asked.batch):
            dense = teacher.signal(on_device(task.collate(examples[start : start + asked.batch])))
            for at in chunks(len(dense), task.outcomes, dense.hidden.device):
                dense.logits(at)

    sizes: dict[str, str] = {}

    def ours(name: str, **settings: Any) -> None:
        with tempfile.TemporaryDirectory() as place:
            meta = {
                "temperature": 1.0,
                "outcomes": task.outcomes,
                "seed": 0,
                "top_k": None,
                "samples": None,
                **settings,
            }
            ask(SoftTargetCache(Path(place), meta), teacher, task, examples, asked.batch, Silent())
            size = sum(path.stat().st_size for path in Path(place).glob("*.parquet"))
        sizes[f"{name}: bytes a token"] = f"{size / tokens:.1f}"

    sides = {"bare teacher": bare}
    for k in (64, 16, 8):
        sides[f"top-{k}"] = partial(ours, f"top-{k}", top_k=k)
    for n in (64, 30, 16, 8):
        sides[f"{n} draws"] = partial(ours, f"{n} draws", samples=n)
    wanted = ["bare teacher", *asked.only.split(",")] if asked.only else list(sides)
    found = in_turn({name: sides[name] for name in wanted}, asked.rounds)
    rates = {f"{name}: tokens/s": f"{tokens / min(times):,.0f}" for name, times in found.items()}
    title = f"labelling {tokens:,} tokens of a book, SmolLM2-135M-Instruct, {asked.dtype}"
    report(title, found, "bare teacher", **rates, **sizes)


if __name__ == "__main__":
    main()
