"""The command about choosing a teacher."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..report.numbers import MISSING, count, number, with_interval
from . import output
from .runs import Changes, Folder, RecipePath, Shown
from .runs import _load as load


def teachers(
    recipe: RecipePath,
    candidates: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="Models as in teacher.model (pinned ones as SOURCE@sha256:HEX), or files.yaml with a teacher: section.",
        ),
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
    else:
        show(found, place)
    if found["recommended"] is None:
        raise typer.Exit(2)


def show(found: dict[str, Any], place: Path) -> None:
    """Print what `rank_teachers` found; `place` is where the runs are."""
    rows = found["candidates"]
    names = short_names([row["candidate"] for row in rows])
    fit = [row for row in rows if row["fits"]]
    for title, columns, line, some in (
        (f"by the student's {found['metric']}", LEARNED, learned, rows),
        ("the teacher itself", KNOWN, known, fit),
        ("labelling the whole training set once", SPENT, spent, fit),
        ("beside the student", FITTING, fitting, [row for row in rows if row.get("compatibility")]),
    ):
        if some:
            output.table(title, columns, [[names[row["candidate"]], *line(row)] for row in some])
            print()
    for row in rows:
        for note in (row.get("compatibility") or {}).get("notes", []):
            print(f"{names[row['candidate']]}: {note}")
        if not row["fits"]:
            print(f"{row['candidate']} does not fit: {row['why']}")
    print(f"\nrecommended  {found['recommended'] or 'none'}: {found['because']}")
    if found.get("note"):
        print(f"note         {found['note']}")
    of = f" of {found['of_steps']:,}" if found["of_steps"] else ""
    print(f"tried out    {found['steps']:,}{of} steps each; runs in {place}")


LEARNED = ["candidate", "student", "behind the first", "gain over labels"]
KNOWN = ["candidate", "quality", "parameters", "licence", "may train"]
SPENT = ["candidate", "a second", "takes", "price", "at most", "tried out in"]
FITTING = ["candidate", "tokenizer", "template", "end tokens"]
NAME = 18
"""Characters of a candidate's name in a table: all of them fit beside what they say in a terminal of 100 columns."""


def short_names(candidates: list[str]) -> dict[str, str]:
    """What each is called in the tables: the last part of its name, numbered where that says too little."""
    last = [one.partition("@sha256:")[0].rstrip("/").rpartition("/")[2] for one in candidates]
    ends = [one if len(one) <= NAME else f"{one[: NAME - 1]}…" for one in last]
    return {
        one: end if ends.count(end) == 1 else f"{end[: NAME - 4].rstrip('…')} ({number})"
        for number, (one, end) in enumerate(zip(candidates, ends, strict=True), 1)
    }


def learned(row: dict[str, Any]) -> list[str]:
    """LEARNED, but for the name."""
    if not row["fits"]:
        return ["does not fit", "", ""]
    return [with_interval(row.get(name)) for name in ("student", "behind", "gain")]


def known(row: dict[str, Any]) -> list[str]:
    """KNOWN, but for the name."""
    licence = row["licence"] or "not stated"
    return [with_interval(row["quality"]), count(row["parameters"]), licence, row["terms"]]


def spent(row: dict[str, Any]) -> list[str]:
    """SPENT, but for the name."""
    took = row["labelling"]
    return [
        f"{count(took['per_second'])} {took['unit']}" if took["per_second"] else MISSING,
        output.duration(took["seconds"]),
        _price(took, "cost"),
        _price(took, "at_most"),
        output.duration(row["seconds"]),
    ]


def fitting(row: dict[str, Any]) -> list[str]:
    """FITTING, but for the name."""
    fit = row["compatibility"]
    tokenizer = fit["tokenizer"] or MISSING
    return [
        f"{tokenizer}, by {fit['alignment']}" if fit["alignment"] else tokenizer,
        fit["template"] or MISSING,
        fit["end_tokens"] or MISSING,
    ]


def _price(took: dict[str, Any], which: str) -> str:
    """Dollars are marked; what a local model costs is in the currency of `report.prices`.  A panel may have both."""
    value = took[which]
    price = MISSING if value is None else f"{'$' if took['currency'] == 'dollars' else ''}{number(value)}"
    if took.get("asking") is None:
        return price
    return f"{price} + {_price({**took['asking'], 'currency': 'dollars'}, which)}"
