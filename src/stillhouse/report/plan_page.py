"""One HTML page for a plan: the chain of its runs, one table, the comparisons.  In the dress of a run's report."""

from typing import Any

from markupsafe import Markup

from .html import _environment
from .numbers import MISSING, count, duration, number, percent, with_interval
from .plan_charts import plan_charts
from .plan_verdict import KINDS, kept_unknown, plan_verdict
from .table import Results, metric_title


def render_plan(found: Results, recipe_text: str) -> str:
    """The page.  Text from recipes is escaped and stays text; nothing is asked for from elsewhere."""
    said = plan_verdict(found)
    template = _environment().get_template("plan.html.j2")
    return template.render(
        found=found, kind=KINDS[found["plan"]], said=said, rows=plan_rows(found),
        columns=plan_columns(found), charts=plan_charts(found), svg=lambda chart: Markup(chart.svg), recipe=recipe_text,
        machine=found.get("machine") or {}, settings=settings_rows(found), unknown=kept_unknown(found), missing=MISSING,
    )  # fmt: skip


def plan_columns(found: Results) -> list[str]:
    """Heads of the table; each further data set that a run has measured has a column.  Where all runs have one metric, its name is
    there and not in each cell."""
    return [
        "run",
        "builds on",
        _one_metric(found) or "quality",
        *_further(found).values(),
        "retention",
        "gain over hard targets",
        "parameters",
        "took",
    ]


def _further(found: Results) -> dict[str, str]:
    """Data set -> the head of its column."""
    return {name: f"on {name}" for row in found["runs"] for name in row.get("also") or {}}


def _one_metric(found: Results) -> str | None:
    """Title of the metric that all lines tell, if it is one."""
    metrics = {found["metric"], *(row["metric"] for row in found["runs"])}
    return metric_title(found, found["metric"]) if len(metrics) == 1 else None


def _told(found: Results, metric: str, measured: dict[str, Any] | None) -> str:
    """A quality, with the metric's name where the column's head does not have it."""
    value = with_interval(measured)
    return value if _one_metric(found) else f"{metric_title(found, metric)} {value}"


def plan_rows(found: Results) -> list[list[str]]:
    """A line a run, or a group of runs that differ in their seed: strings for page and terminal."""
    lines = [_teacher_row(found)]
    for row in found["runs"]:
        seeds = row["quality"].get("seeds", 1)
        lines.append(
            [
                row["name"] + (f" (×{seeds})" if seeds > 1 else ""),
                ", ".join(row["builds_on"]) or "the teacher",
                _told(found, row["metric"], row["quality"]),
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
    cells = [_told(found, metric, quality)]
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
