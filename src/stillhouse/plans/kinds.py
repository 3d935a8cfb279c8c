"""Each kind of plan as the runs that it consists of, its control among them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..recipe import Recipe
from ..recipe.plan import RUN, Assistants, Chain, Generations, Phases, Step, Tasks
from ..sources import resolve
from .planned import (
    Expanded,
    Planned,
    changed,
    learning_from,
    plain,
    scaled,
    starting_from,
    uncontrolled,
)
from .sizes import between, settled

HARD_ONLY = "hard_only"
"""A run's own control, as `evaluate` calls it."""


def expand_kind(recipe: Recipe) -> Expanded:
    """The runs of `recipe.plan`, or the recipe's own single run.  Rounds are made as they go: see `rounds`."""
    match recipe.plan:
        case Chain() as plan:
            return _chain(recipe, plan)
        case Assistants() as plan:
            return _assistants(recipe, plan)
        case Generations() as plan:
            return _generations(recipe, plan)
        case Phases() as plan:
            return _phases(recipe, plan)
        case Tasks() as plan:
            return _tasks(recipe, plan)
        case _:
            return Expanded("sweep", [_run("run", plain(recipe), "the recipe")])


def _run(
    name: str, values: dict[str, Any], about: str, control: bool = True, product: bool = False
) -> Planned:
    """A run called `name`; without `control` it trains no student on hard targets alone, and is judged only as the product."""
    values = {**values, "name": name}
    if not control:
        values = uncontrolled(values, judged=product)
    return Planned(name, values, about, name)


def _stepped(values: dict[str, Any], step: Step) -> dict[str, Any]:
    return changed(values, step.set, f"plan, {step.name}.set")


def _chain(recipe: Recipe, plan: Chain) -> Expanded:
    base = plain(recipe)
    runs = [
        _run(step.name, _stepped(base, step), ", ".join(step.set) or "the recipe as it is")
        for step in plan.runs
    ]
    names = {one.name for one in runs}
    for name in (*plan.compare, *plan.compare.values()):
        if name not in names:
            raise RecipeError(
                f"plan.compare: there is no run {name!r}; the runs are {', '.join(sorted(names))}."
            )
    return Expanded("chain", runs, list(plan.compare.items()), runs[-1].name)


def _assistants(recipe: Recipe, plan: Assistants) -> Expanded:
    base, notes = plain(recipe), []
    if isinstance(plan.sizes, int):
        folder = _teacher_folder(recipe)
        student = settled(recipe.student, folder, recipe.task, recipe.data.max_length)
        students = between(student, folder, plan.sizes)
        if student is not recipe.student:
            base["student"] = student.model_dump(mode="json")
            notes = ["student.target: its shape is that of a student cut out of the teacher, in all runs"]
    else:
        students = [student.model_dump(mode="json") for student in plan.sizes]
    share = scaled(base, 1 / (len(students) + 1))
    runs: list[Planned] = []
    for number, size in enumerate(students, 1):
        taught = share if not runs else learning_from(share, runs[-1].name)
        if runs:  # its teacher lends the tokenizer
            size = {**size, "tokenizer": None}
        runs.append(
            _run(f"assistant-{number}", {**taught, "student": size}, f"teacher assistant {number}", False)
        )
    about = "the student, taught by the last assistant"
    last = counted(learning_from(share, runs[-1].name))
    runs.append(_run("student", last, about, False, product=True))
    runs.append(_run("direct", base, "the same student taught directly, for all steps together"))
    if last["student"] != share["student"]:
        notes += [
            "student.from_teacher.layers names layers of the teacher; the last assistant gives as many of its own"
        ]
    compare = [("student", "direct")]
    return Expanded("assistants", runs, compare, "student", control=("direct", HARD_ONLY), notes=notes)


def counted(values: dict[str, Any]) -> dict[str, Any]:
    """A copy that keeps as many layers as it names, for the named ones are the teacher's and not an assistant's."""
    cut = values["student"].get("from_teacher") or {}
    if not isinstance(cut.get("layers"), list):
        return values
    student = {**values["student"], "from_teacher": {**cut, "layers": len(cut["layers"])}}
    return {**values, "student": student}


