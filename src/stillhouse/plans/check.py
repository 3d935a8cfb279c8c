"""What can be said of a plan without loading a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError, StillhouseError
from ..recipe import Recipe, parse_recipe
from ..recipe.generate import Answers
from ..recipe.plan import Assistants, Rounds
from ..static import static_checks
from .expand import expand
from .foretold import check_cut, stand_in
from .planned import Planned, plain


def check_plan(recipe: Recipe, place: Path) -> list[str]:
    """Notes for a person.  Raises: as `static_checks` does, and RecipeError for a plan that cannot be."""
    base = static_checks(parse_recipe(plain(recipe), recipe.name), place)
    if isinstance(recipe.plan, Rounds):
        refuse_rounds(recipe)
        pooled = with_rows(recipe, plain(recipe), recipe.plan.pool.model_dump(mode="json"))
        try:
            static_checks(parse_recipe(pooled, recipe.name), place)
        except StillhouseError as error:
            whose = "" if str(error).startswith("data.writer") else "plan.pool: "
            raise type(error)(f"{whose}{error}") from error
        return [*base, f"plan: rounds, {recipe.plan.most} at most, each followed by its control"]
    chosen = isinstance(recipe.plan, Assistants) and isinstance(recipe.plan.sizes, int)
    if chosen and not (Path(recipe.teacher.model or "") / "config.json").is_file():
        return [*base, "plan: the assistants' sizes are chosen once the teacher is fetched"]
    plan = expand(recipe)
    check_runs(recipe, plan.runs, place)
    return [*base, f"plan: {len(plan.runs)} runs: {', '.join(one.name for one in plan.runs[:12])}"]


def into_of(recipe: Recipe) -> str:
    """Where the rows go that rounds choose: a source of rows that the teacher labels or answers, or of whole ones."""
    assert isinstance(recipe.plan, Rounds)
    bare = recipe.task == "classification" or recipe.plan.answers is not None
    return "unlabelled" if bare else "extra"


def with_rows(
    recipe: Recipe, values: dict[str, Any], rows: dict[str, Any], by_round: Sequence[str | None] = (None,)
) -> dict[str, Any]:
    """`values` of a run with rows of the pool among its data, and with somebody to answer them and to write others like them.

    Args: rows: as in `data.train`; by_round: the files of each round's own rows, so that what is written of these does not depend on
        later ones.
    """
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    writer = None if recipe.data.writer is None else recipe.data.writer.model_dump(mode="json")
    answers = [] if wanted.answers is None else [wanted.answers.model_dump(mode="json")]
    further = [{**one.model_dump(mode="json"), "of": path} for path in by_round for one in wanted.write]
    generate = [*answers, *values["data"]["generate"], *further]
    data = {**values["data"], into_of(recipe): rows, "generate": generate, "writer": writer}
    return {**values, "data": data}


def refuse_rounds(recipe: Recipe) -> None:
    """Raises: RecipeError if rounds cannot be made of the recipe."""
    if recipe.sweep:
        raise RecipeError(
            "sweep: rounds decide as they go how many there are; run them once for each setting."
        )
    if not recipe.has_teacher:
        raise RecipeError("plan: rounds need a teacher to label what they choose; add a forward_kl term.")
    assert isinstance(recipe.plan, Rounds)
    asked = recipe.evaluate.answers
    if recipe.plan.judge == "answers" and asked is None:
        raise RecipeError("plan.judge: no model is asked for answers; add evaluate.answers.")
    if recipe.plan.by == "checker" and (asked is None or asked.checker is None):
        raise RecipeError("plan.by: nobody checks answers; add evaluate.answers with a checker.")
    if (budget := recipe.plan.budget) is not None and budget.dollars is not None and not _priced(recipe):
        raise RecipeError(
            "plan.budget.dollars: nobody with a price is asked; give the API its price, or use budget: {seconds: …}."
        )
    if recipe.plan.answers is not None and recipe.task == "classification":
        raise RecipeError("plan.answers: a classifier's teacher labels, and writes nothing; remove it.")
    if recipe.plan.answers is not None and any(isinstance(one, Answers) for one in recipe.data.generate):
        raise RecipeError(
            "plan.answers: data.generate puts the teacher's answers in place of data.train's, and would no longer do so beside "
            "the pool's; remove one of the two."
        )
    if recipe.gate.min_win_rate is not None:
        raise RecipeError(
            "gate.min_win_rate: rounds are not judged, for which of them is the product is known last; remove it."
        )
    into = into_of(recipe)
    if getattr(recipe.data, into) is not None:
        raise RecipeError(
            f"plan.pool: the rows that rounds choose become data.{into}, which this recipe has already; "
            "give that source as the pool."
        )
    if recipe.plan.write:
        pooled = with_rows(recipe, plain(recipe), recipe.plan.pool.model_dump(mode="json"))
        try:
            parse_recipe(pooled, recipe.name)
        except RecipeError as error:
            raise RecipeError(str(error).replace("data.generate", "plan.write")) from error


def _priced(recipe: Recipe) -> bool:
    """Whether somebody is paid whose price is known."""
    judge, writer = recipe.evaluate.judge, recipe.writing_api
    prices = [api.price for api in (*recipe.teacher.apis.values(), *recipe.data.apis.values())]
    prices += [None if writer is None else writer.price, None if judge is None else judge.api.price]
    return any(price is not None for price in prices)


def check_runs(recipe: Recipe, runs: Sequence[Planned], place: Path) -> None:
    """Static checks of each run; where it needs another's student, with what is known of that one already."""
    if not runs:
        static_checks(parse_recipe(plain(recipe), recipe.name), place)
    by_name = {one.name: one for one in runs}
    for one in runs:
        parse_recipe(one.values, f"{recipe.name}, run {one.name}")
        made = stand_in(one, by_name, recipe)
        try:
            check_cut(one, by_name)
            if made is not None:
                static_checks(parse_recipe(made.values, recipe.name), place)
        except StillhouseError as error:
            raise type(error)(f"run {one.name}: {error}") from error
