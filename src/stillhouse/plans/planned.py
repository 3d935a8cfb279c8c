"""What a plan consists of: ordinary recipes with names, some of which need another one's student.

Light: nothing here imports torch, so a plan can be checked before any model is loaded.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import RecipeError
from ..recipe import Recipe, parse_recipe
from ..recipe.load import set_field
from ..recipe.plan import RUN, Rounds
from ..registry import did_you_mean

INITIAL = "/initial"
"""After `run:NAME`: that run's student before it learned anything."""
FORMS = ("adapter", "quantize", "sparsity")
"""Of `student:`: how it learns, whatever it starts from."""
BEYOND_ONE_RUN = ("sweep", "plan", "tune")


@dataclass(frozen=True)
class Planned:
    """One run of a plan."""

    name: str
    """Of its folder."""
    values: dict[str, Any]
    """Its recipe, in which `run:NAME` stands for another run's student."""
    about: str
    """What it is, in a few words."""
    group: str = ""
    """Runs of one group differ only in their seed; the group's name in tables."""

    @property
    def needs(self) -> list[str]:
        """Names of the runs whose students it starts from or learns from."""
        return list(dict.fromkeys(name.removesuffix(INITIAL) for name in _references(self.values)))

    @property
    def builds_on(self) -> list[str]:
        """The same for a person, who is told where only the beginning of a student is taken."""
        names = (
            f"{name.removesuffix(INITIAL)}'s start" if name.endswith(INITIAL) else name
            for name in _references(self.values)
        )
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Expanded:
    """A whole plan: its runs, what is compared with what, and which run is its product."""

    kind: str
    runs: list[Planned]
    compare: list[tuple[str, str]] = field(default_factory=list)
    """(a group, the group it is compared with)."""
    product: str | None = None
    """The group that is the plan's outcome, if one is."""
    ensembles: dict[str, list[str]] = field(default_factory=dict)
    """Name -> groups whose students are also measured together."""
    control: tuple[str, str] | None = None
    """(a group, a model in its runs): the product's student on hard targets alone, where its own run has none."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of how it was made."""

    def groups(self) -> dict[str, list[Planned]]:
        """Group -> its runs, in their order."""
        found: dict[str, list[Planned]] = {}
        for one in self.runs:
            found.setdefault(one.group, []).append(one)
        return found


def uncontrolled(values: dict[str, Any], judged: bool = False) -> dict[str, Any]:
    """A run without a control of its own: nothing to gain over; and nobody is paid to judge it, unless it is `judged`."""
    evaluate, gate = {**values["evaluate"], "hard_only": False}, {**values["gate"], "min_gain": None}
    if judged and evaluate.get("judge") is not None:
        evaluate["judge"] = {**evaluate["judge"], "against": ["teacher"]}
    else:
        evaluate["judge"], gate["min_win_rate"] = None, None
    return {**values, "evaluate": evaluate, "gate": gate}


def plain(recipe: Recipe, name: str | None = None) -> dict[str, Any]:
    """A recipe as plain values, without what makes several runs of it."""
    values = recipe.model_dump(mode="json", exclude=set(BEYOND_ONE_RUN))
    if (
        isinstance(recipe.plan, Rounds)
        and not recipe.data.generate
        and "paraphrase" not in recipe.evaluate.perturb
    ):
        values["data"]["writer"] = None  # who writes for the chosen rows alone: see `check.with_rows`
    return {**values, "name": name or recipe.name}


def changed(values: dict[str, Any], changes: dict[str, Any], where: str) -> dict[str, Any]:
    """A copy with "section.field" set to each value.  Raises: RecipeError, beginning with `where`."""
    made = copy.deepcopy(values)
    for key, value in changes.items():
        set_field(made, key, copy.deepcopy(value), where)
    return made


def value_at(values: Any, name: str) -> Any:
    """The value of "section.field", or None where there is no such place."""
    for step in name.split("."):
        if isinstance(values, list) and step.isdecimal() and int(step) < len(values):
            values = values[int(step)]
        elif isinstance(values, dict):
            values = values.get(step)
        else:
            return None
    return values


