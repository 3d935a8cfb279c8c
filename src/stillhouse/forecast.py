"""plan.json of a run whose texts are yet to be written: nothing is asked, paid or written before a person has seen what it takes."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .asking import LEDGER, ledger_of
from .files import link_or_copy, read_json, write_json
from .locks import locked
from .pipeline import DONE
from .progress import Watch
from .recipe import Recipe
from .steps.fetching import fetch_models
from .steps.plan import measure_plan
from .steps.prepare import encode_rows
from .steps.reading import read_rows
from .steps.unwritten import foretold_rows
from .steps.vocabulary import trim_teacher
from .steps.writing import FOLDER as WRITTEN

MACHINE = "machine.json"
SCRATCH = ".foretold.part"


def foretell(recipe: Recipe, place: Path, watch: Watch) -> bool:
    """Write the plan of the run in `place` with stand-ins for the texts that an API or a model on this machine is to write; False if
    there are none.

    Its stages `prepare` and `plan` stay undone: a run has them written first, and measures again with the texts that came.
    """
    if recipe.writing_api is None and not recipe.data.apis and not recipe.data.generate:
        return False
    place.mkdir(parents=True, exist_ok=True)
    with locked(place), _scratch(place) as scratch:
        prepared = scratch / "prepare"
        models = fetch_models(recipe, prepared, watch)
        rows, _ = read_rows(recipe, watch)
        rows, writing = foretold_rows(recipe, rows, models, scratch, watch)
        if writing is None:
            return False
        models = trim_teacher(recipe, rows, models, watch)
        facts = {**models, **encode_rows(_unfiltered(recipe), rows, models, prepared, watch)}
        measure_plan(recipe, scratch / "plan", facts, watch, writing)
        write_json(place / "recipe.json", recipe.model_dump(mode="json"))
        (place / "plan").mkdir(exist_ok=True)
        (place / "plan" / DONE).unlink(missing_ok=True)
        write_json(place / "plan" / "plan.json", read_json(scratch / "plan" / "plan.json"))
    watch.end()
    return True


def _unfiltered(recipe: Recipe) -> Any:
    """The recipe whose filter lets stand-ins pass: a teacher is never sure of those."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"filter": None})})


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A run folder for the time being, which knows what the one in `place` asked and wrote, and which machine it is on."""
    scratch = place / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    for name in ("prepare", "plan"):
        (scratch / name).mkdir(parents=True)
    if (place / MACHINE).exists():
        shutil.copyfile(place / MACHINE, scratch / MACHINE)
    if (place / WRITTEN).exists():
        shutil.copytree(place / WRITTEN, scratch / WRITTEN, copy_function=link_or_copy)
    asked = ledger_of(place, LEDGER)
    if asked.exists():
        with (
            closing(sqlite3.connect(asked)) as ledger,
            closing(sqlite3.connect(scratch / LEDGER)) as copy,
        ):
            ledger.backup(copy)
    try:
        yield scratch
    finally:
        if (scratch / MACHINE).exists() and not (place / MACHINE).exists():
            shutil.copyfile(scratch / MACHINE, place / MACHINE)
        shutil.rmtree(scratch, ignore_errors=True)
