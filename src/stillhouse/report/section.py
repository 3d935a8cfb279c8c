"""A part of the page: a heading, sentences, and a small table of strings."""

from dataclasses import dataclass
from typing import Any

from .numbers import MISSING, number, with_interval

MOST = 24
"""Rows of a table, the most telling first."""
NAMES = ("teacher", "student", "hard_only")
WHO = ["teacher", "student", "hard targets only"]


@dataclass(frozen=True)
class Section:
    """A heading, what is said under it, and a table."""

    title: str
    says: list[str]
    columns: list[str]
    rows: list[list[str]]
    picture: str = ""
    """Identity of the chart that shows the same, if there is one (`forest.pictures`)."""


def three(models: dict[str, Any]) -> list[str]:
    """What was measured of teacher, student and control."""
    return [with_interval(models.get(name)) for name in NAMES]


def better(gap: dict[str, Any] | None) -> str:
    """What may be said of a difference."""
    if gap is None or gap["value"] is None:
        return MISSING
    word = {True: "better", False: "worse", None: "not told apart"}[gap["better"]]
    p = gap["p"] if gap.get("p_holm") is None else gap["p_holm"]
    return f"{word} (p = {number(p, 3)})"
