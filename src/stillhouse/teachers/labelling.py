"""Asking a local teacher for its soft targets, shard by shard; a second run asks only for the rest."""

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..data.batches import like_lengths
from ..data.encode import Example
from ..models.machine import cores, device
from ..progress import Watch
from ..recipe import Label
from ..seeds import draw_seed
from ..tasks import Task
from .cache import Entry, Shard, SoftTargetCache
from .codec import encoded
from .local import LocalTeacher
from .parts import part_name, share_of
from .targets import Kept

SHARD_VALUES = 2**21
"""Kept outcomes in a shard, about: some megabytes on disk, and minutes of a slow teacher at most."""
MOST_WRITERS = 4
"""Threads that write shards: one compresses some 25,000 positions of top-64 a second, and a small teacher on an accelerator
says three times as many."""


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
    waiting: list[Entry] = []
    asked, positions, start = 0, 0, time.perf_counter()
    with Writer(cache) as writer:
        for places in like_lengths(examples, batch_size):
            batch = [examples[at] for at in places]
            made = label_batch(teacher, task, batch, cache.meta)
            waiting += made
            positions += sum(entry.positions for entry in made)
            rate = f"{positions / (time.perf_counter() - start):,.0f} positions/s"
            asked += len(batch)
            watch.step("labelling", asked, len(examples), rate)
            if sum(entry.values for entry in waiting) >= SHARD_VALUES:
                writer.add(waiting)
                waiting = []
        if waiting:
            writer.add(waiting)


class Writer:
    """Writes shards while the teacher answers for the next, as many at once as `threads`; no more than these wait.

    Whichever is done first, the index names them in the order in which they came.
    """

    def __init__(self, cache: SoftTargetCache, threads: int | None = None) -> None:
        self.cache = cache
        self.threads = threads or max(1, min(MOST_WRITERS, cores() - 1))
        self._pool = ThreadPoolExecutor(self.threads, "shards")
        self._under_way: list[Future[None]] = []
        self._lock = Lock()
        self._shards: dict[int, Shard | None] = {}
        """By number, in the order in which they came, those that are not named yet; None: is being written."""

    def __enter__(self) -> "Writer":
        return self

    def add(self, entries: list[Entry]) -> None:
        """Raises: whatever stopped a shard before from being written."""
        self._raise()
        while len(self._under_way) >= self.threads:
            wait(self._under_way, return_when=FIRST_COMPLETED)
            self._raise()
        number = self.cache.next_number()
        with self._lock:
            self._shards[number] = None
        self._under_way.append(self._pool.submit(self._write, entries, number))

    def _write(self, entries: list[Entry], number: int) -> None:
        try:
            shard = self.cache.write(entries, number)
        except BaseException:
            with self._lock:
                del self._shards[number]
                self._name()  # what was written after it is not lost
            raise
        with self._lock:
            self._shards[number] = shard
            self._name()

    def _name(self) -> None:
        while self._shards and (shard := self._shards[first := next(iter(self._shards))]) is not None:
            self.cache.admit(shard)
            del self._shards[first]

    def _raise(self) -> None:
        """What stopped one that is done."""
        for one in [one for one in self._under_way if one.done()]:
            self._under_way.remove(one)
            one.result()

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """What was handed over is written, also when the teacher is stopped."""
        self._pool.shutdown()
        if kind is None:
            self._raise()


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
