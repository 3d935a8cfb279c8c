"""The charts of how the run went: training loss, and the time each stage took."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .numbers import duration, known, number
from .svg import COLOURS, INK, Chart, canvas, drawing, legend_below, to_chart
from .table import Results

SOFT_TERMS = {"forward_kl": "KL from the teacher, nats"}
"""Soft terms of an objective, as they are called in the metrics rows, and how their axis is labelled."""


def _curve(rows: Sequence[Mapping[str, Any]], run: str, term: str) -> tuple[list[float], list[float]]:
    """Steps and values of one term of one run."""
    pairs = [(row["step"], row[term]) for row in rows if row.get("run") == run and known(row.get(term))]
    return [float(step) for step, _ in pairs], [float(value) for _, value in pairs]


def _running_mean(values: list[float]) -> list[float]:
    """Mean over the twentieth of the curve around each point, shorter at its ends."""
    reach = len(values) // 40
    return [float(np.mean(values[max(0, i - reach) : i + reach + 1])) for i in range(len(values))]


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """The terms that can be compared: the hard term of student and control, the soft terms of the student."""
    panels = [("hard", "cross-entropy on hard targets, nats")]
    panels += list(SOFT_TERMS.items())
    runs = [("train", "student", "student"), ("control", "hard_only", "hard targets only")]
    found = {(term, run): _curve(rows, run, term) for term, _ in panels for run, _, _ in runs}
    panels = [(term, label) for term, label in panels if any(found[term, run][0] for run, _, _ in runs)]
    if not panels:
        return None
    words = []
    with drawing():
        figure, all_axes = canvas(0.6 + 1.9 * len(panels), rows=len(panels))
        for axes, (term, label) in zip(all_axes, panels, strict=True):
            for run, key, name in runs:
                steps, values = found[term, run]
                if not steps:
                    continue
                style = "-" if key == "student" else (0, (4, 2))
                axes.plot(steps, values, color=COLOURS[key], alpha=0.3, linewidth=0.8)
                smooth = _running_mean(values)
                axes.plot(
                    steps,
                    smooth,
                    color=COLOURS[key],
                    linewidth=1.8,
                    linestyle=style,
                    label=name,
                    marker="o" if len(values) == 1 else None,
                )
                words.append(f"{name}, {label}: {number(smooth[0])} at step {steps[0]:.0f}, "
                             f"{number(smooth[-1])} at step {steps[-1]:.0f}")  # fmt: skip
            axes.set_title(label, loc="left")
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        all_axes[-1].set_xlabel("optimiser step")
        legend_below(figure, all_axes[0])
        return to_chart(figure, "loss", "Training loss, term by term", "; ".join(words) + ".")


def _unit(longest: float) -> tuple[str, float]:
    """The unit of a time axis, and its seconds."""
    if longest < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 10800 else ("hours", 3600.0)


def stage_times(results: Results) -> Chart | None:
    """What each stage was predicted to take, and took."""
    stages = {
        name: each for name, each in (results.get("stages") or {}).items() if known(each.get("seconds"))
    }
    if not stages:
        return None
    guesses = {
        name: each["predicted_seconds"]
        for name, each in stages.items()
        if known(each.get("predicted_seconds"))
    }
    unit, scale = _unit(max([*guesses.values(), *(each["seconds"] for each in stages.values())]))
    with drawing():
        figure, (axes,) = canvas(0.8 + 0.46 * len(stages))
        rows = {name: index for index, name in enumerate(stages)}
        heights = [rows[name] - 0.2 for name in guesses]
        axes.barh(heights, [guess / scale for guess in guesses.values()], 0.28, facecolor="none",
                  edgecolor=COLOURS["muted"], label="predicted")  # fmt: skip
        taken = [each["seconds"] / scale for each in stages.values()]
        axes.barh(
            [index + 0.14 for index in rows.values()], taken, 0.36, color=COLOURS["student"], label="taken"
        )
        for name, each in stages.items():
            beside = (max(each["seconds"], guesses.get(name, 0.0)) / scale, rows[name])
            axes.annotate(duration(each["seconds"]), beside, (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(stages)), list(stages))
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.set_xlim(0, 1.2 * max([*taken, *(guess / scale for guess in guesses.values())]) or 1.0)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        legend_below(figure, axes)
        words = [
            f"{name}: {duration(each['seconds'])}, predicted {duration(guesses.get(name))}"
            for name, each in stages.items()
        ]
        return to_chart(figure, "stages", "Time per stage", "; ".join(words) + ".")
