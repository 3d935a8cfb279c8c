"""What can be said of a recipe without loading a model: files, columns, tokenizers, licences, disk.  Under 2 seconds."""

import json
import shutil
from itertools import islice
from pathlib import Path

from . import sources
from .data.formats import Dropped, canonical, detect
from .data.load import read_raw
from .errors import DataError, RecipeError, ResourceError
from .recipe import DataSet, Recipe
from .sources import cache_dir

ROWS_READ = 20
"""Of each local data set: enough to know its columns."""
DISK_NEEDED = 2_000_000_000
"""Bytes below which a run is not worth beginning."""


def static_checks(recipe: Recipe, where: Path) -> list[str]:
    """Notes for a person.  Raises: RecipeError, DataError or ResourceError for what would stop the run later."""
    notes = []
    for role in ("teacher", "student"):
        wanted = getattr(recipe, role)
        if wanted.model is not None:
            said = sources.check(wanted.model, sha256=wanted.sha256, revision=wanted.revision, kind="model")
            notes += [f"{role}: {note}" for note in said]
    named = {
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "data.unlabelled": recipe.data.unlabelled,
    }
    named |= {f"evaluate.also.{also.name}": also for also in recipe.evaluate.also}
    for name, one in named.items():
        if one is not None:
            notes += [f"{name}: {note}" for note in _data(name, one, recipe.task)]
    notes += _tokenizers(recipe)
    if recipe.licence is None:
        notes.append("licence: not given, so the student's model card will say it is unknown")
    notes.append(_disk())
    return notes


def _data(name: str, one: DataSet, task: str) -> list[str]:
    """Look at a source; if it lies here, read its first rows."""
    notes = sources.check(one.source, sha256=one.sha256, revision=one.revision, kind="data")
    path = Path(one.source)
    if not path.exists():
        return notes
    first = list(islice(read_raw(path), ROWS_READ))
    if not first:
        raise DataError(f"{path}: holds no rows.")
    columns = {str(ours): theirs for ours, theirs in one.columns.items()}
    form = (
        one.format if one.format != "auto" else detect(first[0].fields, columns, task, first[0].where, name)
    )
    labelled = name != "data.unlabelled"
    usable = [row for raw in first if not isinstance(row := canonical(raw, form, columns, labelled), Dropped)]
    return [*notes, f"{form} rows; {len(usable)} of the first {len(first)} can be used"]


def _tokenizers(recipe: Recipe) -> list[str]:
    """Compare two local tokenizers by their pieces."""
    teacher, student = Path(recipe.teacher.model), Path(recipe.student.model or "")
    files = [folder / "tokenizer.json" for folder in (teacher, student)]
    if recipe.student.model is None or not all(file.is_file() for file in files):
        return []
    one, other = (
        json.loads(file.read_text(encoding="utf-8")).get("model", {}).get("vocab") for file in files
    )
    if one != other:
        raise RecipeError(
            "student.model: its tokenizer is not the teacher's (their pieces differ); soft targets need the same one. "
            "Make the student from the teacher, or choose one of its family."
        )
    return ["tokenizers: the same"]


def _disk() -> str:
    """Room for the run, and for what is fetched."""
    free = shutil.disk_usage(Path.cwd()).free
    if free < DISK_NEEDED:
        raise ResourceError(
            f"only {free / 1e9:.1f} GB of disk are free in {Path.cwd()}; at least 2 are needed."
        )
    return f"disk: {free / 1e9:.0f} GB free; downloads are kept in {cache_dir()}"
