"""A plan and a folder -> all its runs, and what they show."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..asking.ledger import RUNS
from ..errors import RecipeError
from ..files import read_json, write_json, write_text
from ..locks import locked
from ..progress import Watch
from ..recipe import Recipe
from ..recipe.plan import Rounds
from ..recipe.text import recipe_text
from ..report.plan_page import render_plan
from ..runstate import PLAN
from ..steps.finish import check_gate
from ..store import SAID
from .bench import MODELS, Bench
from .expand import expand
from .outcome import Found, collect
from .planned import Expanded

MADE = (
    RUNS,
    MODELS,
    SAID,
    "ensembles",
    "chosen",
    "tuning.db",
    PLAN,
    "machine.json",
    "results.json",
    "report.html",
)
"""What a plan puts into its folder."""


def run_plan(recipe: Recipe, folder: Path, watch: Watch, fresh: bool = False) -> Found:
    """Run all of `recipe`'s runs in `folder`; what is done there already is not done again.

    Returns: the content of results.json.
    """
    if isinstance(recipe.plan, Rounds):
        from .rounds import run_rounds

        return at_work(recipe, folder, watch, fresh, lambda bench: run_rounds(recipe, bench))
    plan = expand(recipe)
    return at_work(recipe, folder, watch, fresh, lambda bench: run_all(recipe, plan, bench))


def at_work(recipe: Recipe, folder: Path, watch: Watch, fresh: bool, work: Callable[[Bench], Found]) -> Found:
    """Do `work` in a plan's folder, alone there; then write what it found."""
    if (folder / "recipe.json").exists():
        raise RecipeError(f"{folder}: holds a single run; name another folder for the plan with --folder.")
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if fresh:
            _empty(folder)
            (folder / RUNS).mkdir()
        found = work(Bench(folder, watch))
        write_text(folder / "report.html", render_plan(found, recipe_text(recipe)))
        write_json(folder / "results.json", found)
    return found


def run_all(recipe: Recipe, plan: Expanded, bench: Bench, more: Found | None = None) -> Found:
    """The runs one after the other, and what they found."""
    announce(recipe, plan, bench)
    bench.meet(plan.runs)
    for one in plan.runs:
        bench.run(one)
    return collect(recipe, plan, bench, more)


def announce(
    recipe: Recipe, plan: Expanded, bench: Bench, waiting: str | None = None, until: str | None = None
) -> None:
    """plan.json: which runs there are, for `status`; `waiting` says what comes after them, `until` is their last stage."""
    runs: list[dict[str, Any]] = [
        {"name": one.name, "group": one.group, "about": one.about, "needs": one.needs, "until": until}
        for one in plan.runs
    ]
    write_json(
        bench.folder / PLAN,
        {"name": recipe.name, "plan": plan.kind, "runs": runs, "product": plan.product, "waiting": waiting},
    )


def check_product(recipe: Recipe, found: Found, folder: Path) -> None:
    """The recipe's gate, for the run that is the plan's outcome.  Raises: GateError as `check_gate` does."""
    product = next((row for row in found["runs"] if row["name"] == found["product"]), None)
    if product is not None and product["runs"]:
        own = read_json(folder / RUNS / product["runs"][0] / "results.json")
        check_gate(recipe, {**own, "gain_over_hard_only": product["gain"] or own["gain_over_hard_only"]})


def _empty(folder: Path) -> None:
    """Remove what a plan makes, and nothing else that may lie there."""
    for name in MADE:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
