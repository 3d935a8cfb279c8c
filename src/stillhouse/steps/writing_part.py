"""One process's part of what `data.generate` asks for."""

from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..files import write_json
from ..locks import locked
from ..progress import Watch
from ..recipe import generate as kinds
from ..teachers.parts import part_name
from ..teachers.texts import Texts
from ..teachers.together import Enough, Together
from .fetching import fetch_models
from .reading import read_rows
from .writing import FOLDER, made_rows, make_desk


def write_part(recipe: Any, folder: Path, part: tuple[int, int], watch: Watch) -> dict[str, int]:
    """Write the `part` (number from 1, of how many) of the texts of the run in `folder`; its stage `prepare` finds what is there
    and asks for the rest.

    Returns: {"texts": asked for so far, of all parts, "written": how many of them are there, "rounds_left": how many times more
    is asked, going on from these}.  Raises: RecipeError where nothing is to be written; ResourceError while another process works
    on this part.
    """
    if not recipe.data.generate:
        raise RecipeError("write part: nothing is to be written; add data.generate.")
    if recipe.writing_api is not None or recipe.data.apis:
        raise RecipeError(
            "write part: one process asks an API for many texts at once; stillhouse run asks for them all."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, watch):  # one after the other: models are fetched and the arithmetic is chosen once
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        models = fetch_models(recipe, folder / "prepare", watch)
        rows, _ = read_rows(recipe, watch)
    place = folder / FOLDER
    texts = Texts(place, part_name(part))
    rounds = sum(rounds_of(wanted) for wanted in recipe.data.generate)
    together = Together(place, part, rounds, texts, recipe.seed, watch)
    try:
        made_rows(make_desk(recipe, models, texts, watch, together), rows)
    except Enough:
        watch.end()
    return {"texts": len(together.keys), "written": together.written, "rounds_left": together.rounds}


def rounds_of(wanted: Any) -> int:
    """How many times a kind asks, each time going on from what was said before."""
    if isinstance(wanted, kinds.EvolInstruct):
        return 2 * wanted.rounds
    return 2 if isinstance(wanted, kinds.BackTranslation | kinds.SelfInstruct) else 1
