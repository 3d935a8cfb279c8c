"""What is known of a run's student before it is made: its configuration, and its shape where that follows from files.

A run that cuts another run's student can then be refused before anything is loaded.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..models.described import layer_count, model_config, skeleton_in
from ..models.shrink.families import family_of
from ..models.shrink.requests import check_layers
from ..models.shrink.skeleton import FIELDS, Skeleton
from ..recipe import Recipe, Student, parse_recipe
from ..recipe.panel import Member
from ..recipe.plan import RUN
from ..recipe.teacher import Finetune, Teacher
from ..sources import known_package
from ..static import shape_within
from .planned import FORMS, INITIAL, Planned, references

Runs = dict[str, Planned]
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def check_cut(one: Planned, runs: Runs) -> None:
    """Whether its student can be cut out of its teacher, which another run makes.  Raises: RecipeError that says why not."""
    recipe = _recipe(one)
    teacher, wanted = recipe.teacher.model or "", recipe.student.cut
    if wanted is None or not teacher.startswith(RUN):
        return
    config, skeleton = _config_of(_named(teacher), runs), _skeleton_of(_named(teacher), runs)
    have = layer_count(config)
    if wanted.layers is not None and have is not None:
        check_layers(wanted.layers, have)
    if recipe.student.target is None and not any(getattr(wanted, name) for name in FIELDS):
        return
    if config:
        family_of(config)
    if skeleton is not None:
        shape_within(recipe.student, skeleton, recipe.task, recipe.data.max_length)


def stand_in(one: Planned, runs: Runs, recipe: Recipe) -> Planned | None:
    """The same run with models that are there already in the place of other runs' students; None if there are none.

    Its teacher is the recipe's own, or, where that is asked in words, what the student is that teaches; its student one of
    the shape that it will have.
    """
    if not one.needs:
        return one
    values = dict(one.values)
    student, by = values["student"], one
    while str(student.get("model") or "").startswith(RUN):
        by = runs[_named(student["model"])]
        student = by.values["student"]
    values["student"] = {**student, **{name: values["student"].get(name) for name in FORMS}}
    if not references(values):
        return replace(one, values=values)
    if (there := _there_already(values, runs, recipe)) is None:
        return None
    if str(values["teacher"].get("model") or "").startswith(RUN):
        values["teacher"] = {
            **there,
            "dtype": values["teacher"].get("dtype", recipe.teacher.dtype),
            "finetune": _finetune(recipe),
        }
    return replace(one, values=_located(values, there))


def _finetune(recipe: Recipe) -> dict[str, Any] | None:
    """Of the stand-in for a classifier that a run makes: one that is there may have no head yet."""
    if recipe.task != "classification":
        return None
    if recipe.teacher.asked:
        return Finetune(epochs=1.0).model_dump(mode="json")
    return None if recipe.teacher.finetune is None else recipe.teacher.finetune.model_dump(mode="json")


def _there_already(values: dict[str, Any], runs: Runs, recipe: Recipe) -> dict[str, Any] | None:
    """`model:` and what belongs to it, of a model that is there, for those that `values` refer to; None if there is none."""
    members: list[Teacher | Member] = [recipe.teacher, *(recipe.teacher.panel or [])]
    for member in members:
        if member.model is not None and member.lends:
            return {"model": member.model, "sha256": member.sha256, "revision": member.revision}
    student = _maker(_named(references(values)[0]), runs)[1]
    if student.model is None:
        return None
    return {"model": student.model, "sha256": student.sha256, "revision": student.revision}


def _located(value: Any, there: dict[str, Any]) -> Any:
    """`model: run:NAME`, wherever else it stands, made into a model that is there."""
    if isinstance(value, list):
        return [_located(entry, there) for entry in value]
    if not isinstance(value, dict):
        return value
    made = {key: _located(entry, there) for key, entry in value.items()}
    return {**made, **there} if str(value.get("model") or "").startswith(RUN) else made


def _recipe(one: Planned) -> Recipe:
    return parse_recipe(one.values, f"run {one.name}")


def _named(model: str) -> str:
    return model.removeprefix(RUN).removesuffix(INITIAL)


def _maker(name: str, runs: Runs) -> tuple[Recipe, Student]:
    """(the recipe of the run that gave the student its shape, its `student:`)."""
    recipe = _recipe(runs[name])
    while (recipe.student.model or "").startswith(RUN):
        recipe = _recipe(runs[_named(recipe.student.model or "")])
    return recipe, recipe.student


def _config_of(name: str, runs: Runs) -> dict[str, Any]:
    """About what config.json its student will have; {} where nothing is known yet."""
    recipe, student = _maker(name, runs)
    if student.model is not None:
        return _config_in(student.model)
    teacher = recipe.teacher.model or ""
    config = _config_of(_named(teacher), runs) if teacher.startswith(RUN) else _config_in(teacher)
    if student.from_config is not None:
        return {**config, **student.from_config.config} if config else {}
    layers = student.cut.layers if student.cut is not None else None
    if layers is None:
        return config
    count = layers if isinstance(layers, int) else len(layers)
    return {key: count if key in LAYERS else value for key, value in config.items()}


def _skeleton_of(name: str, runs: Runs) -> Skeleton | None:
    """Of its student; None where the files do not tell."""
    recipe, student = _maker(name, runs)
    if student.model is not None:
        return _skeleton_in(student.model)
    teacher = recipe.teacher.model or ""
    whole = _skeleton_of(_named(teacher), runs) if teacher.startswith(RUN) else _skeleton_in(teacher)
    if whole is None or student.cut is None:
        return None
    shape = shape_within(student, whole, recipe.task, recipe.data.max_length)
    return None if shape is None else whole.reshaped(shape)


def _config_in(model: str) -> dict[str, Any]:
    folder = _there(model)
    return model_config(folder) if (folder / "config.json").is_file() else {}


def _there(model: str) -> Path:
    """Where it lies, if it was fetched before or need not be."""
    known = known_package(model)
    return Path(model) if known is None else known[1]


def _skeleton_in(model: str) -> Skeleton | None:
    if not _config_in(model):
        return None
    try:
        return skeleton_in(_there(model))
    except RecipeError:  # a family that loses whole layers alone
        return None
