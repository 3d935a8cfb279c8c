"""A recipe with `sweep:` or `plan:` -> its runs.  Nothing is loaded, so a wrong plan is refused at once."""

import math
import re
from dataclasses import replace
from itertools import product
from typing import Any

from ..errors import RecipeError
from ..recipe import Recipe, parse_recipe
from ..recipe.plan import RUN
from .kinds import expand_kind
from .planned import INITIAL, Expanded, Planned, changed, in_order, parsed, plain, renamed, value_at

SEEDS = ("seed", "train.seed")
"""Fields whose values are repeats of the same thing."""
LONGEST_NAME = 60
MOST_POINTS = 1000


def expand(recipe: Recipe) -> Expanded:
    """All runs, each after those it needs.

    Raises: RecipeError for a plan that cannot be, in one sentence that names the run and the field.
    """
    points = _points(recipe)
    parts = [expand_kind(with_settings(recipe, point)) for point in points]
    if not recipe.sweep:
        found = parts[0]
    else:
        runs: list[Planned] = []
        for number, (point, part) in enumerate(zip(points, parts, strict=True)):
            suffix = _suffix(point, number)
            label = settings_label(point)
            for one in part.runs:
                runs.append(_swept(one, part.kind, suffix, label))
        compare = _comparisons(recipe, points, parts)
        first = parts[0]
        labels = list(dict.fromkeys(settings_label(point) for point in points))
        ensembles = {
            _group(name, label): [_group(group, label) for group in groups]
            for label in labels
            for name, groups in first.ensembles.items()
        }
        alone = len(labels) == 1 and first.product is not None
        found = Expanded(
            first.kind,
            runs,
            compare,
            _group(first.product or "", labels[0]) if alone else None,
            ensembles,
            (_group(first.control[0], labels[0]), first.control[1]) if alone and first.control else None,
            first.notes,
        )
    ordered = measured_once(in_order(found.runs))
    for one in ordered:
        parsed(one, recipe.name)
    return replace(found, runs=ordered)


def measured_once(runs: list[Planned]) -> list[Planned]:
    """The runs, of which only the first of each student's shape measures speed and memory."""
    seen: list[object] = []
    found = []
    by_name = {one.name: one for one in runs}
    for one in runs:
        shape = (
            shape_of(one, by_name),
            one.values["teacher"].get("model"),
            one.values["data"].get("max_length"),
        )
        if shape in seen:
            evaluate = {**one.values["evaluate"], "speed": False}
            one = replace(one, values={**one.values, "evaluate": evaluate})
        seen.append(shape)
        found.append(one)
    return found


def shape_of(one: Planned, by_name: dict[str, Planned]) -> dict[str, Any]:
    """The `student:` that a run's student has its shape from: its own, or that of the run it starts from."""
    while str(one.values["student"].get("model") or "").startswith(RUN):
        one = by_name[one.values["student"]["model"].removeprefix(RUN).removesuffix(INITIAL)]
    shape: dict[str, Any] = one.values["student"]
    return shape


def with_settings(recipe: Recipe, point: dict[str, Any]) -> Recipe:
    """The recipe at one point of its sweep, its plan still in it."""
    if not point:
        return recipe
    values = recipe.model_dump(mode="json", exclude={"sweep", "tune"})
    return parse_recipe(
        changed(values, point, "sweep"), f"{recipe.name}, sweep at {settings_label(point, SEEDS)}"
    )


def _points(recipe: Recipe) -> list[dict[str, Any]]:
    for name, tried in recipe.sweep.items():
        if not tried:
            raise RecipeError(f"sweep.{name}: has no values; add some, or remove it.")
    combinations = math.prod(len(tried) for tried in recipe.sweep.values())
    if combinations > MOST_POINTS:
        raise RecipeError(
            f"sweep: has {combinations:,} combinations, and more than {MOST_POINTS:,} are surely a mistake."
        )
    names = list(recipe.sweep)
    return [dict(zip(names, values, strict=True)) for values in product(*recipe.sweep.values())]


def settings_label(point: dict[str, Any], also: tuple[str, ...] = ()) -> str:
    """'learning_rate 0.001, temperature 2'; seeds only where `also` says so."""
    return ", ".join(
        f"{_short(name, point)} {_shown(value)}"
        for name, value in point.items()
        if name not in SEEDS or name in also
    )


def _short(name: str, point: dict[str, Any]) -> str:
    """The last word of a field, or all of it where two fields end alike."""
    last = name.rpartition(".")[2]
    return name if sum(other.rpartition(".")[2] == last for other in point) > 1 else last


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _suffix(point: dict[str, Any], number: int) -> str:
    """What tells the runs of one point apart from others, fit for a folder's name."""
    words = [f"{_short(name, point)}-{_shown(value)}" for name, value in point.items()]
    text = ".".join(re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-") for word in words)
    return text if len(text) <= LONGEST_NAME - 20 else f"point-{number + 1:03d}"


def _swept(one: Planned, kind: str, suffix: str, label: str) -> Planned:
    """One run at one point of the sweep."""
    if kind == "sweep":
        return Planned(suffix, {**one.values, "name": suffix}, label or "the recipe", label or "the recipe")
    return renamed(one, f".{suffix}", _group(one.group, label))


def _group(name: str, label: str) -> str:
    return f"{name} ({label})" if label else name


def _comparisons(
    recipe: Recipe, points: list[dict[str, Any]], parts: list[Expanded]
) -> list[tuple[str, str]]:
    """Within each point as the plan says; a plain sweep compares every setting with the recipe's own, or the first."""
    labels = list(dict.fromkeys(settings_label(point) for point in points))
    if parts[0].kind != "sweep":
        return [
            (_group(one, label), _group(other, label)) for label in labels for one, other in parts[0].compare
        ]
    own = {name: value_at(plain(recipe), name) for name in recipe.sweep}
    mine = settings_label(own)
    reference = mine if mine in labels else labels[0]
    return [(label, reference) for label in labels if label != reference]
