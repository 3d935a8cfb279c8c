"""How fast models read, learn, write and are compared: each tried for some seconds on the run's own rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.encode import Example
from ..data.prompting import Prompt
from ..latency import FEWEST, Requests, request
from ..models.continuous import Sampling
from ..models.heads import tokens_read
from ..models.insides import ABOUT_LAYERS
from ..models.machine import device, synchronise
from ..models.taps import tapped
from ..recipe import Term, Train
from ..tasks import Task, on_device
from ..tasks.bilingual import as_read_by, voice
from ..teachers import SoftTargets
from ..teachers.writer import Writer
from ..train.objective import Layers, Objective
from .evaluating import tokens_in
from .fetching import dtype_name
from .training import HARD_ONLY, attend_fast

SECONDS = 2.0
"""Spent on each measurement, about."""
TOKENS_WRITTEN = 8
"""Of each text of a batch, to see how long one takes."""


def pace_of_learning(
    model: PreTrainedModel,
    task: Task,
    rows: list[Example],
    train: Train,
    terms: list[Term],
    targets: SoftTargets | None,
    facts: dict[str, Any],
) -> float:
    """Seconds a token for forward, backward and the optimiser's step."""
    # terms about layers need both models at once; their own products are small against the models'
    objective = Objective([term for term in terms if not isinstance(term, ABOUT_LAYERS)] or HARD_ONLY)
    objective.attach(model, None, task.outcomes, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    bfloat16 = dtype_name(train.precision, facts) == "bfloat16"
    for (
        parameter
    ) in model.parameters():  # the optimiser's first step makes its moments, which takes long once
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    batch = on_device(task.collate(rows))

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16, enabled=bfloat16):
            with tapped(model, objective.points(0.0)) as mine:
                scores = task.scores(model, batch)
            layers = Layers(mine, {}, task.layout(batch))
            loss, _ = objective(
                scores, targets, len(scores.labels), torch.bfloat16 if bfloat16 else None, layers=layers
            )
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    attend_fast(model, rows)
    model.train().requires_grad_(True)
    seconds = per_token(step, rows)
    model.eval()
    return seconds


def pace_of_requests(model: PreTrainedModel, task: Task, rows: list[Example]) -> tuple[float, float]:
    """Seconds of one request, when warm: to its first token (or its answer), and for each further one (0 if it writes none)."""
    own = as_read_by(task, model, rows[len(rows) // 2 :][:1])
    for _ in range(2):
        found = Requests()
        request(model, voice(task, model), own[0], True, found)
    return found.waits[0], found.steps[0] if found.steps else 0.0


def pace_of_texts(writer: Writer, prompts: Sequence[Prompt], sampling: Sampling) -> tuple[float, float]:
    """Seconds in which a batch of prompts of middling length is read and each has its first token, and for each further token of
    all of them, drawn as the texts will be."""
    ordered = sorted(prompts, key=lambda prompt: len(str(prompt)))
    some = ordered[max(0, (len(ordered) - writer.batch_size) // 2) :][: writer.batch_size]

    def written(most: int) -> int:
        made = writer.tokens(some, replace(sampling, max_new_tokens=most), range(len(some)))
        return max(len(tokens) for _, tokens in made)

    written(1)  # it is loaded, and warm
    first = _seconds(lambda: written(1))
    start = time.perf_counter()
    longest = written(1 + TOKENS_WRITTEN)
    return first, max(0.0, time.perf_counter() - start - first) / max(1, longest - 1)


@torch.inference_mode()
def pace_of_writing(model: PreTrainedModel, task: Task) -> float:
    """Seconds for one token more, which costs the reading of all weights; a classifier writes none."""
    if not task.writes:
        return 0.0
    ids = torch.ones(1, 1, dtype=torch.long, device=device())
    return min(_seconds(lambda: model(**tokens_read(model, ids), use_cache=False)) for _ in range(FEWEST))


def pace_of_comparing(model: PreTrainedModel, task: Task, rows: list[Example]) -> float:
    """Seconds for a position's statistics of one model among several beside a teacher, whose outcomes are as many as a
    vocabulary; a classifier's take no time."""
    if task.name == "classification":
        return 0.0
    with torch.inference_mode():
        found = task.scores(model, on_device(task.collate(rows[:1])))
    scores = replace(found, labels=found.labels.clamp_min(0))  # what is not known yet takes as long
    others = [replace(scores) for _ in range(2)]
    if not len(scores.labels):
        return 0.0
    return _seconds(lambda: task.side_by_side([scores, *others], scores, rows[:1])) / 3 / len(scores.labels)


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    synchronise()
    return time.perf_counter() - start


@torch.inference_mode()
def read_once(model: PreTrainedModel, task: Task, rows: list[Example]) -> None:
    scores = task.scores(model, on_device(task.collate(rows)))
    scores.head.logits(scores.hidden[:512])


def per_token(action: Callable[[], Any], rows: list[Example]) -> float:
    """Seconds a token, after one warm-up; of the warm-up itself if that is long enough to tell."""
    start, times = time.perf_counter(), 0
    action()
    if (first := time.perf_counter() - start) >= SECONDS:
        return first / max(1, tokens_in(rows))
    start = time.perf_counter()
    while times == 0 or time.perf_counter() - start < SECONDS:
        action()
        times += 1
    return (time.perf_counter() - start) / times / max(1, tokens_in(rows))


def typical(examples: list[Example], count: int) -> list[Example]:
    """`count` examples of middling length: batches are made of rows of like length."""
    ordered = sorted(examples, key=lambda example: len(example.input_ids))
    first = max(0, (len(ordered) - count) // 2)
    return ordered[first : first + count]