def learning_from(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy in which another run's student is the teacher, as it is, and lends its tokenizer."""
    made = copy.deepcopy(values)
    return {
        **made,
        "teacher": {"model": f"{RUN}{name}", "dtype": values["teacher"]["dtype"]},
        "student": {**made["student"], "tokenizer": None},
    }


def starting_from(values: dict[str, Any], name: str, initial: bool = False) -> dict[str, Any]:
    """A copy whose student begins as another run's student, or as that one began."""
    forms = {form: values["student"][form] for form in FORMS if values["student"].get(form) is not None}
    student = {"model": f"{RUN}{name}{INITIAL if initial else ''}", **forms}
    return copy.deepcopy({**values, "student": student})


def scaled(values: dict[str, Any], factor: float) -> dict[str, Any]:
    """A copy with `factor` times the training."""
    made = copy.deepcopy(values)
    train = made["train"]
    if train["steps"] is not None:
        train["steps"] = max(1, round(train["steps"] * factor))
    else:
        train["epochs"] = (train["epochs"] or 1.0) * factor
    return made


def references(values: Any) -> list[str]:
    """NAME, or NAME/initial, of every `model: run:NAME`."""
    return list(_references(values))


def _references(values: Any) -> Iterator[str]:
    """NAME, or NAME/initial, of every `model: run:NAME`."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key == "model" and isinstance(value, str) and value.startswith(RUN):
                yield value.removeprefix(RUN)
            else:
                yield from _references(value)
    elif isinstance(values, list):
        for value in values:
            yield from _references(value)


def renamed(one: Planned, suffix: str, group: str) -> Planned:
    """The same run among several of its kind: its name, and the names it refers to, end in `suffix`."""
    return replace(
        one,
        name=one.name + suffix,
        values=_with_suffix({**one.values, "name": one.name + suffix}, suffix),
        group=group,
    )


def _with_suffix(values: Any, suffix: str) -> Any:
    if isinstance(values, dict):
        return {key: _with_suffix(value, suffix) if key != "model" else _one_suffix(value, suffix) for key, value in values.items()}  # fmt: skip
    return [_with_suffix(value, suffix) for value in values] if isinstance(values, list) else values


def _one_suffix(model: Any, suffix: str) -> Any:
    if not (isinstance(model, str) and model.startswith(RUN)):
        return model
    name = model.removesuffix(INITIAL)
    return name + suffix + model[len(name) :]


def in_order(runs: Sequence[Planned]) -> list[Planned]:
    """The runs so that each comes after those it needs.

    Raises: RecipeError for a name that is taken twice, a run that nobody makes, or runs that wait for each other.
    """
    known: dict[str, Planned] = {}
    for one in runs:
        if one.name in known:
            raise RecipeError(f"plan: two runs are called {one.name!r}; rename one of them.")
        known[one.name] = one
    for one in runs:
        for name in one.needs:
            if name not in known:
                raise RecipeError(
                    f"plan: the run {one.name!r} needs run:{name}, and there is none.{did_you_mean(name, known)} "
                    f"Runs: {', '.join(known)}."
                )
    ordered: dict[str, Planned] = {}
    for one in runs:
        _place(one, known, ordered, ())
    return list(ordered.values())


def _place(
    one: Planned, known: dict[str, Planned], ordered: dict[str, Planned], path: tuple[str, ...]
) -> None:
    """Put `one` after what it needs; `path` are the runs that wait for it."""
    if one.name in path:
        circle = " → ".join((*path[path.index(one.name) :], one.name))
        raise RecipeError(
            f"plan: its runs wait for each other ({circle}); let one of them start from a model of its own."
        )
    if one.name in ordered:
        return
    for name in one.needs:
        _place(known[name], known, ordered, (*path, one.name))
    ordered[one.name] = one


def parsed(one: Planned, where: str) -> Recipe:
    """Its recipe; `run:NAME` may still stand in it.  Raises: RecipeError that names the run."""
    return parse_recipe(one.values, f"{where}, run {one.name}")
