"""The student before it learns anything."""

import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel

from ..data.encode import Example, read_examples
from ..errors import RecipeError
from ..files import atomic_folder
from ..models.load import load_config, parameters
from ..models.shrink.fresh import changed_config, copy_layers, from_config, project_embeddings
from ..models.shrink.skeleton import FIELDS
from ..progress import Watch
from ..recipe import FromConfig, Student
from ..seeds import draw_seed
from ..tasks import Task
from .search import found_shape
from .shrinking import Shrinking

SEARCH = "search"
"""Inside the stage's folder: what a search has tried so far."""


def make_student(
    wanted: Student, seed: int, task: Task, teacher: Path, facts: dict[str, Any], place: Path, watch: Watch
) -> tuple[Path, dict[str, Any]]:
    """Returns: (the student's folder, how it was made)."""
    folder = place / "model"
    how: dict[str, Any]
    if wanted.cut is not None:
        examples = read_examples(place.parent / "prepare" / "train.parquet")
        model, how = _from_teacher(Shrinking(wanted, task, teacher, examples, watch), seed, place)
    elif wanted.from_config is not None:
        model, how = _from_config(wanted.from_config, seed, task, teacher)
    else:
        model = task.load(Path(facts["student"]["folder"]), head_seed=draw_seed(seed, "student") % 2**32)
        how = {"from": facts["student"]["identity"]}
    if wanted.dropout is not None:
        set_dropout(model.config.get_text_config(), wanted.dropout)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        task.tokenizer.save_pretrained(part)
    for tried in (place / SEARCH).glob("shape-*"):  # what they came to stays in tried.json
        shutil.rmtree(tried)
    return folder, {**how, "parameters": parameters(model)}


def set_dropout(config: Any, share: float) -> None:
    """Every share of dropped activations that a configuration names; the model has it once it is loaded again.

    Raises: RecipeError for a family that drops nothing.
    """
    named = [
        name
        for name, value in config.to_dict().items()
        if re.search(r"dropout|pdrop", name) and isinstance(value, int | float)
    ]
    if not named and share:
        raise RecipeError(
            f"student.dropout: {type(config).__name__} knows no dropout; leave it out, or set it to 0."
        )
    for name in named:
        setattr(config, name, share)


def shape_of(
    wanted: Student,
    task: Task,
    teacher: Path,
    facts: dict[str, Any],
    examples: list[Example],
    watch: Watch,
) -> PreTrainedModel:
    """A student of the shape that `make_student` will give, with whatever weights: enough to measure its speed."""
    if wanted.model is not None:
        return task.load(Path(facts["student"]["folder"]), head_seed=0)
    if wanted.from_config is not None:
        random = wanted.from_config.model_copy(update={"embeddings": "random", "layers": "random"})
        return _from_config(random, 0, task, teacher)[0]
    made = Shrinking(wanted, task, teacher, examples, watch, head_seed=0)
    if made.layers_alone:
        made.wanted = made.wanted.model_copy(update={"by": "every_nth"})
        return made.layers_student()[0]
    return made.unmeasured(made.shapes()[0])


def passes(wanted: Student) -> float:
    """How often the teacher reads its probed rows until the student is cut, about; a backward pass is two more."""
    made = wanted.cut
    if made is None:
        return 0.0
    narrower = wanted.target is not None or any(getattr(made, name) for name in FIELDS)
    by_layer = {"perplexity": 60.0, "every_nth": 0.0}.get(made.by, 1.0)
    each = 3.0 if made.importance == "gradient" else 1.0
    return (0.0 if isinstance(made.layers, list) else by_layer) + (each if narrower else 0.0)


def _from_teacher(made: Shrinking, seed: int, place: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    if made.layers_alone:
        model, how = made.layers_student()
    else:
        shape = found_shape(made, made.search, seed, place / SEARCH) if made.search else made.shapes()[0]
        model, how = made.student(shape)
    made.watch.note(f"  the student keeps {_said(how)}")
    return model, how


def _said(how: dict[str, Any]) -> str:
    """What stays of a teacher, in a line."""
    of = how["of"]
    one = isinstance(how["layers"], list)
    stacks = {"": how["layers"]} if one else {f"{name} ": kept for name, kept in how["layers"].items()}
    have = [of["layers"]] if one else of["layers"]
    said = [
        f"{name}layers {', '.join(map(str, kept))} of {count}"
        for (name, kept), count in zip(stacks.items(), have, strict=True)
        if len(kept) < count
    ]
    for name, size in of.items():
        if isinstance(size, int) and name not in ("layers", "parameters") and how.get(name, size) != size:
            said.append(f"{name} {how[name]:,} of {size:,}")
    return "; ".join(said) or "everything"


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
    how: dict[str, Any] = {"config": wanted.config, "embeddings": wanted.embeddings}
    if wanted.embeddings == "teacher":
        project_embeddings(model, task.load(teacher, head_seed=0))  # whatever its head
    if wanted.layers == "teacher":
        how["copied"] = copy_layers(model, task.load(teacher, head_seed=0))
    return model, how


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
