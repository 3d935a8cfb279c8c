"""Plans on a cut-down `sentiment`: is a teacher assistant, are generations, is a search worth what they cost?

    python benchmarks/plans.py assistants | generations | tune [--folder runs/benchmark-plans] [--steps 100]

Each prints what `stillhouse run` or `stillhouse tune` would: chain against direct teaching for as many steps, three
seeds; three generations and their ensemble against one student trained three times as long, three seeds; 20 trials, killed
twice with SIGKILL on the way, against the recipe's own settings on rows that the search has not read.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stillhouse.plans.planned import plain
from stillhouse.recipe import load_recipe, parse_recipe
from stillhouse.recipe.yaml import write_yaml

RECIPE = Path(__file__).parents[1] / "recipes" / "sentiment" / "recipe.yaml"
SEEDS = [0, 1, 2]


def cut_down(name: str, steps: int, **changes: Any) -> dict[str, Any]:
    """`sentiment` with 800 labelled rows and no others, a teacher of one epoch, and 400 held-out rows."""
    base = load_recipe(
        RECIPE,
        [
            "data.train.limit=800",
            "data.unlabelled=",
            "data.max_length=48",
            "teacher.finetune.epochs=1",
            f"train.steps={steps}",
            "train.batch_size=32",
            f"train.checkpoint_every={steps}",
            "evaluate.rows=400",
            "evaluate.resamples=1000",
            "evaluate.hard_only=false",
            "evaluate.speed=false",
            "report.samples=0",
        ],
    )
    values = {**plain(base, name), **changes}
    parse_recipe(values)
    return values


def assistants(steps: int) -> dict[str, Any]:
    """One assistant, its size chosen between MiniLM's 6×384 and the student's 2×96; direct teaching has both budgets."""
    return cut_down(
        "bench-assistants", 2 * steps, plan={"kind": "assistants", "sizes": 1}, sweep={"train.seed": SEEDS}
    )


def generations(steps: int) -> dict[str, Any]:
    """Three generations, their ensemble, and one student trained three times as long."""
    return cut_down(
        "bench-generations", steps, plan={"kind": "generations", "count": 3}, sweep={"train.seed": SEEDS}
    )


def tune(steps: int) -> dict[str, Any]:
    """The default space: learning rate, batch size, temperature, weight of the hard targets."""
    return cut_down("bench-tune", steps, tune={"trials": 20})


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


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["assistants", "generations", "tune"])
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-plans"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--whole", action="store_true", help="tune: do not kill it on the way")
    chosen = parser.parse_args()
    values = {"assistants": assistants, "generations": generations, "tune": tune}[chosen.what](chosen.steps)
    command = "tune" if chosen.what == "tune" else "run"
    if command == "tune" and not chosen.whole:
        for trial in ("trial-003", "trial-009"):
            place = chosen.folder / values["name"] / "runs" / trial / "train"
            killed_when(start(values, chosen.folder, command), place / "BEGUN.json")
    return start(values, chosen.folder, command).wait()


if __name__ == "__main__":
    sys.exit(main())
