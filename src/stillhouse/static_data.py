"""What can be said of a recipe's data without loading a model: sources, columns, what is read beside them, tokenizers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from . import sources
from .asking.checks import api_checks
from .data.contexts import context_of
from .data.detect import detect
from .data.filters.rules import rules
from .data.formats import Dropped, Row, canonical, has_answer, value_of
from .data.load import Raw, read_raw
from .data.questions import question
from .data.templates import (
    check_folder,
    judge_prompt,
    prompt_file,
    prompt_said,
    refuse_single,
)
from .errors import DataError, RecipeError
from .models.described import json_in
from .recipe import (
    DataSet,
    Recipe,
    ZeroShot,
    crossing_fault,
)
from .recipe.generate import Further
from .sources.terms import of_provider, refuse_disallowed

COVERED = "evaluate.coverage."
"""Begins the name of a set that nobody is measured on."""
ROWS_READ = 20
"""Of each local data set: enough to know its columns."""


def model_said(field: str, model: str | None, pins: Any) -> list[str]:
    """Look at the model that `field` names, if it names one.  Args: pins: has its sha256 and revision."""
    if model is None:
        return []
    said = sources.check(model, sha256=pins.sha256, revision=pins.revision, kind="model")
    return [f"{field}: {note}" for note in said]


def check_sets(recipe: Recipe) -> Iterator[str]:
    """Whether the data sets are there, and their first rows can be used."""
    named: dict[str, DataSet | None] = {
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "data.extra": recipe.data.extra,
        "data.unlabelled": recipe.data.unlabelled,
    }
    named |= {f"evaluate.also.{also.name}": also for also in recipe.other_domains}
    named |= {f"{COVERED}{one.name}": one for one in recipe.evaluate.coverage}
    for name, one in named.items():
        if one is not None:
            group = recipe.data.group if name == "data.train" else None
            yield from (f"{name}: {note}" for note in _data(name, one, recipe, group))
    if recipe.task != "classification" and recipe.evaluate.also is None and not recipe.other_domains:
        yield "evaluate.also: no other domain will be measured than that of the rows; name a data set of another one there"


def _data(name: str, one: DataSet, recipe: Recipe, group: str | None) -> list[str]:
    """Look at a source; if it lies here, read its first rows."""
    notes = sources.check(one.source, sha256=one.sha256, revision=one.revision, kind="data")
    path = Path(one.source)
    if not path.exists():
        return notes
    first = list(islice(read_raw(path), ROWS_READ))
    if not first:
        raise DataError(f"{path}: holds no rows; name another file.")
    columns = {str(ours): theirs for ours, theirs in one.columns.items()} | (
        {"group": group} if group else {}
    )
    for column in one.where:
        value_of(first[0], column, "where")
    if name == "data.unlabelled" and recipe.task != "classification":
        asked = [
            row for raw in first if not isinstance(row := question(raw, columns, name, recipe.task), Dropped)
        ]
        return [*notes, f"prompts; {len(asked)} of the first {len(first)} can be used"]
    if name == "data.extra" and recipe.task in ("causal_lm", "seq2seq") and recipe.teacher.takes_bare_rows:
        _refuse_bare(path, one.format, first, columns, recipe.task)
    answered = name == "data.extra" or not (recipe.teacher.takes_bare_rows or name.startswith(COVERED))
    form = (
        one.format
        if one.format != "auto"
        else detect(first[0].fields, columns, recipe.task, first[0].where, name, answered)
    )
    labelled = name != "data.unlabelled" and not name.startswith(COVERED)
    if (passages := recipe.teacher.context_column) is not None and not name.startswith(COVERED):
        for raw in first:
            context_of(raw, form, passages)
    made = [canonical(raw, form, columns, labelled, answered=answered) for raw in first]
    if any(not isinstance(row, Dropped) and "pair" in row for row in made):
        refuse_single(_asked(recipe))
    return [*notes, f"{form} rows; {_seen(made, len(first) < ROWS_READ)}"]


def _refuse_bare(path: Path, form: str, first: Sequence[Raw], columns: dict[str, str], task: str) -> None:
    """Raises: DataError if none of the `first` further rows has a target, which these need though somebody writes another one.  Of a longer
    file some later ones may have."""
    if form == "auto":
        form = detect(first[0].fields, columns, task, first[0].where, "data.extra", answered=False)
    made = [canonical(raw, form, columns, answered=False) for raw in first]
    asking = [row for row in made if not isinstance(row, Dropped)]
    named = columns.get("completion", "completion")
    empty = len(first) == ROWS_READ and any(named in raw.fields for raw in first)
    if asking and not any(map(has_answer, asking)) and not empty:
        raise DataError(
            f"{path}: rows beside data.train must have targets, which the teacher's answers replace, and these have none; give them "
            "targets, or put the rows into data.train."
        )


def _asked(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(where it is from, what it asks) of the recipe's own ways of asking for a label."""
    for field, one in recipe.teacher.asked.items():
        if isinstance(one, ZeroShot):
            yield from ((path, Path(path).read_text(encoding="utf-8")) for path in one.prompts)
        elif (said := prompt_said(one.prompt, "label_pair", f"{field}.prompt")) is not None:
            yield f"{field}.prompt", said


