"""What the evaluate stage measures on: the held-out rows, and a teacher that is here or was asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..blackbox import BlackBoxEvaluation
from ..data.encode import Example, read_examples
from ..evaluate import Evaluation, index_of
from ..files import read_jsonl
from ..pipeline import Results
from ..progress import Watch
from ..tasks import Task
from .asking import BY_TEACHER, heard_of, what_was_said
from .prepare import located


@dataclass(frozen=True)
class Measured:
    """An evaluation that no model has read yet, and what belongs to it."""

    evaluation: Evaluation
    held: dict[str, list[dict[str, Any]]]
    """Data set -> its rows of data."""
    train: list[Example]
    """What the floor knows."""
    main: Path
    """The examples of `eval`, on disk."""
    texts: Path
    """The rows of `eval`, on disk."""
    said: dict[str, str]
    """Row -> the words of a teacher that was asked."""


def to_measure(recipe: Any, task: Task, results: Results, place: Path, watch: Watch) -> Measured:
    """See `Measured`."""
    facts, label = results["prepare"], results["label"]
    kept, asked = place.parent / "prepare", place.parent / "label"
    sets = {kind: read_examples(kept / f"{kind}.parquet") for kind in facts["evaluated"]}
    held = {kind: read_jsonl(kept / f"{kind}-rows.jsonl") for kind in sets}
    texts, main = kept / "eval-rows.jsonl", kept / "eval.parquet"
    size = recipe.label.batch_size
    if recipe.teacher.is_local:
        index = {kind: index_of(task, some, held[kind]) for kind, some in sets.items()}
        evaluation = Evaluation(task, sets, index, place, size, watch)
        return Measured(evaluation, held, read_examples(kept / "train.parquet"), main, texts, {})
    sets = {kind: some for kind, some in sets.items() if some}
    sets |= {kind: read_examples(asked / f"{kind}.parquet") for kind in label["sets"]}
    held |= {kind: held[kind.removesuffix(BY_TEACHER)] for kind in label["sets"]}
    index = {kind: index_of(task, some, held[kind]) for kind, some in sets.items()}
    heard = heard_of(asked, sets)
    black_box = BlackBoxEvaluation(task, sets, index, place, size, watch, heard, label["graded"])
    train = read_examples(located(label["train"], place))
    main = asked / "eval.parquet" if "eval" in label["sets"] else main
    return Measured(black_box, held, train, main, texts, what_was_said(recipe, facts, place.parent))
