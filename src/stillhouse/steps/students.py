"""The student before it learns anything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedModel

from ..data.encode import Example, read_examples
from ..errors import RecipeError
from ..files import atomic_folder
from ..models.load import load_config, parameters
from ..models.machine import device
from ..models.shrink import (
    changed_config,
    every_nth,
    from_config,
    keep_layers,
    most_influential,
    project_embeddings,
)
from ..models.taps import block_influence, layers_of
from ..progress import Watch
from ..recipe import FromConfig, FromTeacher, Student
from ..seeds import draw_seed
from ..tasks import Task

ROWS_AT_ONCE = 8


def make_student(
    wanted: Student, seed: int, task: Task, teacher: Path, facts: dict[str, Any], place: Path, watch: Watch
) -> tuple[Path, dict[str, Any]]:
    """Returns: (the student's folder, how it was made)."""
    folder = place / "model"
    how: dict[str, Any]
    if wanted.from_teacher is not None:
        examples = read_examples(place.parent / "prepare" / "train.parquet")
        model, how = _from_layers(wanted.from_teacher, task, teacher, examples, watch)
    elif wanted.from_config is not None:
        model, how = _from_config(wanted.from_config, seed, task, teacher)
    else:
        model = task.load(Path(facts["student"]["folder"]), head_seed=draw_seed(seed, "student") % 2**32)
        how = {"from": facts["student"]["identity"]}
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        task.tokenizer.save_pretrained(part)
    return folder, {**how, "parameters": parameters(model)}


def shape_of(wanted: Student, task: Task, teacher: Path, facts: dict[str, Any]) -> PreTrainedModel:
    """A student of the shape that `make_student` will give, with whatever weights: enough to measure its speed."""
    if wanted.model is not None:
        return task.load(Path(facts["student"]["folder"]), head_seed=0)
    if wanted.from_config is not None:
        return _from_config(wanted.from_config.model_copy(update={"embeddings": "random"}), 0, task, teacher)[
            0
        ]
    assert wanted.from_teacher is not None
    model = task.load(teacher)
    have, keep = len(layers_of(model)[1]), wanted.from_teacher.layers
    _check_count(keep, have)
    return keep_layers(model, keep if isinstance(keep, list) else every_nth(have, keep))


def _from_layers(
    wanted: FromTeacher, task: Task, teacher: Path, examples: list[Example], watch: Watch
) -> tuple[PreTrainedModel, dict[str, Any]]:
    model = task.load(teacher).to(device())
    have = len(layers_of(model)[1])
    _check_count(wanted.layers, have)
    how: dict[str, Any] = {"of": have}
    if isinstance(wanted.layers, list):
        keep = wanted.layers
    elif wanted.by == "every_nth":
        keep = every_nth(have, wanted.layers)
    else:
        influence = block_influence(model, _read(task, examples[: wanted.rows], watch))
        keep = most_influential(influence, wanted.layers)
        how["block_influence"] = [round(value, 6) for value in influence.tolist()]
    watch.note(f"  the student keeps layers {', '.join(map(str, keep))} of {have}")
    return keep_layers(model, keep).cpu(), {**how, "layers": keep}


def _read(task: Task, examples: list[Example], watch: Watch) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """(what the model reads, mask of the real positions) batch by batch."""
    for start in range(0, len(examples), ROWS_AT_ONCE):
        some = examples[start : start + ROWS_AT_ONCE]
        batch = task.collate(some)
        lengths = torch.tensor([len(example.input_ids) for example in some]).unsqueeze(1)
        mask = torch.arange(batch["input_ids"].shape[1]) < lengths
        names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
        inputs = {name: batch[name].to(device()) for name in names if name in batch}
        watch.step("block influence", start + len(some), len(examples))
        yield inputs, mask.to(device())


def _check_count(keep: int | list[int], have: int) -> None:
    if (keep if isinstance(keep, int) else keep[-1] + 1) > have:
        raise RecipeError(
            f"student.from_teacher.layers: the teacher has only {have} layers (0 to {have - 1})."
        )


def _from_config(
    wanted: FromConfig, seed: int, task: Task, teacher: Path
) -> tuple[PreTrainedModel, dict[str, Any]]:
    changes = dict(wanted.config)
    if "vocab_size" in changes:
        raise RecipeError(
            "student.from_config.config: the student reads with the teacher's tokenizer; remove vocab_size."
        )
    if task.labels:
        changes |= {
            "id2label": dict(enumerate(task.labels)),
            "label2id": {label: number for number, label in enumerate(task.labels)},
        }
    model = _shaped(load_config(teacher), changes, task.auto_class, draw_seed(seed, "student") % 2**32)
    if wanted.embeddings == "teacher":
        project_embeddings(model, task.load(teacher, head_seed=0))  # whatever its head
    return model, {"config": wanted.config, "embeddings": wanted.embeddings}


def _shaped(config: Any, changes: dict[str, Any], auto_class: str, seed: int) -> PreTrainedModel:
    """The family's model in the shape asked for.  Raises: RecipeError if there can be none, whatever the family raises."""
    try:
        return from_config(changed_config(config, changes), auto_class, seed)
    except (StrictDataclassError, ArithmeticError, AssertionError, LookupError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise RecipeError(
            f"student.from_config.config: no {type(config).__name__} has this shape ({reason[0].strip()}); "
            "mend those fields."
        ) from error
