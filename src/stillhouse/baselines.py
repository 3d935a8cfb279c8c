"""Who else reads the held-out rows: word counts, guesses, another model; the same rows, the same metrics, paired with the student.

A model is read in its own tokenizer and with its own order of labels.  A language model with another tokenizer is told by its
bits per byte alone, for what else is counted are tokens, and its tokens are others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cost import size
from .data.batches import in_order, like_lengths
from .data.encode import Example
from .errors import RecipeError
from .evaluate import Evaluation, Source, texts_of
from .files import read_jsonl
from .kept import rows_path, write_rows
from .measure import Rows, classification_rows, uniform_rows
from .models.load import load_tokenizer, same_tokenizer
from .models.machine import device
from .progress import Watch
from .registry import require
from .tasks import Task, make_task, on_device
from .tasks.bilingual import BilingualLM, conversations
from .tasks.classification import label_order

FloatArray = np.ndarray[Any, Any]
PREFIX = "baseline-"
"""Before its name, in the names of its files."""
ABOUT = {
    "tfidf": "words and word pairs, with a logistic regression, on the labelled training rows",
    "majority": "always the most frequent label of the training rows",
    "uniform": "any label with equal chance",
}
OF_THE_SHARES = ("kl", "reverse_kl", "rank", "top3")
"""Statistics that compare with probabilities, which a teacher that only names labels does not give."""
REGULARITY = 10.0
"""Inverse strength of the regression's penalty (C); scikit-learn's own 1 is made for features that are not scaled to length 1."""


def read_baselines(
    evaluation: Evaluation,
    names: Sequence[str],
    models: Mapping[str, Mapping[str, Any]],
    held: Mapping[str, list[dict[str, Any]]],
    labelled: Path,
    train: list[Example],
    watch: Watch,
    *,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Name -> {"about", "metrics", "gains"}, and of a model what it takes.  `gains` are the student less the baseline.

    Args:
        models: name -> {"folder", "name", …} of those that are models.
        held: data set -> its rows of data.
        labelled: the rows that `tfidf` learns from.
        train: the examples whose labels `majority` counts.
    """
    found = {}
    for name in names:
        called = PREFIX + name
        kept = [rows_path(evaluation.folder, called, kind) for kind in evaluation.sets]
        about: dict[str, Any] = {"about": ABOUT.get(name, "")}
        if name in models:
            folder = Path(models[name]["folder"])
            source = Source(models[name]["identity"], folder)
            about = {"about": models[name]["name"], **_read_model(evaluation, called, source, held, watch)}
        elif not all(path.exists() for path in kept):
            watch.note(f"  {name}: {ABOUT[name]}")
            said = _shares(evaluation, name, held, labelled, train)
            for path, (kind, shares) in zip(kept, said.items(), strict=True):
                write_rows(path, _rows(evaluation, kind, shares))
        evaluation.recall(called)
        found[name] = {
            **about,
            "metrics": evaluation.metrics(called, resamples, seed),
            "gains": evaluation.gains("student", called, resamples, seed),
        }
    return found


# ── classifiers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _shares(
    evaluation: Evaluation,
    name: str,
    held: Mapping[str, list[dict[str, Any]]],
    labelled: Path,
    train: list[Example],
) -> dict[str, FloatArray | None]:
    """Data set -> probabilities [N, C] by words, or by the labels' shares alone; None for a guess."""
    task, sets = evaluation.task, evaluation.sets
    if name == "uniform":
        return dict.fromkeys(sets)
    if name == "majority":
        counts = np.bincount([e.labels[0] for e in train if e.labels[0] >= 0], minlength=task.outcomes) + 1.0
        shares = counts / counts.sum()
        return {kind: np.tile(shares, (len(examples), 1)) for kind, examples in sets.items()}
    texts = {kind: texts_of(task, examples, held[kind]) or [] for kind, examples in sets.items()}
    rows = read_jsonl(labelled)
    return by_words([row["text"] for row in rows], [row["label"] for row in rows], task.labels, texts)


def by_words(
    train: Sequence[str], labels: Sequence[str], order: Sequence[str], texts: Mapping[str, Sequence[str]]
) -> dict[str, FloatArray | None]:
    """Data set -> probabilities [N, C], in the `order` of labels; a label that no training row has gets 0.

    TF-IDF of words and word pairs, term frequencies as 1 + log, and multinomial logistic regression, by scikit-learn.
    Raises: MissingExtra without it.
    """
    purpose = "evaluate.baselines: tfidf"
    vectors = require("sklearn.feature_extraction.text", purpose).TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    model = require("sklearn.linear_model", purpose).LogisticRegression(C=REGULARITY, max_iter=1000)
    model.fit(vectors.fit_transform(train), labels)
    column = [list(order).index(label) for label in model.classes_]
    found: dict[str, FloatArray | None] = {}
    for kind, some in texts.items():
        shares = np.zeros((len(some), len(order)))
        shares[:, column] = model.predict_proba(vectors.transform(some))
        found[kind] = shares
    return found


