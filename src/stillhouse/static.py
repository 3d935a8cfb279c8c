"""What can be said of a recipe without loading a model: files, columns, tokenizers, licences, disk.  Under 2 seconds."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from . import sources
from .asking.checks import api_checks
from .data.alike import refuse_alike
from .data.contexts import context_of
from .data.detect import detect
from .data.filters.rules import rules
from .data.formats import Dropped, Row, canonical, has_answer, value_of
from .data.load import Raw, read_raw
from .data.questions import question
from .data.templates import (
    check_folder,
    check_judge,
    judge_prompt,
    prompt_file,
    prompt_files,
    prompt_said,
    refuse_single,
)
from .errors import DataError, MissingExtra, RecipeError, ResourceError
from .models.described import json_in, layer_count, model_config, skeleton_in
from .models.fitting import check_model, check_positions
from .models.products import check_targets
from .models.shrink.requests import check_layers, check_pace, fixed_sizes, shapes_within
from .models.shrink.skeleton import FIELDS, Shape, Skeleton
from .recipe import (
    Baseline,
    DataSet,
    DeeperLayers,
    Member,
    Recipe,
    Student,
    Teacher,
    ZeroShot,
    crossing_fault,
)
from .recipe.data import LEARNED_FROM
from .recipe.generate import Further
from .registry import needs
from .sources import cache_dir
from .sources.licence import card_licence
from .sources.terms import of_licence, of_provider, refuse_disallowed

COVERED = "evaluate.coverage."
"""Begins the name of a set that nobody is measured on."""
ROWS_READ = 20
"""Of each local data set: enough to know its columns."""
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
    notes += [*_sets(recipe), *_tokenizers(recipe), *_beside(recipe)]
    _packages(recipe)
    notes += [*_baselines(recipe), *_judge(recipe), *_licences(recipe), _disk(place)]
    return notes


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _said(field: str, model: str | None, pins: Any) -> list[str]:
    """Look at the model that `field` names, if it names one.  Args: pins: has its sha256 and revision."""
    if model is None:
        return []
    said = sources.check(model, sha256=pins.sha256, revision=pins.revision, kind="model")
    return [f"{field}: {note}" for note in said]


def _lender(recipe: Recipe) -> list[str]:
    """The model whose tokenizer the student takes."""
    return _said("student.tokenizer", recipe.student.tokenizer, recipe.student)


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
    notes = _said(field, one.model, one)
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
            notes += _said(f"evaluate.baselines: {one.name}", one.model, one)
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
        depth = layer_count(model_config(Path(student.model)))
    elif student.cut is not None and student.cut.layers is not None:
        layers = student.cut.layers
        depth = layers if isinstance(layers, int) else len(layers)
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


def _sets(recipe: Recipe) -> Iterator[str]:
    """Whether the data sets are there, and their first rows can be used."""
    named: dict[str, DataSet | None] = {
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "data.extra": recipe.data.extra,
        "data.unlabelled": recipe.data.unlabelled,
    }
    named |= {f"evaluate.also.{also.name}": also for also in recipe.other_domains}
    named |= {f"{COVERED}{one.name}": one for one in recipe.evaluate.coverage}
    for name, one in named.items():
        if one is not None:
            group = recipe.data.group if name == "data.train" else None
            yield from (f"{name}: {note}" for note in _data(name, one, recipe, group))
    if recipe.task != "classification" and recipe.evaluate.also is None and not recipe.other_domains:
        yield "evaluate.also: no other domain will be measured than that of the rows; name a data set of another one there"


def _data(name: str, one: DataSet, recipe: Recipe, group: str | None) -> list[str]:
    """Look at a source; if it lies here, read its first rows."""
    notes = sources.check(one.source, sha256=one.sha256, revision=one.revision, kind="data")
    path = Path(one.source)
    if not path.exists():
        return notes
    first = list(islice(read_raw(path), ROWS_READ))
    if not first:
        raise DataError(f"{path}: holds no rows; name another file.")
    columns = {str(ours): theirs for ours, theirs in one.columns.items()} | (
        {"group": group} if group else {}
    )
    for column in one.where:
        value_of(first[0], column, "where")
    if name == "data.unlabelled" and recipe.task != "classification":
        asked = [
            row for raw in first if not isinstance(row := question(raw, columns, name, recipe.task), Dropped)
        ]
        return [*notes, f"prompts; {len(asked)} of the first {len(first)} can be used"]
    if name == "data.extra" and recipe.task in ("causal_lm", "seq2seq") and recipe.teacher.takes_bare_rows:
        _refuse_bare(path, one.format, first, columns, recipe.task)
    answered = name == "data.extra" or not (recipe.teacher.takes_bare_rows or name.startswith(COVERED))
    form = (
        one.format
        if one.format != "auto"
        else detect(first[0].fields, columns, recipe.task, first[0].where, name, answered)
    )
    labelled = name != "data.unlabelled" and not name.startswith(COVERED)
    if (passages := recipe.teacher.context_column) is not None and not name.startswith(COVERED):
        for raw in first:
            context_of(raw, form, passages)
    made = [canonical(raw, form, columns, labelled, answered=answered) for raw in first]
    if any(not isinstance(row, Dropped) and "pair" in row for row in made):
        refuse_single(_asked(recipe))
    return [*notes, f"{form} rows; {_seen(made, len(first) < ROWS_READ)}"]


def _refuse_bare(path: Path, form: str, first: Sequence[Raw], columns: dict[str, str], task: str) -> None:
    """Raises: DataError if none of the `first` further rows has a target, which these need though somebody writes another one."""
    if form == "auto":
        form = detect(first[0].fields, columns, task, first[0].where, "data.extra", answered=False)
    made = [canonical(raw, form, columns, answered=False) for raw in first]
    asking = [row for row in made if not isinstance(row, Dropped)]
    if asking and not any(map(has_answer, asking)):
        raise DataError(
            f"{path}: rows beside data.train must have targets, which the teacher's answers replace, and these have none; give them "
            "targets, or put the rows into data.train."
        )


def _asked(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(where it is from, what it asks) of the recipe's own ways of asking for a label."""
    for field, one in recipe.teacher.asked.items():
        if isinstance(one, ZeroShot):
            yield from ((path, Path(path).read_text(encoding="utf-8")) for path in one.prompts)
        elif (said := prompt_said(one.prompt, "label_pair", f"{field}.prompt")) is not None:
            yield f"{field}.prompt", said


