"""What a run will take, before it is spent: teacher and student are measured for some seconds on the run's own rows."""

import math
from pathlib import Path
from typing import Any

import torch

from ..data.encode import Example, read_examples
from ..errors import RecipeError
from ..files import folder_bytes, read_jsonl, write_json
from ..held_out import BY_TEACHER
from ..models.load import parameters
from ..models.machine import device
from ..pipeline import peak_memory
from ..progress import Watch
from ..recipe import Finetune, Train, ZeroShot, crossing_fault
from ..recipe.panel import online_fault
from ..static import check_shape
from ..tasks import Task, on_device
from ..teachers import SoftTargets, TopK
from ..teachers.codec import bytes_a_position
from ..teachers.labelling import ask_batch, label_settings
from ..teachers.local import LocalTeacher
from .evaluating import LOADING, evaluation_takes, start_up, tokens_in
from .fetching import dtype_name, said_beforehand
from .hearing import asked_rows, stand_ins, what_asking_takes
from .naming import ROWS, is_chosen, namers_of, readers, ways_of
from .paces import (
    pace_of_comparing,
    pace_of_learning,
    pace_of_requests,
    pace_of_writing,
    per_token,
    read_once,
    typical,
)
from .prepare import WRITTEN, task_of
from .students import passes, shape_of
from .told import places, tells
from .training import HARD_ONLY, beside, labelled, rows_learned, steps_of

ENOUGH = 256
"""Rows that a teacher is yet to answer, of which the length of all such rows is guessed."""
WRITTEN_PER_SECOND = 150e6
"""Bytes of a checkpoint that are written, flushed and hashed in a second on a slow disk."""
TEACHERS = ("teacher_read", "teacher_step", "teacher_first", "teacher_next", "teacher_label")
"""Measurements that are 0 where no teacher is on this machine."""
PACES = ("teacher_read", "teacher_label", "student_read", "student_step", "compare")
"""Measurements that others foretell more from."""


