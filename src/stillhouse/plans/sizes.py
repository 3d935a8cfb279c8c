"""Sizes between a teacher's and a student's, evenly spaced in magnitude."""

from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..models.described import layer_count, model_config, skeleton_in
from ..models.shrink.skeleton import FIELDS, Skeleton
from ..recipe import FromTeacher, Student
from ..static import shape_within


def between(student: Student, teacher: Path, count: int) -> list[dict[str, Any]]:
    """`count` students between the teacher in this folder and `student`, largest first, as plain values.

    Raises: RecipeError if there is no room between them, or the student is a model of its own.
    """
    shares = [number / (count + 1) for number in range(1, count + 1)]
    config = model_config(teacher)
    if student.from_teacher is not None:
        sizes = given_sizes(student.from_teacher)
        skeleton = skeleton_in(teacher) if sizes else None
        depths = _depths(student.from_teacher, config, shares)
        how = student.from_teacher.model_dump(mode="json", exclude_unset=True)
        cuts = [
            {**how, **depth, **_widths(sizes, skeleton, share)}
            for depth, share in zip(depths, shares, strict=True)
        ]
        return [{"from_teacher": cut} for cut in cuts]
    if student.from_config is not None:
        wanted = student.from_config
        how = wanted.model_dump(mode="json", exclude_unset=True)
        made = []
        for share in shares:
            shape = {
                name: _between(name, config.get(name), value, share, wanted.config)
                for name, value in wanted.config.items()
            }
            made.append({"from_config": {**how, "config": shape}})
        return made
    raise RecipeError("plan.sizes: the student is a model of its own; write the assistants' sizes out.")


def settled(student: Student, teacher: Path, task: str, context: int) -> Student:
    """`student` with the sizes that meet its target in the target's place: cut out of an assistant it is then of the same shape as
    cut out of the teacher in this folder.

    Args: context: tokens of a row, which a target of memory counts.
    Raises: RecipeError if there is no such shape, or only training or a clock can tell.
    """
    cut = student.cut
    if student.target is None or cut is None:
        return student
    if student.search is not None:
        raise RecipeError(
            "plan.sizes: student.search finds the student's shape in training; write the assistants' sizes out, or remove it."
        )
    skeleton = skeleton_in(teacher)
    shape = shape_within(student, skeleton, task, context)
    if shape is None:
        kind = student.target.named[0]
        raise RecipeError(
            f"plan.sizes: what shape meets student.target.{kind} is known once it is measured; write the assistants' sizes out, or "
            "ask for parameters."
        )
    sizes: dict[str, Any] = {"layers": cut.layers if isinstance(cut.layers, list) else shape.layers[0]}
    own = skeleton.shape
    sizes |= {name: size for name in FIELDS if (size := getattr(shape, name)) != getattr(own, name)}
    if skeleton.tied_heads:  # they follow from the width
        sizes = {name: size for name, size in sizes.items() if name not in ("heads", "kv_heads")}
    elif "heads" in sizes:
        sizes["kv_heads"] = shape.kv_heads
    if skeleton.follows and shape.embedding_size == shape.hidden_size:
        sizes.pop("embedding_size", None)
    how = cut.model_dump(exclude_unset=True)
    return student.model_copy(update={"from_teacher": FromTeacher(**{**how, **sizes}), "target": None})


def given_sizes(cut: FromTeacher) -> dict[str, int]:
    """Heads and widths that a recipe asks for."""
    return {name: size for name in FIELDS if (size := getattr(cut, name)) is not None}


def _depths(cut: FromTeacher, teacher: dict[str, Any], shares: list[float]) -> list[dict[str, Any]]:
    """Layers of each assistant."""
    have, keep = layer_count(teacher), cut.layers
    if keep is None and given_sizes(cut):
        return [{} for _ in shares]
    if have is None or keep is None:
        unknown = "the teacher's config.json" if have is None else "student.from_teacher"
        raise RecipeError(f"plan.sizes: {unknown} does not say how many layers it has; write the sizes out.")
    few = keep if isinstance(keep, int) else len(keep)
    layers = [round(have * (few / have) ** share) for share in shares]
    falling = all(a > b for a, b in zip([have, *layers], [*layers, few], strict=True))
    if not falling and not (have >= few and given_sizes(cut)):
        raise RecipeError(
            f"plan.sizes: there are no {len(shares)} sizes between {have} and {few} layers; ask for fewer assistants."
        )
    return [{"layers": number} for number in layers]


def _widths(sizes: dict[str, int], skeleton: Skeleton | None, share: float) -> dict[str, int]:
    """The other sizes of one assistant: of those that the family can have, the ones nearest to the geometric mean."""
    if skeleton is None:
        return {}
    found: dict[str, int] = {}
    for name, small in sizes.items():
        large = getattr(skeleton.shape, name)
        middle = large * (small / large) ** share
        nearest = sorted(range(min(small, large), large + 1), key=lambda size: abs(size - middle))
        fitting = (size for size in nearest if _fits(skeleton, {**found, name: size}))
        found[name] = next(fitting, small)
    return found


def _fits(skeleton: Skeleton, sizes: dict[str, int]) -> bool:
    try:
        skeleton.wanted(None, **sizes)
    except RecipeError:
        return False
    return True


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