def _seen(made: Sequence[Row | Dropped], whole: bool) -> str:
    """What the first rows of a source are, in a few words; all of them, if that is the `whole`."""
    usable = [row for row in made if not isinstance(row, Dropped)]
    told = [
        f"{'all' if whole else 'only the first'} {len(made)} were looked at, and {len(usable)} can be used"
    ]
    if left := [row for row in made if isinstance(row, Dropped)]:
        told.append(f"not {left[0].where}: {left[0].reason}")
    if labels := Counter(str(row["label"]) for row in usable if row.get("label") is not None):
        shown = [f"{label} ({count})" for label, count in sorted(labels.items())]
        told.append(f"labels {', '.join(shown[:8])}{', …' if len(shown) > 8 else ''}")
    if reasons := sum("rationale" in row for row in usable):
        told.append(f"{reasons} with a rationale")
    return "; ".join(told)


def check_beside(recipe: Recipe) -> list[str]:
    """The writers' and the judge's models and prompts, and the files and functions that a filter names."""
    writer, judge, notes = recipe.data.writer, recipe.data.judge, []
    for name, api in recipe.data.apis.items():
        terms = of_provider(str(api.base_url))
        refuse_disallowed([terms], recipe.teacher.terms_accepted)
        notes += [*api_checks(api, name), f"{name.removesuffix('.api')}: {terms.sentence()}"]
    if writer is not None:
        notes += model_said("data.writer", writer.model, writer)
        for one in writer.others:
            notes += model_said("data.writer.others", one.model, one)
    if judge is not None:
        notes += model_said("data.judge", judge.model, judge)
    if judge is not None and judge.api is not None:
        judge_prompt(judge.prompt)
    elif judge is not None:
        prompt_file(judge.prompt, "judge", "data.judge.prompt")
    if writer is not None and writer.prompts is not None:
        check_folder(Path(writer.prompts))
    for wanted in recipe.data.generate:
        if isinstance(wanted, Further) and wanted.of is not None and not Path(wanted.of).is_file():
            raise RecipeError(f"data.generate: of: {wanted.of} is not there; name a file of rows.")
    if recipe.data.filter is not None:
        count = len(list(rules(recipe.data.filter)))
        notes.append(f"data.filter: {count} rules that look at one row can be applied")
    return notes


def check_tokenizers(recipe: Recipe) -> list[str]:
    """Compare two local tokenizers by their pieces."""
    teacher, student = Path(recipe.teacher.model or ""), Path(recipe.student.model or "")
    files = [folder / "tokenizer.json" for folder in (teacher, student)]
    alone = recipe.student.model is None or recipe.teacher.zero_shot is not None
    if alone or not all(file.is_file() for file in files):
        return []
    one, other = (json_in(file).get("model", {}).get("vocab") for file in files)
    if one != other:
        fault = crossing_fault(recipe.task, recipe.terms, recipe.label.online, recipe.rollouts)
        if fault is not None:
            raise RecipeError(fault)
        return ["tokenizers: differ; the teacher reads each row in its own"]
    return ["tokenizers: the same"]
