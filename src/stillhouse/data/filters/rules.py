"""Reasons to drop a row that the row itself gives.

All of them are about its answer, or its text where that is all there is.  A row that nobody has answered yet passes; it is
judged when somebody has: a writer, or a teacher behind an API (see `steps.asking`).
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, RecipeError
from ...recipe.filter import Filter
from ...registry import load, require, source_of
from ..formats import Row, has_answer
from .language import language
from .refusals import declines
from .texts import answer_of, words

Rule = Callable[[Row], str | None]
"""A row -> why it is dropped, or None."""

RUN = 4
"""Words in a run that counts as repeated (Rae et al. 2021, arXiv:2112.11446, table A1: runs of 2 to 10)."""


def rules(wanted: Filter) -> Iterator[Rule]:
    """What `wanted` asks of each row by itself, if it has an answer.

    Raises: RecipeError or DataError if a file or a function that it names cannot be used.
    """
    for rule in _rules(wanted):
        yield lambda row, rule=rule: rule(row) if has_answer(row) else None  # type: ignore[misc]


def _rules(wanted: Filter) -> Iterator[Rule]:
    if wanted.min_words is not None or wanted.max_words is not None:
        yield lambda row: length_fault(answer_of(row), wanted.min_words, wanted.max_words)
    if wanted.languages is not None:
        known = frozenset[str](wanted.languages)
        yield lambda row: language_fault(answer_of(row), known)
    if wanted.max_repetition is not None:
        most = wanted.max_repetition
        yield lambda row: "repetition" if repetition(answer_of(row)) > most else None
    if wanted.refusals:
        yield lambda row: "refusal" if declines(answer_of(row)) else None
    if wanted.pattern is not None:
        found = re.compile(wanted.pattern)
        yield lambda row: None if found.search(answer_of(row)) else "format: no match of the pattern"
    if wanted.json_schema is not None:
        yield schema_rule(Path(wanted.json_schema))
    if wanted.checker is not None:
        yield checker_rule(wanted.checker)


def looked_up(wanted: Filter) -> list[str]:
    """Files beside the recipe that decide what `wanted` drops."""
    checker = None if wanted.checker is None else source_of(wanted.checker)
    return [str(path) for path in (wanted.json_schema, checker) if path is not None]


def length_fault(text: str, least: int | None, most: int | None) -> str | None:
    """Why `text` is too short or too long."""
    count = len(words(text))
    if least is not None and count < least:
        return f"shorter than {least} words"
    return f"longer than {most} words" if most is not None and count > most else None


def language_fault(text: str, known: frozenset[str]) -> str | None:
    """Which other language `text` surely is in."""
    found = language(text)
    return f"language {found}" if found is not None and found not in known else None


def repetition(text: str) -> float:
    """Share of the words of `text` that lie in runs of RUN words which came before in it; 0 for a short text.

    Source: Rae et al. 2021 (Gopher), arXiv:2112.11446, appendix A.1.1, by words instead of characters.
    """
    found = words(text)
    seen: set[tuple[str, ...]] = set()
    repeated = [False] * len(found)
    for at in range(len(found) - RUN + 1):
        run = tuple(found[at : at + RUN])
        if run in seen:
            repeated[at : at + RUN] = [True] * RUN
        seen.add(run)
    return sum(repeated) / len(found) if found else 0.0


def schema_rule(path: Path) -> Rule:
    """The answer must be a JSON document that fulfils the schema in `path`; nothing it refers to is fetched."""
    jsonschema = require("jsonschema", "data.filter.json_schema")
    from referencing import Registry

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except (OSError, ValueError, jsonschema.SchemaError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(
            f"data.filter.json_schema: {path} is no JSON Schema ({reason}); mend it."
        ) from error
    validator: Any = kind(schema, registry=Registry())

    def rule(row: Row) -> str | None:
        try:
            document = json.loads(answer_of(row))
        except (ValueError, RecursionError):
            return "format: not JSON"
        return None if validator.is_valid(document) else "format: not as the JSON Schema has it"

    return rule


def checker_rule(target: str) -> Rule:
    """The user's own function; what it raises is said with its row."""
    function = load(target)

    def rule(row: Row) -> str | None:
        try:
            said = function(dict(row))
        except Exception as error:  # somebody else's code
            raise DataError(f"{row['where']}: {target} raised {type(error).__name__}: {error}.") from error
        if isinstance(said, str):
            return f"checker: {said}"
        if not isinstance(said, bool):
            raise DataError(
                f"{row['where']}: {target} returned {type(said).__name__}; it must return True, False or a reason (text)."
            )
        return None if said else "checker"

    return rule
