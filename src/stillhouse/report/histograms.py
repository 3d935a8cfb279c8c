"""Lengths and labels of the training rows beside those of each set that they are compared with, as bars."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.ticker import MaxNLocator, PercentFormatter

from .svg import COLOURS, INK, Chart, canvas, drawing, legend_below, to_chart
from .table import Results

MOST_BARS, NAME = 24, 28
"""Labels that are drawn, and characters of their names."""
COLOUR = {"train": "student", "without_made": "muted", "evaluated": "teacher"}
Shares = Mapping[str, Mapping[str, float]]
"""Side -> the share of each key."""


def histograms(results: Results) -> dict[str, list[Chart]]:
    """Set -> its charts, of all sets in `data.coverage`."""
    told = (results.get("data") or {}).get("coverage") or {}
    return {name: _charts(name, found) for name, found in told.items() if name != "within_train"}


def _charts(name: str, found: Mapping[str, Any]) -> list[Chart]:
    lengths = found["lengths"]
    charts = [_bars(_sides(lengths), _spans(lengths["from_words"]), name, "Lengths, in words")]
    if "labels" in found:
        shares = _sides(found["labels"])
        charts.append(_bars(shares, {key: _short(key) for key in _furthest(shares)}, name, "Labels"))
    return charts


def _sides(found: Mapping[str, Any]) -> Shares:
    return {side: found[side] for side in COLOUR if side in found}


def _spans(borders: Sequence[int]) -> dict[str, str]:
    """Number of a bin -> the words that are in it."""
    ends = [f"{first} to {after - 1}" for first, after in pairwise(borders)]
    return {str(first): text for first, text in zip(borders, [*ends, f"{borders[-1]} or more"], strict=True)}


def _short(label: str) -> str:
    label = " ".join(label.split())
    return label if len(label) <= NAME else f"{label[:NAME]}…"


def _furthest(shares: Shares) -> list[str]:
    """Labels in their order; where they are too many, those whose shares differ most."""
    apart = {key: abs(share - shares["evaluated"][key]) for key, share in shares["train"].items()}
    kept = set(sorted(apart, key=lambda key: -apart[key])[:MOST_BARS])
    return [key for key in apart if key in kept]


def _bars(shares: Shares, names: Mapping[str, str], of: str, title: str) -> Chart:
    """A group of bars for each of `names`, without groups at either end in which nobody has anything."""
    there = [number for number, key in enumerate(names) if any(found[key] for found in shares.values())]
    keys = list(names)[there[0] : there[-1] + 1] if there else list(names)
    titles = {"train": "training rows", "without_made": "those not made", "evaluated": of}
    thick = 0.8 / len(shares)
    with drawing():
        figure, (axes,) = canvas(0.9 + 0.2 * len(keys) * len(shares))
        for index, (side, found) in enumerate(shares.items()):
            places = [number + (index - (len(shares) - 1) / 2) * thick for number in range(len(keys))]
            widths = [found[key] for key in keys]
            axes.barh(places, widths, 0.9 * thick, color=COLOURS[COLOUR[side]], label=titles[side])
        axes.set_yticks(range(len(keys)), [names[key] for key in keys])
        axes.set_ylim(len(keys) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("share of the rows")
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        legend_below(figure, axes, columns=len(shares) if len(of) <= 12 else 1)
        words = [
            f"{names[key]}: "
            + ", ".join(f"{100 * found[key]:.1f} % of {titles[side]}" for side, found in shares.items())
            for key in keys
        ]
        left = len(shares["train"]) - len(names)
        more = f" {left} labels whose shares differ less are not shown." if left else ""
        return to_chart(figure, f"{title.split(',')[0].lower()}-{of}", title, f"{'; '.join(words)}.{more}")
