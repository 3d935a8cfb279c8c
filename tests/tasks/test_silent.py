"""A model's head is known without letting the model read anything, and is the one that its reading comes with."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from stillhouse.data.encode import Example
from stillhouse.losses import Head
from stillhouse.losses.pooling import PooledHead
from stillhouse.models.load import load_tokenizer
from stillhouse.tasks import Task, make_task
from stillhouse.tasks.bilingual import BilingualLM, TheirScores
from stillhouse.tasks.panel import Panel, write_panel

KINDS = (
    "causal_lm",
    "masked_lm",
    "seq2seq",
    "classification",
    "panel",
    "panel of classifiers",
    "other tokens",
)


def made(kind: str, folder: Path) -> tuple[Task, list[Example], Any]:
    """A task, some rows, and a model."""
    rows: list[dict[str, Any]] = [
        {"id": str(n), "where": "", "text": text} for n, text in enumerate(tiny.sentences(4))
    ]
    if kind in ("classification", "panel of classifiers"):
        places = [tiny.save_classifier(folder / str(n), layers=1 + n) for n in range(2)]
        task = make_task("classification", load_tokenizer(places[0]), 24, ["bad", "good"])
    elif kind == "masked_lm":
        places = [tiny.save_encoder(folder / "0", layers=1)]
        task = make_task(kind, load_tokenizer(places[0]), 24)
    elif kind == "seq2seq":
        places = [tiny.save_translator(folder / "0", "bart", layers=1)]
        rows = [{"id": str(n), "where": "", **row} for n, row in enumerate(tiny.translations(4))]
        task = make_task(kind, load_tokenizer(places[0]), 24)
    else:
        places = [
            tiny.save_language_model(folder / str(n), layers=1, width=16 * (2 - n), seed=n) for n in range(2)
        ]
        task = make_task("causal_lm", load_tokenizer(places[0]), 24)
    examples = task.encode(rows)[0]
    if task.redraws:
        examples = [task.drawn(example, 0, 0) for example in examples]
    if kind == "other tokens":
        task = BilingualLM(task.tokenizer, load_tokenizer(places[1]), 24)
        return task, examples, task.adopt(task.other.load(places[1]))
    if kind.startswith("panel"):
        write_panel(folder / "panel", places, pool="mean")
        return task, examples, task.load(folder / "panel")
    return task, examples, task.load(places[0])


def weights(head: Head) -> list[torch.Tensor | None]:
    """All of its tensors."""
    inner = [head for head, _ in head.members] if isinstance(head, PooledHead) else [head]
    return [tensor for one in inner for tensor in (one.weight, one.bias)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_head_of_no_position_is_the_one_that_a_reading_comes_with(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, examples, model = made(kind, tmp_path)
    read = task.scores(model, task.collate(examples))
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.Module, "__call__", None)  # nothing is read
        silent = task.silent(model)
    assert type(silent) is type(read) is (TheirScores if kind == "other tokens" else type(read))
    assert len(silent.hidden) == len(silent.labels) == len(silent.rows) == 0
    assert torch.equal(silent.head.logits(read.hidden), read.head.logits(read.hidden))
    assert silent.head.outcomes(read.hidden) == read.head.outcomes(read.hidden) == task.outcomes
    for mine, theirs in zip(weights(silent.head), weights(read.head), strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or not mine.requires_grad
    if isinstance(model, Panel):
        assert isinstance(read.head, PooledHead) and isinstance(silent.head, PooledHead)
        assert [width for _, width in silent.head.members] == [width for _, width in read.head.members]
