"""The result table: who was measured, on what, with which interval.  Strings only; HTML, card and terminal draw it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .numbers import MISSING, beside, count, duration, percent, size, with_interval, within

Results = dict[str, Any]
"""The content of results.json."""

CONTROL_TITLES = {"hard_only": "hard targets only", "initial": "student before"}
"""The controls in the order in which they are shown, and what they are called."""

SPEED_TITLES = {
    "generate": "generation", "generate_batch": "generation", "prefill": "reading", "rows": "speed",
}  # fmt: skip


def at_batch(throughput: dict[str, Any], key: str) -> str:
    """' at batch 32': how many rows were handled at once; '' in a run that did not keep it."""
    size = (throughput.get("batch") or {}).get(key)
    return f" at batch {size:,}" if size else ""


@dataclass(frozen=True)
class Table:
    """A header and rows of equal length; the first cell of a row says whose row it is.

    `groups` has one entry for each column: the data set it was measured on, or '' for what the model costs.
    """

    columns: list[str]
    rows: list[list[str]]
    groups: list[str]

    def bodies(self) -> list[tuple[str, list[list[str]]]]:
        """The table turned on its side: for each group, one row a measure and one column a model."""
        found: dict[str, list[list[str]]] = {}
        for index in range(1, len(self.columns)):
            line = [self.columns[index], *(row[index] for row in self.rows)]
            found.setdefault(self.groups[index], []).append(line)
        return list(found.items())


def models(results: Results) -> list[tuple[str, str, dict[str, Any]]]:
    """(key, title, measurements) of the teacher, the student and the controls that were run, in this order."""
    controls = results.get("controls") or {}
    found = [("teacher", "teacher", results["teacher"]), ("student", "student", results["student"])]
    found += [(key, title, controls[key]) for key, title in CONTROL_TITLES.items() if controls.get(key)]
    return found


def metric_title(results: Results, metric: str) -> str:
    """What people call a metric."""
    return str((results["metrics"].get(metric) or {}).get("title") or metric.replace("_", " "))


def higher_is_better(results: Results, metric: str) -> bool:
    """Which way a metric points; up, unless results.json says otherwise."""
    return bool((results["metrics"].get(metric) or {}).get("higher_is_better", True))


def dataset_names(results: Results) -> list[str]:
    """The data sets that were measured, `eval` first."""
    names = list(results.get("datasets") or results["student"]["metrics"])
    return sorted(names, key=lambda name: name != "eval")


def dataset_title(results: Results, dataset: str) -> str:
    """'eval, 64 rows'."""
    rows = (results.get("datasets") or {}).get(dataset, {}).get("rows")
    return dataset if rows is None else f"{dataset}, {rows:,} row{'' if rows == 1 else 's'}"


def metric_names(results: Results) -> list[str]:
    """All metrics, the headline metric first."""
    return sorted(results["metrics"], key=lambda name: name != results["metric"])


OUTSIDE = "outside stages"


def with_outside(stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The stages, and behind them what the same commands took outside of them: start-up, imports, looking at what is done.

    With it the seconds add up to what a clock on the wall showed, but for what was cut off.
    """
    outside = sum(each.get("seconds_before") or 0.0 for each in stages.values())
    return {**stages, OUTSIDE: {"seconds": round(outside, 3)}} if outside else stages


def _cost_columns(everyone: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """(title, one cell a model) of what each model costs; parameters and bytes are exact, and the peak is that of one process."""
    yield "parameters", [count(each.get("parameters")) for each in everyone]
    yield "on disk", [size(each.get("bytes")) for each in everyone]
    speeds = [each.get("throughput") or {} for each in everyone]
    for key, title in SPEED_TITLES.items():
        one = next((speed for speed in speeds if key in speed), {})
        title += at_batch(one, key)
        unit = one.get("unit")
        yield f"{title}, {unit}" if unit else title, [with_interval(beside(speed, key)) for speed in speeds]
    waits = [each.get("latency") or {} for each in everyone]
    what = next((wait["what"] for wait in waits if wait), "answer")
    for share in ("p50", "p95"):
        cells = [within(beside(wait, share), duration) for wait in waits]
        yield f"time to {what}, {share}", cells
    unit = next((str(speed["unit"]).removesuffix("s/s") for speed in speeds if "unit" in speed), "unit")
    yield f"joules a {unit}", [with_interval(beside(speed, "joules")) for speed in speeds]
    yield "peak memory", [size(each.get("peak_memory_bytes")) for each in everyone]


def _metric_columns(
    results: Results, dataset: str, everyone: list[dict[str, Any]]
) -> Iterator[tuple[str, list[str]]]:
    """(title, one cell a model) of the metrics on one data set; retention stands after the headline metric."""
    for metric in metric_names(results):
        arrow = "↑" if higher_is_better(results, metric) else "↓"
        cells = [with_interval(_measured(each, dataset, metric)) for each in everyone]
        yield f"{metric_title(results, metric)} {arrow}", cells
        share = (results.get("retentions") or {}).get(dataset)
        if metric == results["metric"] and share:
            yield (
                "retention ↑",
                [percent(share) if each is results["student"] else MISSING for each in everyone],
            )


def _measured(model: dict[str, Any], dataset: str, metric: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = ((model.get("metrics") or {}).get(dataset) or {}).get(metric)
    return found


def result_table(results: Results) -> Table:
    """Rows: teacher, student, controls, baselines, floor.  Columns: what each costs, and each metric of each data set.

    ↑ and ↓ in a column's title say which way is better; a column that nobody has a number for is left out.
    """
    titles = [title for _, title, _ in models(results)]
    everyone = [measurements for _, _, measurements in models(results)]
    for name, measurements in (results.get("baselines") or {}).items():
        titles.append(name)
        everyone.append(measurements)
    floor = results.get("floor")
    if floor:
        titles.append("floor")
        everyone.append(floor)
    columns, groups, cells = [""], [""], [titles]
    found = [("", *column) for column in _cost_columns(everyone)]
    for dataset in dataset_names(results):
        title = dataset_title(results, dataset)
        found += [(title, *column) for column in _metric_columns(results, dataset, everyone)]
    for group, column, values in found:
        if any(value != MISSING for value in values):
            columns.append(column)
            groups.append(group)
            cells.append(values)
    return Table(columns, [list(row) for row in zip(*cells, strict=True)], groups)
