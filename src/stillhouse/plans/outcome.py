"""What a plan found: its runs as rows of one table, and the comparisons that it was made for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..asking.ledger import RUNS
from ..files import read_json
from ..held_out import MADE
from ..measure import Metric, Rows
from ..models.machine import machine
from ..pipeline import DONE
from ..recipe import Recipe
from ..registry import pick
from ..runstate import ORDER
from ..tasks import TASKS
from .bench import Bench
from .compare import content_of, difference_over_seeds, has_rows, student_rows, unpaired, value_over_seeds
from .planned import Expanded, Planned

Found = dict[str, Any]


def collect(recipe: Recipe, plan: Expanded, bench: Bench, more: Found | None = None) -> Found:
    """results.json of a plan.  All its runs must be done."""
    results = {one.name: read_json(bench.place(one.name) / "results.json") for one in plan.runs}
    groups = plan.groups()
    first = results[plan.runs[0].name]
    rows = {name: [student_rows(bench.place(one.name)) for one in some] for name, some in groups.items()}
    rows |= {name: ensemble_rows(bench, groups, of) for name, of in plan.ensembles.items()}
    draws = (recipe.evaluate.resamples, recipe.seed)
    table = [
        _row(name, some, [results[one.name] for one in some], rows[name], bench, draws)
        for name, some in groups.items()
    ]
    table += [
        _ensemble_row(name, of, groups, results, rows[name], draws) for name, of in plan.ensembles.items()
    ]
    content = {name: [content_of(bench.place(one.name)) for one in some] for name, some in groups.items()}
    content |= {name: content[of[0]] for name, of in plan.ensembles.items()}
    by_name = {row["name"]: row for row in table}
    compared = []
    for one, other in plan.compare:
        metrics = _metrics_of(results, groups.get(one) or groups[plan.ensembles[one][0]])
        headline = metrics[by_name[one]["metric"]]
        if content[one] == content[other]:
            gap = difference_over_seeds(headline, rows[one], rows[other], *draws)
        else:
            gap = unpaired(headline, by_name[one]["quality"], by_name[other]["quality"])
        compared.append({"of": one, "against": other, "on": "eval", "metric": headline.name, **gap})
    compared += _elsewhere(plan, groups, results, bench, draws)
    if plan.product is not None and plan.control is not None:
        by_name[plan.product]["gain"] = _gain(plan, plan.product, rows[plan.product], content, bench, draws)
    return {
        "plan": plan.kind,
        "name": recipe.name,
        "description": recipe.description,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "machine": machine(),
        "task": first["task"],
        "metric": first["metric"],
        "metrics": first["metrics"],
        "teacher": first["teacher"],
        "runs": table,
        "same_rows": all(one == content[plan.runs[0].group] for one in content.values()),
        "comparisons": compared,
        "product": plan.product,
        "notes": plan.notes,
        "seconds": round(sum(seconds_spent(run) for run in sorted((bench.folder / RUNS).iterdir())), 1),
        **(more or {}),
    }


def _elsewhere(
    plan: Expanded,
    groups: dict[str, list[Planned]],
    results: dict[str, Found],
    bench: Bench,
    draws: tuple[int, int],
) -> list[Found]:
    """The same comparisons on each of `evaluate.also` that both sides have measured on the same rows."""
    found = []
    for kind in dict.fromkeys(kind for one in results.values() for kind in further_sets(one)):
        for one, other in plan.compare:
            if one in plan.ensembles or other in plan.ensembles:
                continue  # their probabilities are joined on the source's rows only
            sides = [[bench.place(run.name) for run in groups[name]] for name in (one, other)]
            if not all(has_rows(place, "student", kind) for side in sides for place in side):
                continue
            ours, theirs = ([content_of(place, kind) for place in side] for side in sides)
            if ours == theirs:
                headline = _metrics_of(results, groups[one])[results[groups[one][0].name]["metric"]]
                levels = [[student_rows(place, kind=kind) for place in side] for side in sides]
                gap = difference_over_seeds(headline, levels[0], levels[1], *draws)
                found.append({"of": one, "against": other, "on": kind, "metric": headline.name, **gap})
    return found


def further_sets(results: Found) -> list[str]:
    """Of a run's results: the data sets of `evaluate.also`."""
    return [name for name in results["datasets"] if name not in ("eval", *MADE)]


