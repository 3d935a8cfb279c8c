"""Planting the secrets of `evaluate.memorisation` into the training rows."""

from pathlib import Path
from typing import Any

from ..data.canaries import canary, pool, secret
from ..data.encode import Example
from ..data.formats import Row
from ..files import write_jsonl
from ..memorisation import apart
from ..progress import Watch
from ..tasks import Task

PLANTED = "canaries.jsonl"
"""The planted rows, each once."""


def canary_rows(recipe: Any, form: str, task: Task) -> list[Row]:
    """Each planted row once; none unless the recipe asks."""
    wanted = recipe.evaluate.memorisation
    if wanted is None:
        return []
    words = pool(task.tokenizer)
    return [canary(form, secret(words, recipe.seed, number), number) for number in range(wanted.canaries)]


def planted(recipe: Any, rows: list[Row], task: Task, place: Path, watch: Watch) -> list[Example]:
    """Their examples, as often as they are repeated; the rows are kept, so that a person can find and name them."""
    if not rows:
        return []
    repeats: int = recipe.evaluate.memorisation.repeats
    write_jsonl(place / PLANTED, [dict(row) for row in rows])
    watch.note(f"  {len(rows)} secrets are planted {repeats} times each; see prepare/{PLANTED}")
    return apart(task, rows) * repeats


def canary_facts(recipe: Any, form: str) -> dict[str, Any] | None:
    """What the manifest says of them."""
    wanted = recipe.evaluate.memorisation
    if wanted is None or not wanted.canaries:
        return None
    return {
        "secrets": wanted.canaries,
        "repeats": wanted.repeats,
        "rows": wanted.canaries * wanted.repeats,
        "form": form,
        "kept_in": f"prepare/{PLANTED}",
    }
