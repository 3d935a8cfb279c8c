"""What all runs of a plan will take, before it is spent.

Each run is measured for some seconds, as `stillhouse plan` does for one.  A stage that several runs have in common is
counted once: two stages are the same if their settings are, and those of all they build on; and a question to a teacher behind
an API is, whatever stage asks it (see `asking.ledger_of`).  Rounds are measured as the first run is, and counted one by one, for
each reads other rows and starts from another student.  What learns from a student that does not exist yet is measured with the recipe's own teacher in its place, which is larger: then the sum is a bound.
"""

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

from ..asking import LEDGER
from ..asking.ledger import RUNS
from ..errors import RecipeError
from ..files import hash_json, read_json
from ..pipeline import DONE, Stage
from ..pipeline import settings_of as read_by
from ..progress import Watch
from ..recipe import Recipe, Tune, parse_recipe
from ..recipe.plan import Range, Rounds
from ..stages import STAGES
from ..steps.evaluating import TOGETHER
from ..steps.hearing import what_asking_takes
from ..tasks.writing import SLOTS
from .bench import Bench
from .expand import expand
from .failing import choosing_takes
from .foretold import stand_in
from .further import writing_takes
from .planned import Planned, plain, uncontrolled
from .rounds import FIRST, HARD_ONLY, hard_only, has_hard_only, paid_so_far, pool_of, rows_asked, task_in
from .space import own_values, space_of
from .tune import planned_trial, planned_whole, prunes

Price = dict[str, Any]
"""{"runs": {name: {"seconds", "money", "taken"}}, "total_seconds", "at_most", "peak_memory_bytes", "disk_bytes", "money", "notes"}."""
TRIED = ("prepare", "teacher", "initial", "label", "train")
"""Stages of a trial."""


def price(recipe: Recipe, folder: Path, watch: Watch) -> Price:
    """Runs each run's `plan` stage in `folder`, where its run will be.  Returns: seconds by run, the sum, memory, disk."""
    runs = _runs(recipe)
    found = price_runs(recipe, runs, folder, watch)
    if not isinstance(recipe.plan, Rounds):
        return {**found, "at_most": any(one.needs for one in runs), "notes": []}
    more, notes = {}, []
    if (writing := writing_takes(recipe, folder / RUNS / FIRST, watch)) is not None:
        more["writing rows"] = _written(writing, [folder / RUNS / one.name for one in runs])
    if (looking := _looking(recipe, folder / RUNS / FIRST, watch)) is not None:
        more["choosing rows"] = {"seconds": round(looking, 1), "money": 0.0, "taken": []}
    else:
        notes.append(
            "rounds: choosing rows is not counted, for the first rows are not there before they are written"
        )
    money = [found["money"], *(row["money"] for row in more.values())]
    return {
        **found,
        "runs": {**found["runs"], **more},
        "total_seconds": round(found["total_seconds"] + sum(row["seconds"] for row in more.values()), 1),
        "money": None if None in money else sum(money),
        "at_most": True,
        "notes": notes,
    }


def _written(writing: dict[str, Any], runs: Sequence[Path]) -> dict[str, Any]:
    """What all rounds and their controls write and buy, as a row of the table.

    Args: writing: of one of them; runs: those that are labelled already, and the ones without rows of the pool, write nothing.
    """
    left = sum(run.name not in (FIRST, HARD_ONLY) and not (run / "label" / DONE).exists() for run in runs)
    dollars = writing["dollars"]
    return {
        "seconds": round(left * writing["seconds"], 1),
        "money": None if dollars is None else left * dollars,
        "taken": [],
    }


def _looking(recipe: Recipe, first: Path, watch: Watch) -> float | None:
    """Seconds in which all rounds look for rows in the pool, each in what the ones before it left; None if the run in
    `first` is not prepared yet."""
    if not (first / "prepare" / DONE).exists():
        return None
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    pool = pool_of(recipe, first, task_in(recipe, first), watch)
    pace = read_json(first / "plan" / "plan.json")["seconds_a_token"]
    whole = choosing_takes(recipe, pool, (SLOTS, TOGETHER), pace)
    left = [max(0, len(pool) - at * wanted.rows) / len(pool) for at in range(wanted.most)]
    return whole * sum(left)


def price_runs(recipe: Recipe, runs: Sequence[Planned], folder: Path, watch: Watch) -> Price:
    """The same for runs that are known already."""
    bench = Bench(folder, watch)
    bench.meet(runs)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    by_name = {one.name: one for one in runs}
    seen: dict[str, str] = {}
    questions: set[str] = set()
    rows: dict[str, dict[str, Any]] = {}
    plans: list[dict[str, Any]] = []
    for one in runs:
        a_round = isinstance(recipe.plan, Rounds) and one.name not in (FIRST, HARD_ONLY)
        plan = _measured(_measurable(one, by_name, recipe), bench, questions)
        if isinstance(recipe.plan, Rounds):
            plan = _of_round(plan, one, recipe, plans[0] if plans else plan, folder)
        plans.append(plan)
        rows[one.name] = _counted(one.name, plans[-1], _marks(one, by_name, apart=a_round), seen)
    return _summed(rows, plans)


