"""Sizes between a teacher's and a student's, evenly spaced in magnitude."""

from typing import Any

from ..errors import RecipeError
from ..models.described import layer_count
from ..recipe import Student


def between(student: Student, teacher: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """`count` students between the teacher of this config.json and `student`, largest first, as plain values.

    Raises: RecipeError if there is no room between them, or the student is a model of its own.
    """
    shares = [number / (count + 1) for number in range(1, count + 1)]
    if student.from_teacher is not None:
        have, keep = layer_count(teacher), student.from_teacher.layers
        if have is None or keep is None:
            unknown = "the teacher's config.json" if have is None else "student.from_teacher"
            raise RecipeError(
                f"plan.sizes: {unknown} does not say how many layers it has; write the sizes out."
            )
        few = keep if isinstance(keep, int) else len(keep)
        layers = [round(have * (few / have) ** share) for share in shares]
        if not all(a > b for a, b in zip([have, *layers], [*layers, few], strict=True)):
            raise RecipeError(
                f"plan.sizes: there are no {count} sizes between {have} and {few} layers; ask for fewer assistants."
            )
        return [{"from_teacher": {"layers": number}} for number in layers]
    if student.from_config is not None:
        wanted = student.from_config
        made = []
        for share in shares:
            config = {
                name: _between(name, teacher.get(name), value, share, wanted.config)
                for name, value in wanted.config.items()
            }
            made.append({"from_config": {"config": config, "embeddings": wanted.embeddings}})
        return made
    raise RecipeError("plan.sizes: the student is a model of its own; write the assistants' sizes out.")


def _between(name: str, large: Any, small: Any, share: float, config: dict[str, Any]) -> Any:
    """A field of the configuration; heads stay the student's, so that the width can be divided by them."""
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (large, small))
    if not numbers or not name.endswith(("_size", "_layers")):
        return small
    value = large * (small / large) ** share
    if name == "hidden_size":
        step = 2 * int(config.get("num_attention_heads", 1))
        return max(small, round(value / step) * step)
    return max(1, round(value))
