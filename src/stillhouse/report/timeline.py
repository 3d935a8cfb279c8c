"""The charts of how the run went: each term of the objective, early stopping, and the time each stage took."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from .numbers import duration, known, number
from .svg import COLOURS, INK, Chart, canvas, drawing, legend_below, to_chart
from .table import Results, with_outside

TERMS = {
    "hard": "cross-entropy on hard targets, nats",
    "forward_kl": "KL from the teacher, nats",
    "reverse_kl": "reverse KL, nats",
    "js": "Jensen–Shannon divergence, nats",
    "skew_forward_kl": "skew KL, nats",
    "skew_reverse_kl": "skew reverse KL, nats",
    "adaptive_kl": "adaptive KL, nats",
    "total_variation": "total variation",
    "alpha_beta": "α-β divergence, nats",
    "cross_tokenizer": "divergence across tokenizers, nats",
    "custom": "own loss, nats",
    "policy_gradient": "policy gradient",
    "hidden": "distance of hidden states",
    "embeddings": "distance of embeddings",
    "attention": "distance of attention",
    "relations": "distance of relations",
    "similarity": "distance of similarities",
    "deeper_layers": "KL from the student's own last layer, nats",
}
"""Kind of term -> its panel's title."""

RUNS = (("train", "student", "student"), ("control", "hard_only", "hard targets only"))
"""(run in the metrics rows, role, name in the legend)."""

VALIDATION = "validation"
"""What early stopping saw, as the metrics rows call it."""


def _panels(rows: Sequence[Mapping[str, Any]], validation: str) -> list[tuple[str, str]]:
    """(key of the metrics rows, title) of every term that was logged, those that both runs have first, and of early stopping.

    Of two terms of one kind the key ends with the term's place in the objective, from 0.
    """
    found = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        kind, _, place = key.rpartition("_")
        if key in TERMS:
            found[key] = TERMS[key]
        elif kind in TERMS and place.isdigit():
            found[key] = f"{TERMS[kind]} (term {int(place) + 1})"
    shown = sorted(found.items(), key=lambda panel: panel[0] != "hard")
    shown.append((VALIDATION, validation))
    return [(key, title) for key, title in shown if any(_curve(rows, run, key)[0] for run, _, _ in RUNS)]


def _curve(rows: Sequence[Mapping[str, Any]], run: str, term: str) -> tuple[list[float], list[float]]:
    """Steps and values of one term of one run."""
    pairs = [(row["step"], row[term]) for row in rows if row.get("run") == run and known(row.get(term))]
    return [float(step) for step, _ in pairs], [float(value) for _, value in pairs]


def _running_mean(values: list[float]) -> list[float]:
    """Mean over the twentieth of the curve around each point, shorter at its ends."""
    reach = len(values) // 40
    return [float(np.mean(values[max(0, i - reach) : i + reach + 1])) for i in range(len(values))]


def loss_curves(rows: Sequence[Mapping[str, Any]], validation: str = "validation rows") -> Chart | None:
    """Every term of student and control, and what their validation rows said.

    Args: validation: title of the latter's panel.
    """
    panels = _panels(rows, validation)
    if not panels:
        return None
    words = []
    with drawing():
        figure, all_axes = canvas(0.6 + 1.9 * len(panels), rows=len(panels))
        for axes, (term, label) in zip(all_axes, panels, strict=True):
            for run, key, name in RUNS:
                steps, values = _curve(rows, run, term)
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
        ends = [axes.get_xlim() for axes in all_axes]
        for axes in all_axes:  # a step stands at one place in all panels
            axes.set_xlim(min(low for low, _ in ends), max(high for _, high in ends))
        all_axes[-1].set_xlabel("optimiser step")
        legend_below(figure, *all_axes)
        return to_chart(figure, "loss", "Training loss, term by term", "; ".join(words) + ".")


def _unit(longest: float) -> tuple[str, float]:
    """The unit of a time axis, and its seconds."""
    if longest < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 10800 else ("hours", 3600.0)


def stage_times(results: Results) -> Chart | None:
    """What each stage was predicted to take, and took; and what passed outside of them."""
    stages = {
        name: each
        for name, each in with_outside(results.get("stages") or {}).items()
        if known(each.get("seconds"))
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
