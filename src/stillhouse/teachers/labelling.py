"""Asking a local teacher for its soft targets, shard by shard; a second run asks only for the rest."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.encode import Example
from ..models.machine import device
from ..progress import Watch
from ..tasks import Task
from .cache import Entry, SoftTargetCache
from .local import LocalTeacher

SHARD_POSITIONS = 32_768
"""Counted positions in a shard, about: some megabytes on disk, and minutes of a slow teacher at most."""


def label_examples(
    folder: Path,
    meta: dict[str, Any],
    teacher: Path,
    task: Task,
    examples: list[Example],
    batch_size: int,
    watch: Watch,
) -> SoftTargetCache:
    """The cache in `folder` with the targets of all `examples` in it; the teacher is loaded only if some are missing."""
    cache = SoftTargetCache(folder, meta, watch.note)
    missing = list({example.key: example for example in examples if example.key not in cache}.values())
    if not missing:
        return cache
    if len(missing) < len(examples):
        watch.note(
            f"  soft targets: {len(examples) - len(missing):,} are there, {len(missing):,} are asked for"
        )
    model = task.load(teacher, getattr(torch, meta["dtype"])).to(device())
    ask(cache, LocalTeacher(model, task), task, missing, batch_size, watch)
    return cache


def ask(
    cache: SoftTargetCache,
    teacher: LocalTeacher,
    task: Task,
    examples: list[Example],
    batch_size: int,
    watch: Watch,
) -> None:
    """Label `examples` into `cache`: batches of like length, a shard at a time."""
    examples = sorted(examples, key=lambda example: (-len(example.input_ids), example.key))
    k, temperature = int(cache.meta["top_k"]), float(cache.meta["temperature"])
    waiting: list[Entry] = []
    positions, start = 0, time.perf_counter()
    for at in range(0, len(examples), batch_size):
        batch = examples[at : at + batch_size]
        made = label_batch(teacher, task, batch, k, temperature)
        waiting += made
        positions += sum(len(entry.ids) for entry in made)
        rate = f"{positions / (time.perf_counter() - start):,.0f} positions/s"
        watch.step("labelling", at + len(batch), len(examples), rate)
        if sum(len(entry.ids) for entry in waiting) >= SHARD_POSITIONS:
            cache.add(waiting)
            waiting = []
    if waiting:
        cache.add(waiting)


def label_batch(
    teacher: LocalTeacher, task: Task, batch: list[Example], k: int, temperature: float
) -> list[Entry]:
    """What the teacher says about each example of one batch."""
    tensors = task.collate(batch)
    place = next(teacher.model.parameters()).device
    moved = {
        name: value.to(place) if isinstance(value, torch.Tensor) else value for name, value in tensors.items()
    }
    targets = teacher.topk(moved, k, temperature)
    ids, log_p = targets.ids.cpu().numpy().astype(np.int32), targets.log_p.cpu().numpy().astype(np.float16)
    ends = np.cumsum([example.counted for example in batch])[:-1]
    return [Entry(*parts) for parts in zip(batch, np.split(ids, ends), np.split(log_p, ends), strict=True)]
