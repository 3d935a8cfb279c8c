"""Plans on a cut-down `sentiment`: what is it worth to begin as the teacher, to have an assistant, generations, a search?

    python benchmarks/plans.py origins | lm-origins | assistants | generations | tune [--folder runs/benchmark-plans]
                               [--steps N] [--seeds 3]

origins      two layers of MiniLM: from the teacher's weights and taught by it; from random weights and taught by it; from
             the teacher's weights on hard targets alone
lm-origins   the same for a language model: 15 layers of SmolLM2, on `quickstart`'s reviews and another book
assistants   chain against direct teaching for as many steps, which are enough for the direct student to learn
generations  three generations and their ensemble against one student trained three times as long
tune         20 trials, killed twice with SIGKILL on the way, against the recipe's own settings on rows that the search has
             not read

Each prints what `stillhouse run` or `stillhouse tune` would, and then a table in Markdown.  Run it again and it goes on.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stillhouse.files import read_json
from stillhouse.plans.planned import plain
from stillhouse.recipe import load_recipe, parse_recipe
from stillhouse.recipe.yaml import write_yaml
from stillhouse.report.numbers import with_interval

STEPS = {"origins": 300, "lm-origins": 40, "assistants": 400, "generations": 300, "tune": 100}
"""Of one student; for assistants, of the student and of the assistant each."""
RECIPES = Path(__file__).parents[1] / "recipes"


def cut_down(
    name: str, steps: int, labelled: int = 5000, unlabelled: int = 16_000, batch: int = 64, **changes: Any
) -> dict[str, Any]:
    """`sentiment` on fewer rows, of which a fifth are held out; all its models have all of the teacher's tokens."""
    base = load_recipe(
        RECIPES / "sentiment" / "recipe.yaml",
        [
            f"data.train.limit={labelled}",
            f"data.unlabelled.limit={unlabelled}" if unlabelled else "data.unlabelled=",
            "data.max_length=48",
            "student.vocabulary=",
            f"train.steps={steps}",
            f"train.batch_size={batch}",
            f"train.checkpoint_every={steps}",
            "evaluate.baselines=[]",
            "evaluate.resamples=1000",
            "evaluate.hard_only=false",
            "evaluate.speed=false",
            "report.samples=0",
        ],
    )
    values = {**plain(base, name), **changes}
    parse_recipe(values)
    return values


def origins(steps: int, seeds: list[int]) -> dict[str, Any]:
    """The same shape, rows and steps; `kd` is what the others are compared with."""
    layers = {"from_teacher": {"layers": 2, "rows": 32}}
    random = {"from_config": {"config": {"num_hidden_layers": 2}, "embeddings": "random"}}
    runs = [
        {"name": "kd"},
        {"name": "random-kd", "set": {"student": random, "train.learning_rate": 1e-3}},
        {"name": "hard", "set": {"objective": [{"kind": "hard", "weight": 1.0}], "data.unlabelled": None}},
    ]
    values = cut_down(
        "bench-origins", steps, student=layers, sweep={"train.seed": seeds},
        plan={"kind": "chain", "runs": runs, "compare": {"random-kd": "kd", "hard": "kd"}},
    )  # fmt: skip
    values["train"]["learning_rate"] = (
        1e-4  # random weights have their own, ten times as much: with this they would not move
    )
    return values


def lm_origins(steps: int, seeds: list[int]) -> dict[str, Any]:
    """The same three of a language model; random weights have their own learning rate, twice as much."""
    quiet = ["evaluate.hard_only=false", "evaluate.speed=false", "evaluate.rows=48", "report.samples=0"]
    base = load_recipe(
        RECIPES / "quickstart" / "recipe.yaml",
        [f"train.steps={steps}", "train.epochs=", "data.train.limit=180", *quiet],
    )
    values = plain(base, "bench-lm-origins")
    random = {"from_config": {"config": {"num_hidden_layers": 15}, "embeddings": "random"}}
    runs = [
        {"name": "kd"},
        {"name": "random-kd", "set": {"student": random, "train.learning_rate": 1e-3}},
        {"name": "hard", "set": {"objective": [{"kind": "hard", "weight": 1.0}]}},
    ]
    compare = {"random-kd": "kd", "hard": "kd"}
    values |= {"plan": {"kind": "chain", "runs": runs, "compare": compare}, "sweep": {"train.seed": seeds}}
    parse_recipe(values)
    return values


