"""Raw files -> the rows to learn from and the rows to be measured on.

No row is on both sides, in no spelling.  Which side a row is on, and the order of each side, follow from the seed and
the content of the rows, not from their order in the file; nothing draws from a random generator.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from ..errors import DataError, RecipeError
from ..files import hash_bytes
from ..recipe.data import Also, Data
from ..recipe.filter import Filter
from .content import content_key
from .filters import NEAR_DUPLICATE, choose, sift
from .formats import Row
from .sets import RowSet, read_set, refuse_empty


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
    covered: dict[str, list[Row]] = field(default_factory=dict)
    """Sets that training rows are compared with, and that no model reads."""
    documents: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """Task of the harness -> texts of its documents, which no row to learn from may give away."""

    @property
    def near_duplicates(self) -> list[Row]:
        """Rows to learn from beside `train` that are left out for one that says nearly the same.

        Which of the two stays changes with the rows that come later, as those of rounds do.
        """
        some = [row for row in self.dropped if row["reason"] == NEAR_DUPLICATE and row["set"] != "train"]
        return [cast(Row, {key: row[key] for key in row if key not in ("reason", "set")}) for row in some]


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
    documents: Mapping[str, Sequence[Row]] | None = None,
) -> Prepared:
    """Read, clean, split and order all sets of a recipe.

    answered: False if rows without a label or an answer are of use (see `canonical`).
    teacher: column of data.train that names the member of a panel that teaches a row.
    context: column of every set with what only the teacher reads of a row.
    documents: see `Prepared`; `data.filter` looks for them.
    paths: where "train", "eval" and "unlabelled" (those the recipe has) and each of `also`, by its name, lie.
    groups: columns by which the held-out rows will be measured.
    Raises: DataError if a file or row is wrong or no row of a set is left; RecipeError if settings don't fit.
    """
    if taken := sorted({"train", "eval", "unlabelled"} & {other.name for other in also}):
        raise RecipeError(
            f"evaluate.also: the name {taken[0]!r} is that of another set; choose a different one."
        )
    read = partial(read_set, task=task, paths=paths, answered=answered, context=context)
    to_split = data.eval is None
    train = read(
        "train", "data.train", data.train,
        group=data.group, to_split=to_split, teacher=teacher, groups=groups if to_split else (),
    )  # fmt: skip
    tests = {} if data.eval is None else {"eval": read("eval", "data.eval", data.eval, groups=groups)}
    tests |= {other.name: read(other.name, "evaluate.also", other) for other in also}
    tests = _set_apart(train, tests, data, also, seed)
    documents = documents or {}
    clean = partial(_clean, tests=tests, seed=seed, documents=documents)
    clean(train, data.filter, data.train.limit)
    _select(train, data.filter)
    learned = [train]
    if data.extra is not None:
        extra = read("extra", "data.extra", data.extra, answered=True)
        clean(extra, data.filter, data.extra.limit, learned=learned)
        learned.append(extra)
    if data.unlabelled is not None:
        more = read_set("unlabelled", "data.unlabelled", data.unlabelled, task, paths, labelled=False)
        wanted = (
            data.filter if task == "classification" else None
        )  # a question is filtered once it has an answer
        clean(more, wanted, data.unlabelled.limit, learned=learned)
        learned.append(more)
    return replace(_prepared([train, *tests.values(), *learned[1:]], tests), documents=documents)


def _set_apart(
    train: RowSet, tests: dict[str, RowSet], data: Data, also: Sequence[Also], seed: int
) -> dict[str, RowSet]:
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
    found: RowSet,
    wanted: Filter | None,
    limit: int | None,
    tests: Mapping[str, RowSet],
    seed: int,
    documents: Mapping[str, Sequence[Row]],
    learned: Sequence[RowSet] = (),
) -> None:
    """Keep of the rows to learn from, in their seeded order, those that nothing speaks against.

    Args: learned: what there is to learn from already; none of its rows is learned twice.
    """
    _drop_overlap(found, {**tests, **{one.name: one for one in learned}})
    _filter(found, wanted, tests, seed, documents, before=[row for one in learned for row in one.rows])
    _take(found, seed, limit)


def _prepared(sets: Sequence[RowSet], tests: Mapping[str, RowSet]) -> Prepared:
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


def _tell_apart_by_answers(sets: list[RowSet]) -> None:
    """Where all rows of train answer one prompt, the answers are what tells rows apart."""
    train = sets[0]
    if train.format not in ("text", "labelled") and len(train.rows) > 1 and len(train.content()) == 1:
        for one in sets:
            one.keys = {row["id"]: content_key(row, answers=True) for row in one.rows}


def _hold_out(train: RowSet, split: float, seed: int, name: str = "eval") -> RowSet:
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
    return RowSet(
        name, train.format, held, {row["id"]: train.keys[row["id"]] for row in held}, read=len(held)
    )


def _drop_overlap(found: RowSet, others: Mapping[str, RowSet]) -> None:
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
    refuse_empty(found)


def _filter(
    found: RowSet,
    wanted: Filter | None,
    tests: Mapping[str, RowSet],
    seed: int,
    documents: Mapping[str, Sequence[Row]],
    before: Sequence[Row] = (),
) -> None:
    """Drop what a filter has something against; of near duplicates one in `before`, or else the first in the seeded order,
    stays."""
    if wanted is not None:
        found.rows = in_order(found.rows, seed, "order", found.name)
        measured = {name: test.rows for name, test in tests.items()}
        _judged(found, sift(found.rows, wanted, measured, before, documents))


def _select(found: RowSet, wanted: Filter | None) -> None:
    """Keep the rows that stand for all, if some are asked for."""
    if wanted is not None and wanted.select is not None:
        _judged(found, choose(found.rows, wanted.select))


def _judged(found: RowSet, verdicts: list[str | None]) -> None:
    for row, verdict in zip(found.rows, verdicts, strict=True):
        if verdict is not None:
            found.drop(row["where"], verdict, row)
    found.rows = [row for row, verdict in zip(found.rows, verdicts, strict=True) if verdict is None]
    refuse_empty(found)


def _take(found: RowSet, seed: int, limit: int | None) -> None:
    """Put the rows in their seeded order, and keep the first `limit` of them."""
    rows = in_order(found.rows, seed, "order", found.name)
    found.rows = rows[:limit]
    for row in rows[len(found.rows) :]:
        found.drop(row["where"], "limit")
