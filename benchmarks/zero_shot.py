"""Film-review sentences labelled by label names alone (SmolLM2-135M-Instruct), and what a student of it keeps.

No label is used but to measure: the recipe's `teacher.zero_shot` labels bare text, and MiniLM learns the probabilities.  Asked with
the package's own prompts, and with "Review: … Sentiment:", evened out by the texts or not.  Prints teacher, student and floor with
intervals, the retention, and one line of JSON.
"""

import json
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from common import arguments

from models import minilm, reviews, smollm2
from stillhouse import cost, run
from stillhouse.files import write_jsonl
from stillhouse.progress import Lines
from stillhouse.recipe import parse_recipe
from stillhouse.report.numbers import with_interval
from stillhouse.steps import plan


def main() -> None:
    """A run for each way to ask."""
    asked = arguments(
        __doc__ or "", held=500, train=1000, steps=100, examples=0, seed=0, calibrate="texts", only=""
    )
    rows = reviews("rotten_tomatoes")
    random.Random(asked.seed).shuffle(rows)
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        write_jsonl(place / "eval.jsonl", rows[: asked.held])
        bare = [{"text": row["text"]} for row in rows[asked.held : asked.held + asked.train]]
        shown = (
            rows[-asked.examples :] if asked.examples else []
        )  # few-shot: the only labels that anybody sees
        write_jsonl(place / "train.jsonl", [*bare, *shown])
        (place / "sentiment.txt").write_text("Review: {text}\nSentiment:")
        ways = {"own prompts": [], "Review, Sentiment": [str(place / "sentiment.txt")]}
        for name in asked.only.split(",") if asked.only else list(ways):
            values: dict[str, Any] = {
                "name": "zero-shot", "task": "classification", "seed": asked.seed,
                "teacher": {
                    "model": str(smollm2()),
                    "zero_shot": {
                        "labels": {"0": "negative", "1": "positive"}, "prompt": ways[name], "calibrate": asked.calibrate,
                        "examples": asked.examples,
                    },
                },
                "student": {"model": str(minilm())},
                "data": {name: {"source": str(place / f"{name}.jsonl")} for name in ("train", "eval")} | {"max_length": 64},
                "label": {"batch_size": 16}, "objective": [{"kind": "forward_kl"}],
                "train": {"steps": asked.steps, "batch_size": 32, "learning_rate": 1e-4, "schedule": "linear"},
                "evaluate": {"speed": False}, "report": {"samples": 0},
            }  # fmt: skip
            with (
                mock.patch.object(plan, "SECONDS", 0.01),
                mock.patch.object(cost, "fresh_peak", return_value=1),
            ):
                done = run(parse_recipe(values), place / name, watch=Lines())
            found[name] = {
                "teacher": done["teacher"]["metrics"]["eval"]["accuracy"],
                "student": done["student"]["metrics"]["eval"]["accuracy"],
                "floor": done["floor"]["metrics"]["eval"]["accuracy"]["value"],
                "retention": done["retention"],
            }
            for who in ("teacher", "student"):
                print(f"  {name}: {who} {with_interval(found[name][who])}", file=sys.stderr, flush=True)
            print(f"  {name}: retention {with_interval(done['retention'])}", file=sys.stderr, flush=True)
    print(json.dumps({"held_out": asked.held, "bare_texts": asked.train, **found}))


if __name__ == "__main__":
    main()