def _of_round(
    plan: dict[str, Any], one: Planned, recipe: Recipe, before: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """plan.json of a run of rounds, from what was measured without the rows of the pool: it trains on all that were chosen
    by then, and its teacher is asked about the newest, for what it said of others is kept.  A classifier's control of hard targets
    learns none of them: they have no labels.  A teacher behind an API is paid for each of the newest what one costs at most in the run
    `before` any round."""
    wanted = recipe.plan
    assert isinstance(wanted, Rounds)
    if one.name == FIRST or (one.name == HARD_ONLY and recipe.task == "classification"):
        return plan
    examples = max(1, plan["examples"])
    chosen = wanted.new_rows * (wanted.most if one.name == HARD_ONLY else int(one.name.rpartition("-")[2]))
    learned = _rows_read(one, examples + chosen) / _rows_read(one, examples)
    newest = wanted.new_rows / examples
    shares = {"teacher": max(1.0, newest), "label": newest, "train": learned, "seeds": learned}
    seconds = {stage: took * shares.get(stage, 1.0) for stage, took in plan["seconds"].items()}
    if not recipe.teacher.apis or one.name == HARD_ONLY:
        return {**plan, "seconds": seconds}
    # each of the newest may cost what one of the first run's rows does at most, or did, where it is paid already
    stage = "teacher" if recipe.teacher.panel else "label"
    share = wanted.unanswered_rows / (rows_asked(folder / RUNS / FIRST) or before["requests"] or 1)
    dollars: float | None = before["money_by_stage"][stage]
    due = None if dollars is None else (dollars + paid_so_far(folder, [LEDGER])) * share
    if (folder / RUNS / one.name / "label" / DONE).exists():
        due = 0.0  # what it asks is paid
    seconds[stage] += before["asking_seconds"] * share
    return {**plan, "seconds": seconds, "money_by_stage": {**plan["money_by_stage"], stage: due}}


def price_tuning(recipe: Recipe, trials: int | None, folder: Path, watch: Watch) -> Price:
    """Of a search: the recipe's own settings are measured, and each trial is taken to need as much for a row and step.

    What the trials will be is not known yet, so they are drawn at random here.
    """
    wanted, space = recipe.tune or Tune(), space_of(recipe)
    count, draw = trials or wanted.trials, Random(wanted.seed)
    own = own_values(recipe, space)
    settings = [
        own,
        *({name: _drawn(tried, draw) for name, tried in space.items()} for _ in range(count - 1)),
    ]
    bench = Bench(folder, watch)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    some = [planned_trial(recipe, wanted, number, values) for number, values in enumerate(settings)]
    last = planned_whole(recipe, own, wanted, "default", "")
    questions: set[str] = set()
    plans = [_measured(some[0], bench, questions), _measured(last, bench, questions)]
    examples = plans[0]["examples"]
    seen: dict[str, str] = {}
    rows = {}
    for one in some:
        share = _rows_read(one, examples) / max(1, _rows_read(some[0], examples))
        seconds = {
            name: took * (share if name == "train" else 1.0)
            for name, took in plans[0]["seconds"].items()
            if name in TRIED
        }
        rows[one.name] = _counted(one.name, {**plans[0], "seconds": seconds}, _marks(one, {}), seen)
    money = [row["money"] for row in rows.values()]
    together = {
        "seconds": round(sum(row["seconds"] for row in rows.values()), 1),
        "money": None if None in money else sum(money),
        "taken": [],
    }
    whole = {name: _counted(name, plans[1], _marks(last, {}), dict(seen)) for name in ("default", "winner")}
    found = _summed({f"{count} trials": together, **whole}, [*plans, plans[1]])
    found["disk_bytes"] += (count - 1) * 4 * plans[0]["student_parameters"]  # each trial keeps its student
    early = "; those that are ended early take less" if prunes(recipe, wanted) else ""
    return {**found, "notes": [f"trials: as settings drawn at random from the space would take{early}"]}


def _measured(one: Planned, bench: Bench, questions: set[str]) -> dict[str, Any]:
    """plan.json of a run, in which nothing is asked and paid that is among `questions`; those are brought up to date."""
    bench.plan(one)
    run, recipe = bench.place(one.name), bench.recipe(one)
    found: dict[str, Any] = read_json(run / "plan" / "plan.json")
    measured = (
        run / "plan" / DONE
    ).exists()  # else foretold: texts that are not bought yet cannot be compared
    if not recipe.teacher.apis or not measured:
        return found
    asked = what_asking_takes(recipe, read_json(run / "prepare" / DONE)["result"], run, before=questions)
    questions.update(asked["keys"])
    stage = "teacher" if recipe.teacher.panel else "label"
    by_stage = {**found["money_by_stage"], stage: asked["dollars"]}
    return {
        **found,
        "seconds": {
            **found["seconds"],
            stage: found["seconds"][stage] - found["asking_seconds"] + asked["seconds"],
        },
        "money_by_stage": by_stage,
        "money": None if None in by_stage.values() else sum(by_stage.values()),
    }


def _counted(name: str, plan: dict[str, Any], marks: dict[str, str], seen: dict[str, str]) -> dict[str, Any]:
    """What a run takes without what an earlier one has done; `seen` is brought up to date."""
    taken, left = [], 0.0
    money: float | None = 0.0
    for stage, mark in marks.items():
        if stage not in plan["seconds"]:
            continue
        if mark in seen and stage != "report":
            taken.append(f"{stage} of {seen[mark]}")
        else:
            seen[mark] = name
            left += plan["seconds"][stage]
            due = plan["money_by_stage"].get(stage, 0.0)
            money = None if due is None or money is None else money + due
    return {"seconds": round(left, 1), "money": money, "taken": taken}


def _summed(rows: dict[str, dict[str, Any]], plans: list[dict[str, Any]]) -> Price:
    money = [row["money"] for row in rows.values()]
    return {
        "runs": rows,
        "total_seconds": round(sum(row["seconds"] for row in rows.values()), 1),
        "at_most": False,
        "peak_memory_bytes": max(found["peak_memory_bytes"] or 0 for found in plans),
        "disk_bytes": sum(found["disk_bytes"] for found in plans),
        "money": None if None in money else sum(money),
        "notes": [],
    }


def _drawn(tried: Range | list[Any], draw: Random) -> Any:
    """A value of the space, at random."""
    if not isinstance(tried, Range):
        return draw.choice(tried)
    low, high = (log(tried.low), log(tried.high)) if tried.log else (tried.low, tried.high)
    value = exp(draw.uniform(low, high)) if tried.log else draw.uniform(low, high)
    return round(value) if isinstance(tried.low, int) and isinstance(tried.high, int) else value


def _rows_read(one: Planned, examples: int) -> float:
    """Rows that its training reads."""
    train = parse_recipe(one.values, f"run {one.name}").train
    in_a_step = train.batch_size * train.accumulate
    return train.steps * in_a_step if train.steps else (train.epochs or 1.0) * examples


def _runs(recipe: Recipe) -> list[Planned]:
    """The runs; of rounds, as many as there may be, each like the first but for its control."""
    if not isinstance(recipe.plan, Rounds):
        return expand(recipe).runs
    names = ["round-0"] + [
        f"{kind}-{n}" for n in range(1, recipe.plan.most + 1) for kind in ("round", "random")
    ]
    control = [hard_only(recipe, recipe.plan.most)] if has_hard_only(recipe) else []
    first, *others = (plain(recipe, name) for name in names)
    values = [first, *map(uncontrolled, others)]
    return [*(Planned(name, one, "", name) for name, one in zip(names, values, strict=True)), *control]


def _measurable(one: Planned, by_name: dict[str, Planned], recipe: Recipe) -> Planned:
    """The same run with models that are there already.  Raises: RecipeError if there are none."""
    found = stand_in(one, by_name, recipe)
    if found is None:
        raise RecipeError(
            "plan: a run that learns from another run's student cannot be measured where the recipe's own teacher is no "
            "model on this machine; price its runs one by one."
        )
    return found


def _marks(one: Planned, by_name: dict[str, Planned], apart: bool = False) -> dict[str, str]:
    """Stage -> what it is made from, as far as the recipes say.

    apart: it reads rows, and starts from a student, that no recipe names yet; its texts are written, and its teacher is
    fine-tuned, as for the others.
    """
    recipe = parse_recipe(one.values, f"run {one.name}")
    needed = {name: _marks(by_name[name], by_name)["train"] for name in one.needs}
    common = {"prepare"} if recipe.teacher.finetune is None else {"prepare", "teacher"}
    marks: dict[str, str] = {}
    for stage in STAGES:
        own = [one.name] if apart and stage.name not in common else []
        after = [marks[name.partition(".")[0]] for name in stage.after]
        marks[stage.name] = hash_json([_settings(stage, recipe), after, needed, own])
    return marks


def _settings(stage: Stage, recipe: Recipe) -> list[Any]:
    return [stage.name, read_by(stage, recipe)]
