"""A recipe and a folder -> a finished run."""

from pathlib import Path
from typing import Any

from .errors import RecipeError
from .files import read_json
from .forecast import foretell
from .pipeline import follow_pipeline, run_pipeline
from .plans.execute import check_product, run_plan
from .progress import Silent, Watch
from .ranks import company, rank, size
from .recipe import Recipe
from .stages import STAGES
from .steps.finish import check_gate, stage_rows
from .steps.labelling import label_part
from .steps.writing_part import write_part


def run(recipe: Recipe, folder: str | Path | None = None, *, watch: Watch | None = None) -> dict[str, Any]:
    """Run `recipe` in `folder` (runs/<name>); what is done there already is not done again.

    Returns: the content of results.json; that of a plan, if the recipe has `sweep` or `plan`.  Empty on all ranks but 0.
    Raises: GateError if the run finished and missed the recipe's gate; see `errors` for the others.
    """
    place = Path(folder) if folder is not None else Path("runs") / recipe.name
    if recipe.is_plan:
        refuse_many(recipe)
        several = run_plan(recipe, place, watch or Silent())
        check_product(recipe, several, place)
        return several
    found = run_stages(recipe, place, watch or Silent())
    if found is None:  # another rank has it
        return {}
    check_gate(recipe, found)
    return found


def refuse_many(recipe: Recipe) -> None:
    """Raises: RecipeError for what several processes cannot make together."""
    if recipe.is_plan and size() > 1:
        raise RecipeError(
            "torchrun: a plan is several runs, and processes can share only one; run it in one process, or its recipes one by one "
            "(runs/NAME/recipe.json)."
        )
    if recipe.train.early_stopping is not None and size() > 1:
        raise RecipeError(
            "train.early_stopping: one process looks for the best student; remove it, or run without torchrun."
        )


def plan_stages(recipe: Recipe, place: Path, watch: Watch, began: float | None = None) -> dict[str, Any]:
    """What the run in `place` will take, before anything is paid for.  Args: see `run_pipeline`.  Returns: the content of its plan.json."""
    if not foretell(recipe, place, watch):
        run_stages(recipe, place, watch, until="plan", began=began)
    found: dict[str, Any] = read_json(place / "plan" / "plan.json")
    return found


def run_write_part(recipe: Recipe, place: Path, part: tuple[int, int], watch: Watch) -> dict[str, int]:
    """One process's part of the texts that `data.generate` asks for in the run in `place`.

    Returns: {"texts", "written": by all parts so far, "rounds_left"}.  Raises: as `write_part`.
    """
    _refuse_to_share("write part", recipe)
    return write_part(recipe, place, part, watch)


def run_label_part(recipe: Recipe, place: Path, part: tuple[int, int], watch: Watch) -> dict[str, int]:
    """One process's part of the soft targets of the run in `place`; what it needs is made first, by whoever comes first.

    Returns: {"examples", "labelled": by all parts so far}.  Raises: as `label_part`.
    """
    _refuse_to_share("label part", recipe)
    done = run_pipeline(recipe, STAGES, place, watch, until="teacher", patient=True)
    return label_part(recipe, done, place / "label", part, watch)


def _refuse_to_share(command: str, recipe: Recipe) -> None:
    """Raises: RecipeError for what has no parts, or is one of several processes already."""
    if recipe.is_plan:
        raise RecipeError(
            f"{command}: a plan is several runs; give the recipe of one of them, runs/NAME/recipe.json."
        )
    if size() > 1:
        raise RecipeError(
            f"{command}: says itself which part it is, and starts no company; run it without torchrun (WORLD_SIZE is set)."
        )


def run_stages(
    recipe: Recipe,
    place: Path,
    watch: Watch,
    until: str | None = None,
    only: str | None = None,
    fresh: bool = False,
    began: float | None = None,
) -> dict[str, Any] | None:
    """The stages of `run`, or some of them; the gate is not looked at.  Args: see `run_pipeline`.

    Returns: the content of results.json, or None if `until` or `only` stopped before the report, and on all ranks but 0.
    """
    refuse_many(recipe)
    if (others := company()) is not None:
        with others.at_work([stage.name for stage in STAGES]):
            if rank() > 0:
                follow_pipeline(recipe, STAGES, place, others, until, only)
                return None
            done = run_pipeline(recipe, STAGES, place, watch, until, only, fresh, began=began)
    else:
        done = run_pipeline(recipe, STAGES, place, watch, until, only, fresh, began=began)
    if "report" not in done:
        return None
    found: dict[str, Any] = read_json(place / "results.json")
    return {**found, "stages": stage_rows(place, STAGES)}
