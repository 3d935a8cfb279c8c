"""Held-out rows, and what each model makes of them, side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .cost import generate
from .data.encode import Example
from .files import read_jsonl
from .models.machine import device
from .progress import Watch
from .tasks import Task, on_device
from .tasks.bilingual import as_read_by, voice

PROMPT_TOKENS, NEW_TOKENS, ROWS_SEARCHED = 24, 32, 200


def samples(
    folders: dict[str, Path],
    task: Task,
    examples: list[Example],
    rows: Path,
    count: int,
    watch: Watch,
    said: Mapping[str, str] = {},
) -> list[dict[str, Any]]:
    """`count` held-out rows with each model's answer (greedy, so that anyone gets the same).

    Args: said: row -> the words of a teacher that is not among the models.
    """
    if count == 0:
        return []
    models = {name: folder for name, folder in folders.items() if name != "initial"}
    make = _classified if task.name == "classification" else _continued
    return make(models, task, examples, rows, count, watch, said)


@torch.inference_mode()
def _continued(
    folders: dict[str, Path],
    task: Task,
    examples: list[Example],
    _: Path,
    count: int,
    watch: Watch,
    said: Mapping[str, str],
) -> list[dict[str, Any]]:
    long_enough = [example for example in examples if len(example.input_ids) > PROMPT_TOKENS][:count]
    prompts = [_prompt(example) for example in long_enough]
    found = [{"prompt": task.tokenizer.decode(prompt)} for prompt in prompts]
    for row, example in zip(found, long_enough, strict=True):
        if example.row in said:
            row["teacher"] = said[example.row]
    for name, folder in folders.items():
        model = task.load(folder).to(device())
        own = voice(task, model)
        asked = prompts if own is task else _translated(prompts, long_enough, task, model)
        for number, prompt in enumerate(asked):
            watch.step(f"samples of {name}", number + 1, len(prompts))
            made = generate(model, own, torch.tensor([prompt], device=device()), NEW_TOKENS)
            found[number][name] = own.tokenizer.decode(made, skip_special_tokens=True)
    return found


def _translated(prompts: list[list[int]], examples: list[Example], task: Task, model: Any) -> list[list[int]]:
    """The prompts in the tokens, and for conversations the template, of a model with another tokenizer."""
    read = as_read_by(task, model, examples)
    tokenizer = voice(task, model).tokenizer
    return [
        _prompt(theirs)
        if example.labels[1] < 0
        else list(tokenizer(task.tokenizer.decode(prompt, skip_special_tokens=True))["input_ids"])
        for prompt, example, theirs in zip(prompts, examples, read, strict=True)
    ]


def _prompt(example: Example) -> list[int]:
    """Up to the first answer of a conversation; the beginning of a plain text."""
    if example.labels[1] < 0:
        answer = next(n for n, label in enumerate(example.labels) if label >= 0)
        return example.input_ids[:answer]
    return example.input_ids[:PROMPT_TOKENS]


@torch.inference_mode()
def _classified(
    folders: dict[str, Path],
    task: Task,
    examples: list[Example],
    rows: Path,
    count: int,
    watch: Watch,
    said: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Rows on which teacher and student part come first: they tell most."""
    some = examples[:ROWS_SEARCHED]
    texts = {row["id"]: row for row in read_jsonl(rows)}
    found: list[dict[str, Any]] = [
        {"text": texts[e.row]["text"], "label": task.labels[e.labels[0]] if e.labels[0] >= 0 else None}
        for e in some
    ]
    for row, example in zip(found, some, strict=True):
        if example.row in said:
            row["teacher"] = said[example.row]
    for name, folder in folders.items():
        model = task.load(folder).to(device())
        for start in range(0, len(some), 32):
            scores = task.scores(model, on_device(task.collate(some[start : start + 32])))
            for number, shares in enumerate(scores.head.logits(scores.hidden).softmax(-1)):
                best = int(shares.argmax())
                found[start + number][name] = f"{task.labels[best]} ({float(shares[best]):.2f})"
        watch.step("samples", len(some), len(some))
    found.sort(key=_agree)
    apart = [row for row in found if not _agree(row)][: (count + 1) // 2]
    return (
        apart + [row for row in found if row not in apart][-(count - len(apart)) :]
        if count > len(apart)
        else apart
    )


def _agree(row: dict[str, Any]) -> bool:
    """Whether teacher and student choose the same label."""
    mine, theirs = (str(row.get(who, "")).split(" (")[0] for who in ("student", "teacher"))
    return mine == theirs
