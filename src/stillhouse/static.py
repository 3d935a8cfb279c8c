"""What can be said of a recipe without loading a model: files, columns, tokenizers, licences, disk.  Under 2 seconds."""

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from .asking.checks import api_checks
from .data.alike import refuse_alike
from .data.templates import (
    check_judge,
    prompt_files,
    prompt_said,
)
from .errors import MissingExtra, RecipeError, ResourceError
from .models.described import layer_count, model_config, skeleton_in, speaking_depth
from .models.fitting import check_model, check_positions
from .models.products import check_targets
from .models.shrink.requests import check_layers, check_pace, fixed_sizes, shapes_within
from .models.shrink.skeleton import FIELDS, Shape, Skeleton
from .recipe import (
    Baseline,
    DeeperLayers,
    Member,
    Recipe,
    Student,
    Teacher,
    ZeroShot,
)
from .recipe.data import LEARNED_FROM
from .registry import needs
from .sources import cache_dir
from .sources.licence import card_licence
from .sources.terms import of_licence, of_provider, refuse_disallowed
from .static_data import check_beside, check_sets, check_tokenizers, model_said

DISK_NEEDED = 2_000_000_000
"""Bytes below which a run is not worth beginning."""


def static_checks(recipe: Recipe, place: Path) -> list[str]:
    """Notes for a person; `place` is where the run will lie.  Raises: RecipeError, DataError or ResourceError for what would stop the run later."""
    notes = [*check_teachers(recipe), *_model("student", recipe.student, recipe), *_lender(recipe)]
    for field, asked in recipe.teacher.asked.items():
        if isinstance(asked, ZeroShot):
            prompt_files(asked.prompts, "zero_shot_pair", f"{field}.prompt")
    _layers(recipe)
    _adapter(recipe)
    notes += [*check_sets(recipe), *check_tokenizers(recipe), *check_beside(recipe)]
    _packages(recipe)
    notes += [*_baselines(recipe), *_judge(recipe), *_licences(recipe), _disk(place)]
    return notes


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lender(recipe: Recipe) -> list[str]:
    """The model whose tokenizer the student takes."""
    return model_said("student.tokenizer", recipe.student.tokenizer, recipe.student)


def _judge(recipe: Recipe) -> list[str]:
    """Who compares answers, and what it is asked."""
    judge = recipe.evaluate.judge
    if judge is None:
        return []
    notes = api_checks(judge.api, "evaluate.judge.api")
    check_judge(None if judge.prompt is None else Path(judge.prompt))
    return notes


def _licences(recipe: Recipe) -> Iterator[str]:
    """What the cards of local teachers and data say, and whether it lets a student learn from them."""
    accepted = recipe.teacher.terms_accepted
    for model in [recipe.teacher.model, *(member.model for member in recipe.teacher.panel or [])]:
        if model is not None and Path(model).is_dir() and (stated := card_licence(Path(model))):
            refuse_disallowed([of_licence(stated)], accepted)
            yield f"teacher: {of_licence(stated).sentence()}"
    for name in LEARNED_FROM:
        one = getattr(recipe.data, name)
        if one is not None and Path(one.source).is_dir() and (stated := card_licence(Path(one.source))):
            refuse_disallowed([of_licence(stated)], accepted, f"data.{name}")
    if recipe.licence is None:
        yield "licence: not given, so the student's model card will say it is unknown"


def _packages(recipe: Recipe) -> None:
    """Raises: MissingExtra for what the recipe asks for and is not installed; RecipeError for a task that the harness has not."""
    wanted = [
        (package, f"student.{form}")
        for form, package in (("adapter", "peft"), ("quantize", "torchao"))
        if getattr(recipe.student, form) is not None
    ]
    wanted += [(tracker, f"train.report_to: {tracker}") for tracker in recipe.train.report_to]
    if recipe.evaluate.harness is not None:
        wanted.append(("lm_eval", "evaluate.harness"))
    for package, purpose in wanted:
        if find_spec(package) is None:
            raise MissingExtra(needs(package, purpose))
    for name in recipe.evaluate.harness.tasks if recipe.evaluate.harness is not None else []:
        harness_task(name)


def check_teachers(recipe: Recipe) -> list[str]:
    """Notes on the teacher or on all of a panel, by their files and what the recipe says of them.

    Raises: RecipeError, DataError or TeacherError for one that is not there or not whole, or may not teach.
    """
    teacher = recipe.teacher
    refuse_alike(teacher)
    notes = _model("teacher", teacher, recipe)
    for field, api in teacher.apis.items():
        notes += api_checks(api, field)
        prompt_said(api.prompt, "source" if recipe.task == "seq2seq" else "label_pair", f"{field}.prompt")
        if recipe.task == "causal_lm" and recipe.temperature is not None:
            notes.append(
                f"teacher: {api.top_logprobs} log-probabilities a token become soft targets if its tokenizer is the "
                "student's; its first answers tell"
            )
        if api.base_url is not None:
            terms = of_provider(api.base_url)
            refuse_disallowed([terms], teacher.terms_accepted)
            notes.append(f"{field.removesuffix('.api')}: {terms.sentence()}")
    for number, member in enumerate(teacher.panel or []):
        notes += _model(f"teacher.panel[{number}]", member, recipe)
    return notes


