"""READ THIS FIRST: the whole of a distillation, stage by stage.

    prepare    sources -> verified files -> rows -> examples
    plan       measure teacher and student for some seconds; predict time, memory and disk
    teacher    fine-tune the teacher on the hard targets, if the recipe asks for it
    initial    make the student: from the teacher's layers, a config, or another model
    label      ask the teacher once for its soft targets, and keep them
    train      teach the student
    control    the same student, data, steps and learning rate, without the teacher
    evaluate   all of them on held-out rows: quality, agreement, speed, size
    report     results.json, report.html, and the student with its model card

Each is a function (recipe fields it reads, its folder, earlier results, who to tell) -> a small JSON-able result.
"""

from pathlib import Path
from typing import Any

from .blackbox import BlackBoxEvaluation
from .cost import costs
from .data.encode import read_examples
from .evaluate import Evaluation
from .files import hash_json, hash_path, manifest_fault
from .pipeline import Results, Stage
from .progress import Watch
from .recipe import Custom, Recipe
from .registry import source_of
from .samples import samples
from .steps import finish, prepare, students, training
from .steps.asking import answers_stamp, heard_of, label_by_asking, label_fault, what_was_said
from .steps.plan import measure_plan
from .teachers.cache import cache_fault
from .teachers.labelling import label_examples, label_settings


