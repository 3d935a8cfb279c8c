"""Commands by which several processes share one run's work: write part, label part."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import RecipeError
from . import output, runs
from .output import Format

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
    found = _done("run_write_part", recipe, which, changes, folder, shown)
    if found is None:
        return
    print(f"{found['of']} is done: {found['written']:,} of {found['texts']:,} texts are written")
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
    found = _done("run_label_part", recipe, which, changes, folder, shown)
    if found is None:
        return
    left = found["examples"] - found["labelled"]
    print(f"{found['of']} is done: {found['labelled']:,} of {found['examples']:,} examples are labelled")
    print(f"next       {'the other parts, then ' if left else ''}stillhouse run {recipe}")


def _done(
    work: str, recipe: Path, which: str, changes: list[str] | None, folder: Path | None, shown: Format
) -> dict[str, Any] | None:
    """What that function of `runner` says of the part, and under `of` which it is; None if it was shown as JSON."""
    from .. import runner
    from ..progress import watch_for
    from ..recipe import load_recipe

    number, _, of = which.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise RecipeError(f"K/N: {which!r} is no part; 2/4 is the second of four.")
    loaded = load_recipe(recipe, changes or [])
    place = folder or Path("runs") / loaded.name
    runs.make_ready(loaded, place)
    found = getattr(runner, work)(loaded, place, (int(number), int(of)), watch_for(shown))
    if shown == "json":
        output.as_json({"part": [int(number), int(of)], **found})
        return None
    return {"of": f"part {number} of {of}", **found}
