"""One set of rows as its file has it: those asked for, canonical, cut into pieces, no row twice; and what became of the others."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, RecipeError
from ..recipe.data import DataSet
from ..registry import did_you_mean
from .content import content_key, exact_key
from .contexts import context_of
from .detect import detect
from .filters.texts import answer_of
from .formats import Dropped, Row, canonical, has_answer, plain, value_of, with_id
from .load import Raw, read_raw
from .questions import question
from .sentences import MAX_WORDS, MIN_WORDS, blocks, sentences

LONG_DOCUMENT = 20_000
"""Characters; a longer plain-text document is always cut into blocks."""


@dataclass
class RowSet:
    """A set on its way, and what became of the rows that are no longer in it."""

    name: str
    format: str = ""
    rows: list[Row] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)  # row id -> content_key
    dropped: list[dict[str, Any]] = field(default_factory=list)
    overlap: dict[str, int] = field(default_factory=dict)
    read: int = 0
    added: int = 0
    held_out: int = 0

    def drop(self, where: str, reason: str, row: Row | None = None) -> None:
        """Remember a row that is left out, with what is in it if somebody may want to look at that."""
        self.dropped.append({**(row or {}), "where": where, "reason": reason, "set": self.name})

    def reasons(self) -> dict[str, int]:
        """Reason -> rows left out for it."""
        return dict(Counter(row["reason"] for row in self.dropped).most_common())

    def content(self) -> set[str]:
        """What its rows say, in whatever spelling."""
        return {self.keys[row["id"]] for row in self.rows}

    def group(self, row: Row) -> str:
        """What stays on one side: the row's group, or else all rows of the same content."""
        return f"group {row['group']}" if "group" in row else f"content {self.keys[row['id']]}"

    def counts(self) -> dict[str, Any]:
        """As `Prepared.counts` has them."""
        return {
            "format": self.format, "read": self.read, "added": self.added, "kept": len(self.rows),
            "held_out": self.held_out, "dropped": self.reasons(), "overlap": self.overlap,
        }  # fmt: skip


def read_set(
    name: str,
    key: str,
    settings: DataSet,
    task: str,
    paths: Mapping[str, Path],
    answered: bool = True,
    labelled: bool = True,
    group: str | None = None,
    teacher: str | None = None,
    to_split: bool = False,
    groups: Sequence[str] = (),
    context: str | None = None,
) -> RowSet:
    """A set as its file has it: filtered, canonical, cut, without duplicates.  `key` is its field of the recipe."""
    found = RowSet(name, _asked_format(settings, task, key, labelled))
    columns = {str(ours): theirs for ours, theirs in settings.columns.items()}
    columns |= {ours: theirs for ours, theirs in {"group": group, "teacher": teacher}.items() if theirs}
    for raw in _wanted(found, settings.where, read_raw(paths[name]), key):
        if task != "classification" and not labelled:
            found.format = "prompts"
            row = question(raw, columns, key, task)
        else:
            found.format = found.format or detect(raw.fields, columns, task, raw.where, key, answered)
            row = canonical(raw, found.format, columns, labelled, groups, answered)
            if context is not None and not isinstance(row, Dropped):
                row["context"] = context_of(raw, found.format, context)
        if isinstance(row, Dropped):
            found.drop(row.where, row.reason)
        else:
            found.rows.append(row)
    _drop_duplicates(found)
    if settings.sentences:
        if found.format not in ("text", "labelled") or any("pair" in row for row in found.rows):
            raise RecipeError(
                f"{key}.sentences: only rows of a single text can be cut, not those of {paths[name].name}."
            )
        _cut(found, sentences, group_by_document=True)
    elif found.format == "text":
        alone = to_split and len({found.group(row) for row in found.rows}) < 2
        _cut(
            found,
            lambda text: blocks(text) if alone or len(text) > LONG_DOCUMENT else [text],
            group_by_document=not alone,
        )
    refuse_empty(found)
    return found


def read_rows(
    name: str, key: str, settings: DataSet, task: str, path: Path, answered: bool = True
) -> list[Row]:
    """One set, neither split nor compared with others, no row twice; labels, and answers unless `answered`, are not needed."""
    return read_set(name, key, settings, task, {name: path}, answered, labelled=task != "classification").rows