def assistants(steps: int, seeds: list[int]) -> dict[str, Any]:
    """One assistant, its size chosen between MiniLM's 6×384 and the student's 2×96; direct teaching has both budgets."""
    return cut_down(
        "bench-assistants", 2 * steps, plan={"kind": "assistants", "sizes": 1}, sweep={"train.seed": seeds}
    )


def generations(steps: int, seeds: list[int]) -> dict[str, Any]:
    """Three generations, their ensemble, and one student trained three times as long."""
    return cut_down(
        "bench-generations", steps, plan={"kind": "generations", "count": 3}, sweep={"train.seed": seeds}
    )


def tune(steps: int, seeds: list[int]) -> dict[str, Any]:
    """The default space (learning rate, batch size, temperature, weight of the hard targets), on 800 rows and a teacher of one epoch."""
    values = cut_down("bench-tune", steps, labelled=800, unlabelled=0, batch=32, tune={"trials": 20})
    values["teacher"]["finetune"]["epochs"] = 1
    values["evaluate"]["rows"] = 400
    return values


def start(values: dict[str, Any], folder: Path, command: str) -> "subprocess.Popen[bytes]":
    """`stillhouse COMMAND` on these values, as a process."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / f"{values['name']}.yaml"
    recipe.write_text(write_yaml(values), encoding="utf-8")
    words = [
        sys.executable,
        "-m",
        "stillhouse",
        command,
        str(recipe),
        "--folder",
        str(folder / values["name"]),
    ]
    return subprocess.Popen(words, start_new_session=True)


def killed_when(running: "subprocess.Popen[bytes]", there: Path) -> None:
    """SIGKILL, some moments after `there` has come."""
    while not there.exists() and running.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    print(f"killed when {there.parent.name} was there", flush=True)


def print_table(found: dict[str, Any]) -> None:
    """A plan's runs and comparisons in Markdown."""
    others = list(found["runs"][0]["also"])
    heads = ["run", "about", found["metric"], *(f"on {name}" for name in others), "parameters", "seconds"]
    print(f"\n| {' | '.join(heads)} |\n|{len(heads) * '---|'}")
    for row in found["runs"]:
        cells = [with_interval(row["quality"]), *(with_interval(row["also"].get(name)) for name in others)]
        cells += [f"{row['parameters']:,}", f"{row['seconds']:.0f}"]
        print(f"| {row['name']} | {row['about']} | {' | '.join(cells)} |")
    print("\n| comparison | on | difference | seeds | better |\n|---|---|---|---|---|")
    for gap in found["comparisons"]:
        better = {True: "yes", False: "no, worse", None: "cannot be told"}[gap["better"]]
        print(
            f"| {gap['of']} − {gap['against']} | {gap['on']} | {with_interval(gap)} | {gap['seeds']} | {better} |",
            flush=True,
        )


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(STEPS))
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-plans"))
    parser.add_argument("--steps", type=int, help=f"of one student; if not given, {STEPS}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="tune: do not kill it on the way")
    chosen = parser.parse_args()
    made = {
        "origins": origins,
        "lm-origins": lm_origins,
        "assistants": assistants,
        "generations": generations,
        "tune": tune,
    }[chosen.what]
    values = made(chosen.steps or STEPS[chosen.what], list(range(chosen.seeds)))
    command = "tune" if chosen.what == "tune" else "run"
    if command == "tune" and not chosen.whole:
        for trial in ("trial-003", "trial-009"):
            place = chosen.folder / values["name"] / "runs" / trial / "train"
            killed_when(start(values, chosen.folder, command), place / "BEGUN.json")
    code = start(values, chosen.folder, command).wait()
    if code == 0:
        print_table(read_json(chosen.folder / values["name"] / "results.json"))
    return code


if __name__ == "__main__":
    sys.exit(main())
