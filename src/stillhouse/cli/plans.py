"""Commands about several runs: tune, ablate; and what validate, plan, run and status say of a recipe that is a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from . import output
from .output import Format

if TYPE_CHECKING:
    from ..progress import Watch
    from ..recipe import Recipe

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field; repeatable.")
]
Shown = Annotated[Format, typer.Option("--format", help="json: results and progress for machines.")]
Price = Annotated[bool, typer.Option("--price", help="Say what it will take, and stop.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what the folder holds, and begin anew.")]


def ablate(
    recipe: RecipePath,
    changes: Changes = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Students of each kind.")] = 3,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The plan's folder; runs/<name>-ablation if not given.")
    ] = None,
    fresh: Fresh = False,
    price: Price = False,
    shown: Shown = "auto",
) -> None:
    """Run RECIPE whole, and without each of its terms and techniques in turn; what each is worth, with intervals."""
    from ..plans.ablation import expand_ablation
    from ..recipe import load_recipe
    from ..static import static_checks

    loaded = load_recipe(recipe, changes or [])
    place = folder or Path("runs") / f"{loaded.name}-ablation"
    plan = expand_ablation(loaded, seeds, lambda made: static_checks(made, place))
    watch = begin(loaded, [], place, shown)
    if price:
        from ..plans.price import price_runs

        found = price_runs(loaded, plan.runs, place, watch)
        show_price({**found, "notes": [*found["notes"], *plan.notes]}, shown)
        return
    from ..plans.execute import at_work, run_all

    found = at_work(loaded, place, watch, fresh, lambda bench: run_all(loaded, plan, bench))
    result(found, place, shown)


def tune(
    recipe: RecipePath,
    changes: Changes = None,
    trials: Annotated[
        int | None, typer.Option(min=2, help="Settings tried in all; the recipe's tune.trials if not given.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The plan's folder; runs/<name>-tuning if not given.")
    ] = None,
    fresh: Fresh = False,
    price: Price = False,
    shown: Shown = "auto",
) -> None:
    """Search for RECIPE's settings on rows set aside from training; write the best one back as a recipe."""
    from ..plans.space import space_of
    from ..recipe import load_recipe
    from ..registry import require

    loaded = load_recipe(recipe, changes or [])
    space_of(loaded)
    require("optuna", "stillhouse tune")
    place = folder or Path("runs") / f"{loaded.name}-tuning"
    watch = begin(loaded, [], place, shown)
    if price:
        from ..plans.price import price_tuning

        show_price(price_tuning(loaded, trials, place, watch), shown)
        return
    from ..plans.execute import at_work
    from ..plans.tune import run_tuning

    found = at_work(loaded, place, watch, fresh, lambda bench: run_tuning(loaded, trials, bench))
    result(found, place, shown)


def begin(loaded: "Recipe", runs: list[Any], place: Path, shown: Format) -> "Watch":
    """Static checks of all runs that start from models that are there; then whoever is told of progress."""
    from ..plans.check import check_runs
    from ..progress import watch_for

    check_runs(loaded, runs, place)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return watch_for(shown)


def validate_plan(loaded: "Recipe", recipe: Path, shown: Format) -> None:
    """`validate` of a recipe that is a plan."""
    from ..plans.check import check_plan

    notes = check_plan(loaded, Path("runs") / loaded.name)
    if shown == "json":
        output.as_json({"valid": True, "notes": notes})
        return
    for note in notes:
        print(f"  {note}")
    print(f"{recipe}: valid")


def run_plan(
    loaded: "Recipe",
    folder: Path | None,
    shown: Format,
    fresh: bool,
    until: str | None = None,
    only: str | None = None,
) -> None:
    """`run` of a recipe that is a plan."""
    from ..plans.check import check_plan
    from ..progress import watch_for

    if until or only:
        raise RecipeError(
            "--until and --only: are about the stages of one run, and this recipe makes several."
        )
    place = folder or Path("runs") / loaded.name
    check_plan(loaded, place)
    begin(loaded, [], place, shown)
    from ..plans.execute import check_product
    from ..plans.execute import run_plan as run_all_of

    found = run_all_of(loaded, place, watch_for(shown), fresh)
    result(found, place, shown)
    check_product(loaded, found, place)


def price_plan(loaded: "Recipe", folder: Path | None, shown: Format) -> None:
    """`plan` of a recipe that is a plan: what all its runs will take."""
    from ..plans.check import check_plan

    place = folder or Path("runs") / loaded.name
    check_plan(loaded, place)
    watch = begin(loaded, [], place, shown)
    from ..plans.price import price

    show_price(price(loaded, place, watch), shown)


def show_price(found: dict[str, Any], shown: Format) -> None:
    """What several runs will take."""
    if shown == "json":
        output.as_json(found)
        return
    rows = [
        [name, output.duration(row["seconds"]), ", ".join(row["taken"]) or "–"]
        for name, row in found["runs"].items()
    ]
    output.table("", ["run", "will take", "takes over"], rows)
    most = "at most    " if found["at_most"] else "in all     "
    print(f"\n{most}{output.duration(found['total_seconds'])}")
    print(f"memory     {output.size(found['peak_memory_bytes'])}")
    print(f"disk       {output.size(found['disk_bytes'])}")
    if found["money"] is None:
        print("money      not known: teacher.api has no price")
    else:
        paid = f"at most ${found['money']:,.2f}" if found["money"] else "none: nobody is paid"
        print(f"money      {paid}")
    for note in found["notes"]:
        print(f"note: {note}")


def status_plan(folder: Path, shown: Format) -> None:
    """`status` of a plan's folder."""
    from ..runstate import plan_state

    found = plan_state(folder)
    if shown == "json":
        output.as_json(found)
        return
    rows = [
        [name, row["state"], output.duration(row["seconds"]), ", ".join(row["needs"]), row["detail"]]
        for name, row in found["runs"].items()
    ]
    output.table(
        f"{found['name']}: {found['plan']}{' (at work)' if found['locked'] else ''}",
        ["run", "", "took", "needs", ""],
        rows,
    )
    print(f"\nnext       {found['next'] or 'nothing: the plan is finished'}")
    print(f"disk       {output.size(found['bytes'])}")


def result(found: dict[str, Any], folder: Path, shown: Format) -> None:
    """What a finished plan ends with."""
    if shown == "json":
        output.as_json(found)
        return
    from ..report.plan_page import plan_columns, plan_rows
    from ..report.plan_verdict import kept_unknown, plan_verdict

    print()
    for sentence in plan_verdict(found):
        print(sentence)
    print()
    output.table("", plan_columns(found), plan_rows(found))
    for sentence in kept_unknown(found):
        print(sentence)
    for note in found.get("notes", []):
        print(f"note: {note}")
    winner = (found.get("tuning") or {}).get("recipe")
    print(f"\nin all    {output.duration(found['seconds'])}")
    print(f"report    {folder}/report.html\nresults   {folder}/results.json")
    if winner:
        print(f"winner    {folder}/{winner}")
