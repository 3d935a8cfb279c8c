"""One HTML page for a plan: the chain of its runs, one table, the comparisons.  In the dress of a run's report."""

from typing import Any

from markupsafe import Markup

from .html import _environment
from .numbers import MISSING, count, duration, number, percent, with_interval
from .plan_charts import plan_charts
from .plan_verdict import KINDS, plan_verdict
from .table import Results, metric_title


def render_plan(found: Results, recipe_text: str) -> str:
    """The page.  Text from recipes is escaped and stays text; nothing is asked for from elsewhere."""
    said = plan_verdict(found)
    template = _environment().get_template("plan.html.j2")
    return template.render(
        found=found, kind=KINDS[found["plan"]], said=said, rows=plan_rows(found),
        columns=plan_columns(found), charts=plan_charts(found), svg=lambda chart: Markup(chart.svg), recipe=recipe_text,
        machine=found.get("machine") or {}, settings=settings_rows(found),
    )  # fmt: skip


def plan_columns(found: Results) -> list[str]:
    """Heads of the table; each further data set that a run has measured has a column."""
    return [
        "run",
        "builds on",
        "quality",
        *_further(found).values(),
        "retention",
        "gain over hard targets",
        "parameters",
        "took",
    ]


def _further(found: Results) -> dict[str, str]:
    """Data set -> the head of its column."""
    return {name: f"quality on {name}" for row in found["runs"] for name in row.get("also") or {}}


def plan_rows(found: Results) -> list[list[str]]:
    """A line a run, or a group of runs that differ in their seed: strings for page and terminal."""
    lines = [_teacher_row(found)]
    for row in found["runs"]:
        seeds = row["quality"].get("seeds", 1)
        metric = metric_title(found, row["metric"])
        lines.append(
            [
                row["name"] + (f" (×{seeds})" if seeds > 1 else ""),
                ", ".join(row["builds_on"]) or "the teacher",
                f"{metric} {with_interval(row['quality'])}",
                *(with_interval((row.get("also") or {}).get(name)) for name in _further(found)),
                percent(row["retention"]) if row.get("retention") else MISSING,
                with_interval(row["gain"]) if row.get("gain") else MISSING,
                count(row["parameters"]),
                duration(row["seconds"]),
            ]
        )
    return lines


def _teacher_row(found: Results) -> list[str]:
    """The teacher of the first run, for comparison."""
    teacher, metric = found["teacher"], found["metric"]
    quality = teacher["metrics"]["eval"].get(metric)
    cells = [f"{metric_title(found, metric)} {with_interval(quality)}"]
    cells += [with_interval((teacher["metrics"].get(name) or {}).get(metric)) for name in _further(found)]
    cells += [MISSING, MISSING]
    return ["teacher", MISSING, *cells, count(teacher.get("parameters")), MISSING]


def settings_rows(found: Results) -> list[tuple[str, str, str]]:
    """(setting, the recipe's own value, the winner's) of a search."""
    tuned: dict[str, Any] = found.get("tuning") or {}
    return [
        (name, _shown(tuned["default"].get(name)), _shown(value))
        for name, value in (tuned.get("best") or {}).items()
    ]


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else MISSING if value is None else str(value)
