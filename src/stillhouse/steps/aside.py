"""Rows set aside for choosing settings (`data.validation`): those without a label are judged by the teacher's first choice.

So the share of right answers on them is that of agreements with the teacher, and no further metric is needed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.encode import Example, read_examples, write_examples
from ..errors import DataError
from ..files import read_json
from ..pipeline import DONE, Results
from ..progress import Watch
from ..teachers import TopK
from ..teachers.cache import SoftTargetCache, folder_name
from ..teachers.labelling import label_examples
from .labelling import labelling_of

VALIDATION = "validation"


def rows_aside(run: Path) -> list[Example]:
    """The rows set aside in a run whose stage `label` is done, with the teacher's answers or choices where the data has none."""
    heard = VALIDATION in read_json(run / "label" / DONE)["result"].get("sets", {})
    return read_examples(run / ("label" if heard else "prepare") / f"{VALIDATION}.parquet")


def label_aside(recipe: Any, results: Results, place: Path, watch: Watch) -> dict[str, dict[str, Any]]:
    """Let a local teacher choose for a classifier's rows set aside that nobody labelled; nothing is done where there are none.

    Args: place: the folder of the stage `label`.
    Returns: {"sets": {"validation": sizes}} of the file that was written, or {}.
    """
    facts = results["prepare"]
    if recipe.task != "classification" or facts["sets"].get(VALIDATION) is None:
        return {}
    bare = [one for one in prepared(place) if one.labels[0] < 0]
    if not bare:
        return {}
    wanted = labelling_of(recipe, results, place)
    meta = {**wanted.meta, "temperature": 1.0, "top_k": "all", "samples": None, "seed": None}
    cache = label_examples(
        place / folder_name(meta), meta, wanted.teacher, wanted.task, bare, recipe.label.batch_size, watch
    )
    return {"sets": keep_aside(place, choices(cache, bare), watch)}


def keep_aside(place: Path, chosen: Mapping[str, int], watch: Watch) -> dict[str, dict[str, Any]]:
    """Write the rows set aside, each with its own label or else the one `chosen` for its key; those with neither are left out.

    Returns: {"validation": sizes}.  Raises: DataError if none is left.
    """
    rows = prepared(place)
    bare = [one for one in rows if one.labels[0] < 0]
    kept = [
        replace(one, labels=[chosen[one.key]]) if one.labels[0] < 0 else one
        for one in rows
        if one.labels[0] >= 0 or one.key in chosen
    ]
    if not kept:
        raise DataError(
            f"{VALIDATION}: none of {len(rows):,} rows set aside has a label, and the teacher chose none; see stillhouse label show."
        )
    if bare:
        watch.note(
            f"  {VALIDATION}: {len(bare):,} of {len(rows):,} rows have no label; they are judged by the teacher's first choice"
        )
    return {VALIDATION: write_examples(place / f"{VALIDATION}.parquet", kept)}


def prepared(place: Path) -> list[Example]:
    """The rows set aside as the data has them, of the run in which `place` is a stage's folder."""
    return read_examples(place.parent / "prepare" / f"{VALIDATION}.parquet")


def choices(cache: SoftTargetCache, examples: list[Example]) -> dict[str, int]:
    """Key -> the class that the teacher finds most probable; without rows of which it prefers none."""
    said = {one.key: cache.get(one.key) for one in examples}
    return {
        key: int(one.ids[0, one.log_p[0].argmax()])
        for key, one in said.items()
        if isinstance(one, TopK) and one.log_p.max() > one.log_p.min()
    }
