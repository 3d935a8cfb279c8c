"""What the commands print: tables for people, JSON for machines.  Results go to standard output."""

import json
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from ..report.numbers import duration, size

__all__ = ["Format", "as_json", "duration", "result", "size", "stages", "table"]

Format = Literal["auto", "json"]


def as_json(value: Any) -> None:
    """One JSON value."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table; all columns but the first are numbers.  Off a terminal it is as wide as it needs to be."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


def result(found: dict[str, Any], folder: Any) -> None:
    """What a finished run ends with: the verdict, the numbers, prediction against outcome, and where to look."""
    from ..report.paid import paid_in_words
    from ..report.table import result_table
    from ..report.verdict import verdict

    drawn = result_table(found)
    names = [row[0] for row in drawn.rows]
    print(f"\n{verdict(found)}\n")
    for group, rows in drawn.bodies():
        table(f"on {group}" if group else "what it costs to run", ["", *names], rows)
        print()
    stages(found["stages"])
    if found.get("economics"):
        print(f"\n{' '.join(paid_in_words(found['economics']))}")
    print(f"\nreport    {folder}/report.html\nstudent   {folder}/student\nresults   {folder}/results.json")


def stages(rows: dict[str, dict[str, Any]]) -> None:
    """Stage by stage: what it took, and what was predicted; and what passed outside of them."""
    from ..report.table import with_outside

    rows = with_outside(rows)
    lines = [
        [
            name,
            duration(row["seconds"]),
            duration(row.get("predicted_seconds")),
            size(row.get("peak_memory_bytes")),
        ]
        for name, row in rows.items()
    ]
    total = sum(row["seconds"] for row in rows.values())
    foreseen = sum(row.get("predicted_seconds") or 0.0 for row in rows.values())
    table(
        "",
        ["stage", "took", "predicted", "peak memory"],
        [*lines, ["all", duration(total), duration(foreseen), ""]],
    )
