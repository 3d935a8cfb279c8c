"""What a search tries: the recipe's `tune.space`, or a sensible one made from the recipe.

Light: no torch and no optuna, so that a wrong space is refused at once.
"""

import json
from typing import Any

from ..errors import RecipeError
from ..recipe import FeatureTerm, Hard, Recipe, Schedule, SoftTerm, Tune, parse_recipe
from ..recipe.plan import Range
from .planned import changed, plain, value_at

Space = dict[str, Range | list[Any]]
EVERY = ".*."
"""In a field's name: every entry of the list that has the field."""
TEMPERATURES = (1.0, 2.0, 4.0)
"""Where every temperature is another question to the teacher, few are tried."""
AROUND = 4.0
"""The learning rate is sought from a quarter to four times the recipe's."""

MEASURED_ON = ("seed", "data.train", "data.eval", "data.split", "data.group", "data.validation")
"""Fields that decide which rows are set aside, on which trials are judged, or held out."""


def space_of(recipe: Recipe) -> Space:
    """Field -> what is tried.

    Raises: RecipeError that names the field, if the recipe cannot hold what is tried, or if trials could not be compared.
    """
    if recipe.is_plan:
        raise RecipeError(
            "tune: searches one run's settings, and this recipe has sweep: or plan:; remove them."
        )
    space = dict((recipe.tune or Tune()).space) or default_space(recipe)
    for name, tried in space.items():
        _refuse_other_rows(name, recipe)
        ends = [tried.low, tried.high] if isinstance(tried, Range) else tried
        for value in ends:
            where = f"tune.space.{name}"
            parse_recipe(with_values(recipe, {name: value}, where), f"{where} = {value}")
    return space


def _refuse_other_rows(name: str, recipe: Recipe) -> None:
    """Raises: RecipeError for a field with which trials are judged on other rows, or on less of them, than one another.

    A classifier's rows are cut at `data.max_length`, and stay the same rows with the same labels.
    """
    of_rows = any(f"{name}.".startswith(f"{field}.") for field in MEASURED_ON)
    if of_rows or (name == "data.max_length" and recipe.task != "classification"):
        raise RecipeError(
            f"tune.space.{name}: trials would be judged on other rows than one another, and none of them could be called the best; "
            "remove it, and choose its value in the recipe."
        )


def default_space(recipe: Recipe) -> Space:
    """Learning rate, batch size, temperature, weights, layer maps and draws, around what the recipe says; see `tune.space`."""
    train = recipe.train
    space: Space = {
        "train.learning_rate": Range(
            low=train.learning_rate / AROUND, high=train.learning_rate * AROUND, log=True
        ),
        "train.batch_size": _doubled(train.batch_size),
    }
    soft = [term for term in recipe.terms if isinstance(term, SoftTerm)]
    fixed = [term.temperature for term in soft if not isinstance(term.temperature, Schedule)]
    if soft and len(fixed) == len(soft):
        name = "objective.*.temperature"
        if recipe.task == "classification" or recipe.label.online:
            space[name] = Range(low=min(1.0, *fixed), high=max(8.0, *fixed), log=True)
        else:
            space[name] = sorted({*TEMPERATURES, *fixed})
    yardstick = next((term for term in recipe.terms if not isinstance(term, Hard)), recipe.terms[0])
    for number, term in enumerate(recipe.objective):
        if term is not yardstick and not isinstance(term.weight, Schedule) and term.weight > 0:
            space[f"objective.{number}.weight"] = Range(low=term.weight / 8, high=term.weight * 8, log=True)
        if isinstance(term, FeatureTerm) and term.weight != 0 and isinstance(term.layers, str):
            space[f"objective.{number}.layers"] = ["uniform", "last", "skip"]
    if recipe.label.samples is not None:
        space["label.samples"] = [n for n in _doubled(recipe.label.samples) if n <= 250]
    return space


def _doubled(number: int) -> list[Any]:
    return sorted({max(1, number // 2), number, number * 2})


def with_values(recipe: Recipe, values: dict[str, Any], where: str = "tune") -> dict[str, Any]:
    """The recipe's plain values with some fields set; `.*.` stands for every entry that has the field."""
    made = plain(recipe)
    for name, value in values.items():
        for one in _spelt_out(made, name, where):
            made = changed(made, {one: value}, where)
    return made


def own_values(recipe: Recipe, space: Space) -> dict[str, Any]:
    """What the recipe says now, for each field of the space."""
    values = plain(recipe)
    return {name: value_at(values, _spelt_out(values, name, "tune")[0]) for name in space}


def _spelt_out(values: dict[str, Any], name: str, where: str) -> list[str]:
    if EVERY not in name:
        return [name]
    head, _, tail = name.partition(EVERY)
    entries = value_at(values, head)
    if not isinstance(entries, list):
        raise RecipeError(f"{where}: {head} is no list, so {name} stands for nothing.")
    found = [
        f"{head}.{number}.{tail}" for number, entry in enumerate(entries) if tail.partition(".")[0] in entry
    ]
    if not found:
        raise RecipeError(f"{where}: no entry of {head} has the field {tail}.")
    return found


def suggested(trial: Any, space: Space) -> dict[str, Any]:
    """What an optuna trial tries: numbers to four digits, choices as they were written."""
    return {name: _suggest(trial, name, tried) for name, tried in space.items()}


def _suggest(trial: Any, name: str, tried: Range | list[Any]) -> Any:
    if not isinstance(tried, Range):
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in tried]))
    if isinstance(tried.low, int) and isinstance(tried.high, int):
        return trial.suggest_int(name, tried.low, tried.high, log=tried.log)
    return float(f"{trial.suggest_float(name, tried.low, tried.high, log=tried.log):.4g}")


def as_parameters(values: dict[str, Any], space: Space) -> dict[str, Any] | None:
    """Values of the recipe as optuna writes them; None if one of them is not in the space."""
    found: dict[str, Any] = {}
    for name, tried in space.items():
        value = values[name]
        if isinstance(tried, Range):
            if not isinstance(value, (int, float)) or not tried.low <= value <= tried.high:
                return None
            found[name] = value
        else:
            if value not in tried:
                return None
            found[name] = json.dumps(value)
    return found
