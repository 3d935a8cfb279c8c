"""What a recipe asks of a teacher's shape, in the skeleton's words.  No torch: `validate` asks this too."""

from collections.abc import Callable, Mapping
from typing import Any

from ...errors import RecipeError
from ...recipe import FromTeacher, Target
from .shapes import least, shape_for
from .skeleton import FIELDS, Shape, Skeleton

HEADER = 4096
"""Bytes of a weights file that are no weights, about."""

TRIMMED = ("BPE", "WordPiece", "Unigram")
"""Kinds of tokenizers that can lose tokens and say every text still."""

KINDER = 4.0
"""Small weights stay in the processor's caches: so many times faster than their arithmetic says a student may be, at most."""


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


def check_pace(skeleton: Skeleton, target: Target, fixed: Mapping[str, Any], head: bool) -> None:
    """Whether the smallest student could be that many times as fast as the teacher, by its arithmetic.

    Args: head: whether the models say a distribution over the vocabulary.
    Raises: RecipeError for a factor that no clock needs to be asked about.
    """
    factor = target.named[1]
    smallest = least(skeleton, lambda shape: float(skeleton.work(shape, head)), fixed)
    most = skeleton.work(skeleton.shape, head) / smallest
    if factor > KINDER * most:
        raise RecipeError(
            f"student.target: no shape of this teacher is {target.tokens_per_second} as fast, for the smallest one does "
            f"1/{most:,.0f} of its arithmetic; ask for less, or fix fewer sizes."
        )


def check_tokenizer(name: str, kind: str | None) -> None:
    """Whether a tokenizer of this kind, as its tokenizer.json has it (None where it has none: Marian's source.spm), can be trimmed.

    Raises: RecipeError in a sentence.
    """
    if kind not in TRIMMED:
        said = "has no tokenizer.json" if kind is None else f"is of the kind {kind}"
        raise RecipeError(
            f"student.vocabulary: {name} {said}, and only BPE, WordPiece and Unigram tokenizers that have one can be trimmed; "
            "leave student.vocabulary out."
        )


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