def _seen(made: Sequence[Row | Dropped], whole: bool) -> str:
    """What the first rows of a source are, in a few words; all of them, if that is the `whole`."""
    usable = [row for row in made if not isinstance(row, Dropped)]
    told = [
        f"{'all' if whole else 'only the first'} {len(made)} were looked at, and {len(usable)} can be used"
    ]
    if left := [row for row in made if isinstance(row, Dropped)]:
        told.append(f"not {left[0].where}: {left[0].reason}")
    if labels := Counter(str(row["label"]) for row in usable if row.get("label") is not None):
        shown = [f"{label} ({count})" for label, count in sorted(labels.items())]
        told.append(f"labels {', '.join(shown[:8])}{', …' if len(shown) > 8 else ''}")
    if reasons := sum("rationale" in row for row in usable):
        told.append(f"{reasons} with a rationale")
    return "; ".join(told)


def _beside(recipe: Recipe) -> list[str]:
    """The writers' and the judge's models and prompts, and the files and functions that a filter names."""
    writer, judge, notes = recipe.data.writer, recipe.data.judge, []
    for name, api in recipe.data.apis.items():
        terms = of_provider(str(api.base_url))
        refuse_disallowed([terms], recipe.teacher.terms_accepted)
        notes += [*api_checks(api, name), f"{name.removesuffix('.api')}: {terms.sentence()}"]
    if writer is not None:
        notes += _said("data.writer", writer.model, writer)
        for one in writer.others:
            notes += _said("data.writer.others", one.model, one)
    if judge is not None:
        notes += _said("data.judge", judge.model, judge)
    if judge is not None and judge.api is not None:
        judge_prompt(judge.prompt)
    elif judge is not None:
        prompt_file(judge.prompt, "judge", "data.judge.prompt")
    if writer is not None and writer.prompts is not None:
        check_folder(Path(writer.prompts))
    for wanted in recipe.data.generate:
        if isinstance(wanted, Further) and wanted.of is not None and not Path(wanted.of).is_file():
            raise RecipeError(f"data.generate: of: {wanted.of} is not there; name a file of rows.")
    if recipe.data.filter is not None:
        count = len(list(rules(recipe.data.filter)))
        notes.append(f"data.filter: {count} rules that look at one row can be applied")
    return notes


def _tokenizers(recipe: Recipe) -> list[str]:
    """Compare two local tokenizers by their pieces."""
    teacher, student = Path(recipe.teacher.model or ""), Path(recipe.student.model or "")
    files = [folder / "tokenizer.json" for folder in (teacher, student)]
    alone = recipe.student.model is None or recipe.teacher.zero_shot is not None
    if alone or not all(file.is_file() for file in files):
        return []
    one, other = (json_in(file).get("model", {}).get("vocab") for file in files)
    if one != other:
        fault = crossing_fault(recipe.task, recipe.terms, recipe.label.online, recipe.rollouts)
        if fault is not None:
            raise RecipeError(fault)
        return ["tokenizers: differ; the teacher reads each row in its own"]
    return ["tokenizers: the same"]


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
