"""Commands about what teachers are asked: label part, ls, show, export, import."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from . import output, parts
from .output import Format

if TYPE_CHECKING:
    from ..asking import Ledger, Request

app = typer.Typer(
    name="label",
    help="One part of many of a teacher's labels; what a teacher behind an API was asked, said, and cost.",
    no_args_is_help=True,
)
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder; the runs of a plan have one ledger.")]
Shown = Annotated[Format, typer.Option("--format")]


@app.command()
def ls(folder: Run, shown: Shown = "auto") -> None:
    """Requests and answers of RUN by purpose, with tokens and cost."""
    with _ledger(folder) as ledger:
        rows, attempts, spent = ledger.summary(), ledger.attempts(), ledger.spent()
    if shown == "json":
        output.as_json({"purposes": rows, "attempts": attempts, "dollars": spent})
        return
    columns = ["purpose", "requests", "answered", "truncated", "filtered", "refused", "open"]
    lines = [[str(row[name] or 0) for name in columns] for row in rows]
    tokens = [[f"{row[name] or 0:,}" for name in ("input_tokens", "output_tokens")] for row in rows]
    output.table(
        "", [*columns, "read", "written"], [[*line, *more] for line, more in zip(lines, tokens, strict=True)]
    )
    tried = ", ".join(f"{count:,} {outcome}" for outcome, count in list(attempts.items())[:6])
    print(f"\nattempts   {tried or 'none'}")
    print(f"cost       ${spent:,.4f}" if spent else "cost       none, or no price is known")


app.command(name="part")(parts.label)


@app.command()
def show(
    folder: Run,
    row: Annotated[
        str, typer.Argument(metavar="ROW", help="A row's id, or the beginning of a request's key.")
    ],
    shown: Shown = "auto",
) -> None:
    """One row's question and the teacher's answer, whole."""
    with _ledger(folder) as ledger:
        found = list(ledger.rows(row=row))
        some = [] if found else [one["row"] for one, _ in zip(ledger.rows(), range(3), strict=False)]
    if not found:
        raise RecipeError(
            f"{row!r}: nobody was asked about such a row; there are {', '.join(some) or 'none'}, …."
        )
    if shown == "json":
        output.as_json([_plain(one) for one in found])
        return
    for one in found:
        print(f"── {one['purpose']} {one['row']} ({one['key'][:12]})")
        for turn in one["body"].get("messages") or [{"role": "prompt", "content": one["body"].get("prompt")}]:
            print(f"{turn['role']}: {turn['content']}")
        answer = one["answer"]
        if answer is None:
            print("→ no answer yet")
            continue
        cost = "" if answer.cost is None else f", ${answer.cost:.6f}"
        why = f" ({answer.reason})" if answer.reason else ""
        print(
            f"→ {answer.status}{why}, {answer.input_tokens} + {answer.output_tokens} tokens{cost}\n{answer.text}"
        )


@app.command()
def export(
    folder: Run,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")] = Path("batch.jsonl"),
    answered: Annotated[
        bool, typer.Option("--answers", help="Write the answers instead: one JSON object a row.")
    ] = False,
) -> None:
    """Write what RUN has no answer to yet as a batch in OpenAI's format; `label import` takes the results."""
    from ..asking.files import export_batch, unanswered
    from ..files import write_jsonl

    if answered:
        with _ledger(folder) as ledger:
            count = write_jsonl(out, (_plain(one) for one in ledger.rows() if one["answer"] is not None))
        print(f"{out}: {count:,} answers")
        return
    asked = _questions(folder)
    with _ledger(folder, new=True) as ledger:
        requests = [one for each in asked for _, some in each.values() for one in some]
        ledger.plan(requests)
        missing = unanswered(ledger, requests)
    if not missing:
        print("nothing to ask: every row has its answer")
        return
    files = export_batch(missing, out)
    print(
        f"{', '.join(map(str, files))}: {len(missing):,} requests. Then: stillhouse label import {folder} RESULTS"
    )


@app.command(name="import")
def take(
    folder: Run,
    answers: Annotated[
        Path, typer.Argument(metavar="FILE", help="A batch's output, or past answers, as .jsonl.")
    ],
) -> None:
    """Take answers from FILE into RUN; the run does not ask for them any more."""
    from ..asking.files import unanswered
    from ..steps.hearing import take_answers

    asked = _questions(folder)
    with _ledger(folder, new=True) as ledger:
        print(take_answers(ledger, asked, answers))
        requests = [one for each in asked for _, some in each.values() for one in some]
        left = len(unanswered(ledger, requests))
    print(f"{left:,} requests have no answer yet" if left else "every request has its answer")


def _ledger(folder: Path, new: bool = False) -> "Ledger":
    from ..asking import Ledger, ledger_of

    path = ledger_of(folder, "ledger.sqlite")
    if not path.exists() and not new:
        raise RecipeError(f"{folder}: has no ledger; only a run with an API asks anybody.")
    return Ledger(path)


def _questions(folder: Path) -> "list[dict[str, tuple[list[dict[str, Any]], list[Request]]]]":
    """What the run in `folder` asks, of the teacher or of each member of a panel that is behind an API."""
    from ..files import read_json
    from ..pipeline import DONE
    from ..recipe import Recipe
    from ..steps.hearing import questions

    if not (folder / "recipe.json").exists() or not (folder / "prepare" / DONE).exists():
        raise RecipeError(
            f"{folder}: its rows are not prepared yet; first: stillhouse run RECIPE --folder {folder} --until prepare"
        )
    recipe = Recipe.model_validate(read_json(folder / "recipe.json"))
    if not recipe.teacher.apis:
        raise RecipeError(
            f"{folder}: its teacher is a model on this machine; only a run with teacher.api asks anybody."
        )
    labels = read_json(folder / "prepare" / DONE)["result"]["labels"]
    return [
        questions(api, recipe.task, labels, folder / "prepare", field)
        for field, api in recipe.teacher.apis.items()
    ]


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """A question and its answer as JSON has it."""
    from dataclasses import asdict

    return {**one, "answer": None if one["answer"] is None else asdict(one["answer"])}
