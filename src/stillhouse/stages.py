"""READ THIS FIRST: the whole of a distillation, stage by stage.

    prepare    sources -> verified files -> rows -> examples
    plan       measure teacher and student for some seconds; predict time, memory and disk
    teacher    fine-tune the teacher on the hard targets, if the recipe asks for it
    initial    make the student: from the teacher's layers, a config, or another model
    label      ask the teacher once for its soft targets, and keep them
    train      teach the student
    control    the same student, data, steps and learning rate, without the teacher
    seeds      both once more with other seeds, if the recipe asks for it
    evaluate   all of them on held-out rows: quality, agreement, speed, size
    report     results.json, report.html, and the student with its model card

Each is a function (recipe fields it reads, its folder, earlier results, who to tell) -> a small JSON-able result.
"""

from pathlib import Path
from typing import Any

from .data.encode import read_examples
from .evaluate import VERSION, Source, texts_of
from .evidence import evidence
from .files import hash_path
from .harness import harness, left_out
from .pipeline import Results, Stage
from .progress import Watch
from .recipe import Recipe
from .steps import finish, prepare, reading, students, training, writing
from .steps.aside import label_aside
from .steps.asking import label_by_asking
from .steps.baselines import prepare_baselines
from .steps.beyond import beyond
from .steps.canaries import canary_facts
from .steps.fetching import fetch_models
from .steps.heading import with_head
from .steps.hearing import answers_stamp, panel_stamp
from .steps.intact import (
    measures_stamp,
    model_fault,
    own_losses,
    report_fault,
    seeds_fault,
    targets_fault,
)
from .steps.judging import judged
from .steps.labelling import label_here
from .steps.measuring import let_read, to_measure
from .steps.naming import make_namer
from .steps.panel import make_panel
from .steps.plan import measure_plan
from .steps.seeds import train_again
from .steps.vocabulary import lender, trim_teacher
from .teachers.cache import pool_caches
from .train.early import looks_beside