def _rows(evaluation: Evaluation, kind: str, shares: FloatArray | None) -> Rows:
    """The statistics of a classifier that says `shares`, beside what the teacher says; None for a guess."""
    teacher = evaluation.rows["teacher"][kind]
    graded = "log_probs" in teacher
    theirs = np.exp(teacher["log_probs"]) if graded else teacher["pred"]
    labels = [example.labels[0] for example in evaluation.sets[kind]]
    if shares is None:
        rows = uniform_rows(evaluation.task.outcomes, labels, theirs)
    else:
        rows = classification_rows(shares, labels, theirs)
    return {name: column for name, column in rows.items() if graded or name not in OF_THE_SHARES}


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_model(
    evaluation: Evaluation,
    called: str,
    source: Source,
    held: Mapping[str, list[dict[str, Any]]],
    watch: Watch,
) -> dict[str, Any]:
    """Let a model read every set.  Returns: its parameters and bytes."""
    task, folder = evaluation.task, source.folder
    evaluation.know(called, source)
    if task.name == "classification":
        labels = label_order(folder, task.labels, called.replace(PREFIX, "evaluate.baselines: "))
        own: Task = make_task(task.name, load_tokenizer(folder), task.max_length, labels)
        model = own.load(folder)
        for kind, examples in evaluation.sets.items():
            if not evaluation.has(called, kind):
                rows = {row["id"]: row for row in held[kind]}
                mine, _ = own.encode([rows[example.row] for example in examples])
                said = _said(own, model, mine, evaluation.batch_size, watch, f"{called} reads {kind}")
                shares = said[:, [labels.index(one) for one in task.labels]]
                evaluation.keep(called, kind, _rows(evaluation, kind, shares))
        return size(folder, model)
    tokenizer = load_tokenizer(folder)
    known = [task.tokenizer, *([task.other.tokenizer] if isinstance(task, BilingualLM) else [])]
    if any(same_tokenizer(tokenizer, one) is None for one in known):
        model = task.load(folder)
        evaluation.read(called, model, source)
        return size(folder, model)
    if task.name == "masked_lm":
        raise RecipeError(
            f"{called.replace(PREFIX, 'evaluate.baselines: ')}: its tokenizer is another one, so other tokens would be hidden from "
            "it; name a model of the teacher's family."
        )
    every = (row for rows in held.values() for row in rows)
    messages = conversations(every, (example for some in evaluation.sets.values() for example in some))
    between = BilingualLM(task.tokenizer, tokenizer, task.max_length, messages)
    model = between.load(folder)
    for kind, examples in evaluation.sets.items():
        if not evaluation.has(called, kind):
            found = _in_bytes(between, model, examples, evaluation.batch_size, watch, called)
            evaluation.keep(called, kind, found)
    return size(folder, model)


@torch.inference_mode()
def _said(
    task: Task, model: Any, examples: list[Example], batch_size: int, watch: Watch, title: str
) -> FloatArray:
    """[N, C] probabilities, in the model's own order of labels."""
    model.to(device()).eval()
    parts = []
    batches, read = like_lengths(examples, batch_size), 0
    for places in batches:
        scores = task.scores(model, on_device(task.collate([examples[at] for at in places])))
        parts.append({"shares": scores.head.logits(scores.hidden).softmax(-1).double().cpu()})
        read += len(places)
        watch.step(title, read, len(examples))
    return np.asarray(in_order(parts, batches)["shares"])


@torch.inference_mode()
def _in_bytes(
    task: BilingualLM, model: Any, examples: list[Example], batch_size: int, watch: Watch, title: str
) -> Rows:
    """Nats, and the bytes that they are about, [N] each: what does not depend on the tokenizer."""
    model.to(device()).eval()
    parts = []
    batches, read = like_lengths(examples, batch_size), 0
    for places in batches:
        some = [examples[at] for at in places]
        scores = task.scores(model, on_device(task.collate(some)))
        found = task.statistics(scores, scores, some)
        parts.append({name: found[name] for name in ("nll", "bytes")})
        read += len(some)
        watch.step(f"{title} reads", read, len(examples))
    return in_order(parts, batches)
