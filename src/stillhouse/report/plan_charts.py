"""A plan's pictures: the comparisons as a forest, quality against size with the Pareto front, the course of a search."""

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from .numbers import count, known, number, with_interval
from .svg import COLOURS, INK, Chart, canvas, drawing, to_chart
from .table import Results, metric_title

NAMED = 8
"""Points that are called by their names."""


def plan_charts(found: Results) -> list[Chart]:
    """Those that have numbers."""
    charts = [*comparisons(found), front(found), search(found), importance(found)]
    return [chart for chart in charts if chart is not None]


def comparisons(found: Results) -> list[Chart]:
    """A picture a data set, for each has its own scale."""
    drawn: dict[str, list[Any]] = {}
    for gap in found["comparisons"]:
        if known(gap.get("value")) and known(gap.get("low")):
            drawn.setdefault(gap.get("on", "eval"), []).append(gap)
    return [_forest(found, on, gaps) for on, gaps in drawn.items()]


def _forest(found: Results, on: str, gaps: list[Any]) -> Chart:
    """Each difference with its interval; right is better."""
    words = []
    with drawing():
        figure, (axes,) = canvas(0.9 + 0.5 * len(gaps))
        reach = 0.0
        for index, gap in enumerate(gaps):
            up = next(
                (row["higher_is_better"] for row in found["runs"] if row["metric"] == gap["metric"]), True
            )
            sign = 1.0 if up else -1.0
            low, high = sorted((sign * gap["low"], sign * gap["high"]))
            role = {True: "student", False: "hard_only", None: "muted"}[gap.get("better")]
            axes.plot([low, high], [index, index], color=COLOURS[role], linewidth=2.2)
            axes.plot([sign * gap["value"]], [index], "o", color=COLOURS[role], markersize=6.5)
            # the name above its line: beside it, it would leave the line no room
            axes.text(
                0, index - 0.26, f"{gap['of']} − {gap['against']}"[:64], transform=axes.get_yaxis_transform()
            )
            reach = max(reach, abs(low), abs(high))
            words.append(f"{gap['of']} − {gap['against']}: {with_interval(gap, sign)}")
        axes.set_xlim(-1.15 * (reach or 1), 1.15 * (reach or 1))
        axes.set_ylim(len(gaps) - 0.5, -0.75)
        axes.axvline(0, color=INK, alpha=0.5, linewidth=0.9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        axes.set_xlabel("← worse · better →")
        key, title = ("compared", "") if on == "eval" else (f"compared-{on}", f" of {on}")
        return to_chart(figure, key, f"Compared on the same rows{title}", "; ".join(words) + ".")


def front(found: Results) -> Chart | None:
    """Quality against size; what nobody beats in both is joined by a line."""
    points = pareto_points(found)
    tuned = found.get("tuning") or {}
    apart = not found.get("same_rows", True) and not tuned.get(
        "against"
    )  # trials are not measured on the runs' rows
    if apart or len({x for _, x, _, _ in points}) < 2:
        return None
    cost = {"latency": "milliseconds a row"}.get(str(tuned.get("against")), "parameters")
    metric = metric_title(found, found["metric"])
    up = found["runs"][0]["higher_is_better"]
    best = [point for point in points if point[3]]
    with drawing():
        figure, (axes,) = canvas(3.1)
        axes.plot([p[1] for p in points], [p[2] for p in points], "o", color=COLOURS["muted"], markersize=5)
        axes.plot([p[1] for p in best], [p[2] for p in best], "o-", color=COLOURS["student"], markersize=7)
        for name, x, y in _named(points if len(points) <= NAMED else best)[:NAMED]:
            left = x > 0.6 * max(point[1] for point in points)
            axes.annotate(
                name if len(name) <= 32 else f"{name[:31]}…",
                (x, y),
                (-9 if left else 9, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
            )
        axes.set_xlim(0, 1.12 * max(point[1] for point in points))
        axes.margins(y=0.12)
        if not up:
            axes.invert_yaxis()
        axes.set_ylabel(metric)
        axes.set_xlabel(cost)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
        words = "; ".join(f"{name}: {number(y)} at {count(x)}" for name, x, y, _ in best)
        return to_chart(
            figure, "pareto", f"{metric.capitalize()} against {cost}", f"Not beaten in both: {words}."
        )


def _named(points: Sequence[tuple[str, float, float, bool]]) -> list[tuple[str, float, float]]:
    """(names, x, y): points in one place share a line of text, which could not be read twice."""
    places: dict[tuple[float, float], list[str]] = {}
    for name, x, y, _ in points:
        places.setdefault((x, y), []).append(name)
    return [(", ".join(names), x, y) for (x, y), names in places.items()]


def pareto_points(found: Results) -> list[tuple[str, float, float, bool]]:
    """(name, cost, quality, whether nobody is at least as good in both and better in one), by rising cost."""
    tuned = found.get("tuning")
    up = found["runs"][0]["higher_is_better"]
    if tuned and tuned.get("against"):
        some = [
            (f"trial {trial['number']}", trial["cost"], trial["value"])
            for trial in tuned["trials"]
            if known(trial.get("cost")) and known(trial.get("value"))
        ]
    else:
        some = [
            (row["name"], row["parameters"], row["quality"]["value"])
            for row in found["runs"]
            if row["metric"] == found["metric"] and known(row["quality"].get("value"))
        ]
    return sorted(
        ((name, float(x), float(y), _on_front(x, y, some, up)) for name, x, y in some),
        key=lambda point: point[1],
    )


def _on_front(x: float, y: float, points: Sequence[tuple[str, float, float]], up: bool) -> bool:
    sign = 1 if up else -1
    return not any(a <= x and sign * b >= sign * y and (a < x or sign * b > sign * y) for _, a, b in points)


def search(found: Results) -> Chart | None:
    """What each trial reached, and the best so far."""
    trials = [one for one in (found.get("tuning") or {}).get("trials", []) if known(one.get("value"))]
    if len(trials) < 2:
        return None
    better = max if found["runs"][0]["higher_is_better"] else min
    best: list[float] = []
    for one in trials:
        best.append(one["value"] if not best else better(best[-1], one["value"]))
    with drawing():
        figure, (axes,) = canvas(2.6)
        axes.plot(
            [one["number"] for one in trials], [one["value"] for one in trials], "o", color=COLOURS["muted"]
        )
        axes.step(
            [one["number"] for one in trials], best, where="post", color=COLOURS["student"], linewidth=1.8
        )
        axes.set_xlabel("trial")
        axes.set_ylabel(f"{metric_title(found, found['metric'])} (rows set aside)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return to_chart(
            figure, "search", "The search", f"Best of {len(trials)} finished trials: {number(best[-1], 4)}."
        )


def importance(found: Results) -> Chart | None:
    """How much of the difference between trials each setting explains."""
    shares: dict[str, Any] = (found.get("tuning") or {}).get("importance") or {}
    if not shares:
        return None
    with drawing():
        figure, (axes,) = canvas(0.7 + 0.3 * len(shares))
        names = list(shares)
        axes.barh(range(len(names)), [shares[name] for name in names], color=COLOURS["student"], height=0.6)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the difference between trials")
        words = "; ".join(f"{name}: {number(100 * share, 0)} %" for name, share in shares.items())
        return to_chart(figure, "importance", "What mattered", words + ".")
