"""One HTML page with everything in it: no request leaves it, no script runs in it, and it prints.

What can be chosen on it (which samples are shown) is chosen by style sheet alone, so the policy forbids all scripts.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .charts import gain_forest, quality_and_size, quality_and_speed, reliability
from .evidence import sections
from .forest import pictures
from .glance import figures
from .histograms import histograms
from .numbers import duration, number, size
from .svg import Chart
from .table import CONTROL_TITLES, Results, metric_title, result_table
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


KINDS = {
    "student-fails": "student fails, teacher does not",
    "teacher-fails": "teacher fails, student does not",
    "both-fail": "both fail",
    "differ": "they say different things",
    "same": "they say the same",
    "both-right": "both are right",
}
"""How a held-out row went -> the filter's words; of texts, whether the first words are the same."""

SAMPLES, TEXT, FEW = 300, 320, 3
"""Samples on the page; characters of a text that are shown at once; rows of each kind that are shown at first."""


WENT: dict[str, tuple[str, bool, bool]] = {
    "student fails": ("student-fails", True, False),
    "teacher fails": ("teacher-fails", False, True),
    "both fail": ("both-fail", False, False),
    "both right": ("both-right", True, True),
}
"""How a row with a label went, as `samples` says -> the filter's name, and whether teacher and student are right: a teacher that was
asked shows its own words, which need not be the label's."""


def _says(answer: str, label: str | None) -> dict[str, Any]:
    """One model's answer; `right` is None where there is no label to compare it with."""
    right = None if label is None else answer.rpartition(" (")[0] == label or answer == label
    return {"text": answer, "right": right}


def _kind(said: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Of KINDS; None where one of the two says nothing."""
    if not {"teacher", "student"} <= set(said):
        return None
    teacher, student = said["teacher"], said["student"]
    if teacher["right"] is not None:
        return {
            (True, False): "student-fails", (False, True): "teacher-fails",
            (False, False): "both-fail", (True, True): "both-right",
        }[teacher["right"], student["right"]]  # fmt: skip
    first = [
        words[0] if (words := str(each["text"]).partition(" (")[0].split()) else ""
        for each in (teacher, student)
    ]
    return "same" if first[0] == first[1] else "differ"


def _samples(results: Results) -> list[dict[str, Any]]:
    """Held-out rows with what each model made of them, the same shape for both tasks."""
    found = []
    for sample in (results.get("samples") or [])[:SAMPLES]:
        label = sample.get("label")
        said = {
            key: _says(str(sample[key]), None if label is None else str(label))
            for key in SPEAKERS
            if sample.get(key) is not None
        }
        for key, right in (sample.get("right") or {}).items():
            if key in said:
                said[key]["right"] = right
        kind = _kind(said)
        if label is not None and sample.get("kind") in WENT:
            kind, *right = WENT[sample["kind"]]
            for key, one in zip(("teacher", "student"), right, strict=True):
                if key in said:
                    said[key]["right"] = one
        asked = str(sample.get("prompt", sample.get("text", "")))
        found.append(
            {
                "asked": asked[:TEXT], "more": asked[TEXT:], "label": label, "reference": sample.get("reference"), "kind": kind, "few": True,
                "answers": [(key, SPEAKERS[key], each) for key, each in said.items()],
            }
        )  # fmt: skip
    for kind in KINDS:
        for sample in [each for each in found if each["kind"] == kind][FEW:]:
            sample["few"] = False
    return found


def _filters(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """(class of the rows, its words, how many) of each choice, the one that is made at first before all others; none where
    there is nothing to choose."""
    counts = {kind: sum(sample["kind"] == kind for sample in samples) for kind in KINDS}
    found = [(kind, KINDS[kind], number) for kind, number in counts.items() if number]
    few, total = sum(sample["few"] for sample in samples), len(samples)
    everything = [("sample", "all", total)]
    if few < total:
        everything = [("few", "some of each", few), *everything]
    return everything + found if len(found) > 1 or few < total else []


def _charts(results: Results, curves: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of the charts section, those that have numbers."""
    drawn = loss_curves(curves, f"{metric_title(results, results['metric'])} on validation rows")
    found = [quality_and_size(results), quality_and_speed(results), gain_forest(results), drawn]
    return [chart for chart in [*found, reliability(results)] if chart is not None]


def render_html(
    results: Results, recipe_text: str, command: str, curves: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The report as one self-contained page.

    `command` is what reproduces the run; `curves` are the metrics rows, {"run": "train" | "control", "step", <term>: nats}.
    Text from data, models and recipe is escaped and stays text.
    """
    samples = _samples(results)
    return _environment().get_template("report.html.j2").render(
        results=results, figures=figures(results), pictures=pictures(results), filters=_filters(samples), verdict=verdict_parts(results), failed=failed_claims(results), table=result_table(results),
        charts=_charts(results, curves), histograms=histograms(results), sections=sections(results), stages=stage_times(results), svg=lambda chart: Markup(chart.svg),
        samples=samples, recipe=recipe_text, command=command, machine=results.get("machine") or {},
        licence=results.get("licence") or {}, data=results.get("data") or {}, floor=results.get("floor") or {},
    )  # fmt: skip
