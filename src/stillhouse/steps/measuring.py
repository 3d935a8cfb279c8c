"""What the evaluate stage measures on: the held-out rows, and a teacher that is here or was asked."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from transformers import PreTrainedModel

from ..blackbox import BlackBoxEvaluation
from ..cost import costs, shared_by_shape
from ..data.content import content_of
from ..data.encode import Example, read_examples
from ..data.formats import Row, has_answer
from ..evaluate import VERSION, Evaluation, Source, texts_of
from ..files import read_jsonl
from ..held_out import BY_TEACHER
from ..kept import RowIndex
from ..models.machine import accelerator, device, machine
from ..pipeline import Results
from ..progress import Watch
from ..samples import Writing, answered, classified, furthest_apart
from ..store import Store, said_of
from ..tasks import Task
from ..tasks.panel import Panel
from ..teachers.said import answered_row
from .asking import heard_of
from .hearing import what_was_said
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
    said: dict[str, str]
    """Row -> the words of a teacher that was asked."""
    store: Store
    """Where what models said is kept."""


def to_measure(recipe: Any, task: Task, results: Results, place: Path, watch: Watch) -> Measured:
    """See `Measured`."""
    facts, label = results["prepare"], results["label"]
    kept, asked = place.parent / "prepare", place.parent / "label"
    sets = {kind: read_examples(kept / f"{kind}.parquet") for kind in facts["evaluated"]}
    held = {kind: read_jsonl(kept / f"{kind}-rows.jsonl") for kind in sets}
    main = kept / "eval.parquet"
    size = recipe.label.batch_size
    store = Store(said_of(place.parent), _followed(task, facts), watch)
    if recipe.teacher.is_local:
        index = {kind: index_of(task, some, held[kind]) for kind, some in sets.items()}
        contents = {kind: content_of(some, held[kind]) for kind, some in sets.items()}
        evaluation = Evaluation(task, sets, index, place, size, watch, store, contents)
        if why := results["teacher"].get("silent"):
            evaluation = BlackBoxEvaluation(
                task, sets, index, place, size, watch, {}, False, why, store, contents
            )
        return Measured(evaluation, held, read_examples(kept / "train.parquet"), main, {}, store)
    sets = {kind: some for kind, some in sets.items() if some}
    answered = [
        kind for kind in label["sets"] if kind.removesuffix(BY_TEACHER) in held
    ]  # not the rows set aside
    sets |= {kind: read_examples(asked / f"{kind}.parquet") for kind in answered}
    held |= {kind: held[kind.removesuffix(BY_TEACHER)] for kind in answered}
    index = {kind: index_of(task, some, held[kind]) for kind, some in sets.items()}
    contents = {kind: content_of(some, held[kind]) for kind, some in sets.items()}
    heard = heard_of(asked, sets)
    black_box = BlackBoxEvaluation(
        task, sets, index, place, size, watch, heard, label["graded"], store=store, contents=contents
    )
    train = read_examples(located(label["train"], place))
    main = asked / "eval.parquet" if "eval" in label["sets"] else main
    said = what_was_said(recipe, facts, place.parent)
    held["eval"] = [_with_reference(row, said, recipe, task) for row in held["eval"]]
    return Measured(black_box, held, train, main, said, store)


def _with_reference(row: dict[str, Any], said: dict[str, str], recipe: Any, task: Task) -> dict[str, Any]:
    """The row with what its teacher said where the data has no answer to compare others with."""
    if has_answer(cast(Row, row)) or row["id"] not in said:
        return row
    return answered_row(row, said[row["id"]], recipe.teacher.api, task.name)


def _followed(task: Task, facts: dict[str, Any]) -> list[Any]:
    """What all that models say follows from, beside themselves and the rows: the task, whose tokens it is in, and what computes."""
    lends = [facts["teacher"], *([facts["tongues"]["student"]] if facts["tongues"] else [])]
    tokens = [one["identity"] for one in lends]
    where = [device().type, torch.__version__, transformers.__version__]
    return [VERSION, task.name, task.max_length, task.labels, task.outcomes, tokens, where]


def index_of(task: Task, examples: list[Example], rows: list[dict[str, Any]]) -> RowIndex:
    """Which rows `examples` were made from; `rows` are the rows of data."""
    known = {row["id"]: row for row in rows}
    mine = [known[example.row] for example in examples]
    columns = {name: None for row in mine for name in row.get("groups", {})}
    return RowIndex(
        keys=[example.key for example in examples],
        rows=[example.row for example in examples],
        clusters=[row.get("group", row["id"]) for row in mine],
        tokens=[len(example.input_ids) for example in examples],
        labels=[
            task.labels[example.labels[0]] if task.labels and example.labels[0] >= 0 else None
            for example in examples
        ],
        groups={name: [row.get("groups", {}).get(name) or None for row in mine] for name in columns},
    )


def let_read(
    sources: dict[str, Source], task: Task, measured: Measured, recipe: Any, watch: Watch
) -> dict[str, Any]:
    """Every model is loaded once, and does all that it is to do: it reads, answers, writes samples, and is timed.

    Teacher and student stay until both were timed in turn; the others go at once.  What they said of the rows is measured when
    all have read.
    Returns: {"costs": name -> see `cost.costs`; "samples"; "disagreement_examples"}.
    """
    evaluation, held = measured.evaluation, measured.held["eval"]
    folders = {name: source.folder for name, source in sources.items()}
    examples = evaluation.sets["eval"]
    asked = recipe.evaluate.answers is not None and "teacher" in folders  # then its answers are the samples
    writing = Writing(task, examples, 0 if asked else recipe.report.samples, watch, measured.said)
    reasons = any(example.reasons for example in measured.train)
    timed: dict[str, PreTrainedModel] = {}
    known: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():  # the teacher, if it is here, comes first, and the student next
        model = task.load(folder)
        evaluation.listen(name, model, sources[name])
        evaluation.let_answer(name, model, held, recipe.evaluate.answers, reasons)
        writing.add(name, model, evaluation.writer(name))
        if name in ("teacher", "student") and not (isinstance(model, Panel) and not model.is_here):
            timed[name] = model
        if name == "student":
            wanted = recipe.evaluate.speed, recipe.evaluate.speed_batch
            clock = partial(costs, timed, folders, task, examples, measured.main, watch, *wanted)
            who = {one: sources[one].identity for one in timed}
            where = [machine(), accelerator(), torch.get_num_threads()]
            known = measured.store.value("costs", [where, who, content_of(examples), *wanted], clock)
            timed.clear()
        del model  # or the next one would lie beside it
    evaluation.measure()
    samples = writing.found
    if asked:
        samples = answered(evaluation.answers, evaluation.written, recipe.report.samples)
    if task.labels:
        texts = texts_of(task, examples, held) or []
        main = {name: rows["eval"] for name, rows in evaluation.rows.items()}
        samples = classified(main, task.labels, examples, texts, recipe.report.samples, measured.said)
    apart = furthest_apart(evaluation.rows["student"]["eval"], examples, task, recipe.report.samples)
    return {
        "costs": shared_by_shape(known, [name for name in folders if name != "teacher" or name in known]),
        "samples": samples,
        "disagreement_examples": apart,
    }