def standing_in(path: Path, rows: Iterable[Row], task: str) -> list[Row]:
    """For each row of a file that one of `rows` which is the same letter for letter, if there is one; in the file's order.

    Labels don't count, nor does an answer that the file does not have or that a model has given since.
    """
    listed = read_rows("of", "data.generate.of", DataSet(source=str(path)), task, path, answered=False)
    whole: dict[str, Row] = {}
    asking: dict[str, Row] = {}
    answered_since: dict[str, Row] = {}
    for row in rows:
        whole.setdefault(exact_key(row, answers=True), row)
        asking.setdefault(exact_key(row), row)
        if row.get("written") or not (has_answer(row) and answer_of(row).strip()):
            answered_since.setdefault(exact_key(row), row)
    same = (
        whole.get(exact_key(row, answers=True)) or answered_since.get(exact_key(row))
        if has_answer(row)
        else asking.get(exact_key(row))
        for row in listed
    )
    return list({row["id"]: row for row in same if row is not None}.values())


def _asked_format(settings: DataSet, task: str, key: str, labelled: bool) -> str:
    """The format that the recipe names, or "" if it is to be detected."""
    if settings.format == "auto":
        return ""
    if task == "classification" and settings.format == "text" and not labelled:
        return "labelled"
    if (task == "classification") != (settings.format == "labelled"):
        raise RecipeError(f"{key}.format: {settings.format} does not fit task: {task}; set it to auto.")
    return settings.format


def _wanted(
    found: RowSet, where: Mapping[str, str | float | bool], raws: Iterable[Raw], key: str
) -> Iterator[Raw]:
    """The rows whose columns have the values asked for; the others are dropped.

    Raises: DataError at the end if there was none, with values that there are.
    """
    others: dict[str, set[str]] = {column: set() for column in where}
    for raw in raws:
        found.read += 1
        for column, wanted in where.items():
            value = value_of(raw, column, "where")
            if value != wanted and _spelt(value) != _spelt(wanted):
                found.drop(raw.where, "where")
                if len(others[column]) < 20:
                    others[column].add(_spelt(value))
                break
        else:
            yield raw
    if where and found.read == found.reasons().get("where", 0):
        column = max(others, key=lambda name: len(others[name]))
        near = did_you_mean(_spelt(where[column]), others[column])
        raise DataError(f"{key}.where: none of {found.read:,} rows has {column}: {where[column]}.{near}")


def _spelt(value: Any) -> str:
    """A value as a CSV file may spell it: 1.0 is "1"; for booleans see YAML's and Python's spelling as one."""
    return str(value).lower() if str(value) in ("True", "False") else plain(value)


def _drop_duplicates(found: RowSet) -> None:
    """Keep one of equal rows, and of rows that give one text several labels the first."""
    kept: dict[str, Row] = {}
    labels: dict[str, str] = {}
    found.keys = {}
    for row in found.rows:
        if twin := kept.get(row["id"]):
            found.drop(row["where"], "duplicate")
            if "group" in row:  # the same group whichever of the two comes first
                twin["group"] = min(twin.get("group", row["group"]), row["group"])
            continue
        key = content_key(row)
        if "label" in row and labels.setdefault(key, row["label"]) != row["label"]:
            found.drop(row["where"], "same text, other label")
        else:
            kept[row["id"]], found.keys[row["id"]] = row, key
    found.rows = list(kept.values())


def _cut(found: RowSet, cut: Callable[[str], list[str]], group_by_document: bool = False) -> None:
    """Each text in its pieces, "reviews.csv:17#2" being the second of line 17."""
    rows: list[Row] = []
    for row in found.rows:
        pieces = cut(row["text"])
        if pieces == [row["text"]]:  # a document of its own on whichever side it falls
            rows.append(row)
            continue
        if not pieces:
            found.drop(row["where"], f"no sentence of {MIN_WORDS} to {MAX_WORDS} words")
            continue
        found.added += len(pieces) - 1
        group: Row = {"group": row.get("group", found.keys[row["id"]])} if group_by_document else {}
        for number, piece in enumerate(pieces, 1):
            rows.append(with_id({**row, **group, "text": piece, "where": f"{row['where']}#{number}"}))
    found.rows = rows
    _drop_duplicates(found)


def refuse_empty(found: RowSet) -> None:
    """Raises: DataError, with what became of the rows, if none is left."""
    if not found.rows:
        why = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons().items())
        raise DataError(
            f"{found.name}: no row is left of {found.read + found.added:,} ({why}); give it other rows."
        )