def _model(field: str, one: Teacher | Member | Student, recipe: Recipe) -> list[str]:
    """Notes on the model that a section names, if it names one."""
    notes = model_said(field, one.model, one)
    if one.model is not None:
        by_names = not isinstance(one, Student) and one.zero_shot is not None
        check_model(field.partition(".")[0], Path(one.model), recipe, by_names)
        if not (by_names or isinstance(one, Member)):  # a member's texts end where it reads no further
            check_positions(field, Path(one.model), recipe)
    return notes


def _baselines(recipe: Recipe) -> list[str]:
    """The models that are named, and what counts words."""
    notes = []
    for one in recipe.evaluate.baselines:
        if isinstance(one, Baseline):
            notes += model_said(f"evaluate.baselines: {one.name}", one.model, one)
            check_model(f"evaluate.baselines: {one.name}", Path(one.model), recipe)
            check_positions(f"evaluate.baselines: {one.name}", Path(one.model), recipe)
        elif one == "tfidf" and find_spec("sklearn") is None:
            raise MissingExtra(needs("sklearn", "evaluate.baselines: tfidf"))
    return notes


def harness_task(name: str) -> str:
    """What the harness calls a task that is named or lies in a YAML file.  Raises: RecipeError for a file without one."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return name
    if not path.is_file():
        raise RecipeError(
            f"evaluate.harness.tasks: {name} is not there; name a file, or a task of the harness."
        )
    for line in path.read_text(
        encoding="utf-8"
    ).splitlines():  # its own tags are no YAML that a safe loader takes
        if line.startswith("task:"):
            return line.removeprefix("task:").split(" #")[0].strip().strip("\"'")
    raise RecipeError(f"evaluate.harness.tasks: {name} has no line `task: name`; add it.")


def _layers(recipe: Recipe) -> None:
    """Whether the student can be cut out of the teacher, as far as its files say without being loaded."""
    _deeper(recipe)
    wanted, folder = recipe.student.cut, Path(recipe.teacher.model or "")
    if wanted is None or not (folder / "config.json").is_file():
        return
    config = model_config(folder)
    have = layer_count(config)
    if wanted.layers is not None and have is not None:
        check_layers(wanted.layers, have)
    check_shape(recipe.student, folder, recipe.task, recipe.data.max_length)


def _adapter(recipe: Recipe) -> None:
    """Whether the student has what its adapter names, where the files that it is made from or shaped after lie here."""
    student = recipe.student
    folder = Path(student.model or student.tokenizer or recipe.teacher.model or "")
    targets = student.adapter.target_modules if student.adapter is not None else "all-linear"
    if targets != "all-linear" and (folder / "config.json").is_file():
        check_targets(targets, folder)


def _deeper(recipe: Recipe) -> None:
    """Whether the layers that learn from the student's own last one lie below it, where its depth is known."""
    student, depth = recipe.student, None
    if student.model is not None and (Path(student.model) / "config.json").is_file():
        depth = speaking_depth(model_config(Path(student.model)))
    elif student.cut is not None:
        layers = student.cut.decoder_layers or student.cut.layers
        depth = len(layers) if isinstance(layers, list) else layers
    for term in recipe.terms:
        if depth is None or not isinstance(term, DeeperLayers):
            continue
        if depth < 2 or any(layer >= depth for layer in term.layers or []):
            asked = max(term.layers or [1])
            raise RecipeError(
                f"objective: deeper_layers: layer {asked} has none above it to learn from, for the student has {depth}; name lower "
                "ones, or remove the term."
            )


def check_shape(student: Student, folder: Path, task: str, context: int) -> None:
    """Whether a teacher in `folder` can be cut to that shape or target.  Raises: RecipeError before anything is loaded."""
    wanted = student.cut
    sizes = [] if wanted is None else [getattr(wanted, name) for name in (*FIELDS, "decoder_layers")]
    if wanted is None or (student.target is None and not any(sizes)):
        return
    shape_within(student, skeleton_in(folder), task, context)


def shape_within(student: Student, skeleton: Skeleton, task: str, context: int) -> Shape | None:
    """The shape that such a student has; None if only data or a clock can tell.  Raises: RecipeError if there is none."""
    wanted = student.cut
    assert wanted is not None
    fixed = fixed_sizes(wanted, skeleton)
    shape = skeleton.wanted(**fixed)
    if student.target is None:
        return shape
    if student.vocabulary is not None:
        return None
    if student.target.tokens_per_second is not None:
        check_pace(skeleton, student.target, fixed, head=task != "classification")
        return None
    return shapes_within(skeleton, student.target, fixed, context)[0]


def _disk(place: Path) -> str:
    """Room for the run."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < DISK_NEEDED:
        raise ResourceError(
            f"only {free / 1e9:.1f} GB of disk are free in {there}, and at least 2 are needed; "
            "free some, or name another place with --folder."
        )
    return f"disk: {free / 1e9:.0f} GB free; downloads are kept in {cache_dir()}"
