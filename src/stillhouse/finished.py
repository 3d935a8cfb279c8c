"""Finished runs as others look at them: their results, and runs that lie together.  Imports no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import RecipeError
from .files import read_json


def read_results(run: Path) -> dict[str, Any]:
    """The content of results.json.  Raises: RecipeError if `run` is no finished run."""
    path = run / "results.json"
    if not path.exists():
        begun = (run / "recipe.json").exists()
        why = (
            f"is not finished; stillhouse status {run} tells what is next"
            if begun
            else "is no run folder; stillhouse run makes one in runs/<name>"
        )
        raise RecipeError(f"{run}: {why}.")
    try:
        found: dict[str, Any] = read_json(path)
    except ValueError as error:
        raise RecipeError(
            f"{path}: is not valid JSON ({error}); remove it and run the recipe again."
        ) from error
    if "student" not in found:
        raise RecipeError(f"{run}: is a plan of several runs; name one of them, such as {run}/runs/….")
    return found


def history(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """What every finished run in `folders` (runs, or folders of runs) reached, oldest first.

    Raises: RecipeError if there is none.
    """
    asked = list(folders)
    places = {
        run
        for folder in asked
        for run in (folder, *folder.glob("*"))
        if (run / "results.json").exists() and not (run / "runs").is_dir()  # a plan's are in its own folder
    }
    if not places:
        raise RecipeError(
            f"{', '.join(map(str, asked))}: no finished run lies there; stillhouse run makes one in runs/<name>."
        )
    return sorted((_line(run, read_results(run)) for run in places), key=lambda line: str(line["created"]))


def _line(run: Path, found: dict[str, Any]) -> dict[str, Any]:
    metric = found["metric"]
    return {
        "run": str(run),
        "created": found["created"],
        "version": found["version"],
        "metric": metric,
        "teacher": found["teacher"]["name"],
        "student": found["student"]["metrics"]["eval"][metric],
        "retention": found["retention"],
        "gain_over_hard_only": found["gain_over_hard_only"],
        "parameters": found["student"]["parameters"],
        "rows": found["datasets"]["eval"]["rows"],
        "seconds": round(sum(stage["seconds"] for stage in found["stages"].values()), 1),
    }
