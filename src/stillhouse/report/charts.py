"""The charts of what was reached: quality against cost, gain over the control, reliability.

A chart whose numbers were not measured is left out, never drawn empty."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import ScaledTranslation

from .numbers import count, known, number, with_interval
from .svg import COLOURS, INK, Chart, canvas, drawing, legend_below, to_chart
from .table import Results, at_batch, higher_is_better, metric_title, models
from .verdict import gains

MARKERS = {"teacher": "s", "student": "o", "hard_only": "^", "initial": "D"}
Point = tuple[str, str, float, dict[str, Any]]
"""(key, title, x, measured quality) of one model."""


def _all_known(values: Sequence[Any]) -> bool:
    return all(known(value) for value in values)


def _points(results: Results, x_of: Callable[[dict[str, Any]], Any]) -> list[Point]:
    """The models that have both an x and a headline metric on `eval`."""
    found = []
    for key, title, model in models(results):
        quality = ((model.get("metrics") or {}).get("eval") or {}).get(results["metric"]) or {}
        if _all_known([x_of(model), quality.get("value")]):
            found.append((key, title, float(x_of(model)), quality))
    return found


def _far_off(points: list[Point]) -> Point | None:
    """The untrained student, where it would press all others into a corner of the chart."""
    initial = next((point for point in points if point[0] == "initial"), None)
    others = [point[3]["value"] for point in points if point[0] != "initial"]
    if initial is None or len(others) < 2:
        return None
    away = min(abs(initial[3]["value"] - value) for value in others)
    return initial if away > 3 * (max(others) - min(others)) else None


def _draw_point(axes: Axes, point: Point, shift: float) -> None:
    """One model with its interval, moved `shift` points sideways so that equal x do not cover each other."""
    key, title, x, quality = point
    moved = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    if _all_known([quality.get("low"), quality.get("high")]):
        axes.plot(
            [x, x], [quality["low"], quality["high"]], color=COLOURS[key], linewidth=1.8, transform=moved
        )
    axes.plot(
        [x], [quality["value"]], MARKERS[key], color=COLOURS[key], markersize=7, transform=moved, label=title
    )
    axes.update_datalim([(x, quality.get(bound) or quality["value"]) for bound in ("low", "high")])


def _against(
    results: Results, identity: str, cost: str, x_of: Callable[[dict[str, Any]], Any]
) -> Chart | None:
    """Quality (up is better) against what it costs."""
    everyone = _points(results, x_of)
    off = _far_off(everyone)
    points = [point for point in everyone if point is not off]
    if len(points) < 2:
        return None
    metric, title = results["metric"], metric_title(results, results["metric"])
    up = higher_is_better(results, metric)
    with drawing():
        figure, (axes,) = canvas(3.1)
        for _index, point in enumerate(points):
            beside = [
                other for other in points if abs(other[2] - point[2]) < 0.05 * max(each[2] for each in points)
            ]
            _draw_point(axes, point, 13 * (beside.index(point) - (len(beside) - 1) / 2))
        axes.autoscale_view()
        axes.set_xlim(0, 1.12 * max(point[2] for point in points))
        axes.margins(y=0.12)
        if not up:
            axes.invert_yaxis()
        axes.set_title("↑ better" if up else "↑ better (low numbers at the top)", loc="left")
        axes.set_ylabel(title)
        axes.set_xlabel(cost)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        legend_below(figure, axes, columns=3 if len(points) <= 3 else 2)
        described = "; ".join(
            f"{name}: {with_interval(quality)} at {count(x)}" for _, name, x, quality in points
        )
        if off is not None:
            described += f". Off the scale: {off[1]}, {with_interval(off[3])} at {count(off[2])}"
        return to_chart(figure, identity, f"{title.capitalize()} against {cost}", f"{described}.")


def quality_and_size(results: Results) -> Chart | None:
    """Headline metric on `eval` against the number of parameters, with intervals."""
    return _against(results, "quality-size", "parameters", lambda model: model.get("parameters"))


def quality_and_speed(results: Results) -> Chart | None:
    """Headline metric on `eval` against the throughput users feel, with intervals."""
    speeds = results["teacher"].get("throughput") or {}
    key = next((key for key in ("generate", "rows", "prefill") if known(speeds.get(key))), None)
    if key is None:
        return None
    cost = f"speed{at_batch(speeds, key)}, {speeds.get('unit') or 'per second'}"
    return _against(results, "quality-speed", cost, lambda model: (model.get("throughput") or {}).get(key))


def _gain_panel(axes: Axes, rows: list[tuple[str, dict[str, Any]]], sign: float) -> None:
    """One metric: a row a data set, its own scale, zero in the middle."""
    reach = 0.0
    for index, (_, gain) in enumerate(rows):
        role = {True: "student", False: "hard_only", None: "muted"}[gain.get("better")]
        value = sign * gain["value"]
        bounds = [sign * gain[key] for key in ("low", "high") if known(gain.get(key))] or [value]
        axes.plot(sorted(bounds), [index] * len(bounds), color=COLOURS[role], linewidth=2.2)
        axes.plot([value], [index], "o", color=COLOURS[role], markersize=6.5)
        reach = max([reach, abs(value), *(abs(bound) for bound in bounds)])
    reach = reach or 1.0
    axes.set_xlim(-1.15 * reach, 1.15 * reach)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))


BESIDE = ("teacher_reverse_kl", "teacher_top5", "teacher_top3", "teacher_rank", "adaptive_ece", "brier")
"""Metrics that say in another way what their neighbours say; the picture of the gains goes without them."""


def gain_forest(results: Results) -> Chart | None:
    """Student − control for each metric and data set, turned so that right is always better for the student."""
    by_metric: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for metric, dataset, gain in gains(results):
        if metric not in BESIDE or metric == results["metric"]:
            by_metric.setdefault(metric, []).append((dataset, gain))
    if not by_metric:
        return None
    order = sorted(by_metric, key=lambda metric: metric != results["metric"])
    words = []
    with drawing():
        lines = sum(len(rows) for rows in by_metric.values())
        figure, all_axes = canvas(0.45 + 0.58 * len(order) + 0.24 * lines, rows=len(order))
        for axes, metric in zip(all_axes, order, strict=True):
            sign = 1.0 if higher_is_better(results, metric) else -1.0
            _gain_panel(axes, by_metric[metric], sign)
            unit = (results["metrics"].get(metric) or {}).get("unit")
            turned = "increase" if sign > 0 else "reduction"
            axes.set_title(
                f"{metric_title(results, metric)}: {turned}" + (f", {unit}" if unit else ""), loc="left"
            )
            for dataset, gain in by_metric[metric]:
                says = {True: "better", False: "worse", None: "no clear difference"}[gain.get("better")]
                chance = f" (p = {number(gain['p'])})" if known(gain.get("p")) else ""
                about = f"{metric_title(results, metric)} on {dataset}"
                words.append(f"{about}: {with_interval(gain, sign)}, {says}{chance}")
        all_axes[-1].set_xlabel("← control is better · student is better →")
        return to_chart(figure, "gain", "Gain over the hard-targets-only control", "; ".join(words) + ".")


def reliability(results: Results) -> Chart | None:
    """How often a class, or a language model's likeliest next token, given with confidence c was right; the area of a point is
    the number of rows or tokens in it."""
    bins = results.get("reliability") or {}
    filled = {
        key: [
            each
            for each in bins.get(key) or []
            if each.get("count") and _all_known([each["confidence"], each["accuracy"]])
        ]
        for key in ("teacher", "student", "hard_only")
    }
    if not any(filled.values()):
        return None
    titles = {key: title for key, title, _ in models(results)}
    words = []
    with drawing():
        figure, (axes,) = canvas(3.9)
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, linewidth=0.9, linestyle=(0, (2, 2)))
        for key, rows in filled.items():
            if not rows:
                continue
            x, y = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
            areas = [12 + 90 * row["count"] / max(each["count"] for each in rows) for row in rows]
            axes.plot(x, y, color=COLOURS[key], linewidth=1.4)
            axes.scatter(x, y, s=areas, marker=MARKERS[key], color=COLOURS[key], alpha=0.75, linewidths=0)
            axes.plot([], [], MARKERS[key], color=COLOURS[key], label=titles.get(key, key))
            words.append(f"{titles.get(key, key)}: " + ", ".join(
                f"{number(row['accuracy'], 2)} right at confidence {number(row['confidence'], 2)}" for row in rows))  # fmt: skip
        lowest = min(
            [1.0, *(min(row["confidence"], row["accuracy"]) for rows in filled.values() for row in rows)]
        )
        axes.set_xlim(max(0.0, lowest - 0.06), 1.02)
        axes.set_ylim(max(0.0, lowest - 0.06), 1.03)
        given = "class given" if results["task"] == "classification" else "likeliest token"
        axes.set_xlabel(f"confidence in the {given}")
        axes.set_ylabel("share that was right")
        legend_below(figure, axes, columns=3)
        return to_chart(figure, "reliability", "Confidence against accuracy", "; ".join(words) + ".")
