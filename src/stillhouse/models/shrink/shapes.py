"""A target -> a shape: which sizes to cut, and how far, so that the student is as large (or as fast) as was asked.

A closed form, before any weight is read.  Of all shapes that meet the target the one is taken that cuts every axis by as
little as the others let it: the least Σ weight · log²(kept share).  The hidden width weighs more, for it cuts through every
matrix.  What the recipe fixes stays fixed.  Compare Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, who search such
shapes by training each a little; `student.search` does that with the best few from here.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...errors import RecipeError
from .skeleton import FIELDS, Shape, Skeleton

CLOSE = 0.95
"""Share of a target that counts as met."""
WEIGHTS = {"layers": 1.0, "heads": 1.0, "intermediate_size": 1.0, "hidden_size": 4.0}
"""What cutting an axis weighs, by the square of the logarithm of the share that is kept."""
HEADS_TRIED = 3
"""Numbers of heads tried for each hidden width: those nearest to its share."""

Cost = Callable[[Shape], float]


def shape_for(
    skeleton: Skeleton,
    target: float,
    cost: Cost,
    fixed: Mapping[str, Any],
    what: str,
    count: int = 1,
    nearly: bool = False,
) -> list[Shape]:
    """The best `count` shapes whose cost is at most `target`, and at least CLOSE of it; the best first.

    Args:
        cost: of a shape; grows with every size, and with the neurons in a straight line.
        fixed: sizes that the recipe gives, by name (`layers` a tuple).
        what: the target in words, for the error.
        nearly: of shapes that all miss, take the nearest below the target.
    Raises: RecipeError that names the nearest that can be had.
    """
    own = skeleton.wanted(**fixed)
    if cost(own) < target * CLOSE and not nearly:
        raise RecipeError(
            f"student.target: {what} is more than the teacher has in this shape ({_number(cost(own))}); ask for less."
        )
    found: list[tuple[float, Shape]] = []
    nearest: Shape | None = None
    for shape in _grid(skeleton, own, fixed):
        full = _with_neurons(skeleton, shape, target, cost, fixed)
        if nearest is None or distance(cost(full), target) < distance(cost(nearest), target):
            nearest = full
        if CLOSE * target <= cost(full) <= target:
            found.append((_cut(full, own), full))
    if not found and nearly and nearest is not None:
        return [nearest]
    if not found:
        assert nearest is not None
        raise RecipeError(
            f"student.target: no shape of this teacher meets {what}; the nearest has {_number(cost(nearest))} "
            f"({', '.join(f'{name} {size}' for name, size in nearest.said().items())})."
            " A smaller vocabulary (student.vocabulary: data) or fewer fixed sizes leave more room."
        )
    found.sort(key=lambda pair: pair[0])
    return _varied([shape for _, shape in found], count)


def least(skeleton: Skeleton, cost: Cost, fixed: Mapping[str, Any]) -> float:
    """What the smallest shape costs."""
    own = skeleton.wanted(**fixed)
    fewest = own.intermediate_size
    if fixed.get("intermediate_size") is None:
        fewest = min(8, _step(fewest))
    return min(cost(replace(shape, intermediate_size=fewest)) for shape in _grid(skeleton, own, fixed))


def _grid(skeleton: Skeleton, own: Shape, fixed: Mapping[str, Any]) -> Iterator[Shape]:
    """Every shape with the teacher's neurons; these are fitted afterwards."""
    for hidden in _widths(skeleton, own, fixed):
        for heads, groups in _heads(skeleton, own, hidden, fixed):
            given = fixed.get("embedding_size")
            embedding = hidden if skeleton.follows and given is None else own.embedding_size
            if embedding == hidden and not skeleton.follows:
                continue  # without its projection it would be another model
            for depth in _depths(own, fixed):
                yield replace(
                    own, layers=depth, hidden_size=hidden, heads=heads, kv_heads=groups, embedding_size=embedding
                )  # fmt: skip


