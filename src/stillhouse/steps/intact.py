"""Whether what a stage made is still there and whole, and what else its outcome hangs on: see `pipeline.Stage`."""

from pathlib import Path
from typing import Any

from ..files import hash_path, manifest_fault
from ..harness_files import files_of
from ..recipe import Custom
from ..registry import source_of
from ..teachers.cache import cache_fault
from .asking import label_fault
from .hearing import HEARD
from .prepare import located


def model_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with a model folder that a stage made; one that lies elsewhere must only be there."""
    if result.get("folder") is None:
        return None
    folder = located(result["folder"], place)
    if not folder.is_dir():
        return f"{folder} is gone"
    return manifest_fault(folder) if folder.is_relative_to(place) else None


def seeds_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with the models of the further seeds."""
    models = [run[name] for run in result["runs"] for name in ("student", "hard_only") if name in run]
    faults = (model_fault(place, {"folder": folder}) for folder in models)
    return next((fault for fault in faults if fault), None)


def targets_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with the kept soft targets, with the answers of a teacher that was asked, or with its choices for rows set aside."""
    if fault := label_fault(place, result):
        return fault
    return cache_fault(located(result["cache"], place)) if result["cache"] is not None else None


def report_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What a person would miss."""
    wanted = ("student/config.json", "report.html", "results.json")
    missing = [name for name in wanted if not (place.parent / name).exists()]
    return f"{missing[0]} is gone" if missing else None


def own_losses(recipe: Any) -> list[str]:
    """Sums of the files that hold the user's own losses: another loss is another objective."""
    targets = [term.target for term in recipe.terms if isinstance(term, Custom)]
    return [hash_path(source_of(target)) for target in targets]


def measures_stamp(recipe: Any) -> Any:
    """`own_measures`, and how a teacher behind an API is heard: what it said of held-out rows is measured."""
    own = own_measures(recipe)
    return own if recipe.teacher.api is None else [HEARD, own]


def own_measures(recipe: Any) -> list[str] | str | None:
    """Sums of the files with the user's checker, all behind tasks of the harness, and the judge's prompt: others are another evaluation."""
    wanted, harness, judge = recipe.evaluate.answers, recipe.evaluate.harness, recipe.evaluate.judge
    checker = hash_path(source_of(wanted.checker)) if wanted and wanted.checker else None
    files = [Path(name) for name in files_of(harness.tasks)] if harness else []
    files += [Path(judge.prompt)] if judge is not None and judge.prompt is not None else []
    return [str(checker), *map(hash_path, files)] if files else checker
