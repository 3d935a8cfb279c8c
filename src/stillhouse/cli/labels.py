"""Commands about what teachers and writers are asked: label part, ls, show, export, import."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RecipeError
from . import output, parts
from .output import Format

if TYPE_CHECKING:
    from ..asking import Ledger, Request
    from ..recipe import Api, Recipe

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
        place = one["place"] and f", of {one['place']}"
        print(f"── {one['purpose']} {one['row']} ({one['key'][:12]}{place})")
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
    asked = _asked(folder)
    with _ledger(folder, new=True) as ledger:
        ledger.plan(asked.requests)
        missing = unanswered(ledger, asked.requests)
    if not missing:
        print(f"nothing to ask: every {asked.what}{asked.next and f'. Then: {asked.next}'}")
        return
    files = export_batch(missing, out)
    if len(set(files.values())) > 1:
        print("\n".join(f"{path}: for {whom}" for path, whom in files.items()))
    then = f"stillhouse label import {folder} RESULTS{asked.next and f'; and then: {asked.next}'}"
    print(f"{', '.join(map(str, files))}: {len(missing):,} requests. Then: {then}")


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

    asked = _asked(folder)
    with _ledger(folder, new=True) as ledger:
        ledger.plan(asked.requests)
        print(take_answers(ledger, asked.index, answers, asked.api, asked.field))
        left = len(unanswered(ledger, asked.requests))
    if left:
        print(f"{left:,} requests have no answer yet")
    else:
        print(f"every request has its answer{asked.next and f'. Then: {asked.next}'}")


def _ledger(folder: Path, new: bool = False) -> "Ledger":
    from ..asking import Ledger, ledger_of

    path = ledger_of(folder, "ledger.sqlite")
    if not path.exists() and not new:
        raise RecipeError(f"{folder}: has no ledger; only a run with an API asks anybody.")
    return Ledger(path)


@dataclass(frozen=True)
class _Asked:
    """What APIs are asked in a run, as far as it has got."""

    requests: "list[Request]"
    index: "dict[str, Request]"
    """What answers in a file are found by -> the question."""
    what: str = "row has its answer"
    next: str = ""
    """What is done when all is there."""
    api: "Api | None" = None
    """Whose answers they are; None if it may be one of several."""
    field: str = "teacher.api"
    """Where the recipe names it."""


def _asked(folder: Path) -> _Asked:
    """Texts that APIs write, and once they are there and the rows are prepared, what their teachers are asked about the rows."""
    from ..files import read_json
    from ..pipeline import DONE, is_current
    from ..recipe import Recipe

    found = folder / "recipe.json"
    recipe = Recipe.model_validate(read_json(found)) if found.exists() else None
    writes = recipe is not None and (recipe.writing_api is not None or bool(recipe.data.apis))
    if recipe is not None and writes:
        from ..stages import STAGES

        if not is_current(STAGES[0], recipe, folder):
            return _texts(folder, recipe)
    if recipe is None or not (folder / "prepare" / DONE).exists():
        raise RecipeError(
            f"{folder}: its rows are not prepared yet; first: stillhouse run RECIPE --folder {folder} --until prepare, or where an "
            f"API writes, stillhouse plan RECIPE --folder {folder}, which asks nobody."
        )
    if not recipe.teacher.apis and not writes:
        raise RecipeError(
            f"{folder}: its teacher is a model on this machine; only a run with teacher.api asks anybody."
        )
    return _labels(folder, recipe)


def _texts(folder: Path, recipe: "Recipe") -> _Asked:
    from ..progress import watch_for
    from ..steps.unwritten import open_texts

    requests, left = open_texts(recipe, folder, watch_for())
    export = f"stillhouse label export {folder} again"
    if left:
        after = f"{export}, until nothing is left: other texts go on from these"
    else:
        after = f"stillhouse run RECIPE --folder {folder} --until prepare"
        after += f", and {export}: the teacher is asked about the rows" if recipe.teacher.apis else ""
    return _Asked(requests, {one.key: one for one in requests}, "text is there", after)


def _labels(folder: Path, recipe: "Recipe") -> _Asked:
    """What is asked of the teacher, or of each member of a panel that is behind an API, about the prepared rows."""
    from ..files import read_json
    from ..pipeline import DONE
    from ..steps.hearing import index_of, questions

    labels = read_json(folder / "prepare" / DONE)["result"]["labels"]
    asked = [
        questions(api, recipe.task, labels, folder / "prepare", field)
        for field, api in recipe.teacher.apis.items()
    ]
    requests = [one for each in asked for _, some in each.values() for one in some]
    if len(recipe.teacher.apis) != 1:
        return _Asked(requests, index_of(asked))
    ((field, api),) = recipe.teacher.apis.items()
    return _Asked(requests, index_of(asked), api=api, field=field)


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    """A question and its answer as JSON has it."""
    from dataclasses import asdict

    return {**one, "answer": None if one["answer"] is None else asdict(one["answer"])}
