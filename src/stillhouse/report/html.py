"""One HTML page with everything in it: no request leaves it, no script runs in it, and it prints."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .charts import gain_forest, quality_and_size, quality_and_speed, reliability
from .evidence import sections
from .numbers import duration, number, size
from .svg import Chart
from .table import CONTROL_TITLES, Results, result_table
from .timeline import loss_curves, stage_times
from .verdict import failed_claims, verdict_parts

SPEAKERS = {"teacher": "teacher", "student": "student", "hard_only": CONTROL_TITLES["hard_only"]}


def _environment() -> Environment:
    """Escapes everything; a variable that the template misspells is an error."""
    environment = Environment(
        loader=PackageLoader("stillhouse.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(duration=duration, size=size, number=number, cell=_cell, tidy=_tidy)
    return environment


def _tidy(text: str) -> str:
    """Keep '91 %', '89–93' and 'perplexity ↓' on one line."""
    return re.sub(r"(?<=\d)–(?=\d)", "–\u2060", re.sub(r" (?=[%↑↓])", "\u00a0", text))


def _cell(text: str) -> tuple[str, str]:
    """'1.02 [0.99, 1.05]' -> the number, and its interval to be set smaller."""
    for bracket in (" [", " ("):
        value, found, interval = text.partition(bracket)
        if found:
            return _tidy(value), _tidy(f"{found.strip()}{interval}")
    return _tidy(text), ""


def _says(answer: str, label: str | None) -> dict[str, Any]:
    """One model's answer; `right` is None where there is no label to compare it with."""
    right = None if label is None else answer.rpartition(" (")[0] == label or answer == label
    return {"text": answer, "right": right}


def _samples(results: Results) -> list[dict[str, Any]]:
    """Held-out rows with what each model made of them, the same shape for both tasks."""
    found = []
    for sample in results.get("samples") or []:
        label = sample.get("label")
        answers = {
            title: _says(str(sample[key]), None if label is None else str(label))
            for key, title in SPEAKERS.items()
            if sample.get(key) is not None
        }
        found.append(
            {"asked": sample.get("prompt", sample.get("text", "")), "label": label, "answers": answers}
        )
    return found


def _charts(results: Results, curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of the charts section, those that have numbers."""
    found = [quality_and_size(results), quality_and_speed(results), gain_forest(results), loss_curves(curves)]
    return [chart for chart in [*found, reliability(results)] if chart is not None]


def render_html(
    results: Results, recipe_text: str, command: str, curves: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The report as one self-contained page.

    `command` is what reproduces the run; `curves` are the metrics rows, {"run": "train" | "control", "step", <term>: nats}.
    Text from data, models and recipe is escaped and stays text.
    """
    return _environment().get_template("report.html.j2").render(
        results=results, verdict=verdict_parts(results), failed=failed_claims(results), table=result_table(results),
        charts=_charts(results, curves), sections=sections(results), stages=stage_times(results), svg=lambda chart: Markup(chart.svg),
        samples=_samples(results), recipe=recipe_text, command=command, machine=results.get("machine") or {},
        licence=results.get("licence") or {}, data=results.get("data") or {}, floor=results.get("floor") or {},
    )  # fmt: skip
