"""The same training once more with other seeds: what the luck of the draw is worth.

Intervals over rows say how much other rows would change a number; they know nothing of how much another order of the
training rows would.  Student and control are trained again from the same beginning, on the same rows, with the seeds
that follow the recipe's.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..files import hash_path
from ..pipeline import Results
from ..progress import Watch
from . import training
from .prepare import located, task_of


def train_again(recipe: Any, place: Path, results: Results, watch: Watch) -> Iterator[dict[str, Any]]:
    """{"seed", "student": folder from the run folder, "identity"} and, where there is a control, "hard_only"."""
    task = task_of(recipe, results["prepare"], place.parent / "prepare")
    start = located(results["initial"]["folder"], place)
    first = training.training_seed(recipe)
    own = recipe.train.model_copy(update={"seed": None})
    for seed in range(first + 1, first + recipe.evaluate.seeds):
        view = SimpleNamespace(**{**vars(recipe), "seed": seed, "train": own})
        found: dict[str, Any] = {"seed": seed}
        wanted = {"student": recipe.terms}
        if recipe.evaluate.hard_only and recipe.has_control:
            wanted["hard_only"] = training.HARD_ONLY
        for name, objective in wanted.items():
            watch.note(f"  {name} with seed {seed}")
            teacher = training.build_teacher(view, results, place, watch) if name == "student" else None
            inside = place / f"{name}-{seed}"
            folder = training.train_student(
                view, objective, teacher, task, start, results["prepare"], place, watch,
                inside=inside, taught=training.taught_by(results, place) if name == "student" else None,
            )  # fmt: skip
            found[name] = folder.relative_to(place.parent).as_posix()
            found[f"{name}_identity"] = f"folder:{hash_path(folder)}"
        yield found
