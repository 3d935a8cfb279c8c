"""What an evaluation leaves in the run folder: which rows were read, and each model's statistics on each of them.

    evaluate/index-<set>.json                     which rows: their keys, documents, lengths, labels and groups
    evaluate/rows-<model>-<set>.safetensors       statistics, one entry a row, in the same order
    evaluate/asked.json                           how answers were asked for; set "eval.answers" is the answers' rows
    evaluate/harness-<model>.json                 scores by the lm-evaluation-harness, one entry a document

Everything that is said of a model is a function of these, so runs can be compared, checked and charted again without
any weights.  Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from .errors import RecipeError
from .files import atomic, read_json, write_json
from .measure import Rows, clustered, unit_of, with_adaptive_bins

FOLDER = "evaluate"
ANSWERS = "eval.answers"
"""Of the prompts of `eval` that were answered; no data set of a recipe can have such a name."""
ASKED = "asked.json"


@dataclass(frozen=True)
class RowIndex:
    """The N rows of a data set, in the order in which every model read them."""

    keys: list[str]
    """Hash of the tokens that a model reads, by which two runs know that they read the same."""
    rows: list[str]
    """Id of the (first) row of data that each was made from."""
    clusters: list[str]
    """Document, author or other group that a row comes from; its own id where it comes from none."""
    tokens: list[int]
    labels: list[str | None]
    """A classifier's; None where there is none."""
    groups: dict[str, list[str | None]] = field(default_factory=dict)
    """Column of `evaluate.groups` -> the value in each row."""

    def units(self, rows: Rows) -> Rows:
        """The statistics as they are to be resampled: summed by cluster, where there are enough clusters."""
        return clustered(rows, self.clusters) if unit_of(self.clusters)[0] else rows

    def some(self, at: "np.ndarray[Any, Any]") -> "RowIndex":
        """Those of the rows that stand at these places [M], in this order."""

        def picked(values: list[Any]) -> list[Any]:
            return [values[place] for place in at]

        return RowIndex(
            keys=picked(self.keys),
            rows=picked(self.rows),
            clusters=picked(self.clusters),
            tokens=picked(self.tokens),
            labels=picked(self.labels),
            groups={name: picked(values) for name, values in self.groups.items()},
        )

    def note(self) -> str | None:
        """What must be said about the independence of these rows."""
        return unit_of(self.clusters)[1]

    def places(self, other: "RowIndex") -> "np.ndarray[Any, Any] | None":
        """Where each of these rows lies in another run; None if that one did not read the same rows.

        A classifier's rows are told apart by their text and label, so that students with different tokenizers can be
        compared; a language model's by their tokens, for what is counted are tokens.
        """
        labelled = any(label is not None for label in self.labels)
        return places_of(*(each.rows if labelled else each.keys for each in (self, other)))

    def write(self, folder: Path, kind: str) -> None:
        """Keep it."""
        write_json(folder / f"index-{kind}.json", asdict(self))


def places_of(mine: Sequence[str], theirs: Sequence[str]) -> "np.ndarray[Any, Any] | None":
    """Where each of these names stands among the others, [N]; None if they are not the same names."""
    if sorted(mine) != sorted(theirs):
        return None
    order = np.empty(len(mine), dtype=np.int64)
    order[np.argsort(mine, kind="stable")] = np.argsort(theirs, kind="stable")
    return order


def rows_path(folder: Path, name: str, kind: str) -> Path:
    """Where the statistics of a model on a data set lie, in the folder of the stage."""
    return folder / f"rows-{name}-{kind}.safetensors"


def write_rows(path: Path, rows: Rows) -> None:
    """Keep one model's statistics on one data set."""
    with atomic(path) as part:
        save_file({key: np.ascontiguousarray(value) for key, value in rows.items()}, part)


def read_rows(path: Path) -> Rows:
    """What `write_rows` kept, as float64, and what follows from all of it together."""
    return with_adaptive_bins({key: value.astype(np.float64) for key, value in load_file(path).items()})


def index_path(run: Path, kind: str) -> Path:
    """Where a run keeps which rows of a data set it read."""
    return run / FOLDER / f"index-{kind}.json"


def read_index(run: Path, kind: str) -> RowIndex:
    """The rows of a data set in a finished run.  Raises: RecipeError if the run has not kept them."""
    path = index_path(run, kind)
    if not path.exists():
        raise RecipeError(
            f"{run}: has kept no statistics for the rows of {kind}; run its recipe again with this version "
            "(only what is missing is done)."
        )
    return RowIndex(**read_json(path))


@dataclass(frozen=True)
class Answered:
    """A model's answers to held-out prompts."""

    index: RowIndex
    """Which rows asked; an answer is a text, so two runs asked the same if the rows of data are the same, in whatever tokens."""
    rows: Rows
    """Statistics of `measure.ANSWER_METRICS`, in that order."""
    max_new_tokens: int
    checker: str | None
    """Sum of the file with the user's checker."""

    def write(self, folder: Path, name: str) -> None:
        """Keep it, as the model `name`'s."""
        self.index.write(folder, ANSWERS)
        write_json(folder / ASKED, {"max_new_tokens": self.max_new_tokens, "checker": self.checker})
        write_rows(rows_path(folder, name, ANSWERS), self.rows)


def read_answered(run: Path, name: str) -> Answered | None:
    """The answers of a model in a finished run; None if it kept none."""
    path = rows_path(run / FOLDER, name, ANSWERS)
    if not path.exists():
        return None
    return Answered(read_index(run, ANSWERS), read_rows(path), **read_json(run / FOLDER / ASKED))


def harness_path(folder: Path, name: str) -> Path:
    """Where the scores of a model lie: {"scores": task -> metric -> [D], "documents": task -> [D] what was asked, as sums, …}."""
    return folder / f"harness-{name}.json"
