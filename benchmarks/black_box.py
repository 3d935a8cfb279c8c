"""What a teacher behind an API is worth: 500 sentences, its named labels or its probabilities, against the true labels.

    stillhouse run recipes/sentiment/recipe.yaml
    python benchmarks/black_box.py runs/sentiment

The fine-tuned MiniLM of that run answers behind a loopback endpoint (tests/endpoint.py), first with a label's name, then with
log-probabilities.  The 500 sentences and those measured on are the run's held-out rows, which the teacher never saw.  The
student is a small BERT; the control is the same student on the true labels of the same 500.  Prints one line of JSON.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from stillhouse import cost, run
from stillhouse.files import read_json, read_jsonl, write_jsonl
from stillhouse.models.load import load_tokenizer
from stillhouse.recipe import parse_recipe
from stillhouse.seeds import draw_seed
from stillhouse.steps import plan
from stillhouse.tasks import make_task

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from endpoint import Endpoint, Said, prompt_of

SEEDS, ROWS, STEPS = (0, 1, 2), 500, 200
STUDENT = {
    "config": {
        "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 384,
        "initializer_range": 0.05, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
}  # fmt: skip
"""A small BERT with random weights: no one can take any from a teacher that is not here."""


@torch.inference_mode()
def probabilities(folder: Path, texts: list[str], labels: list[str]) -> dict[str, list[float]]:
    """text -> what the teacher thinks of it."""
    task = make_task("classification", load_tokenizer(folder), 64, labels)
    model = task.load(folder)
    examples, _ = task.encode([{"id": text, "where": "", "text": text} for text in texts])
    found: dict[str, list[float]] = {}
    for start in range(0, len(examples), 32):
        some = examples[start : start + 32]
        scores = task.scores(model, task.collate(some))
        found |= {one.row: p for one, p in zip(some, scores.hidden.softmax(-1).tolist(), strict=True)}
    return found


def main() -> None:
    """Two ways to answer, three seeds each."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("run", type=Path)
    wanted = parse.parse_args()
    rows = read_jsonl(wanted.run / "prepare" / "eval-rows.jsonl")
    recipe = read_json(wanted.run / "recipe.json")
    labels = read_json(wanted.run / "prepare" / "DONE.json")["result"]["labels"]
    known = probabilities(wanted.run / "teacher" / "model", [row["text"] for row in rows], labels)

    def answer(body: dict[str, Any]) -> Said:
        shares = known[prompt_of(body).rpartition("Text: ")[2]]
        log_p = {label: math.log(max(share, 1e-9)) for label, share in zip(labels, shares, strict=True)}
        word = max(log_p, key=lambda label: log_p[label])
        return word, [(word, log_p)]

    found: dict[str, list[float]] = {"named labels": [], "probabilities": [], "true labels": []}
    teacher = 0.0
    with TemporaryDirectory() as folder, Endpoint(answer) as endpoint:
        for seed in SEEDS:
            order = sorted(range(len(rows)), key=lambda at: draw_seed(seed, at))
            files = {"train": order[:ROWS], "eval": order[ROWS:]}
            for name, places in files.items():
                write_jsonl(
                    Path(folder) / f"{name}-{seed}.jsonl",
                    ({k: rows[at][k] for k in ("text", "label")} for at in places),
                )
            for way, top in (("named labels", None), ("probabilities", 5)):
                base = recipe["teacher"]
                values: dict[str, Any] = {
                    "name": "black-box", "task": "classification", "seed": seed,
                    "teacher": {"api": {"base_url": endpoint.url, "model": "minilm", "top_logprobs": top}},
                    "student": {"tokenizer": base["model"], "sha256": base["sha256"], "from_config": STUDENT},
                    "data": {name: {"source": f"{folder}/{name}-{seed}.jsonl"} for name in files} | {"max_length": 64},
                    "objective": [{"kind": "forward_kl", "temperature": 2.0}],
                    "train": {"steps": STEPS, "batch_size": 64, "learning_rate": 1e-3, "schedule": "linear", "precision": "float32"},
                    "evaluate": {"hard_only": top is None, "resamples": 200}, "report": {"samples": 0},
                }  # fmt: skip
                with (
                    mock.patch.object(plan, "SECONDS", 0.01),
                    mock.patch.object(cost, "fresh_peak", return_value=1),
                ):
                    done = run(parse_recipe(values), Path(folder) / f"{way}-{seed}")
                found[way].append(done["student"]["metrics"]["eval"]["accuracy"]["value"])
                if top is None:
                    found["true labels"].append(
                        done["controls"]["hard_only"]["metrics"]["eval"]["accuracy"]["value"]
                    )
                    teacher += done["teacher"]["metrics"]["eval"]["accuracy"]["value"] / len(SEEDS)
                print(seed, way, found[way][-1], file=sys.stderr, flush=True)
    means = {name: round(mean(values), 4) for name, values in found.items()}
    print(
        json.dumps(
            {
                "teacher": round(teacher, 4),
                "means": means,
                "seeds": found,
                "rows": ROWS,
                "measured_on": len(rows) - ROWS,
            }
        )
    )


if __name__ == "__main__":
    main()
