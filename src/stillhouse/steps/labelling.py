"""The soft targets of a local teacher: all of them, or one process's part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.canaries import PREFIX
from ..data.encode import Example, read_examples, write_examples
from ..errors import DataError, RecipeError
from ..files import write_jsonl
from ..locks import locked
from ..pipeline import Results
from ..progress import Watch
from ..tasks import Task
from ..teachers.cache import SoftTargetCache, folder_name
from ..teachers.labelling import label_examples, label_settings
from ..teachers.parts import part_name
from .confidence import UNSURE, confidences, kept_confidences, least_confidence, sure
from .fetching import dtype_name
from .prepare import located, task_of


@dataclass(frozen=True)
class Labelling:
    """What is to be labelled by whom, and where it is kept."""

    cache: Path
    meta: dict[str, Any]
    """What the targets depend on."""
    teacher: Path
    task: Task
    examples: list[Example]


def labelling_of(recipe: Any, results: Results, place: Path) -> Labelling:
    """Args: place: the folder of the stage `label`."""
    facts, teacher = results["prepare"], results["teacher"]
    task = task_of(recipe, facts, place.parent / "prepare")
    meta = {
        "teacher": teacher["identity"],
        "task": recipe.task,
        "temperature": recipe.temperature,
        **label_settings(recipe.label),
        "seed": None if recipe.label.samples is None else recipe.seed,
        "dtype": dtype_name(recipe.teacher.dtype, facts),
        "outcomes": task.outcomes,
    }
    if facts["tongues"]:  # rows made of the student's tokens are known by these
        meta["read_by"] = facts["tongues"]["student"]["identity"]
    if (
        _is_whole(meta) and "panel" not in teacher
    ):  # a pool of softened distributions is not the pool, softened
        meta["temperature"] = 1.0  # whole distributions serve every temperature: the teacher is asked once
    return Labelling(
        place / folder_name(meta),
        meta,
        located(teacher["folder"], place),
        task,
        read_examples(located(teacher.get("train", "prepare/train.parquet"), place)),
    )


def _is_whole(meta: dict[str, Any]) -> bool:
    """Whether every outcome's probability is kept."""
    return bool(meta["top_k"] == "all" or (meta["top_k"] or 0) >= meta["outcomes"])


def label_all(recipe: Any, results: Results, place: Path, watch: Watch) -> dict[str, Any]:
    """Returns: the result of the stage `label`; nothing is asked where no targets are kept."""
    if recipe.temperature is None:
        return {"cache": None, **taught_apart(results["teacher"])}
    wanted = labelling_of(recipe, results, place)
    label_examples(
        wanted.cache,
        wanted.meta,
        wanted.teacher,
        wanted.task,
        wanted.examples,
        recipe.label.batch_size,
        watch,
    )
    return {
        "cache": wanted.cache.relative_to(place.parent).as_posix(),
        "meta": wanted.meta,
        "examples": len(wanted.examples),
        **taught_apart(results["teacher"]),
    }


def label_here(recipe: Any, results: Results, place: Path, watch: Watch) -> dict[str, Any]:
    """Returns: the result of the stage `label` for a teacher on this machine: where its soft targets are, if any are kept, and which
    rows it teaches."""
    found = label_all(recipe, results, place, watch)
    least = least_confidence(recipe)
    if least is None or recipe.teacher.is_ready:  # `prepare` has asked who was ready then
        return found
    return {**found, **_without_unsure(recipe, results, found, least, place, watch)}


def _without_unsure(
    recipe: Any, results: Results, found: dict[str, Any], least: float, place: Path, watch: Watch
) -> dict[str, Any]:
    """What the stage's result has of the training rows, without those of which the teacher is less sure than `least`.  Secrets that
    `evaluate.memorisation` plants stay, for their number is what is measured.

    Raises: DataError if no row is left.
    """
    facts = results["prepare"]
    task = task_of(recipe, facts, place.parent / "prepare")
    examples = read_examples(located(found.get("train", "prepare/train.parquet"), place))
    secrets = [example for example in examples if example.row.startswith(PREFIX)]
    judged = [example for example in examples if not example.row.startswith(PREFIX)]
    kept, dropped = sure(
        judged, least, _confidences(judged, task, recipe, results, found, place, watch), task
    )
    if not kept:
        raise DataError(
            f"train: the teacher is unsure of all {len(judged):,} rows; lower data.filter.min_confidence."
        )
    watch.note(f"  the teacher is unsure of {len(dropped):,} rows, which are left out")
    write_examples(place / "train.parquet", [*kept, *secrets])
    write_jsonl(place / "dropped.jsonl", [{**row, "set": "train"} for row in dropped])
    before = found.get("dropped", {}).get("train", {})
    lost = {UNSURE: len(dropped)} if dropped else {}
    return {"train": f"{place.name}/train.parquet", "dropped": {"train": {**before, **lost}}, "sets": {}}


def _confidences(
    examples: list[Example],
    task: Task,
    recipe: Any,
    results: Results,
    found: dict[str, Any],
    place: Path,
    watch: Watch,
) -> dict[str, float]:
    """How sure the teacher is of each example: by its kept targets where they tell, or else it is asked."""
    meta = found.get("meta")
    if meta and task.name == "classification" and meta["temperature"] == 1.0 and _is_whole(meta):
        return kept_confidences(examples, SoftTargetCache(located(found["cache"], place), meta, watch.note))
    dtype = getattr(torch, dtype_name(recipe.teacher.dtype, results["prepare"]))
    folder = located(results["teacher"]["folder"], place)
    return confidences(examples, task, folder, recipe.label.batch_size, watch, dtype)


def taught_apart(teacher: dict[str, Any]) -> dict[str, Any]:
    """What the stage's result says of training rows that a panel could not teach: where the others are, and why; nothing if it
    teaches all."""
    if "train" not in teacher:
        return {}
    return {"train": teacher["train"], "dropped": teacher["dropped"], "sets": {}}


def label_part(
    recipe: Any, results: Results, place: Path, part: tuple[int, int], watch: Watch
) -> dict[str, int]:
    """Label the `part` (number from 1, of how many) of the training examples; the stage finds what is there and asks for
    the rest.

    Returns: {"examples", "labelled": by all parts so far}.  Raises: RecipeError where nothing is kept; ResourceError while
    another process works on this part.
    """
    if not recipe.teacher.is_local:
        raise RecipeError(
            "label part: a teacher behind an API has one ledger; raise teacher.api.concurrency instead."
        )
    if recipe.temperature is None:
        raise RecipeError(
            "label part: this recipe keeps no soft targets; set label.online: false, and add a soft term."
        )
    wanted = labelling_of(recipe, results, place)
    mine = wanted.cache / part_name(part)
    mine.mkdir(parents=True, exist_ok=True)
    with locked(mine):
        label_examples(
            wanted.cache, wanted.meta, wanted.teacher, wanted.task, wanted.examples, recipe.label.batch_size, watch,
            part=part,
        )  # fmt: skip
    everybodys = SoftTargetCache(wanted.cache, wanted.meta, watch.note, part_name(part))
    there = sum(example.key in everybodys for example in wanted.examples)
    return {"examples": len(wanted.examples), "labelled": there}
