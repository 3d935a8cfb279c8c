"""What can be said of a recipe without loading a model: files, columns, tokenizers, licences, disk.  Under 2 seconds."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from . import sources
from .asking.checks import api_checks
from .data.contexts import context_of
from .data.detect import detect
from .data.filters.rules import rules
from .data.formats import Dropped, Row, canonical, value_of
from .data.load import read_raw
from .data.questions import question
from .data.templates import check_folder, check_judge, judge_prompt, prompt_file, prompt_files, refuse_single
from .errors import DataError, MissingExtra, RecipeError, ResourceError
from .models.described import json_in, layer_count, model_config, skeleton_in
from .models.fitting import check_model
from .models.shrink.requests import check_layers, check_pace, fixed_sizes, shapes_within
from .models.shrink.skeleton import FIELDS, Shape, Skeleton
from .recipe import Baseline, DataSet, DeeperLayers, Recipe, Student, ZeroShot, crossing_fault
from .recipe.data import LEARNED_FROM
from .registry import needs
from .sources import cache_dir
from .sources.licence import card_licence
from .sources.terms import of_licence, of_provider, refuse_disallowed

ROWS_READ = 20
"""Of each local data set: enough to know its columns."""
DISK_NEEDED = 2_000_000_000
"""Bytes below which a run is not worth beginning."""


def static_checks(recipe: Recipe, place: Path) -> list[str]:
    """Notes for a person; `place` is where the run will lie.  Raises: RecipeError, DataError or ResourceError for what would stop the run later."""
    notes = []
    for role in ("teacher", "student"):
        wanted = getattr(recipe, role)
        if wanted.model is not None:
            said = sources.check(wanted.model, sha256=wanted.sha256, revision=wanted.revision, kind="model")
            notes += [f"{role}: {note}" for note in said]
            check_model(
                role, Path(wanted.model), recipe, role == "teacher" and recipe.teacher.zero_shot is not None
            )
    for field, api in recipe.teacher.apis.items():
        notes += api_checks(api, field)
        if recipe.task == "causal_lm" and recipe.temperature is not None:
            notes.append(
                f"teacher: {api.top_logprobs} log-probabilities a token become soft targets if its tokenizer is the "
                "student's; its first answers tell"
            )
        if api.base_url is not None:
            terms = of_provider(api.base_url)
            refuse_disallowed([terms], recipe.teacher.terms_accepted)
            notes.append(f"{field.removesuffix('.api')}: {terms.sentence()}")
    if (lender := recipe.student.tokenizer) is not None:
        own = recipe.student
        said = sources.check(lender, sha256=own.sha256, revision=own.revision, kind="model")
        notes += [f"student.tokenizer: {note}" for note in said]
    for field, asked in recipe.teacher.asked.items():
        if isinstance(asked, ZeroShot):
            prompt_files(asked.prompts, "zero_shot_pair", f"{field}.prompt")
    for number, member in enumerate(recipe.teacher.panel or []):
        if member.model is not None:
            said = sources.check(member.model, sha256=member.sha256, revision=member.revision, kind="model")
            notes += [f"teacher.panel[{number}]: {note}" for note in said]
            check_model("teacher", Path(member.model), recipe, member.zero_shot is not None)
    _layers(recipe)
    named = {
        "data.train": recipe.data.train,
        "data.eval": recipe.data.eval,
        "data.extra": recipe.data.extra,
        "data.unlabelled": recipe.data.unlabelled,
    }
    named |= {f"evaluate.also.{also.name}": also for also in recipe.evaluate.also}
    for name, one in named.items():
        if one is not None:
            group = recipe.data.group if name == "data.train" else None
            notes += [f"{name}: {note}" for note in _data(name, one, recipe, group)]
    notes += _tokenizers(recipe)
    notes += _beside(recipe)
    for form, package in (("adapter", "peft"), ("quantize", "torchao")):
        if getattr(recipe.student, form) is not None and find_spec(package) is None:
            raise MissingExtra(needs(package, f"student.{form}"))
    for tracker in recipe.train.report_to:
        if find_spec(tracker) is None:
            raise MissingExtra(needs(tracker, f"train.report_to: {tracker}"))
    if recipe.evaluate.harness is not None:
        if find_spec("lm_eval") is None:
            raise MissingExtra(needs("lm_eval", "evaluate.harness"))
        for name in recipe.evaluate.harness.tasks:
            harness_task(name)
    notes += _baselines(recipe)
    if (judge := recipe.evaluate.judge) is not None:
        notes += api_checks(judge.api, "evaluate.judge.api")
        check_judge(None if judge.prompt is None else Path(judge.prompt))
    models = [recipe.teacher.model, *(member.model for member in recipe.teacher.panel or [])]
    for model in [one for one in models if one is not None]:
        if Path(model).is_dir() and (stated := card_licence(Path(model))):
            refuse_disallowed([of_licence(stated)], recipe.teacher.terms_accepted)
            notes.append(f"teacher: {of_licence(stated).sentence()}")
    for name in LEARNED_FROM:
        one = getattr(recipe.data, name)
        if one is not None and Path(one.source).is_dir() and (stated := card_licence(Path(one.source))):
            refuse_disallowed([of_licence(stated)], recipe.teacher.terms_accepted, f"data.{name}")
    if recipe.licence is None:
        notes.append("licence: not given, so the student's model card will say it is unknown")
    notes.append(_disk(place))
    return notes


def _baselines(recipe: Recipe) -> list[str]:
    """The models that are named, and what counts words."""
    notes = []
    for one in recipe.evaluate.baselines:
        if isinstance(one, Baseline):
            said = sources.check(one.model, sha256=one.sha256, revision=one.revision, kind="model")
            notes += [f"evaluate.baselines: {one.name}: {note}" for note in said]
            check_model(f"evaluate.baselines: {one.name}", Path(one.model), recipe)
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
    answered = not recipe.teacher.takes_bare_rows
    form = (
        one.format
        if one.format != "auto"
        else detect(first[0].fields, columns, recipe.task, first[0].where, name, answered)
    )
    labelled = name != "data.unlabelled"
    if (passages := recipe.teacher.context_column) is not None:
        for raw in first:
            context_of(raw, form, passages)
    made = [canonical(raw, form, columns, labelled, answered=answered) for raw in first]
    if any(not isinstance(row, Dropped) and "pair" in row for row in made):
        refuse_single(_asked(recipe))
    return [*notes, f"{form} rows; {_seen(made, len(first) < ROWS_READ)}"]


def _asked(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(where it is from, what it asks) of the recipe's own ways of asking for a label."""
    for field, one in recipe.teacher.asked.items():
        if isinstance(one, ZeroShot):
            yield from ((path, Path(path).read_text(encoding="utf-8")) for path in one.prompts)
        elif one.prompt is not None:
            yield f"{field}.prompt", one.prompt


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
    """The writer's model and prompts, and the files and functions that a filter names."""
    writer, notes = recipe.data.writer, []
    for name, api in recipe.data.apis.items():
        terms = of_provider(str(api.base_url))
        refuse_disallowed([terms], recipe.teacher.terms_accepted)
        notes += [*api_checks(api, name), f"{name.removesuffix('.api')}: {terms.sentence()}"]
    if writer is not None and writer.model is not None:
        said = sources.check(writer.model, sha256=writer.sha256, revision=writer.revision, kind="model")
        notes += [f"data.writer: {note}" for note in said]
    judge = recipe.data.judge
    for name, one in [
        *(("data.writer.others", one) for one in (writer.others if writer else [])),
        ("data.judge", judge),
    ]:
        if one is not None and one.model is not None:
            said = sources.check(one.model, sha256=one.sha256, revision=one.revision, kind="model")
            notes += [f"{name}: {note}" for note in said]
    if judge is not None and judge.api is not None:
        judge_prompt(judge.prompt)
    elif judge is not None:
        prompt_file(judge.prompt, "judge", "data.judge.prompt")
    if writer is not None and writer.prompts is not None:
        check_folder(Path(writer.prompts))
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
