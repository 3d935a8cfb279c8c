"""The held-out rows once more, changed in the ways that `evaluate.perturb` and `evaluate.swap` ask for; see `data.perturb`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.encode import runs
from ..data.filters.texts import words
from ..data.formats import Row
from ..data.perturb import asked_texts, halves, in_pieces, perturbed, reworded, swapped, wholes
from ..data.templates import fill
from ..data.written import said
from ..errors import DataError
from ..held_out import HALVES, PARAPHRASE, SWAPPED, UNSWAPPED
from ..progress import Watch
from ..recipe import generate as kinds
from ..tasks import Task
from ..teachers.texts import Texts
from .writing import FOLDER, make_desk


def variants(
    recipe: Any, rows: list[Row], task: Task, models: dict[str, Any], place: Path, watch: Watch
) -> dict[str, list[Row]]:
    """Data set -> rows; among them the clean rows that changed plain texts are compared with."""
    wanted = recipe.evaluate
    if not wanted.perturb and not wanted.swap:
        return {}
    plain = recipe.task == "causal_lm" and "text" in rows[0]
    if plain:  # half a window, so that what gets longer still fits
        rows = in_pieces(rows, lambda text: runs(text, task.tokenizer, max(2, task.max_length // 2)))
        rows = rows[: wanted.rows]
    else:
        rows = _measured(rows, task, wanted.rows)
        if not rows:  # which whoever encodes `eval` says better
            return {}
    found: dict[str, list[Row]] = {}
    if wanted.perturb:
        clean = rows
        if plain:
            clean = found[HALVES] = _some(
                halves(rows),
                "perturb: no held-out text has two words to halve; give longer ones, or remove it",
            )
        drawn = [kind for kind in wanted.perturb if kind != PARAPHRASE]
        found |= perturbed(clean, drawn, recipe.seed)
        if PARAPHRASE in wanted.perturb:
            found[f"eval_{PARAPHRASE}"] = paraphrased(recipe, clean, models, place, watch)
    if wanted.swap:
        some = _some(
            swapped(rows, wanted.swap),
            "swap: none of its terms is in the held-out rows; name terms that they hold",
        )
        watch.note(f"  swap: {len(some):,} of {len(rows):,} held-out rows hold one of the terms")
        if plain:
            changed = {row["id"] for row in some}
            found[UNSWAPPED] = wholes(row for row in rows if row["id"] in changed)
        found[SWAPPED] = wholes(some) if plain else some
    return found


def _measured(rows: list[Row], task: Task, most: int | None) -> list[Row]:
    """The rows that the examples of `eval` are made of, so that each changed row is measured beside its clean one."""
    examples, _ = task.encode([dict(row) for row in rows])
    used = {example.row for example in examples[:most]}
    return [row for row in rows if row["id"] in used]


def paraphrased(
    recipe: Any, rows: Sequence[Row], models: dict[str, Any], place: Path, watch: Watch
) -> list[Row]:
    """The rows in the writer's words, asked for once; without those whose paraphrase has no end, or changes no word.

    Greedy: one row has one paraphrase.  Raises: DataError if none is left.
    """
    desk = make_desk(recipe, models, Texts(place.parent / FOLDER), watch)
    asked = [asked_texts(row) for row in rows]
    prompts = [said(fill(desk.template("paraphrase"), text=text)) for texts in asked for text in texts]
    settings = kinds.Paraphrase(max_new_tokens=max(LEAST_ROOM, recipe.data.max_length))
    names = [str(row["id"]) for row, texts in zip(rows, asked, strict=True) for _ in texts]
    (written,) = desk.texts(prompts, names, settings, temperature=0.0)
    answers = iter(written)
    made = []
    for row, texts in zip(rows, asked, strict=True):
        new = [next(answers) for _ in texts]
        usable = [text.strip() for text in new if isinstance(text, str) and text.strip()]
        if len(usable) == len(texts) and [*map(words, usable)] != [*map(words, texts)]:
            made.append(reworded(row, usable))
    watch.note(f"  paraphrase: {len(made):,} of {len(rows):,} held-out rows are said in other words")
    return _some(
        made,
        "perturb: the writer has put none of the held-out rows in other words; name another in data.writer",
    )


LEAST_ROOM = 256
"""Tokens that a paraphrase may have, where rows are shorter."""


def _some(rows: list[Row], otherwise: str) -> list[Row]:
    """`rows`.  Raises: DataError if there are none."""
    if not rows:
        raise DataError(f"evaluate.{otherwise}.")
    return rows
