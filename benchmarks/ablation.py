"""Every way to transfer knowledge on the recipe quickstart: the same student, rows, steps and learning rate, one objective
after the other, several seeds; and the same shape from random weights.

Run it again and it goes on.  Processor seconds, not a clock: they hardly change when the machine does other work too.
"""

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from common import arguments

from stillhouse.evaluate import Evaluation
from stillhouse.files import read_json, write_json
from stillhouse.pipeline import run_pipeline
from stillhouse.progress import Lines
from stillhouse.recipe import Recipe, load_recipe
from stillhouse.stages import STAGES
from stillhouse.steps import prepare, training
from stillhouse.steps.measuring import to_measure

HARD = {"kind": "hard", "weight": 0.2}
KL = {"kind": "forward_kl", "weight": 0.8}
BESIDE = {"label.online": True}


def soft(kind: str, **knobs: Any) -> list[dict[str, Any]]:
    """0.8 of a divergence and 0.2 of the hard targets."""
    return [{"kind": kind, "weight": 0.8, **knobs}, HARD]


VARIANTS: dict[str, dict[str, Any]] = {
    "hard targets only": {"objective": [{"kind": "hard"}]},
    "forward KL, dense": {"objective": soft("forward_kl"), **BESIDE},
    "forward KL, top 64": {"objective": soft("forward_kl"), "label": {"top_k": 64}},
    "forward KL, 30 draws": {"objective": soft("forward_kl"), "label": {"samples": 30}},
    "forward KL, 16 draws": {"objective": soft("forward_kl"), "label": {"samples": 16}},
    "forward KL, 8 draws": {"objective": soft("forward_kl"), "label": {"samples": 8}},
    "reverse KL": {"objective": soft("reverse_kl"), **BESIDE},
    "JS, beta 0.5": {"objective": soft("js"), **BESIDE},
    "skew reverse KL, alpha 0.1": {"objective": soft("skew_reverse_kl"), **BESIDE},
    "forward KL + hidden states": {
        "objective": [*soft("forward_kl"), {"kind": "hidden", "distance": "cosine", "weight": 1.0}],
        **BESIDE,
    },
    "forward KL + relations": {
        "objective": [*soft("forward_kl"), {"kind": "relations", "weight": 1.0}],
        **BESIDE,
    },
    "forward KL, half on-policy": {
        "objective": soft("forward_kl"),
        "rollouts": {"share": 0.5, "max_new_tokens": 64},
        **BESIDE,
    },
    "forward KL, random initial weights": {
        "objective": soft("forward_kl"),
        "student": {"from_config": {"config": {"num_hidden_layers": 15}, "embeddings": "random"}},
        **BESIDE,
    },
}


def recipe_of(base: dict[str, Any], variant: dict[str, Any]) -> Recipe:
    """The recipe with a variant's objective."""
    label = {"online": variant.get("label.online", False), **variant.get("label", base["label"])}
    changed = {**base, "label": label, "objective": variant["objective"]}
    changed |= {name: variant[name] for name in ("rollouts", "student") if name in variant}
    return Recipe.model_validate(changed)


def main() -> None:
    asked = arguments(__doc__ or "", folder="runs/ablation", seeds=3, steps=25, length=128, only="")
    place = Path(asked.folder)
    base = load_recipe("recipes/quickstart/recipe.yaml").model_dump(mode="json", exclude_unset=True)
    base["data"]["max_length"] = asked.length
    base["train"] = {**base["train"], "steps": asked.steps}
    base["train"].pop("epochs", None)
    watch = Lines()
    stages = [stage for stage in STAGES if stage.name != "plan"]  # nobody asks how long it will take
    evaluation = None
    for seed in range(asked.seeds):
        for name, variant in VARIANTS.items():
            if not any(part in name for part in asked.only.split(",")):
                continue
            recipe = recipe_of(base, variant)
            run_pipeline(recipe, stages, place, watch, until="label")
            results = {
                stage: read_json(place / stage / "DONE.json")["result"]
                for stage in ("prepare", "teacher", "initial", "label")
            }
            facts = results["prepare"]
            task = prepare.task_of(recipe, facts, place / "prepare")
            if evaluation is None:
                measured = place / "measured"
                measured.mkdir(exist_ok=True)
                evaluation = to_measure(recipe, task, results, measured, watch).evaluation
                evaluation.read(
                    "teacher", task.load(prepare.located(results["teacher"]["folder"], place / "label"))
                )
                evaluation.read(
                    "before", task.load(prepare.located(results["initial"]["folder"], place / "label"))
                )
            one(recipe, seed, f"{name}, seed {seed}", results, task, place, evaluation, watch)
            table(place, evaluation, seed + 1)


def one(
    recipe: Recipe,
    seed: int,
    name: str,
    results: Any,
    task: Any,
    place: Path,
    evaluation: Evaluation,
    watch: Any,
) -> None:
    """Train and measure one student, if that is not done yet."""
    at = place / name.replace(" ", "-").replace(",", "")
    spent = at / "spent.json"
    if not spent.exists():
        at.mkdir(exist_ok=True)
        facts = results["prepare"]
        began = time.process_time()
        teacher = training.build_teacher(recipe, results, place / "label", watch)
        asked = recipe.model_copy(update={"seed": seed})
        student = prepare.located(results["initial"]["folder"], place / "label")
        folder = training.train_student(
            asked, list(recipe.objective), teacher, task, student, facts, at, watch
        )
        seconds = time.process_time() - began
        evaluation.read(name, task.load(folder))
        shutil.rmtree(at / "model")
        shutil.rmtree(at / "checkpoints", ignore_errors=True)
        write_json(spent, {"cpu_seconds": round(seconds, 1)})
    else:
        evaluation.recall(name)


def table(place: Path, evaluation: Evaluation, seeds: int) -> None:
    """One line a variant: mean and range over the seeds."""
    wanted = ("perplexity", "teacher_agreement", "teacher_kl")
    rows: dict[str, dict[str, Any]] = {}
    for variant in ("teacher", "before", *VARIANTS):
        names = [variant, *(f"{variant}, seed {seed}" for seed in range(seeds))]
        found = [evaluation.metrics(name, 200, 0) for name in names if name in evaluation.rows]
        if not found:
            continue
        cells = {}
        for kind in evaluation.sets:
            for metric in wanted:
                values = [one[kind][metric]["value"] for one in found if metric in one[kind]]
                if values:
                    cells[f"{kind} {metric}"] = (statistics.mean(values), min(values), max(values))
        files = [place / name.replace(" ", "-").replace(",", "") / "spent.json" for name in names]
        spent = [read_json(path)["cpu_seconds"] for path in files if path.exists()]
        seconds = statistics.mean(spent) if spent else None
        rows[variant] = {"cells": cells, "cpu_seconds": seconds, "n": len(found)}
        if variant == "teacher":
            print(
                "\n| objective | seeds | CPU s | "
                + " | ".join(f"{kind} {m}" for kind in evaluation.sets for m in wanted)
            )
        row = " | ".join(f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in cells.values())
        print(f"| {variant} | {len(found)} | {seconds and round(seconds)} | {row} |")
    write_json(place / "table.json", rows)


if __name__ == "__main__":
    main()
