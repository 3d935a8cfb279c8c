"""Sources -> verified files -> rows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.filters.rules import looked_up
from ..data.formats import Row
from ..data.sets import read_rows as read_set_alone
from ..data.split import Prepared, in_order
from ..data.split import prepare as split_rows
from ..harness import documents
from ..harness_files import files_of
from ..progress import Watch
from ..recipe import Baseline, Data, DataSet, Filter, generate
from ..recipe.data import LEARNED_FROM
from ..registry import source_of
from ..sources import resolve
from ..sources.terms import of_licence, refuse_disallowed
from .questions import refuse_unaskable


def files_stamp(recipe: Any) -> list[list[Any]]:
    """Size and time of every local file that the recipe names; if they change, so may the data."""
    panel = [
        member.model for member in recipe.teacher.panel or []
    ]  # past answers are looked at by those who take them
    models = [recipe.teacher.model, *panel, recipe.student.model, recipe.student.tokenizer]
    models += [one.model for one in recipe.evaluate.baselines if isinstance(one, Baseline)]
    named = [*models, *(one.source for one in _data_sets(recipe).values()), *_beside(recipe.data)]
    for one in (recipe.teacher, *(recipe.teacher.panel or [])):
        named += [] if one.zero_shot is None else one.zero_shot.prompts
    named += files_of(recipe.looked_for or [])
    stamps = []
    for name in named:
        if name and Path(name).exists():
            files = (
                [Path(name)]
                if Path(name).is_file()
                else sorted(p for p in Path(name).rglob("*") if p.is_file())
            )
            stamps.append([name, [[path.stat().st_size, path.stat().st_mtime_ns] for path in files]])
    return stamps


def _beside(data: Data) -> list[str | None]:
    """Further files that decide what the rows are: a writer, its prompts, and what a filter looks up."""
    writer, wanted = data.writer, data.filter
    found = (
        [writer.model, writer.prompts, *(one.model for one in writer.others)] if writer is not None else []
    )
    found += [data.judge.model, data.judge.prompt] if data.judge is not None else []
    for one in data.generate:
        targets = [one.key, one.checker] if isinstance(one, generate.Answers) else []
        found += [str(source_of(target)) for target in targets if target is not None]
        found += [one.of] if isinstance(one, generate.Further) else []
    if wanted is not None:
        found += looked_up(wanted)
    return found


def read_rows(recipe: Any, watch: Watch) -> tuple[Prepared, dict[str, str | None]]:
    """Read, deduplicate and split every data set.  Returns: the rows, and each set's licence."""
    paths, licences = {}, {}
    for name, one in _data_sets(recipe).items():
        found = resolve(
            one.source, sha256=one.sha256, revision=one.revision, kind="data", progress=watch.note
        )
        paths[name], licences[name] = found.path, found.licence
        if name in LEARNED_FROM:
            refuse_disallowed([of_licence(found.licence)], recipe.teacher.terms_accepted, f"data.{name}")
    bare = recipe.teacher.takes_bare_rows
    groups, column = recipe.evaluate.groups, recipe.teacher.pool.column if recipe.teacher.pool else None
    rows = split_rows(
        recipe.data,
        recipe.other_domains,
        recipe.task,
        recipe.seed,
        paths,
        groups,
        column,
        answered=not bare,
        context=recipe.teacher.context_column,
        documents=_documents(recipe, watch),
    )
    if bare:
        refuse_unaskable(recipe.task, {"train": rows.train, "eval": rows.eval, **rows.also})
    for name, counts in rows.counts.items():
        left_out = ", ".join(f"{number:,} {reason}" for reason, number in counts["dropped"].items())
        watch.note(
            f"  {name}: {counts['format']} rows, {counts['kept']:,} kept"
            + (f"; left out: {left_out}" if left_out else "")
        )
    return replace(rows, covered=_covered(recipe, paths, watch)), licences


def _documents(recipe: Any, watch: Watch) -> dict[str, list[Row]]:
    """Task of the harness -> the texts of its documents, if training rows are searched for them."""
    length = (recipe.data.filter or Filter()).contamination
    return {} if length is None else documents(recipe.looked_for or [], length, watch)


def _covered(recipe: Any, paths: Mapping[str, Path], watch: Watch) -> dict[str, list[Row]]:
    """The sets of `evaluate.coverage`, each in its seeded order, without labels."""
    found = {}
    for one in recipe.evaluate.coverage:
        rows = read_set_alone(
            one.name, "evaluate.coverage", one, recipe.task, paths[one.name], answered=False
        )
        found[one.name] = in_order(rows, recipe.seed, "order", one.name)[: one.limit]
        watch.note(f"  {one.name}: {len(found[one.name]):,} rows, which training rows are compared with")
    return found


def _data_sets(recipe: Any) -> dict[str, DataSet]:
    named = {one.name: one for one in [*recipe.other_domains, *recipe.evaluate.coverage]}
    return {**recipe.data.sets, **named}
