"""What a Distiller is given -> the teacher, the task and the examples that it works with."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

from ..data.encode import Example
from ..data.formats import Row, reasoned
from ..errors import RecipeError
from ..models.load import label_names
from ..recipe import Term
from ..recipe.crossing import classes_fault
from ..tasks import Task, make_task
from ..tasks.bilingual import BilingualClassification, BilingualLM
from ..teachers import Teacher
from ..teachers.cross import CrossTeacher, Foreign
from ..teachers.ema import Ema, EmaTeacher
from ..teachers.local import LocalTeacher

MAX_LENGTH = 256
"""Tokens in a row, unless the caller's own task says otherwise."""


def teacher_of(
    teacher: PreTrainedModel | Teacher | Ema | Foreign | None, student: PreTrainedModel, task: Task
) -> Teacher | None:
    """The teacher as something with `signal(batch)`."""
    if isinstance(teacher, Foreign):
        if isinstance(task, BilingualLM):
            return CrossTeacher(teacher.model, task)
        assert isinstance(task, BilingualClassification)
        task.other.verify(teacher.model)
        theirs = label_names(teacher.model.config)
        if sorted(theirs) == sorted(task.labels) and theirs != task.labels:
            raise RecipeError(
                f"Distiller: the teacher's labels are in the order {', '.join(theirs)}, and the student's {', '.join(task.labels)}; "
                "swap them in one of the heads and its config."
            )
        return LocalTeacher(task.adopt(teacher.model), task)
    if isinstance(teacher, Ema):
        return EmaTeacher(student, task, teacher.decay)
    return LocalTeacher(teacher, task) if isinstance(teacher, nn.Module) else teacher


def task_of(model: PreTrainedModel, tokenizer: Any, teacher: Any) -> Task:
    """What the student's class does."""
    if tokenizer is None:
        raise RecipeError("Distiller: processing_class must be the tokenizer of student and teacher.")
    other = teacher.tokenizer if isinstance(teacher, Foreign) else None
    if type(model).__name__.endswith("ForPreTraining"):
        raise RecipeError(
            f"Distiller: {type(model).__name__} says more than hidden tokens; load the model with AutoModelForMaskedLM."
        )
    if type(model).__name__.endswith("ForMaskedLM"):
        if other is not None:
            raise RecipeError(
                "Distiller: a masked language model and its teacher read the same tokens; give a teacher with this tokenizer."
            )
        return make_task("masked_lm", tokenizer)
    if model.get_output_embeddings() is not None:
        kind = "seq2seq" if model.config.is_encoder_decoder else "causal_lm"
        if other is None:
            return make_task(kind, tokenizer)
        if kind == "seq2seq":
            raise RecipeError(
                "Distiller: an encoder–decoder and its teacher must share a tokenizer; give the teacher's model itself."
            )
        return BilingualLM(tokenizer, other, MAX_LENGTH)
    labels = label_names(model.config)
    if other is not None:
        return BilingualClassification(tokenizer, other, MAX_LENGTH, labels)
    return make_task("classification", tokenizer, labels=labels)


def refuse_shared(model: nn.Module, teacher: Any) -> None:
    """A teacher is frozen and in eval mode; a student that shares its weights would be as well."""
    if not isinstance(teacher, nn.Module):
        return
    mine = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) in mine for parameter in teacher.parameters()):
        raise RecipeError(
            "Distiller: teacher and student share weights; give copy.deepcopy(model) as the teacher."
        )


def refuse_other_tokens(task: Task, objective: Sequence[Term]) -> None:
    """Terms that compare layers need the same tokens on both sides."""
    apart = isinstance(task, BilingualClassification)
    if apart and (fault := classes_fault(objective, "Distiller: the teacher has another tokenizer")):
        raise RecipeError(fault)


def as_examples(rows: Iterable[Any], task: Task, say: Callable[[str], None] = print) -> list[Example]:
    """Examples as they are; anything else goes through the task's encoding.  A label may be its class's number.

    Raises: RecipeError if none is left.
    """
    rows = list(rows)
    if all(isinstance(row, Example) for row in rows):
        return rows
    named = [{"id": str(number), "where": f"row {number + 1}", **row} for number, row in enumerate(rows)]
    for row in named:
        if row.get("label") is not None:
            row["label"] = _named_label(row["label"], task.labels)
    named = [
        dict(reasoned(cast(Row, row), row["rationale"])) if row.get("rationale") else row for row in named
    ]
    examples, dropped = task.encode(named)
    if not examples:
        reason = dropped[0]["reason"] if dropped else "it is empty"
        raise RecipeError(f"train_dataset: no row can be used: {reason}.")
    if dropped:
        say(
            f"train_dataset: {len(dropped)} of {len(rows)} rows dropped; {dropped[0]['where']}: {dropped[0]['reason']}"
        )
    return examples


def _named_label(label: Any, names: list[str]) -> str:
    """The label as text; a number that is no label's name is a place among them."""
    if isinstance(label, int) and str(label) not in names and 0 <= label < len(names):
        return names[label]
    return str(label)
