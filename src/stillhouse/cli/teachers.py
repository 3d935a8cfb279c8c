"""The command about choosing a teacher."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import output
from .runs import Changes, Folder, RecipePath, Shown
from .runs import _load as load


def teachers(
    recipe: RecipePath,
    candidates: Annotated[
        str,
        typer.Option(metavar="A,B,…", help="Models as in teacher.model; pinned ones as SOURCE@sha256:HEX."),
    ],
    changes: Changes = None,
    folder: Folder = None,
    shown: Shown = "auto",
) -> None:
    """Try out candidate teachers for RECIPE: what fits, what each knows and costs, and what a student learns from it."""
    from ..progress import watch_for

    loaded = load(recipe, changes)
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    from ..plans.select import rank_teachers

    named = [one.strip() for one in candidates.split(",") if one.strip()]
    place = folder or Path("runs") / f"{loaded.name}-teachers"
    found = rank_teachers(loaded, named, place, watch_for(shown))
    if shown == "json":
        output.as_json(found)
        return
    output.table(f"by the student's {found['metric']}", COLUMNS, [_line(row) for row in found["candidates"]])
    for row in found["candidates"]:
        if not row["fits"]:
            print(f"\n{row['candidate']} does not fit: {row['why']}")
    print(f"\nrecommended  {found['recommended'] or 'none'}: {found['because']}")
    if found.get("note"):
        print(f"note         {found['note']}")
    of = f" of {found['of_steps']:,}" if found["of_steps"] else ""
    print(f"tried out    {found['steps']:,}{of} steps each; runs in {place}")


COLUMNS = [
    "candidate",
    "student",
    "behind the first",
    "gain over labels",
    "teacher itself",
    "parameters",
    "licence",
    "may train",
    "took",
]


def _line(row: dict[str, Any]) -> list[str]:
    if not row["fits"]:
        return [row["candidate"], "does not fit", *[""] * (len(COLUMNS) - 2)]
    return [
        row["candidate"],
        _interval(row["student"]),
        _interval(row.get("behind")),
        _interval(row["gain"]),
        _interval(row["quality"]),
        f"{row['parameters'] / 1e6:.1f}M",
        row["licence"] or "not stated",
        row["terms"],
        output.duration(row["seconds"]),
    ]


def _interval(value: dict[str, Any] | None) -> str:
    if value is None or value.get("value") is None:
        return "–"
    return f"{value['value']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
