"""Commands by which several processes share one run's work: write part, label part."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RecipeError
from . import output, runs
from .output import Format

if TYPE_CHECKING:
    from ..recipe import Recipe

app = typer.Typer(
    name="write",
    help="One part of many of the texts that a recipe lets a model write.",
    no_args_is_help=True,
)
Part = Annotated[
    str, typer.Argument(metavar="K/N", help="This process's part, such as 2/4; start one for each.")
]
Shown = Annotated[Format, typer.Option("--format")]


@app.command(name="part")
def write(
    recipe: runs.RecipePath,
    which: Part,
    changes: runs.Changes = None,
    folder: runs.Folder = None,
    shown: Shown = "auto",
) -> None:
    """Write one of N parts of the texts of RECIPE's data.generate; `stillhouse run` takes all parts and goes on."""
    from ..progress import watch_for

    loaded, place, part = _ready(recipe, which, changes, folder)
    from ..runner import run_write_part

    found = run_write_part(loaded, place, part, watch_for(shown))
    if shown == "json":
        output.as_json({"part": list(part), **found})
        return
    print(
        f"part {part[0]} of {part[1]} is done: {found['written']:,} of {found['texts']:,} texts are written"
    )
    left = found["rounds_left"]
    if left:
        print(f"left       {left:,} more {'round goes' if left == 1 else 'rounds go'} on from these texts")
    others = "the other parts, then " if found["written"] < found["texts"] else ""
    again = "this part again, or " if left else ""
    print(f"next       {others}{again}stillhouse run {recipe}")


def label(
    recipe: runs.RecipePath,
    which: Part,
    changes: runs.Changes = None,
    folder: runs.Folder = None,
    shown: Shown = "auto",
) -> None:
    """Label one of N parts of RECIPE's rows with its local teacher; `stillhouse run` takes all parts and goes on."""
    from ..progress import watch_for

    loaded, place, part = _ready(recipe, which, changes, folder)
    from ..runner import run_label_part

    found = run_label_part(loaded, place, part, watch_for(shown))
    if shown == "json":
        output.as_json({"part": list(part), **found})
        return
    left = found["examples"] - found["labelled"]
    print(
        f"part {part[0]} of {part[1]} is done: {found['labelled']:,} of {found['examples']:,} examples are labelled"
    )
    print(f"next       {'the other parts, then ' if left else ''}stillhouse run {recipe}")


def _ready(
    recipe: Path, which: str, changes: list[str] | None, folder: Path | None
) -> "tuple[Recipe, Path, tuple[int, int]]":
    """The recipe, its run folder, and (number of the part from 1, of how many)."""
    from ..recipe import load_recipe

    number, _, of = which.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise RecipeError(f"K/N: {which!r} is no part; 2/4 is the second of four.")
    loaded = load_recipe(recipe, changes or [])
    place = folder or Path("runs") / loaded.name
    runs.make_ready(loaded, place)
    return loaded, place, (int(number), int(of))
