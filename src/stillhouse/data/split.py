"""Raw files -> the rows to learn from and the rows to be measured on.

No row is on both sides, in no spelling.  Which side a row is on, and the order of each side, follow from the seed and
the content of the rows, not from their order in the file; nothing draws from a random generator.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError, RecipeError
from ..files import hash_bytes
from ..recipe.data import Also, Data, DataSet
from ..recipe.filter import Filter
from ..registry import did_you_mean
from .content import content_key
from .contexts import context_of
from .detect import detect
from .filters import choose, sift
from .formats import Dropped, Row, canonical, plain, value_of, with_id
from .load import Raw, read_raw
from .questions import question
from .sentences import MAX_WORDS, MIN_WORDS, blocks, sentences

LONG_DOCUMENT = 20_000
"""Characters; a longer plain-text document is always cut into blocks."""


@dataclass(frozen=True)
class Prepared:
    """The sets of a run, each in its seeded order."""

    train: list[Row]
    eval: list[Row]
    unlabelled: list[Row]
    also: dict[str, list[Row]]
    """Further sets to be measured on, and `validation` where rows are set aside for choosing settings."""
    dropped: list[dict[str, Any]]
    """{"where", "reason", "set"} of each row left out, and the row itself if a filter dropped it."""
    counts: dict[str, dict[str, Any]]
    """Set -> format, read, added (pieces more than rows cut), held_out (moved to eval), kept, dropped {reason: rows},
    and overlap {other set: rows whose content is there too}.
    Always: read + added == kept + held_out + the sum of dropped."""
    written: frozenset[str] = frozenset()
    """Ids of the rows that a model wrote."""
    extra: list[Row] = field(default_factory=list)
    """Further rows to learn from."""


@dataclass
class _Set:
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
        self.dropped.append({**(row or {}), "where": where, "reason": reason, "set": self.name})

    def reasons(self) -> dict[str, int]:
        return dict(Counter(row["reason"] for row in self.dropped).most_common())

    def content(self) -> set[str]:
        return {self.keys[row["id"]] for row in self.rows}

    def group(self, row: Row) -> str:
        """What stays on one side: the row's group, or else all rows of the same content."""
        return f"group {row['group']}" if "group" in row else f"content {self.keys[row['id']]}"

    def counts(self) -> dict[str, Any]:
        return {
            "format": self.format, "read": self.read, "added": self.added, "kept": len(self.rows),
            "held_out": self.held_out, "dropped": self.reasons(), "overlap": self.overlap,
        }  # fmt: skip


def prepare(
    data: Data,
    also: list[Also],
    task: str,
    seed: int,
    paths: dict[str, Path],
    groups: Sequence[str] = (),
    teacher: str | None = None,
    answered: bool = True,
    context: str | None = None,
) -> Prepared:
    """Read, clean, split and order all sets of a recipe.

    answered: False if rows without a label or an answer are of use (see `canonical`).
    teacher: column of data.train that names the member of a panel that teaches a row.
    context: column of every set with what only the teacher reads of a row.
    paths: where "train", "eval" and "unlabelled" (those the recipe has) and each of `also`, by its name, lie.
    groups: columns by which the held-out rows will be measured.
    Raises: DataError if a file or row is wrong or no row of a set is left; RecipeError if settings don't fit.
    """
    if taken := sorted({"train", "eval", "unlabelled"} & {other.name for other in also}):
        raise RecipeError(
            f"evaluate.also: the name {taken[0]!r} is that of another set; choose a different one."
        )
    read = partial(_read, task=task, paths=paths, answered=answered, context=context)
    to_split = data.eval is None
    train = read(
        "train", "data.train", data.train,
        group=data.group, to_split=to_split, teacher=teacher, groups=groups if to_split else (),
    )  # fmt: skip
    tests = {} if data.eval is None else {"eval": read("eval", "data.eval", data.eval, groups=groups)}
    tests |= {other.name: read(other.name, "evaluate.also", other) for other in also}
    tests = _set_apart(train, tests, data, also, seed)
    _clean(train, data.filter, data.train.limit, tests, seed)
    _select(train, data.filter)
    learned = [train]
    if data.extra is not None:
        extra = read("extra", "data.extra", data.extra, answered=True)
        _clean(extra, data.filter, data.extra.limit, tests, seed, learned)
        learned.append(extra)
    if data.unlabelled is not None:
        more = _read("unlabelled", "data.unlabelled", data.unlabelled, task, paths, labelled=False)
        wanted = (
            data.filter if task == "classification" else None
        )  # a question is filtered once it has an answer
        _clean(more, wanted, data.unlabelled.limit, tests, seed, learned)
        learned.append(more)
    return _prepared([train, *tests.values(), *learned[1:]], tests)


def _set_apart(
    train: _Set, tests: dict[str, _Set], data: Data, also: Sequence[Also], seed: int
) -> dict[str, _Set]:
    """The sets to be measured on, in their seeded order: those read already, and those that rows of `train` are held out for."""
    _tell_apart_by_answers([train, *tests.values()])
    if data.eval is None:
        tests = {"eval": _hold_out(train, data.split, seed), **tests}
    if data.validation is not None:
        chosen_on = _hold_out(train, data.validation, seed, "validation")
        _drop_overlap(chosen_on, tests)
        tests = {**tests, "validation": chosen_on}
    limits = {"eval": data.eval.limit if data.eval else None, **{other.name: other.limit for other in also}}
    for name, test in tests.items():
        _take(test, seed, limits.get(name))
    return tests