def _generations(recipe: Recipe, plan: Generations) -> Expanded:
    base = plain(recipe)
    seed = recipe.seed if recipe.train.seed is None else recipe.train.seed
    names = [f"generation-{number}" for number in range(1, plan.count + 1)]
    runs = [_run(names[0], base, "taught by the teacher")]
    config = recipe.student.from_config
    drawn_anew = config is not None and config.embeddings == "random"
    for number, (teacher, name) in enumerate(pairwise(names), 1):
        values = base if drawn_anew else starting_from(base, names[0], initial=True)
        values = changed(learning_from(values, teacher), {"train.seed": seed + 1000 * number}, "plan")
        runs.append(_run(name, values, f"taught by {teacher}", False, product=name == names[-1]))
    runs.append(
        _run("longer", scaled(base, plan.count), f"taught by the teacher for {plan.count} times the steps")
    )
    compare = [(names[-1], "longer"), ("ensemble", "longer"), ("ensemble", names[-1])]
    compare += [(name, names[0]) for name in names[1:]]
    control = (names[0], HARD_ONLY)  # it begins as they all do, and learns for as long
    return Expanded("generations", runs, compare, names[-1], {"ensemble": names}, control)


def _phases(recipe: Recipe, plan: Phases) -> Expanded:
    base = plain(recipe)
    runs: list[Planned] = []
    for step in plan.phases:
        values = _stepped(base, step)
        if runs:
            values = starting_from(values, runs[-1].name)
        about = "the first phase" if not runs else f"goes on from {runs[-1].name}"
        runs.append(_run(step.name, values, about, False, product=step is plan.phases[-1]))
    lengths = [(one.values["train"]["steps"], one.values["train"]["epochs"] or 1.0) for one in runs]
    direct = {**_stepped(base, plan.phases[-1])}
    train = dict(direct["train"])
    if all(steps is not None for steps, _ in lengths):
        train["steps"] = sum(steps for steps, _ in lengths)
    elif all(steps is None for steps, _ in lengths):
        train["epochs"] = sum(epochs for _, epochs in lengths)
    else:
        return Expanded(
            "phases",
            runs,
            [],
            runs[-1].name,
            notes=["some phases count steps and others epochs, so there is no control"],
        )
    about = "the last phase alone, for all phases' steps"
    return Expanded(
        "phases",
        [*runs, _run("direct", {**direct, "train": train}, about)],
        [(runs[-1].name, "direct")],
        runs[-1].name,
        control=("direct", HARD_ONLY),
    )


def _tasks(recipe: Recipe, plan: Tasks) -> Expanded:
    base = plain(recipe)
    runs = [_run("general", base, "distilled before any task")]
    compare = []
    for step in plan.tasks:
        values = _stepped(base, step)
        alone = f"{step.name}-alone"
        runs.append(_run(step.name, starting_from(values, "general"), "goes on from the general student"))
        runs.append(
            _run(
                alone,
                starting_from(values, "general", initial=True),
                "starts where the general student started",
            )
        )
        compare.append((step.name, alone))
    return Expanded("tasks", runs, compare, None)


def _teacher_folder(recipe: Recipe) -> Path:
    """Where the teacher's config.json is; it is fetched if need be."""
    if recipe.teacher.model is None or recipe.teacher.model.startswith(RUN):
        raise RecipeError(
            "plan.sizes: the teacher is another run's student, or no model on this machine; write the assistants' sizes out."
        )
    found = resolve(
        recipe.teacher.model, sha256=recipe.teacher.sha256, revision=recipe.teacher.revision, kind="model"
    )
    if not (Path(found.path) / "config.json").is_file():
        raise RecipeError(
            f"plan.sizes: {recipe.teacher.model} has no config.json to choose sizes from; write them out."
        )
    return Path(found.path)