def _prepare(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Fetch and verify what the recipe names; cut it into examples for the teacher and the student alike."""
    models = fetch_models(recipe, place, watch)
    rows, licences = reading.read_rows(recipe, watch)
    rows = writing.write_rows(recipe, rows, models, place, watch)
    rows = judged(recipe, rows, models, place.parent, watch)
    models = trim_teacher(recipe, rows, models, watch)
    encoded = prepare.encode_rows(recipe, rows, models, place, watch)
    beside = prepare_baselines(recipe, rows, encoded["labels"], place, watch)
    return {
        **models,
        **encoded,
        "baselines": beside,
        "canaries": canary_facts(recipe, encoded["counts"]["train"]["format"]),
        "licences": licences,
        "not_looked_for": left_out(recipe.looked_for or [], rows.documents),
    }


def _plan(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Run teacher and student for some seconds, and say what every stage will take."""
    return measure_plan(recipe, place, results["prepare"], watch)


def _teacher(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The teacher as it is, or fine-tuned on the labelled training rows."""
    facts = results["prepare"]
    if not recipe.teacher.is_local:
        return {"folder": None, "identity": facts["teacher"]["identity"]}
    if recipe.teacher.panel is not None or recipe.teacher.context is not None:
        return make_panel(
            recipe, prepare.task_of(recipe, facts, place.parent / "prepare"), facts, place, watch
        )
    if recipe.teacher.zero_shot is not None:
        return make_namer(
            recipe, prepare.task_of(recipe, facts, place.parent / "prepare"), facts, place, watch
        )
    if recipe.compares_layers_alone:
        task = prepare.task_of(recipe, facts, place.parent / "prepare")
        if made := with_head(task, Path(facts["teacher"]["folder"]), recipe.seed, place):
            return made
    if recipe.teacher.finetune is None:
        return {"folder": facts["teacher"]["folder"], "identity": facts["teacher"]["identity"]}
    task = prepare.task_of(recipe, facts, place.parent / "prepare")
    folder = training.finetune(recipe.teacher.finetune, recipe.seed, task, facts, place, watch)
    return {"folder": _inside(folder, place), "identity": f"folder:{hash_path(folder)}"}


def _initial(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The student before it learns anything."""
    facts = results["prepare"]
    task = prepare.task_of(recipe, facts, place.parent / "prepare")
    lead = results["teacher"].get("lead", results["teacher"])
    teacher = prepare.located(lead["folder"] or facts["teacher"]["folder"], place)
    with lender(teacher, facts, task, place) as lent:
        folder, how = students.make_student(
            recipe.student, training.training_seed(recipe), task, lent, facts, place, watch
        )
    return {"folder": _inside(folder, place), "identity": f"folder:{hash_path(folder)}", "how": how}


def _label(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """What the teacher says to every training example, asked for once."""
    if not recipe.teacher.is_local:
        facts = results["prepare"]
        return label_by_asking(
            recipe, place, facts, prepare.task_of(recipe, facts, place.parent / "prepare"), watch
        )
    aside = label_aside(recipe, results, place, watch)
    return {**label_here(recipe, results, place, watch), **aside}


def _train(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Teach the student."""
    teacher = training.build_teacher(recipe, results, place, watch)
    return _trained(recipe, recipe.listed_terms, teacher, place, results, watch)


def _control(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """The same student without the teacher: hard targets alone."""
    if not recipe.evaluate.hard_only or not recipe.has_control:
        return {"folder": None}
    if not training.labelled(read_examples(place.parent / "prepare" / "train.parquet")):
        watch.note("  no training row has an answer of its own, so there is no control")
        return {"folder": None}
    return _trained(recipe, training.HARD_ONLY, None, place, results, watch)


def _trained(
    recipe: Any, objective: list[Any], teacher: Any, place: Path, results: Results, watch: Watch
) -> dict[str, Any]:
    task = prepare.task_of(recipe, results["prepare"], place.parent / "prepare")
    student = prepare.located(results["initial"]["folder"], place)
    folder = training.train_student(
        recipe, objective, teacher, task, student, results["prepare"], place, watch,
        taught=training.taught_by(results, place),
    )  # fmt: skip
    identity, looks = f"folder:{hash_path(folder)}", looks_beside(folder)
    return {"folder": _inside(folder, place), "identity": identity, "early_stopping": looks}


def _seeds(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Student and control once more with other seeds."""
    return {"runs": list(train_again(recipe, place, results, watch))}


def _evaluate(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """Teacher, student and controls on the same held-out rows."""
    facts = results["prepare"]
    task = prepare.task_of(recipe, facts, place.parent / "prepare")
    names = {"teacher": "teacher", "student": "train", "initial": "initial", "hard_only": "control"}
    sources = {
        name: Source(results[stage]["identity"], prepare.located(results[stage]["folder"], place))
        for name, stage in names.items()
        if results[stage]["folder"] is not None and "silent" not in results[stage]
    }
    measured = to_measure(recipe, task, results, place, watch)
    evaluation, held = measured.evaluation, measured.held["eval"]
    seen = let_read(sources, task, measured, recipe, watch)
    asked = harness(
        {name: source.folder for name, source in sources.items()}, task, recipe.evaluate.harness, place, watch,
        batch_size=recipe.label.batch_size, resamples=recipe.evaluate.resamples, seed=recipe.seed,
    )  # fmt: skip
    again = evaluation.read_seeds(results["seeds"]["runs"], place)
    more = beyond(recipe, task, sources, measured, results, place, watch)
    evaluation.forget()
    with_numbers = (recipe.evaluate.resamples, recipe.seed)
    retentions, floors = evaluation.retentions(measured.train, *with_numbers)
    return {
        "models": {
            name: {"metrics": evaluation.metrics(name, *with_numbers)}
            for name in names
            if name in evaluation.rows
        },
        **seen,
        "floors": floors,
        "retentions": retentions,
        "gains": evaluation.gains("student", "hard_only", *with_numbers) if "hard_only" in sources else None,
        **evidence(
            evaluation.rows,
            evaluation.index,
            texts_of(task, evaluation.sets["eval"], held),
            task.labels,
            task.metrics["teacher_agreement"],
            task.metrics[task.headline],
            resamples=recipe.evaluate.resamples,
            seed=recipe.seed,
        ),
        "seeds": again,
        "harness": asked,
        **more,
        "reliability": evaluation.reliabilities(),
        "notes": {kind: note for kind, one in evaluation.index.items() if (note := one.note())},
    }


def _report(recipe: Any, place: Path, results: Results, watch: Watch) -> dict[str, Any]:
    """What a person sees, and what is handed over."""
    found = finish.collect(recipe, place.parent, results, STAGES)
    finish.publish(found, place.parent, prepare.located(results["train"]["folder"], place))
    return {"retention": found["retention"]}


def _inside(folder: Path, place: Path) -> str:
    """A folder's path from the run folder, so that the run can be moved."""
    return folder.relative_to(place.parent).as_posix()


def _always(recipe: Any) -> bool:
    """All processes of a run train together."""
    return True


_SOURCES = (
    *("task", "seed", "teacher.model", "teacher.sha256", "teacher.revision", "teacher.finetune"),
    *("teacher.panel", "teacher.pool", "teacher.terms_accepted", "teacher.context_column"),
    *("teacher.is_local", "teacher.is_ready", "teacher.name", "teacher.provider", "teacher.label_words"),
    *("teacher.zero_shot", "teacher.takes_bare_rows", "teacher.lends", "teacher.labels_field"),
)
_LEARNING = ("seed", "task", "train", "data.max_length", "redraws")
_OWN = ("cut", "target", "search", "from_config", "model", "sha256", "revision", "dropout")
_ORIGIN = tuple(f"student.{name}" for name in _OWN)
_FORMS = ("student.adapter", "student.quantize", "student.sparsity")
_TAUGHT = ("terms", "rollouts", "label.online", "teacher.dtype", "teacher.ema")
_CHOSEN = ("prepare.validation",)
_TASK = ("prepare.teacher", "prepare.tongues", "prepare.labels")

STAGES = [
    Stage(
        "prepare",
        _prepare,
        reads=(
            *_SOURCES,
            "teacher.context",
            *("student.model", "student.tokenizer", "student.sha256", "student.revision"),
            "student.vocabulary",
            "data",
            "writing_api",
            "other_domains",
            "evaluate.baselines",
            "evaluate.coverage",
            "evaluate.groups",
            "evaluate.memorisation",
            "evaluate.perturb",
            "evaluate.swap",
            "evaluate.rows",
        ),
        reads_if_set=("looked_for",),
        version=7,
        stamp=reading.files_stamp,
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
            "compares_layers_alone",
            "has_control",
            "terms",
            "rollouts",
            "train",
            "evaluate",
            "report.samples",
        ),
        after=("prepare",),
        version=3,
    ),
    Stage(
        "teacher",
        _teacher,
        reads=(
            *("seed", "task", "label.batch_size", "data.max_length", "teacher.is_local", "teacher.model"),
            *("teacher.finetune", "teacher.panel", "teacher.pool", "teacher.context"),
            "teacher.context_column",
            *("teacher.zero_shot", "teacher.label_words", "teacher.asked_dtype", "compares_layers_alone"),
        ),
        after=(
            *_TASK,
            "prepare.panel",
            "prepare.routes",
            *("prepare.asked", "prepare.contexts"),
            "prepare.evaluated",
            "prepare.zero_shot",
            "prepare.bfloat16",
            "prepare.sets.train",
            *_CHOSEN,
        ),
        stamp=panel_stamp,
        intact=model_fault,
        joined=lambda recipe: recipe.teacher.finetune is not None,
    ),
    Stage(
        "initial",
        _initial,
        reads=("seed", "task", *_ORIGIN, "train.seed", "data.max_length"),
        after=(*_TASK, "prepare.student", "prepare.sets.train", "teacher"),
        intact=model_fault,
    ),
    Stage(
        "label",
        _label,
        reads=(
            *("task", "seed", "label", "temperature", "data.max_length", "data.filter"),
            *("teacher.dtype", "teacher.is_local", "teacher.is_ready", "teacher.api"),
        ),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets", "prepare.evaluated", "teacher"),
        stamp=answers_stamp,
        intact=targets_fault,
        content_keyed=True,
        pool=pool_caches,
    ),
    Stage(
        "train",
        _train,
        reads=(*_LEARNING, *_FORMS, *_TAUGHT, "listed_terms"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train", *_CHOSEN, "teacher", "initial", "label"),
        version=2,
        stamp=own_losses,
        intact=model_fault,
        joined=_always,
    ),
    Stage(
        "control",
        _control,
        reads=(*_LEARNING, *_FORMS, "evaluate.hard_only", "has_control"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train", *_CHOSEN, "initial"),
        after_if_there=(("label.sets.validation", "train.early_stopping"),),
        version=2,
        intact=model_fault,
        joined=_always,
    ),
    Stage(
        "seeds",
        _seeds,
        reads=(*_LEARNING, *_FORMS, *_TAUGHT, "evaluate.seeds", "evaluate.hard_only", "has_control"),
        after=(*_TASK, "prepare.bfloat16", "prepare.sets.train", *_CHOSEN, "teacher", "initial", "label"),
        stamp=own_losses,
        intact=seeds_fault,
        joined=_always,
    ),
    Stage(
        "evaluate",
        _evaluate,
        version=VERSION,
        reads=(
            *("seed", "task", "data.max_length", "label.batch_size", "teacher.is_local", "teacher.api"),
            *("evaluate.answers", "evaluate.baselines", "evaluate.baseline_names", "evaluate.harness"),
            "evaluate.judge",
            *("evaluate.memorisation", "evaluate.resamples"),
            *("evaluate.speed", "evaluate.speed_batch", "report.samples"),
            *("train.steps", "train.epochs", "train.batch_size", "train.accumulate"),
        ),
        stamp=measures_stamp,
        after=(
            *(*_TASK, "prepare.sets", "prepare.evaluated", "prepare.held_out"),
            *("prepare.baselines", "prepare.canaries"),
            *("teacher", "initial", "label", "train", "control", "seeds"),
        ),
    ),
    Stage(
        "report",
        _report,
        version=2,
        reads=tuple(Recipe.model_fields),
        after=("prepare", "plan", "teacher", "initial", "label", "train", "control", "seeds", "evaluate"),
        intact=report_fault,
        shared=False,
    ),
]
"""In this order.  What a stage does not name here it cannot see."""