def _clean(
    found: _Set,
    wanted: Filter | None,
    limit: int | None,
    tests: Mapping[str, _Set],
    seed: int,
    learned: Sequence[_Set] = (),
) -> None:
    """Keep of the rows to learn from, in their seeded order, those that nothing speaks against.

    Args: learned: what there is to learn from already; none of its rows is learned twice.
    """
    _drop_overlap(found, {**tests, **{one.name: one for one in learned}})
    _filter(found, wanted, tests, seed, before=[row for one in learned for row in one.rows])
    _take(found, seed, limit)


def _prepared(sets: Sequence[_Set], tests: Mapping[str, _Set]) -> Prepared:
    """What became of the sets.  Args: tests: those of them to be measured on."""
    rows = {one.name: one.rows for one in sets}
    return Prepared(
        train=rows["train"],
        eval=rows["eval"],
        unlabelled=rows.get("unlabelled", []),
        also={name: rows[name] for name in tests if name != "eval"},
        dropped=[row for one in sets for row in one.dropped],
        counts={one.name: one.counts() for one in sets},
        extra=rows.get("extra", []),
    )


def in_order(rows: Iterable[Row], seed: int, *what: str) -> list[Row]:
    """`rows` in an order that follows from the seed, `what` it is for, and their content alone."""
    return sorted(rows, key=lambda row: _draw(seed, *what, row["id"]))


def _draw(seed: int, *what: str) -> str:
    return hash_bytes("\x1f".join((str(seed), *what)).encode())


def _read(
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
) -> _Set:
    """A set as its file has it: filtered, canonical, cut, without duplicates.  `key` is its field of the recipe."""
    found = _Set(name, _asked_format(settings, task, key, labelled))
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
    _refuse_empty(found)
    return found


def read_rows(
    name: str, key: str, settings: DataSet, task: str, path: Path, answered: bool = True
) -> list[Row]:
    """One set, neither split nor compared with others, no row twice; labels, and answers unless `answered`, are not needed."""
    return _read(name, key, settings, task, {name: path}, answered, labelled=task != "classification").rows


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
    found: _Set, where: Mapping[str, str | float | bool], raws: Iterable[Raw], key: str
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


def _drop_duplicates(found: _Set) -> None:
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


def _cut(found: _Set, cut: Callable[[str], list[str]], group_by_document: bool = False) -> None:
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


def _refuse_empty(found: _Set) -> None:
    if not found.rows:
        why = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons().items())
        raise DataError(
            f"{found.name}: no row is left of {found.read + found.added:,} ({why}); give it other rows."
        )


def _tell_apart_by_answers(sets: list[_Set]) -> None:
    """Where all rows of train answer one prompt, the answers are what tells rows apart."""
    train = sets[0]
    if train.format not in ("text", "labelled") and len(train.rows) > 1 and len(train.content()) == 1:
        for one in sets:
            one.keys = {row["id"]: content_key(row, answers=True) for row in one.rows}


def _hold_out(train: _Set, split: float, seed: int, name: str = "eval") -> _Set:
    """Take groups from `train`, in the seeded order, until the share or number of rows asked for is reached."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in train.rows:
        groups[train.group(row)].append(row)
    wanted = split if isinstance(split, int) else max(1, round(split * len(train.rows)))
    held: list[Row] = []
    for group in sorted(groups, key=lambda group: _draw(seed, "split", group))[
        :-1
    ]:  # the last one is for training
        if len(held) >= wanted:
            break
        held += groups[group]
    if not held or (isinstance(split, int) and len(held) < wanted):
        raise DataError(
            f"data.{'split' if name == 'eval' else name}: {split} of {len(train.rows):,} rows in {len(groups):,} groups (of equal content, or equal "
            "data.group) leaves nothing to train on or to measure; lower it, add rows, or name data.eval."
        )
    ids = {row["id"] for row in held}
    train.rows = [row for row in train.rows if row["id"] not in ids]
    train.held_out += len(held)
    return _Set(name, train.format, held, {row["id"]: train.keys[row["id"]] for row in held}, read=len(held))


def _drop_overlap(found: _Set, others: Mapping[str, _Set]) -> None:
    """Drop the rows of `found` whose content is in another set."""
    contents = {name: other.content() for name, other in others.items()}
    kept: list[Row] = []
    found.overlap = dict.fromkeys(others, 0)
    for row in found.rows:
        hits = [name for name, content in contents.items() if found.keys[row["id"]] in content]
        for name in hits:
            found.overlap[name] += 1
        if hits:
            found.drop(row["where"], f"also in {hits[0]}")
        else:
            kept.append(row)
    found.rows = kept
    _refuse_empty(found)


def _filter(
    found: _Set,
    wanted: Filter | None,
    tests: Mapping[str, _Set],
    seed: int,
    before: Sequence[Row] = (),
) -> None:
    """Drop what a filter has something against; of near duplicates one in `before`, or else the first in the seeded order,
    stays."""
    if wanted is not None:
        found.rows = in_order(found.rows, seed, "order", found.name)
        _judged(found, sift(found.rows, wanted, {name: test.rows for name, test in tests.items()}, before))


def _select(found: _Set, wanted: Filter | None) -> None:
    """Keep the rows that stand for all, if some are asked for."""
    if wanted is not None and wanted.select is not None:
        _judged(found, choose(found.rows, wanted.select))


def _judged(found: _Set, verdicts: list[str | None]) -> None:
    for row, verdict in zip(found.rows, verdicts, strict=True):
        if verdict is not None:
            found.drop(row["where"], verdict, row)
    found.rows = [row for row, verdict in zip(found.rows, verdicts, strict=True) if verdict is None]
    _refuse_empty(found)


def _take(found: _Set, seed: int, limit: int | None) -> None:
    """Put the rows in their seeded order, and keep the first `limit` of them."""
    rows = in_order(found.rows, seed, "order", found.name)
    found.rows = rows[:limit]
    for row in rows[len(found.rows) :]:
        found.drop(row["where"], "limit")
