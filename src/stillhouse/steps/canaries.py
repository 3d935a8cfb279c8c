"""Planting the secrets of `evaluate.memorisation` into the training rows."""

from pathlib import Path
from typing import Any

from ..data.canaries import canary, pool, secret
from ..data.encode import Example
from ..files import write_jsonl
from ..memorisation import apart
from ..progress import Watch
from ..tasks import Task

PLANTED = "canaries.jsonl"
"""The planted rows, each once."""


def canary_rows(recipe: Any, form: str, task: Task) -> list[dict[str, Any]]:
    """Each planted row once; none unless the recipe asks."""
    wanted = recipe.evaluate.memorisation
    if wanted is None:
        return []
    words = pool(task.tokenizer)
    return [
        dict(canary(form, secret(words, recipe.seed, number), number)) for number in range(wanted.canaries)
    ]


def planted(recipe: Any, rows: list[dict[str, Any]], task: Task, place: Path, watch: Watch) -> list[Example]:
    """Their examples, as often as they are repeated; the rows are kept, so that a person can find and name them."""
    if not rows:
        return []
    repeats = recipe.evaluate.memorisation.repeats
    write_jsonl(place / PLANTED, rows)
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