def _prepare(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Fetch and verify what the recipe names; cut it into examples for the teacher and the student alike."""
    models = prepare.fetch_models(recipe, place, watch)
    rows, licences = prepare.read_rows(recipe, watch)
    return {**models, **prepare.encode_rows(recipe, rows, models, place, watch), "licences": licences}


def _plan(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Run teacher and student for some seconds, and say what every stage will take."""
    return measure_plan(recipe, place, results["prepare"], watch)


def _teacher(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The teacher as it is, or fine-tuned on the labelled training rows."""
    facts = results["prepare"]
    if not recipe.teacher.is_local:
        return {"folder": None, "identity": facts["teacher"]["identity"]}
    if recipe.teacher.finetune is None:
        return {"folder": facts["teacher"]["folder"], "identity": facts["teacher"]["identity"]}
    task = prepare.task_of(recipe, facts)
    folder = training.finetune(recipe.teacher.finetune, recipe.seed, task, facts, place, watch)
    return {"folder": _inside(folder, place), "identity": f"finetuned:{hash_path(folder)}"}


def _initial(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The student before it learns anything."""
    facts = results["prepare"]
    task = prepare.task_of(recipe, facts)
    teacher = prepare.located(results["teacher"]["folder"] or facts["teacher"]["folder"], place)
    folder, how = students.make_student(recipe.student, recipe.seed, task, teacher, facts, place, watch)
    return {"folder": _inside(folder, place), "identity": f"folder:{hash_path(folder)}", "how": how}


def _label(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """What the teacher says to every training example, asked for once."""
    if not recipe.teacher.is_local:
        facts = results["prepare"]
        return label_by_asking(recipe, place, facts, prepare.task_of(recipe, facts), watch)
    if recipe.temperature is None:
        return {"cache": None}
    facts, teacher = results["prepare"], results["teacher"]
    meta = {
        "teacher": teacher["identity"],
        "task": recipe.task,
        "temperature": recipe.temperature,
        **label_settings(recipe.label),
        "seed": None if recipe.label.samples is None else recipe.seed,
        "dtype": training.dtype_name(recipe.teacher.dtype, facts),
    }
    task = prepare.task_of(recipe, facts)
    meta["outcomes"] = task.outcomes
    cache = place / f"targets-{hash_json(meta)[:12]}"
    examples = read_examples(place.parent / "prepare" / "train.parquet")
    folder = prepare.located(teacher["folder"], place)
    label_examples(cache, meta, folder, task, examples, recipe.label.batch_size, watch)
    return {"cache": _inside(cache, place), "meta": meta, "examples": len(examples)}


def _train(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Teach the student."""
    teacher = training.build_teacher(recipe, results, place, watch)
    return _trained(recipe, list(recipe.objective), teacher, place, results, watch)


def _control(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The same student without the teacher: hard targets alone."""
    if not recipe.evaluate.hard_only or not recipe.has_teacher:
        return {"folder": None}
    if not training.labelled(read_examples(place.parent / "prepare" / "train.parquet")):
        watch.note("  no training row has an answer of its own, so there is no control")
        return {"folder": None}
    return _trained(recipe, training.HARD_ONLY, None, place, results, watch)


def _trained(
    recipe: Any, objective: list[Any], teacher: Any, place: Path, results: Results, watch: Watch
) -> dict[str, Any]:
    task = prepare.task_of(recipe, results["prepare"])
    student = prepare.located(results["initial"]["folder"], place)
    taught = results.get("label", {}).get("train")
    folder = training.train_student(
        recipe, objective, teacher, task, student, results["prepare"], place, watch,
        taught=None if taught is None else prepare.located(taught, place),
    )  # fmt: skip
    return {"folder": _inside(folder, place), "identity": f"folder:{hash_path(folder)}"}


def _evaluate(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Teacher, student and controls on the same held-out rows."""
    facts = results["prepare"]
    task = prepare.task_of(recipe, facts)
    names = {"teacher": "teacher", "student": "train", "initial": "initial", "hard_only": "control"}
    folders = {
        name: prepare.located(results[stage]["folder"], place)
        for name, stage in names.items()
        if results[stage]["folder"] is not None
    }
    kept = place.parent / "prepare"
    sets = {kind: read_examples(kept / f"{kind}.parquet") for kind in facts["evaluated"]}
    train = read_examples(kept / "train.parquet")
    said: dict[str, str] = {}
    if recipe.teacher.is_local:
        evaluation = Evaluation(task, sets, place, recipe.label.batch_size, watch)
    else:
        label, asked = results["label"], place.parent / "label"
        sets = {kind: some for kind, some in sets.items() if some}
        sets |= {kind: read_examples(asked / f"{kind}.parquet") for kind in label["sets"]}
        train = read_examples(prepare.located(label["train"], place))
        said = what_was_said(recipe, facts, place.parent)
        heard = heard_of(asked, sets)
        evaluation = BlackBoxEvaluation(
            task, sets, place, recipe.label.batch_size, watch, heard, label["graded"]
        )
    for name, folder in folders.items():
        evaluation.read(name, task.load(folder))
    evaluation.forget()
    with_numbers = (recipe.evaluate.resamples, recipe.seed)
    retentions, floors = evaluation.retentions(train, *with_numbers)
    by_teacher = place.parent / "label" / "eval.parquet"
    measured = by_teacher if "eval" in results["label"].get("sets", {}) else kept / "eval.parquet"
    return {
        "models": {
            name: {"metrics": evaluation.metrics(name, *with_numbers)}
            for name in names
            if name in evaluation.rows
        },
        "costs": costs(folders, task, sets["eval"], measured, watch),
        "floors": floors,
        "retentions": retentions,
        "gains": evaluation.gains("student", "hard_only", *with_numbers) if "hard_only" in folders else None,
        "samples": samples(
            folders, task, sets["eval"], kept / "eval-rows.jsonl", recipe.report.samples, watch, said
        ),
        "reliability": evaluation.reliabilities(),
    }


def _report(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """What a person sees, and what is handed over."""
    found = finish.collect(recipe, place.parent, results, STAGES)
    finish.publish(found, place.parent, prepare.located(results["train"]["folder"], place))
    return {"retention": found["retention"]}


def _inside(folder: Path, place: Path) -> str:
    """A folder's path from the run folder, so that the run can be moved."""
    return folder.relative_to(place.parent).as_posix()


def _model_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with a model folder that a stage made; one that lies elsewhere must only be there."""
    if result.get("folder") is None:
        return None
    folder = prepare.located(result["folder"], place)
    if not folder.is_dir():
        return f"{folder} is gone"
    return manifest_fault(folder) if folder.is_relative_to(place) else None


def _cache_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with the kept soft targets, or with the answers of a teacher that was asked."""
    if result.get("train") is not None and (fault := label_fault(place, result)):
        return fault
    return cache_fault(prepare.located(result["cache"], place)) if result["cache"] is not None else None


def _report_fault(place: Path, result: dict[str, Any]) -> str | None:
    """What a person would miss."""
    wanted = ("student/config.json", "report.html", "results.json")
    missing = [name for name in wanted if not (place.parent / name).exists()]
    return f"{missing[0]} is gone" if missing else None


def _own_losses(recipe: Any) -> list[str]:
    """Sums of the files that hold the user's own losses: another loss is another objective."""
    targets = [term.target for term in recipe.objective if isinstance(term, Custom)]
    return [hash_path(source_of(target)) for target in targets]


_SOURCES = (
    *("task", "seed", "teacher.model", "teacher.sha256", "teacher.revision", "teacher.finetune"),
    *("teacher.is_local", "teacher.name", "teacher.label_words"),
)
_LEARNING = ("seed", "task", "train", "data.max_length")
_TASK = ("prepare.teacher", "prepare.labels")

STAGES = [
    Stage(
        "prepare",
        _prepare,
        reads=(
            *_SOURCES,
            "student.model",
            "student.tokenizer",
            "student.sha256",
            "student.revision",
            "data",
            "evaluate.also",
            "evaluate.rows",
        ),
        stamp=prepare.files_stamp,
        intact=prepare.fault,
    ),
    Stage(
        "plan",
        _plan,
        reads=(
            "seed",
            "task",
            "teacher",
            "student",
            "data.max_length",
            "label",
            "temperature",
            "has_teacher",
            "objective",
            "train",
            "evaluate",
            "report.samples",
        ),
        after=("prepare",),
    ),
    Stage(
        "teacher",
        _teacher,
        reads=("seed", "task", "teacher.finetune", "teacher.is_local", "data.max_length"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train"),
        intact=_model_fault,
    ),
    Stage(
        "initial",
        _initial,
        reads=("seed", "task", "student", "data.max_length"),
        after=(*_TASK, "prepare.student", "prepare.sets.train", "teacher"),
        intact=_model_fault,
    ),
    Stage(
        "label",
        _label,
        reads=(
            *("task", "seed", "label", "temperature", "data.max_length"),
            *("teacher.dtype", "teacher.is_local", "teacher.api"),
        ),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets", "prepare.evaluated", "teacher"),
        stamp=answers_stamp,
        intact=_cache_fault,
        content_keyed=True,
    ),
    Stage(
        "train",
        _train,
        reads=(*_LEARNING, "objective", "rollouts", "label.online", "teacher.dtype", "teacher.ema"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train", "teacher", "initial", "label"),
        stamp=_own_losses,
        intact=_model_fault,
    ),
    Stage(
        "control",
        _control,
        reads=(*_LEARNING, "evaluate.hard_only", "has_teacher"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train", "initial"),
        intact=_model_fault,
    ),
    Stage(
        "evaluate",
        _evaluate,
        reads=(
            *("seed", "task", "data.max_length", "label.batch_size", "evaluate.resamples", "report.samples"),
            *("teacher.is_local", "teacher.api"),
        ),
        after=(
            *_TASK,
            "prepare.sets",
            "prepare.evaluated",
            "teacher",
            "initial",
            "label",
            "train",
            "control",
        ),
    ),
    Stage(
        "report",
        _report,
        reads=tuple(Recipe.model_fields),
        after=("prepare", "plan", "teacher", "initial", "label", "train", "control", "evaluate"),
        intact=_report_fault,
    ),
]
"""In this order.  What a stage does not name here it cannot see."""
