"""Whether a language model knows its training rows by heart: planted secrets, and rows that it continues word for word.

What was measured of each model is kept in the run folder (memorised-<model>.safetensors), so that a stopped evaluation goes
on.  A greedy continuation reproduces the next k tokens exactly if each of them is the likeliest after the true ones before
it, so one forward pass tells it and nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .data.batches import in_order, like_lengths
from .data.canaries import PREFIX, canary, pool, refuse_cut, secret
from .data.content import content_of
from .data.encode import IGNORED, Example, remade
from .kept import read_rows, write_rows
from .measure import Rows, interval
from .measure.memorised import chance_facts, exposure_facts, exposure_in_words, fisher, verbatim_in_words
from .measure.metrics import mean
from .models.machine import device
from .progress import Watch
from .recipe import Memorisation
from .store import Store
from .tasks import Task, on_device
from .tasks.bilingual import voice

VERBATIM = mean("verbatim", "verbatim", "rows", False, "share", "rows continued verbatim")
BATCH = 16


def candidates(task: Task, form: str, wanted: Memorisation, seed: int) -> list[Example]:
    """Each planted secret with its alternatives, one after the other."""
    words = pool(task.tokenizer)
    rows = [
        dict(canary(form, secret(words, seed, number, draw), number))
        for number in range(wanted.canaries)
        for draw in range(1 + wanted.alternatives)
    ]
    return apart(task, rows)


def apart(task: Task, rows: Sequence[Mapping[str, object]]) -> list[Example]:
    """One example a row, unpacked.  Raises: DataError if one does not fit."""
    examples = [example for row in rows for example in task.encode([dict(row)])[0]]
    refuse_cut([len(example.input_ids) for example in examples], len(rows), task.max_length)
    return examples


def continued(examples: Sequence[Example], wanted: Memorisation) -> list[Example]:
    """Rows cut after the tokens that are to be continued, only those counted: a prompt's answer, or the middle of a text."""
    found = []
    for example in examples:
        if example.row.startswith(PREFIX):
            continue
        first = next((at for at, label in enumerate(example.labels) if label != IGNORED), 1)
        cut = first if first > 1 else wanted.prompt_tokens
        end = cut + wanted.tokens
        borders = [start for start in example.starts if 0 < start < end]
        if borders or IGNORED in example.labels[cut:end] or len(example.labels) < end:
            continue
        ids = example.input_ids[:end]
        found.append(remade(replace(example, starts=[0]), ids, [IGNORED] * cut + ids[cut:], example.row))
    return found[: wanted.prefixes]


@torch.no_grad()
def read(model: PreTrainedModel, task: Task, examples: list[Example], watch: Watch, title: str) -> Rows:
    """ "nll", "correct" and "tokens" of each example, [N]."""
    parts: list[dict[str, torch.Tensor]] = []
    batches, done = like_lengths(examples, BATCH), 0
    for places in batches:
        some = [examples[at] for at in places]
        scores = task.scores(model, on_device(task.collate(some)))
        found = task.statistics(scores, scores, some)
        parts.append({name: found[name] for name in ("nll", "correct", "tokens")})
        done += len(some)
        watch.step(title, done, len(examples))
    return in_order(parts, batches)


def memorisation(
    folders: Mapping[str, Path],
    task: Task,
    wanted: Memorisation | None,
    form: str,
    sets: Mapping[str, list[Example]],
    passes: float,
    place: Path,
    watch: Watch,
    *,
    resamples: int,
    seed: int,
    store: Store | None = None,
    identities: Mapping[str, str] = {},
) -> dict[str, Any] | None:
    """{"canaries": …, "verbatim": …}, either None where it was not asked for or cannot be told.

    Args:
        store, identities: where what models of such content recalled is kept.
        sets: "train" and "held_out".
        passes: how often training read each row, about.
    """
    if wanted is None:
        return None
    secrets = candidates(task, form, wanted, seed)
    rows = {kind: continued(examples, wanted) for kind, examples in sets.items()}
    contents = {kind: content_of(examples) for kind, examples in {"canaries": secrets, **rows}.items()}
    kept: dict[str, dict[str, Rows]] = {}
    store = store or Store()
    for name, folder in folders.items():
        kept[name] = {}
        model: PreTrainedModel | None = None
        for kind, examples in {"canaries": secrets, **rows}.items():
            path = place / f"memorised-{name}-{kind}.safetensors"
            of, files = [identities.get(name), contents[kind]], {"rows.safetensors": path}
            if examples and not path.exists() and not store.take("recalled", of, files):
                model = model or task.load(folder).to(device()).eval()
                if kind != "canaries" and voice(task, model) is not task:
                    continue  # its tokens are others, so it cannot continue these
                write_rows(path, read(model, task, examples, watch, f"{name} recalls {kind}"))
                store.give("recalled", of, files)
            if path.exists():
                kept[name][kind] = read_rows(path)
    return {
        "canaries": _exposed(kept, wanted, passes * wanted.repeats, resamples, seed) if secrets else None,
        "verbatim": _verbatim(kept, wanted, resamples, seed),
    }


def _exposed(
    kept: Mapping[str, Mapping[str, Rows]], wanted: Memorisation, seen: float, resamples: int, seed: int
) -> dict[str, Any]:
    size = 1 + wanted.alternatives
    models = {
        name: exposure_facts(rows["canaries"]["nll"].reshape(wanted.canaries, size), seed, resamples)
        for name, rows in kept.items()
    }
    chance = chance_facts(wanted.canaries, size, seed)
    return {
        "count": wanted.canaries,
        "repeats": wanted.repeats,
        "read": seen,
        "alternatives": wanted.alternatives,
        "most": float(np.log2(size)),
        **chance,
        "models": models,
        "says": exposure_in_words(models["student"], chance, seen),
    }


def _verbatim(
    kept: Mapping[str, Mapping[str, Rows]], wanted: Memorisation, resamples: int, seed: int
) -> dict[str, Any] | None:
    hits = {
        name: {kind: _hits(rows[kind]) for kind in ("train", "held_out") if kind in rows}
        for name, rows in kept.items()
    }
    student = hits["student"]
    if set(student) != {"train", "held_out"}:
        return None
    counts = list(_counts(student))
    return {
        "prompt_tokens": wanted.prompt_tokens,
        "tokens": wanted.tokens,
        "rows": {kind: len(rows["rows"]) for kind, rows in student.items()},
        "models": {
            name: {
                kind: interval(VERBATIM, rows, resamples=resamples, seed=seed).as_json()
                for kind, rows in both.items()
            }
            for name, both in hits.items()
            if both
        },
        "p": fisher(*counts),
        "says": verbatim_in_words(*counts),
    }


def _hits(rows: Rows) -> Rows:
    return {
        "verbatim": (rows["correct"] == rows["tokens"]).astype(np.float64),
        "rows": np.ones(len(rows["tokens"])),
    }


def _counts(both: Mapping[str, Rows]) -> Iterator[int]:
    """(hits, rows) in training, then held out."""
    for kind in ("train", "held_out"):
        yield int(both[kind]["verbatim"].sum())
        yield len(both[kind]["rows"])
