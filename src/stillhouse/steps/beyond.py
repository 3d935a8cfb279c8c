"""What a recipe may ask of an evaluation beyond teacher, student and control: baselines."""

from pathlib import Path
from typing import Any

from ..baselines import read_baselines
from ..pipeline import Results
from ..progress import Watch
from .baselines import LABELLED
from .measuring import Measured

BEYOND = ("baselines",)
"""Sections of results.json that `beyond` makes."""


def beyond(recipe: Any, measured: Measured, results: Results, place: Path, watch: Watch) -> dict[str, Any]:
    """The sections BEYOND; empty or None where nobody asked.  Every model has read the rows by now."""
    facts, evaluation = results["prepare"], measured.evaluation
    prepared = place.parent / "prepare"
    baselines = read_baselines(
        evaluation, recipe.evaluate.baseline_names, facts["baselines"]["models"], measured.held,
        prepared / LABELLED, measured.train, watch,
        resamples=recipe.evaluate.resamples, seed=recipe.seed,
    )  # fmt: skip
    return {"baselines": baselines}
