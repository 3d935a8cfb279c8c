"""What a recipe asks of a teacher's shape, in the skeleton's words.  No torch: `validate` asks this too."""

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import RecipeError
from ...recipe import FromTeacher, Target
from .shapes import shape_for
from .skeleton import FIELDS, Shape, Skeleton

HEADER = 4096
"""Bytes of a weights file that are no weights, about."""


def fixed_sizes(wanted: FromTeacher, skeleton: Skeleton) -> dict[str, Any]:
    """The sizes that the recipe gives, as `Skeleton.wanted` takes them."""
    return {"layers": _depths(wanted, skeleton), **{name: getattr(wanted, name) for name in FIELDS}}


def shapes_within(
    skeleton: Skeleton, target: Target, fixed: Mapping[str, Any], context: int, count: int = 1
) -> list[Shape]:
    """Shapes that meet a target that is known without measuring."""
    kind, amount = target.named
    said = f"{kind}: {getattr(target, kind)}"
    costs: dict[str, tuple[float, Callable[[Shape], float]]] = {
        "parameters": (amount, skeleton.parameters),
        "bytes": (amount, lambda shape: 4.0 * skeleton.parameters(shape) + HEADER),
        "memory": (amount, lambda shape: float(skeleton.memory(shape, context))),
    }
    return shape_for(skeleton, *costs[kind], fixed, said, count)


def _depths(wanted: FromTeacher, skeleton: Skeleton) -> tuple[int, ...] | None:
    """Layers of each stack; None where the recipe leaves them open."""
    have = skeleton.shape.layers
    if isinstance(wanted.layers, list):
        check_layers(wanted.layers, have[0])
    count = len(wanted.layers) if isinstance(wanted.layers, list) else wanted.layers
    if count is None and wanted.decoder_layers is None:
        return None
    if wanted.decoder_layers is not None and len(have) == 1:
        raise RecipeError(
            "student.from_teacher.decoder_layers: the teacher has one stack of layers; use layers alone."
        )
    if wanted.decoder_layers is not None and isinstance(wanted.layers, list):
        raise RecipeError(
            "student.from_teacher: decoder_layers counts layers, and so must layers beside it; give a number."
        )
    depths = [count or own for own in have]
    if wanted.decoder_layers is not None:
        depths[-1] = wanted.decoder_layers
    return tuple(depths)


def check_layers(wanted: int | list[int], have: int) -> None:
    """Raises: RecipeError if the teacher has fewer layers."""
    if (wanted if isinstance(wanted, int) else wanted[-1] + 1) > have:
        raise RecipeError(
            f"student.from_teacher.layers: the teacher has only {have} layers (0 to {have - 1}); keep fewer."
        )