def measure_plan(
    recipe: Any, place: Path, facts: dict[str, Any], watch: Watch, writing: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Writes plan.json.  Returns: {} — predictions vary from one measurement to the next, so no stage may read them.

    Args: writing: {"requests", "seconds", "dollars"} of the texts that an API has yet to write.
    """
    task = task_of(recipe, facts, place.parent / "prepare")
    if facts["tongues"] and (
        fault := crossing_fault(recipe.task, recipe.terms, recipe.label.online, recipe.rollouts)
    ):
        raise RecipeError(fault)
    if recipe.label.online and said_beforehand(facts["panel"]):
        raise RecipeError(online_fault() + ".")
    check_shape(recipe.student, Path(facts["teacher"]["folder"]), recipe.task, recipe.data.max_length)
    train = read_examples(place.parent / "prepare" / "train.parquet")
    held = {name: read_examples(place.parent / "prepare" / f"{name}.parquet") for name in facts["evaluated"]}
    asked = None
    if recipe.teacher.apis:
        asked = what_asking_takes(recipe, facts, place.parent)
    own = labelled(train) if recipe.has_control and recipe.evaluate.hard_only else []
    if not recipe.teacher.is_local:
        prepared = place.parent / "prepare"
        rows = asked_rows(prepared)
        train = _answered(recipe, task, train, rows["train"], ENOUGH)
        train += task.encode(read_jsonl(prepared / WRITTEN))[0]
        held = _held_answered(recipe, task, held, rows)
    count = rows_learned(facts)
    base = Path((facts["tongues"]["student"] if facts["tongues"] else facts["teacher"])["folder"])
    teachers = readers(recipe, task, facts, place)
    speed = _speeds(recipe, task, base, teachers, train, facts, watch)
    speed["process"] = start_up(place.parent)
    seconds = {} if writing is None else {"prepare": writing["seconds"]}
    seconds |= _predict(recipe, task, train, count, own, held, speed)
    by_names = [one for one in recipe.teacher.asked.values() if isinstance(one, ZeroShot)]
    for settings, model in zip(by_names, namers_of(facts), strict=True):
        seconds["teacher"] += _choosing(settings, model, train, speed)
    if asked is not None and recipe.teacher.panel:
        seconds["teacher"] += asked["seconds"]
    elif asked is not None:
        seconds["label"] = asked["seconds"]
    teacher_bytes = folder_bytes(Path(facts["teacher"]["folder"]), lambda path: path.suffix == ".safetensors")
    soft_targets = _kept(recipe, task, train, count)
    plan = {
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "total_seconds": round(sum(seconds.values()), 1),
        "asking_seconds": 0.0 if asked is None else asked["seconds"],
        "peak_memory_bytes": peak_memory(),
        "disk_bytes": soft_targets + _disk(recipe, speed["parameters"], teacher_bytes, bool(own)),
        "soft_target_bytes": soft_targets,
        "tokens": {
            "labelled": 0 if recipe.temperature is None else round(count * _mean(train)),
            "trained": steps_of(recipe.train, count)
            * recipe.train.batch_size
            * recipe.train.accumulate
            * _mean(train),
        },
        "seconds_a_token": {name: speed[name] for name in PACES if name in speed},
        **_bill({"prepare": writing, "teacher" if recipe.teacher.panel else "label": asked}),
        "examples": count,
        "student_parameters": speed["parameters"],
    }
    write_json(place / "plan.json", plan)
    return {}


def _answered(
    recipe: Any, task: Task, known: list[Example], rows: list[dict[str, Any]], most: int | None = None
) -> list[Example]:
    """The rows' examples if all have one, or else those of the first `most` rows, with stand-ins where the teacher will answer."""
    mine: dict[str, list[Example]] = {}
    for example in known:
        mine.setdefault(example.row, []).append(example)
    if all(row["id"] in mine for row in rows):
        return known
    some = rows[:most]
    bare = stand_ins(recipe.teacher.api, task, [row for row in some if row["id"] not in mine])
    return [example for row in some for example in mine.get(row["id"], [])] + bare


def _held_answered(
    recipe: Any, task: Task, held: dict[str, list[Example]], rows: dict[str, list[dict[str, Any]]]
) -> dict[str, list[Example]]:
    """What will be read of the held-out sets: of texts, the teacher's answers too, which are sets of their own beside the data's."""
    if recipe.task == "classification":
        return held
    found = {name: some for name, some in held.items() if some}
    for name in held:
        title = f"{name}{BY_TEACHER}" if name in found else name
        found[title] = _answered(recipe, task, held[name], rows[name])
    return found


def _bill(asked: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """Dollars (None: no price is known) and requests in all, and the dollars stage by stage."""
    stages = {"prepare": None, "label": None, **asked}
    dollars = {name: 0.0 if one is None else one["dollars"] for name, one in stages.items()}
    unknown = None in dollars.values()
    return {
        "money": None if unknown else sum(dollars.values()),
        "money_by_stage": dollars,
        "requests": sum(one["requests"] for one in stages.values() if one is not None),
    }


def _speeds(
    recipe: Any,
    task: Task,
    base: Path,
    teachers: list[tuple[Path, int]],
    train: list[Example],
    facts: dict[str, Any],
    watch: Watch,
) -> dict[str, Any]:
    """Seconds for each token read or learned, by teacher (all members of a panel together) and student."""
    reading, rows = typical(train, recipe.label.batch_size), typical(train, recipe.train.batch_size)
    found: dict[str, Any] = dict.fromkeys(TEACHERS, 0.0)
    targets = None if teachers else _any_targets(recipe, task, rows)
    for folder, alike in teachers:
        watch.note("  measuring the teacher")
        own, targets = _teacher_speeds(recipe, task, folder, labelled(train), reading, rows, facts)
        found |= {kind: found.get(kind, 0.0) + alike * seconds for kind, seconds in own.items()}
    watch.note("  measuring the student")
    student = shape_of(recipe.student, task, base, facts, train, watch).to(device())
    found["parameters"] = parameters(student)
    found["student_read"] = per_token(lambda: read_once(student, task, reading), reading)
    found["student_step"] = pace_of_writing(student, task)
    found["student_first"], found["student_next"] = pace_of_requests(student, task, reading)
    found["compare"] = pace_of_comparing(student, task, reading)
    found["student_learn"] = pace_of_learning(student, task, rows, recipe.train, recipe.terms, targets, facts)
    hard = typical(labelled(train) or train, recipe.train.batch_size)
    found["control_learn"] = pace_of_learning(student, task, hard, recipe.train, HARD_ONLY, None, facts)
    return found


def _teacher_speeds(
    recipe: Any,
    task: Task,
    base: Path,
    train: list[Example],
    reading: list[Example],
    rows: list[Example],
    facts: dict[str, Any],
) -> tuple[dict[str, Any], SoftTargets | None]:
    """Seconds a token, and the soft targets of `rows` for the student's turn; the teacher's memory is free after it."""
    found: dict[str, Any] = {}
    drawn = recipe.teacher.finetune is not None or recipe.compares_layers_alone
    teacher = task.load(base, head_seed=recipe.seed if drawn else None).to(device())
    found["teacher_read"] = per_token(lambda: read_once(teacher, task, reading), reading)
    found["teacher_step"] = pace_of_writing(teacher, task)
    found["teacher_first"], found["teacher_next"] = pace_of_requests(teacher, task, reading)
    if recipe.teacher.finetune is not None:
        some = typical(train, recipe.teacher.finetune.batch_size)
        found["teacher_learn"] = pace_of_learning(teacher, task, some, Train(), HARD_ONLY, None, facts)
    if not recipe.has_teacher:
        return found, None
    if recipe.label.online:
        says = beside(teacher.to(getattr(torch, dtype_name(recipe.teacher.dtype, facts))), task)

        def say() -> SoftTargets:
            return says.signal(on_device(task.collate(reading)))

        found["teacher_label"] = per_token(say, reading)
        return found, says.signal(on_device(task.collate(rows)))
    quick = LocalTeacher(teacher.to(getattr(torch, dtype_name(recipe.teacher.dtype, facts))), task)

    meta = {"seed": recipe.seed, "temperature": recipe.temperature, **label_settings(recipe.label)}

    def label(some: list[Example]) -> SoftTargets:
        return ask_batch(quick, task, some, meta)

    found["teacher_label"] = per_token(lambda: label(reading), reading)
    return found, label(rows)


def _any_targets(recipe: Any, task: Task, rows: list[Example]) -> SoftTargets | None:
    """Soft targets of the right form for a teacher that is not here; None for one that says texts."""
    if recipe.temperature is None:
        return None
    count, kept = len(rows), task.outcomes
    if tells(recipe):
        count, kept = sum(one.counted for one in rows), places(recipe.label, recipe.teacher.api)
    ids = torch.arange(kept).expand(count, -1).to(device())
    return TopK(ids, torch.full(ids.shape, -math.log(task.outcomes), device=device()), recipe.temperature)


def _predict(
    recipe: Any,
    task: Task,
    train: list[Example],
    count: int,
    controlled: list[Example],
    held: dict[str, list[Example]],
    speed: dict[str, Any],
) -> dict[str, float]:
    """Stage -> seconds.

    Args:
        train: examples as long as what the student learns.
        count: how many of them it learns.
        controlled: what a control learns; none if there is no control.
    """
    steps, in_a_step = steps_of(recipe.train, count), recipe.train.batch_size * recipe.train.accumulate
    weights = 4.0 * speed["parameters"]
    saves = (steps // recipe.train.checkpoint_every) * 3 * weights / WRITTEN_PER_SECOND
    learning = steps * in_a_step * _mean(train)
    if (early := recipe.train.early_stopping) is not None:
        saves += -(-steps // early.every) * early.rows * _mean(train) * speed["student_read"]
    probed = tokens_in(train[: recipe.student.cut.rows]) if recipe.student.cut else 0
    probed = round(probed * passes(recipe.student))
    seconds = {
        "teacher": _finetuning(recipe.teacher.finetune, labelled(train), speed),
        "initial": 2.0 + probed * speed["teacher_read"] + 2 * weights / WRITTEN_PER_SECOND,
        "label": 0.0,
        "train": 2.0 + learning * speed["student_learn"] + saves + weights / WRITTEN_PER_SECOND,
        "control": 0.0,
        "seeds": 0.0,
        "evaluate": evaluation_takes(recipe, task, held, speed, bool(controlled)),
        "report": 3.0,
    }
    if recipe.has_teacher:
        if recipe.label.online:
            seconds["train"] += learning * speed["teacher_label"]
        else:
            seconds["label"] = 2.0 + count * _mean(train) * speed["teacher_label"]
    if controlled:
        seconds["control"] = 2.0 + steps * in_a_step * _mean(controlled) * speed["control_learn"] + saves
    seconds["seeds"] = (recipe.evaluate.seeds - 1) * (seconds["train"] + seconds["control"])
    return seconds


def _finetuning(wanted: Finetune | None, train: list[Example], speed: dict[str, Any]) -> float:
    if wanted is None:
        return 0.0
    return 3.0 + float(wanted.epochs) * tokens_in(train) * float(speed["teacher_learn"])


def _choosing(
    settings: ZeroShot, model: dict[str, Any], train: list[Example], speed: dict[str, Any]
) -> float:
    """Every way of asking reads some of the texts, if there is anything to choose or to even out."""
    ways = ways_of(settings, model)
    if not is_chosen(settings, ways):
        return 0.0
    return LOADING + len(ways) * min(ROWS, len(train)) * _mean(train) * float(speed["teacher_label"])


def _kept(recipe: Any, task: Task, train: list[Example], count: int) -> int:
    """Bytes of the soft targets on disk, of `count` examples such as `train`."""
    if recipe.temperature is None:
        return 0
    label = recipe.label
    if not recipe.teacher.is_local and tells(recipe):
        label = label.model_copy(update={"top_k": places(label, recipe.teacher.api)})
    counted = sum(example.counted for example in train) * count / max(1, len(train))
    return int(counted * bytes_a_position(label, task.outcomes))


def _disk(recipe: Any, student: int, teacher_bytes: int, control: bool) -> int:
    """Bytes: checkpoints with Adam's two moments, and the students."""
    runs = 2 if control else 1
    checkpoints = runs * int(recipe.train.keep_checkpoints) * 12 * student
    return checkpoints + (runs + 2) * 4 * student + (teacher_bytes if recipe.teacher.finetune else 0)


def _mean(examples: list[Example]) -> float:
    return tokens_in(examples) / max(1, len(examples))
