"""Ablation: the recipe whole, and once without each term or technique, over some seeds."""

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DataError, RecipeError
from ..recipe import Hard, Recipe
from ..recipe.section import Section
from .expand import measured_once
from .planned import Expanded, Planned, changed, in_order, parsed, plain, value_at

WHOLE = "everything"
NOT_TECHNIQUES = {
    "plan", "tune", "student.from_teacher", "student.from_config", "student.target", "data.eval", "data.validation", "teacher.finetune",
    "teacher.api", "teacher.zero_shot",
}  # fmt: skip
"""Optional sections without which it would be another student, another measure, or another teacher."""
SINGLE: dict[str, Any] = {
    "teacher.context": None, "student.vocabulary": None, "student.dropout": None, "train.rationale_weight": 1.0,
}  # fmt: skip
"""Techniques that are a field, and not always a section -> what it is without them."""


def expand_ablation(
    recipe: Recipe, seeds: int, check: Callable[[Recipe], object] = lambda made: None
) -> Expanded:
    """`recipe` with each removable part removed in turn, `seeds` times; a part that it cannot be without is noted.

    Args: check: raises RecipeError or DataError for a recipe that cannot be run, such as `static_checks`.
    Raises: RecipeError if there is nothing that could be removed; what `check` says of the whole recipe.
    """
    if recipe.is_plan:
        raise RecipeError("ablate: takes one run apart, and this recipe has sweep: or plan:; remove them.")
    first = recipe.seed if recipe.train.seed is None else recipe.train.seed
    runs: list[Planned] = []
    notes: list[str] = []
    check(recipe)
    for name, changes in [(WHOLE, {}), *removals(recipe)]:
        some = [_run(recipe, name, changes, first + number) for number in range(seeds)]
        if why := _refused(some[0], recipe.name, check):
            notes.append(f"{name}: not run, for the recipe cannot be without it ({why.rstrip('.')})")
            continue
        runs += some
    groups = list(dict.fromkeys(one.group for one in runs))
    if len(groups) < 2:
        raise RecipeError(
            f"ablate: nothing can be removed from {recipe.name}; an objective with several terms has parts to take away."
        )
    compare = [(name, WHOLE) for name in groups[1:]]
    return Expanded("ablation", measured_once(in_order(runs)), compare, notes=notes)


def removals(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is left out, the fields that do so)."""
    terms = plain(recipe)["objective"]
    kinds = [term["kind"] for term in terms]
    for number, kind in enumerate(kinds):
        name = kind if kinds.count(kind) == 1 else f"{kind} ({number})"
        if len(terms) > 1 and terms[number]["weight"] != 0:
            yield f"without {name}", {"objective": [*terms[:number], *terms[number + 1 :]]}
    for number, term in enumerate(recipe.objective):
        if isinstance(term, Hard) and term.weight != 0 and term.label_smoothing:
            yield "without label_smoothing", {f"objective.{number}.label_smoothing": 0.0}
    for path in _optional_sections(recipe, ""):
        if path == "data.unlabelled" and recipe.task != "classification":
            continue  # prompts go with the answers: without them these would be written to other prompts
        yield f"without {path}", {path: None}
    yield from _written(recipe)
    values = plain(recipe)
    for path, without in SINGLE.items():
        if value_at(values, path) != without:
            yield f"without {path}", {path: without}
    config = recipe.student.from_config
    if config is not None and config.embeddings == "teacher":
        yield "without the teacher's embeddings", {"student.from_config.embeddings": "random"}


def _optional_sections(section: Section, path: str) -> Iterator[str]:
    """Dotted paths of the sections that are there and need not be."""
    for name, field in type(section).model_fields.items():
        value, here = getattr(section, name), f"{path}{name}"
        left = here in NOT_TECHNIQUES or here in SINGLE or here in ("evaluate", "report")
        if left or not isinstance(value, Section):
            continue
        if field.default is None and not field.is_required():
            yield here
        else:
            yield from _optional_sections(value, f"{here}.")


def _written(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """The removals of each kind of text that a model writes, and of all together."""
    wanted = plain(recipe)["data"]["generate"]
    kinds = [one["kind"] for one in wanted]
    for number, kind in enumerate(kinds):
        name = kind if kinds.count(kind) == 1 else f"{kind} ({number})"
        yield f"without data.generate: {name}", {"data.generate": [*wanted[:number], *wanted[number + 1 :]]}
    if len(kinds) > 1:
        yield "without data.generate", {"data.generate": []}


def _without_idle(values: dict[str, Any]) -> dict[str, Any]:
    """A copy without whoever has nothing to write or to score any more, and prompts that nobody answers; see `written_fault`."""
    data = dict(values["data"])
    answers = [one for one in data["generate"] if one["kind"] == "answers"]
    if not data["generate"] and "paraphrase" not in values["evaluate"]["perturb"]:
        data["writer"] = None
    if data["writer"] is not None and not answers:
        data["writer"] = {**data["writer"], "others": []}
    scores = data["filter"] is not None and data["filter"]["min_score"] is not None
    if not scores and not any(one["choose"] == "judge" for one in answers):
        data["judge"] = None
    if values["task"] != "classification" and not answers:
        data["unlabelled"] = None
    return {**values, "data": data}


def _run(recipe: Recipe, name: str, changes: dict[str, Any], seed: int) -> Planned:
    folder = "".join(letter if letter.isalnum() or letter in "_." else "-" for letter in name)
    folder = f"{folder.replace('--', '-').strip('-')[:50]}.seed-{seed}"
    values = _without_idle(changed(plain(recipe, folder), {**changes, "train.seed": seed}, "ablate"))
    values["evaluate"] = {**values["evaluate"], "hard_only": False, "judge": None}
    values["gate"] = {"min_retention": None, "min_gain": None}
    return Planned(folder, values, name, name)


def _refused(one: Planned, where: str, check: Callable[[Recipe], object]) -> str | None:
    """Why such a run cannot be; None if it can."""
    try:
        made = parsed(one, where)
    except RecipeError as error:
        return str(error).partition(": ")[2]  # without the run's name
    try:
        check(made)
    except (RecipeError, DataError) as error:
        return str(error)
    return None
