"""Commands about one run: validate, plan, run, status, report."""

import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from ..ranks import rank, size
from . import output, plans
from .output import Format

if TYPE_CHECKING:
    from ..recipe import Recipe

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/quickstart/recipe.yaml.")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field; repeatable.")
]
Folder = Annotated[Path | None, typer.Option("--folder", help="The run folder; runs/<name> if not given.")]
Shown = Annotated[Format, typer.Option("--format", help="json: results and progress for machines.")]


def validate(recipe: RecipePath, changes: Changes = None, shown: Shown = "auto") -> None:
    """Check RECIPE without loading any model: schema, files, columns, tokenizers, licences, disk."""
    from ..static import static_checks

    loaded = _load(recipe, changes)
    if loaded.is_plan:
        plans.validate_plan(loaded, recipe, shown)
        return
    notes = static_checks(loaded, Path("runs") / loaded.name)
    if shown == "json":
        output.as_json({"valid": True, "notes": notes})
        return
    for note in notes:
        print(f"  {note}")
    print(f"{recipe}: valid")


def plan(recipe: RecipePath, changes: Changes = None, folder: Folder = None, shown: Shown = "auto") -> None:
    """Measure teacher and student for some seconds, and say what RECIPE will take before spending it."""
    began = time.perf_counter()
    from ..progress import watch_for

    loaded = _load(recipe, changes)
    if loaded.is_plan:
        plans.price_plan(loaded, folder, shown)
        return
    place = folder or Path("runs") / loaded.name
    make_ready(loaded, place)
    from ..runner import plan_stages

    found = plan_stages(loaded, place, watch_for(shown), began)
    if shown == "json":
        output.as_json(found)
        return
    output.table(
        "", ["stage", "will take"], [[name, output.duration(took)] for name, took in found["seconds"].items()]
    )
    print(f"\nin all     {output.duration(found['total_seconds'])}")
    print(f"memory     {output.size(found['peak_memory_bytes'])} (measured: one step of training was made)")
    kept = found["soft_target_bytes"]
    of_it = f", of which soft targets {output.size(kept)}" if kept else ""
    print(f"disk       {output.size(found['disk_bytes'])}{of_it}")
    print(
        f"tokens     {found['tokens']['labelled']:,.0f} labelled by the teacher, {found['tokens']['trained']:,.0f} trained on"
    )
    if found["money"] is None:
        print(f"money      not known: the API has no price ({found['requests']:,} requests)")
    elif found["requests"]:
        print(f"money      at most ${found['money']:,.2f} for {found['requests']:,} requests")
    else:
        print("money      none: nobody is paid")


def run(
    recipe: RecipePath,
    changes: Changes = None,
    folder: Folder = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    only: Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what the run folder holds, and begin anew.")
    ] = False,
    shown: Shown = "auto",
) -> None:
    """Run RECIPE.  What is done is not done again: after a stop of any kind, the same command goes on."""
    began = time.perf_counter()
    loaded = _load(recipe, changes)
    if loaded.is_plan:
        if size() > 1:
            from ..runner import refuse_many

            refuse_many(loaded)
        plans.run_plan(loaded, folder, shown, fresh, until, only)
        return
    place = folder or Path("runs") / loaded.name
    found = _run(loaded, place, shown, until=until, only=only, fresh=fresh, began=began)
    if rank() > 0:
        return
    if found is None:
        print(
            f"stopped after {until or only}; the same command without that option goes on"
        ) if shown != "json" else None
        return
    if shown == "json":
        output.as_json(found)
    else:
        output.result(found, place)
    from ..steps.finish import check_gate

    check_gate(loaded, found)


def status(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], shown: Shown = "auto"
) -> None:
    """What is done in RUN, what is next, and what it took so far."""
    from ..runstate import is_plan, run_state

    if is_plan(folder):
        plans.status_plan(folder, shown)
        return
    found = run_state(folder)
    if shown == "json":
        output.as_json(found)
        return
    rows = [
        [
            name,
            row["state"],
            output.duration(row.get("seconds")),
            output.duration(row.get("predicted_seconds")),
            row["detail"],
        ]
        for name, row in found["stages"].items()
    ]
    output.table(
        f"{found['name']}{' (at work)' if found['locked'] else ''}",
        ["stage", "", "took", "predicted", ""],
        rows,
    )
    print(f"\nnext       {found['next'] or 'nothing: the run is finished'}")
    print(f"disk       {output.size(found['bytes'])}")


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Where the report of RUN is."""
    page = folder / "report.html"
    if not page.exists():
        raise RecipeError(f"{folder}: has no report yet; stillhouse status {folder} tells what is missing.")
    print(page)
    if show:
        webbrowser.open(page.absolute().as_uri())


def _load(recipe: Path, changes: list[str] | None) -> "Recipe":
    from ..recipe import load_recipe

    return load_recipe(recipe, changes or [])


def make_ready(loaded: "Recipe", place: Path) -> None:
    """Look at everything that would stop a run in `place` later, and load what it needs, without its chatter."""
    from ..runstate import is_plan
    from ..static import static_checks

    if is_plan(place):
        raise RecipeError(f"{place}: holds a plan of several runs; name another folder with --folder.")
    static_checks(loaded, place)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _run(loaded: "Recipe", place: Path, shown: Format, **options: Any) -> dict[str, Any] | None:
    from ..progress import watch_for

    make_ready(loaded, place)
    from ..runner import run_stages

    return run_stages(loaded, place, watch_for(shown), **options)
