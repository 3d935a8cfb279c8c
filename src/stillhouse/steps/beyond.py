"""What a recipe may ask of an evaluation beyond teacher, student and control: baselines, what is known by heart, a judge."""

from pathlib import Path
from typing import Any

from ..baselines import read_baselines
from ..evaluate import Source
from ..judge import judge
from ..memorisation import memorisation
from ..pipeline import Results
from ..progress import Watch
from ..tasks import Task
from .baselines import LABELLED
from .measuring import Measured
from .training import steps_of

BEYOND = ("baselines", "memorisation", "judged")
"""Sections of results.json that `beyond` makes."""


def beyond(
    recipe: Any,
    task: Task,
    sources: dict[str, Source],
    measured: Measured,
    results: Results,
    place: Path,
    watch: Watch,
) -> dict[str, Any]:
    """The sections BEYOND; empty or None where nobody asked.  Every model has read the rows by now."""
    facts, evaluation = results["prepare"], measured.evaluation
    folders = {name: source.folder for name, source in sources.items()}
    prepared = place.parent / "prepare"
    settings = {"resamples": recipe.evaluate.resamples, "seed": recipe.seed}
    baselines = read_baselines(
        evaluation, recipe.evaluate.baseline_names, facts["baselines"]["models"], measured.held,
        prepared / LABELLED, measured.train, watch, **settings,
    )  # fmt: skip
    recalled = memorisation(
        folders, task, recipe.evaluate.memorisation, (facts["canaries"] or {}).get("form", "text"),
        {"train": measured.train, "held_out": evaluation.sets["eval"]},
        _passes(recipe.train, facts["sets"]["train"]["rows"], results["train"]["early_stopping"]), place, watch, **settings,
        store=measured.store, identities={name: source.identity for name, source in sources.items()},
    )  # fmt: skip
    compared = judge(
        recipe.evaluate.judge, [name for name in folders if name != "initial"], measured.held["eval"],
        measured.said, place, watch, **settings,
    )  # fmt: skip
    return {"baselines": baselines, "memorisation": recalled, "judged": compared}


def _passes(train: Any, examples: int, ended: dict[str, Any] | None) -> float:
    """How often training had read each row, about, when it was at the student that was taken."""
    steps = ended["best_step"] if ended else steps_of(train, examples)
    read: float = steps * train.batch_size * train.accumulate
    return read / max(1, examples)
