"""What all runs of a plan will take, before it is spent.

Each run is measured for some seconds, as `stillhouse plan` does for one.  A stage that several runs have in common is
counted once: two stages are the same if their settings are, and those of all they build on.  What learns from a student
that does not exist yet is measured with the recipe's own teacher in its place, which is larger: then the sum is a bound.
"""

from pathlib import Path
from typing import Any

from ..files import hash_json, read_json
from ..pipeline import Stage
from ..pipeline import settings_of as read_by
from ..progress import Watch
from ..recipe import Recipe, parse_recipe
from ..recipe.plan import RUN, Rounds
from ..stages import STAGES
from .bench import Bench
from .expand import expand, shape_of
from .planned import Planned, plain


def price(recipe: Recipe, folder: Path, watch: Watch) -> dict[str, Any]:
    """Runs each run's `plan` stage in `folder`, where its run will be.  Returns: seconds by run, the sum, memory, disk."""
    runs = _runs(recipe)
    bench = Bench(folder, watch)
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    by_name = {one.name: one for one in runs}
    seen: dict[str, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    plans = []
    for one in runs:
        bench.run(_measurable(one, by_name, recipe), until="plan")
        found = read_json(bench.place(one.name) / "plan" / "plan.json")
        plans.append(found)
        taken = []
        seconds = 0.0
        for stage, mark in _marks(one, by_name).items():
            if stage not in found["seconds"]:
                continue
            if mark in seen and stage != "report":
                taken.append(f"{stage} of {seen[mark]}")
            else:
                seen[mark] = one.name
                seconds += found["seconds"][stage]
        rows[one.name] = {"seconds": round(seconds, 1), "taken": taken}
    return {
        "runs": rows,
        "total_seconds": round(sum(row["seconds"] for row in rows.values()), 1),
        "at_most": any(one.needs for one in runs) or isinstance(recipe.plan, Rounds),
        "peak_memory_bytes": max(found["peak_memory_bytes"] or 0 for found in plans),
        "disk_bytes": sum(found["disk_bytes"] for found in plans),
        "money": sum(found["money"] for found in plans),
    }


def _runs(recipe: Recipe) -> list[Planned]:
    """The runs; of rounds, as many as there may be, each like the first."""
    if not isinstance(recipe.plan, Rounds):
        return expand(recipe).runs
    names = ["round-0"] + [
        f"{kind}-{n}" for n in range(1, recipe.plan.most + 1) for kind in ("round", "random")
    ]
    return [Planned(name, plain(recipe, name), "", name) for name in names]


def _measurable(one: Planned, by_name: dict[str, Planned], recipe: Recipe) -> Planned:
    """The same run with models that are there already in the place of students that are not."""
    values = dict(one.values)
    if values["teacher"]["model"].startswith(RUN):
        values["teacher"] = plain(recipe)["teacher"] | {"finetune": None, "ema": None}
        if recipe.task == "classification":
            values["teacher"]["finetune"] = plain(recipe)["teacher"]["finetune"]
    values["student"] = shape_of(one, by_name)
    parse_recipe(values, f"run {one.name}")
    return Planned(one.name, values, one.about, one.group)


def _marks(one: Planned, by_name: dict[str, Planned]) -> dict[str, str]:
    """Stage -> what it is made from, as far as the recipes say."""
    recipe = parse_recipe(one.values, f"run {one.name}")
    needed = {name: _marks(by_name[name], by_name)["train"] for name in one.needs}
    marks: dict[str, str] = {}
    for stage in STAGES:
        marks[stage.name] = hash_json([_settings(stage, recipe), [marks[name.partition(".")[0]] for name in stage.after], needed])  # fmt: skip
    return marks


def _settings(stage: Stage, recipe: Recipe) -> list[Any]:
    return [stage.name, read_by(stage, recipe)]
