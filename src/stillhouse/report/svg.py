"""matplotlib figures as inline SVG that takes its colours, its type and its dark mode from the page around it.

A chart is drawn in stand-in colours; each is then replaced by `currentColor` or by a CSS variable of the page, with the
stand-in as the fallback.  Ids get the chart's own prefix, so that two charts in one page do not clash.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1a1c1e"
COLOURS = {
    "teacher": "#4a5f95", "student": "#bd5a1c", "hard_only": "#3c7f71", "initial": "#85888d", "muted": "#85888e",
}  # fmt: skip
"""Stand-in colours by role; the page's variable is --<role>."""

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "stillhouse", "font.family": "DejaVu Sans", "font.size": 11.0,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 3.0,
    "ytick.major.size": 3.0, "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "axes.titlesize": 11.0, "axes.labelsize": 11.0,
    "legend.frameon": False, "legend.fontsize": 11.0, "legend.handlelength": 1.4, "legend.columnspacing": 1.2,
    "text.parse_math": False, "axes.unicode_minus": True, "lines.solid_capstyle": "round", "path.simplify": False,
}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    """An inline SVG with its title and its content in words."""

    identity: str
    title: str
    description: str
    svg: str


@contextmanager
def drawing() -> Iterator[None]:
    """Draw a chart in here: the style is set on entry and the user's own is back on exit."""
    with matplotlib.rc_context(_STYLE):
        yield


def canvas(height: float, rows: int = 1, width: float = 5.4) -> tuple[Figure, list[Axes]]:
    """A figure (inches) outside pyplot's global state, with `rows` axes one above the other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, list(figure.subplots(rows, 1, squeeze=False)[:, 0])


def legend_below(figure: Figure, *axes: Axes, columns: int = 2) -> None:
    """The legend of `axes` under the whole figure, where it covers no data; what several of them show is named once."""
    found: dict[str, Any] = {}
    for one in axes:
        for handle, title in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(title, handle)
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns)


def to_chart(figure: Figure, identity: str, title: str, description: str) -> Chart:
    """Render `figure`; call it inside `drawing()`.  The same figure gives the same bytes."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    body = _body(buffer.getvalue())
    view_box = re.search(r'viewBox="([^"]+)"', buffer.getvalue())
    width, height = (view_box.group(1) if view_box else "0 0 389 250").split()[2:]
    opening = (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(f"{title}. {description}")}" '
        'stroke-linejoin="round" preserveAspectRatio="xMidYMid meet">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )
    svg = opening + _own_ids(_themed(body), identity) + "</svg>"
    return Chart(identity, title, description, svg)


def _body(document: str) -> str:
    """What stands inside <svg>, without metadata and without the style sheet that would leak into the page."""
    inside = document[document.index(">", document.index("<svg")) + 1 : document.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", inside, flags=re.DOTALL)
    inside = re.sub(r"<!--.*?-->", "", inside, flags=re.DOTALL)
    return re.sub(r">\s*\n\s*<", ">\n<", inside).replace("xlink:href=", "href=")


def _themed(body: str) -> str:
    """Stand-in colours -> currentColor and CSS variables; matplotlib's font -> the page's."""
    body = body.replace(INK, "currentColor")
    for role, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{role.replace('_', '-')}, {colour})")
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    return re.sub(r'\b(?:d|x|y|transform)="[^"]*"', lambda found: _shorter(found.group()), body)


def _shorter(attribute: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute)


def _own_ids(body: str, identity: str) -> str:
    """Every id, and every reference to one, with the chart's prefix."""
    body = re.sub(r'\bid="([^"]+)"', rf'id="{identity}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{identity}-\1"', body)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", body)