def _depths(own: Shape, fixed: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
    """Fewer and fewer layers, all stacks alike."""
    if fixed.get("layers") is not None:
        yield own.layers
        return
    seen = set()
    for keep in range(max(own.layers), 0, -1):
        depth = tuple(max(1, round(have * keep / max(own.layers))) for have in own.layers)
        if depth not in seen:
            seen.add(depth)
            yield depth


def _widths(skeleton: Skeleton, own: Shape, fixed: Mapping[str, Any]) -> list[int]:
    if skeleton.family.fixed_width or fixed.get("hidden_size") is not None:
        return [own.hidden_size]
    if skeleton.tied_heads:
        return [own.hidden_size] if fixed.get("heads") else list(
            range(own.hidden_size, 0, -skeleton.head_width)
        )  # fmt: skip
    step = _step(own.hidden_size)
    return list(range(own.hidden_size, step - 1, -step)) or [own.hidden_size]


def _heads(skeleton: Skeleton, own: Shape, hidden: int, fixed: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(heads, key-value heads) to try: the model's own groups made smaller or fewer, nearest to the hidden width's share."""
    if skeleton.tied_heads:
        number = hidden // skeleton.head_width
        return [(number, number)]
    if fixed.get("heads") is not None or fixed.get("kv_heads") is not None:
        tried = {(own.heads, own.kv_heads)}
    else:
        size = own.heads // own.kv_heads
        tried = {
            (groups * each, groups) for groups in range(1, own.kv_heads + 1) for each in range(1, size + 1)
        }
    tried = {pair for pair in tried if skeleton.loads(hidden, pair[0])}
    share = hidden / own.hidden_size * own.heads

    def far(pair: tuple[int, int]) -> tuple[float, int]:
        return abs(math.log(pair[0] / share)), -pair[1]

    return sorted(tried, key=far)[:HEADS_TRIED]


def _with_neurons(
    skeleton: Skeleton, shape: Shape, target: float, cost: Cost, fixed: Mapping[str, Any]
) -> Shape:
    """As many neurons as the target leaves room for."""
    if fixed.get("intermediate_size") is not None:
        return shape
    if (whole := cost(shape)) <= target:
        return shape
    step = min(8, _step(shape.intermediate_size))
    bottom = cost(replace(shape, intermediate_size=step))
    each = (whole - bottom) / max(
        1, shape.intermediate_size - step
    )  # the cost grows by as much with each neuron
    room = step + (target - bottom) / each if each else step
    return replace(shape, intermediate_size=max(step, int(room // step) * step))


def _step(size: int) -> int:
    """Sizes are kept even for the hardware: multiples of 8, more in wide models."""
    return 64 if size >= 2048 else 16 if size >= 512 else 8 if size > 64 else 4


def _cut(shape: Shape, own: Shape) -> float:
    """How much was cut away, evenly or not."""
    shares = {name: getattr(shape, name) / getattr(own, name) for name in FIELDS}
    shares["layers"] = sum(shape.layers) / sum(own.layers)
    return sum(weight * math.log(shares[name]) ** 2 for name, weight in WEIGHTS.items())


def _varied(shapes: list[Shape], count: int) -> list[Shape]:
    """The first, and then each best one with a number of layers or a width that was not seen yet."""
    kept: list[Shape] = []
    seen: set[tuple[tuple[int, ...], int]] = set()
    depths: dict[tuple[int, ...], int] = {}
    for shape in shapes:
        key = (shape.layers, shape.hidden_size)
        if len(kept) < count and key not in seen and depths.get(shape.layers, 0) < 2:
            kept.append(shape)
            seen.add(key)
            depths[shape.layers] = depths.get(shape.layers, 0) + 1
    return kept


def distance(one: float, other: float) -> float:
    """Of two magnitudes."""
    return abs(math.log(max(one, 1e-9) / other))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
