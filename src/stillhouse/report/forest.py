"""Rows of dots with their intervals: classes, groups and slices of the data, a colour a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .numbers import known, with_interval
from .svg import COLOURS, INK, Chart, canvas, drawing, legend_below, to_chart
from .table import CONTROL_TITLES, Results

MARKERS = {"teacher": "s", "student": "o", "hard_only": "^"}
TITLES = {"teacher": "teacher", "student": "student", "hard_only": CONTROL_TITLES["hard_only"]}
MOST = 12
"""Rows of a chart, the most telling ones; the table beside it has more."""
LONGEST = 32

Row = tuple[str, Mapping[str, Mapping[str, Any] | None]]
"""(name, model -> what was measured)"""


def forest(
    identity: str, title: str, rows: Sequence[Row], axis: str, zero: bool = False, level: float | None = None
) -> Chart | None:
    """One line a row, one dot a model.

    Args: zero: draw the line at 0, about which all is; level: draw a line there.
    """
    rows = [(name, {who: one for who, one in found.items() if _known(one)}) for name, found in rows]
    rows = [row for row in rows if row[1]]
    if not rows:
        return None
    shown = [who for who in TITLES if any(who in found for _, found in rows)]
    words = []
    with drawing():
        figure, (axes,) = canvas(0.95 + (0.3 + 0.09 * len(shown)) * len(rows))
        for place, (name, found) in enumerate(rows):
            for number, who in enumerate(shown):
                if who in found:
                    _dot(axes, place + 0.22 * (number - (len(shown) - 1) / 2), who, found[who])
            told = ", ".join(f"{TITLES[who]} {with_interval(one)}" for who, one in found.items())
            words.append(f"{name}: {told}")
        axes.set_yticks(range(len(rows)), [_cut(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=zero))
        if zero or level is not None:
            axes.axvline(
                level or 0.0, color=INK, alpha=0.7, linewidth=0.9, linestyle="-" if zero else (0, (2, 2))
            )
        axes.set_xlabel(axis)
        if len(shown) > 1:
            for who in shown:
                axes.plot([], [], MARKERS[who], color=COLOURS[who], label=TITLES[who])
            legend_below(figure, axes, columns=3)
        return to_chart(figure, identity, title, "; ".join(words) + ".")


def _known(measured: Mapping[str, Any] | None) -> bool:
    return measured is not None and known(measured.get("value"))


def _dot(axes: Axes, place: float, who: str, measured: Any) -> None:
    bounds = [measured[key] for key in ("low", "high") if known(measured.get(key))]
    if len(bounds) == 2:
        axes.plot(bounds, [place] * 2, color=COLOURS[who], linewidth=1.8)
    axes.plot([measured["value"]], [place], MARKERS[who], color=COLOURS[who], markersize=6)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def gap_chart(results: Results) -> Chart | None:
    """A metric inside a group less outside it: the widest gaps, those that came from the teacher first."""
    gaps = ((results.get("groups") or {}).get("eval") or {}).get("gaps") or []
    titles = {gap["title"] for gap in gaps}
    order = sorted(gaps, key=lambda gap: (not gap["alarm"], -abs(gap["models"]["student"]["value"] or 0.0)))
    rows: list[Row] = [
        (
            (f"{gap['group']}" if len(titles) == 1 else f"{gap['group']}: {gap['title']}")
            + (" (inherited)" if gap["alarm"] else ""),
            gap["models"],
        )
        for gap in order[:MOST]
    ]
    axis = f"{titles.pop()}, " if len(titles) == 1 else ""
    return forest("gaps", "Gaps between groups", rows, f"{axis}inside the group less outside it", zero=True)


def apart_chart(results: Results) -> Chart | None:
    """Agreement with the teacher by label, length, group and position, the lowest of each first."""
    found = [each for each in results.get("disagreement") or [] if known(each["agreement"]["value"])]
    if len(found) < 2:
        return None
    position = [each for each in found if each["by"] == "position"]
    others = sorted(
        (each for each in found if each["by"] != "position"), key=lambda each: each["agreement"]["value"]
    )
    rows: list[Row] = [
        (f"{each['by']} {each['value']}", {"student": each["agreement"]})
        for each in [*others[: MOST - min(len(position), MOST // 2)], *position][:MOST]
    ]
    whole = ((results["student"]["metrics"].get("eval") or {}).get("teacher_agreement") or {}).get("value")
    axis = "agreement with the teacher" + (" (dashed: over all)" if known(whole) else "")
    return forest("apart", "Where they part", rows, axis, level=whole if known(whole) else None)


def class_chart(results: Results) -> Chart | None:
    """F1 of each class; of many, those on which the student is furthest behind its teacher."""
    table = (results.get("classes") or {}).get("table") or []
    order = table
    if len(table) > MOST:
        order = sorted(table, key=_behind, reverse=True)[:MOST]
    rows: list[Row] = [
        (f"{row['label']} ({row['support']:,})", {who: one["f1"] for who, one in row["models"].items()})
        for row in order
    ]
    return forest("classes", "Class by class", rows, "F1 (rows of the class in brackets)")


def _behind(row: Mapping[str, Any]) -> float:
    """How far the student's F1 is below the teacher's."""
    theirs, mine = (
        ((row["models"].get(who) or {}).get("f1") or {}).get("value") for who in ("teacher", "student")
    )
    return -2.0 if theirs is None or mine is None else float(theirs - mine)


def pictures(results: Results) -> dict[str, Chart]:
    """Identity of a section -> its picture."""
    made = (gap_chart(results), apart_chart(results), class_chart(results))
    return {chart.identity: chart for chart in made if chart is not None}
