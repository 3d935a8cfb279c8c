"""Asking a local teacher for its soft targets, shard by shard; a second run asks only for the rest."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.encode import Example
from ..models.machine import device
from ..progress import Watch
from ..recipe import Label
from ..seeds import draw_seed
from ..tasks import Task
from .cache import Entry, SoftTargetCache, wider_caches
from .codec import encoded
from .local import LocalTeacher
from .parts import part_name, share_of
from .targets import Kept, TopK

SHARD_VALUES = 2**21
"""Kept outcomes in a shard, about: some megabytes on disk, and minutes of a slow teacher at most."""


def label_examples(
    folder: Path,
    meta: dict[str, Any],
    teacher: Path,
    task: Task,
    examples: list[Example],
    batch_size: int,
    watch: Watch,
    part: tuple[int, int] | None = None,
) -> SoftTargetCache:
    """The cache in `folder` with the targets of all `examples` in it; the teacher is loaded only if some are missing.

    Args: part: (number from 1, of how many) if several processes share the work: this one labels every `of`-th example,
        by key, into a part of the folder.
    """
    cache = SoftTargetCache(folder, meta, watch.note, "" if part is None else part_name(part))
    if part is not None:
        examples = [example for example in examples if share_of(example.key, part[1]) == part[0]]
    missing = list({example.key: example for example in examples if example.key not in cache}.values())
    for wider in wider_caches(cache):
        missing = _take_first(cache, wider, missing, watch)
    if not missing:
        return cache
    if len(missing) < len(examples):
        watch.note(
            f"  soft targets: {len(examples) - len(missing):,} are there, {len(missing):,} are asked for"
        )
    model = task.load(teacher, getattr(torch, meta["dtype"])).to(device())
    ask(cache, LocalTeacher(model, task), task, missing, batch_size, watch)
    return cache


def _take_first(
    cache: SoftTargetCache, wider: SoftTargetCache, examples: list[Example], watch: Watch
) -> list[Example]:
    """Into `cache` the most probable of the outcomes that `wider` keeps.  Returns: the examples that it knows nothing of.

    What is rounded once stays as it is, so these are the very targets that the teacher would give.
    """
    count, waiting, taken = int(cache.meta["top_k"]), list[Entry](), set[str]()
    for example in examples:
        if example.key not in wider:
            continue
        more = wider.get(example.key)
        assert isinstance(more, TopK)
        first = TopK(more.ids[:, :count], more.log_p[:, :count], more.temperature)
        waiting.append(Entry(example, encoded(first, [example.counted], cache.meta)[0]))
        taken.add(example.key)
        if sum(entry.values for entry in waiting) >= SHARD_VALUES:
            cache.add(waiting)
            waiting = []
    if waiting:
        cache.add(waiting)
    if taken:
        watch.note(f"  soft targets: {len(taken):,} are the first {count} of {wider.meta['top_k']} kept ones")
    return [example for example in examples if example.key not in taken]


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
    waiting: list[Entry] = []
    positions, start = 0, time.perf_counter()
    with Writer(cache) as writer:
        for at in range(0, len(examples), batch_size):
            batch = examples[at : at + batch_size]
            made = label_batch(teacher, task, batch, cache.meta)
            waiting += made
            positions += sum(entry.positions for entry in made)
            rate = f"{positions / (time.perf_counter() - start):,.0f} positions/s"
            watch.step("labelling", at + len(batch), len(examples), rate)
            if sum(entry.values for entry in waiting) >= SHARD_VALUES:
                writer.add(waiting)
                waiting = []
        if waiting:
            writer.add(waiting)


class Writer:
    """Writes one shard while the teacher answers for the next; no more than one waits."""

    def __init__(self, cache: SoftTargetCache) -> None:
        self.cache = cache
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def add(self, entries: list[Entry]) -> None:
        """Raises: whatever stopped the shard before from being written."""
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(self.cache.add, entries)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """What was handed over is written, also when the teacher is stopped."""
        self._pool.shutdown()
        if self._last is not None and kind is None:
            self._last.result()


def label_batch(teacher: LocalTeacher, task: Task, batch: list[Example], meta: dict[str, Any]) -> list[Entry]:
    """What the teacher says about each example of one batch."""
    targets = ask_batch(teacher, task, batch, meta)
    columns = encoded(targets, [example.counted for example in batch], meta)
    return [Entry(*parts) for parts in zip(batch, columns, strict=True)]


def ask_batch(teacher: LocalTeacher, task: Task, batch: list[Example], meta: dict[str, Any]) -> Kept:
    """The teacher's targets for the counted positions of one batch, in the form that `meta` names."""
    moved = {
        name: value.to(teacher.place) if isinstance(value, Tensor) else value
        for name, value in task.collate(batch).items()
    }
    temperature = float(meta["temperature"])
    if meta["samples"] is None:
        return teacher.topk(
            moved, task.outcomes if meta["top_k"] == "all" else int(meta["top_k"]), temperature
        )
    uniform = torch.cat([draws_of(example, int(meta["seed"])) for example in batch])
    return teacher.sampled(moved, uniform.to(teacher.place), int(meta["samples"]), temperature)


def label_settings(label: Label) -> dict[str, Any]:
    """What of `label:` decides the targets, as a cache's `meta` has it: `top_k` or `samples`, the other None."""
    return {"top_k": None if label.samples else label.top_k, "samples": label.samples}


def draws_of(example: Example, seed: int) -> Tensor:
    """[N] in [0, 1): what decides an example's draws, whatever batch it is in and whenever it is labelled."""
    generator = torch.Generator().manual_seed(draw_seed(seed, "sampled", example.key))
    return torch.rand(example.counted, generator=generator)
