"""Answers that a judge scores: `data.judge`."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.formats import Row
from ..data.split import Prepared
from ..data.written import exchange
from ..errors import DataError
from ..progress import Watch
from ..tasks.judge import Judge


def make_judge(models: dict[str, Any]) -> Judge:
    """The model that `data.judge` names, as it was fetched."""
    found = models["judge"]
    return Judge(Path(found["folder"]), found["prompt"], "bfloat16" if models["bfloat16"] else "float32")


def judged(recipe: Any, rows: Prepared, models: dict[str, Any], watch: Watch) -> Prepared:
    """`rows` without those to learn from whose answer the judge scores below `data.filter.min_score`; they are kept among the
    dropped ones, with their score.

    Raises: DataError for plain text, which answers nothing, and if no row is left.
    """
    wanted = recipe.data.filter
    if wanted is None or wanted.min_score is None:
        return rows
    learned = {"train": rows.train, "extra": rows.extra}
    if plain := next((row for some in learned.values() for row in some if "text" in row), None):
        raise DataError(
            f"{plain['where']}: plain text answers nothing that could be scored; remove data.filter.min_score."
        )
    judge = make_judge(models)
    kept: dict[str, list[Row]] = {}
    dropped: list[dict[str, Any]] = []
    reason = f"judge score below {wanted.min_score:g}"
    for name, some in learned.items():
        scores = judge.scores([exchange(row) for row in some]) if some else []
        kept[name] = [row for row, score in zip(some, scores, strict=True) if score >= wanted.min_score]
        dropped += [
            {
                **row,
                "reason": reason,
                "score": round(score, 4),
                "set": "written" if row["id"] in rows.written else name,
            }
            for row, score in zip(some, scores, strict=True)
            if score < wanted.min_score
        ]
    watch.note(f"  the judge scores {len(dropped):,} rows below {wanted.min_score:g}, which are left out")
    if not kept["train"]:
        raise DataError(
            f"train: no row is left of {len(rows.train):,} ({reason}); lower data.filter.min_score."
        )
    lost = Counter(row["set"] for row in dropped)
    counts = {
        name: {**of, "kept": of["kept"] - lost[name], "dropped": {**of["dropped"], reason: lost[name]}}
        if lost[name]
        else of
        for name, of in rows.counts.items()
    }
    return replace(
        rows, train=kept["train"], extra=kept["extra"], dropped=[*rows.dropped, *dropped], counts=counts
    )