def _gain(
    plan: Expanded,
    product: str,
    ours: list[Rows],
    content: dict[str, list[str]],
    bench: Bench,
    draws: tuple[int, int],
) -> Found | None:
    """The product against hard targets alone; None where nothing was trained on these, or on other rows."""
    assert plan.control is not None
    group, model = plan.control
    runs = [bench.place(one.name) for one in plan.groups()[group]]
    if content[group] != content[product] or not all(has_rows(run, model) for run in runs):
        return None
    first = read_json(runs[0] / "results.json")
    headline = pick(TASKS, first["task"], "task").metrics[first["metric"]]
    return difference_over_seeds(headline, ours, [student_rows(run, model) for run in runs], *draws)


def _metrics_of(results: dict[str, Found], runs: Sequence[Planned]) -> dict[str, Metric]:
    metrics: dict[str, Metric] = pick(TASKS, results[runs[0].name]["task"], "task").metrics
    return metrics


def _row(
    name: str,
    runs: list[Planned],
    results: list[Found],
    rows: list[Rows],
    bench: Bench,
    draws: tuple[int, int],
) -> Found:
    """A group as one line of the table."""
    first = results[0]
    task = pick(TASKS, first["task"], "task")
    taken = {one.name: taken_stages(bench.place(one.name)) for one in runs}
    return {
        "name": name,
        "about": runs[0].about,
        "runs": [one.name for one in runs],
        "needs": runs[0].needs,
        "builds_on": runs[0].builds_on,
        "task": first["task"],
        "metric": first["metric"],
        "higher_is_better": task.metrics[first["metric"]].higher_is_better,
        "quality": value_over_seeds(task.metrics[first["metric"]], rows, *draws),
        "also": {
            kind: value_over_seeds(
                task.metrics[first["metric"]],
                [student_rows(bench.place(one.name), kind=kind) for one in runs],
                *draws,
            )
            for kind in further_sets(first)
            if all(has_rows(bench.place(one.name), "student", kind) for one in runs)
        },
        "retention": first["retention"] if len(runs) == 1 else None,
        "gain": first["gain_over_hard_only"] if len(runs) == 1 else None,
        "parameters": first["student"]["parameters"],
        "bytes": first["student"]["bytes"],
        "throughput": first["student"]["throughput"],
        "seconds": round(sum(seconds_spent(bench.place(one.name)) for one in runs), 1),
        "taken": {name: stages for name, stages in taken.items() if stages},
    }


def _ensemble_row(
    name: str,
    of: list[str],
    groups: dict[str, list[Planned]],
    results: dict[str, Found],
    rows: list[Rows],
    draws: tuple[int, int],
) -> Found:
    """Several groups' students, their probabilities averaged."""
    members = [results[groups[group][0].name] for group in of]
    task = pick(TASKS, members[0]["task"], "task")
    metric = members[0]["metric"]
    return {
        "name": name,
        "about": f"the probabilities of {len(of)} students, averaged",
        "runs": [],
        "needs": of,
        "builds_on": of,
        "task": members[0]["task"],
        "metric": metric,
        "higher_is_better": task.metrics[metric].higher_is_better,
        "quality": value_over_seeds(task.metrics[metric], rows, *draws),
        "also": {},
        "retention": None,
        "gain": None,
        "parameters": sum(member["student"]["parameters"] for member in members),
        "bytes": sum(member["student"]["bytes"] for member in members),
        "throughput": {},
        "seconds": 0.0,
        "taken": {},
    }


def ensemble_rows(bench: Bench, groups: dict[str, list[Planned]], of: list[str]) -> list[Rows]:
    """Per-row statistics of an ensemble, one a seed."""
    from .ensemble import measured_together

    return [
        measured_together([bench.place(one.name) for one in members], bench.folder / "ensembles", bench.watch)
        for members in zip(*(groups[group] for group in of), strict=True)
    ]


def seconds_spent(run: Path) -> float:
    """Of the stages that this run did itself."""
    saved = [read_json(path) for path in _done(run)]
    return float(sum(one["seconds"] for one in saved if "taken_from" not in one))


def taken_stages(run: Path) -> dict[str, str]:
    """Stage -> the run that it was taken from."""
    saved = {path.parent.name: read_json(path) for path in _done(run)}
    return {stage: one["taken_from"] for stage, one in saved.items() if "taken_from" in one}


def _done(run: Path) -> list[Path]:
    return [run / stage / DONE for stage in ORDER if (run / stage / DONE).exists()]
