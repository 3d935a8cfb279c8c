"""A speed -> a shape.  What a model's seconds are made of differs from machine to machine, so that is measured.

Seconds are taken as a · work + b · layers + c: products, what every layer costs however small it is, and the rest.  Each
measurement mends a, b and c, and the next shape is the most even one that should be fast enough.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from ...errors import RecipeError
from .shapes import CLOSE, Cost, distance, shape_for
from .skeleton import Shape, Skeleton

AIMS = (1.0, 0.985, 0.97)
"""Shares of the seconds that are allowed; a lower one where the shape for a higher one was measured, and missed."""


def shape_by_measure(
    skeleton: Skeleton,
    wanted: float,
    work: Cost,
    measure: Callable[[Shape], float],
    fixed: Mapping[str, Any],
    what: str,
    rounds: int = 8,
    at_most: Callable[[Shape], float] | None = None,
) -> tuple[Shape, float]:
    """A shape whose measured speed is `wanted`, or up to 5 % more.

    Args: measure: a shape -> its speed, as a multiple of the teacher's.  work: products a token.
        at_most: the upper end of the interval of a speed that was measured: what a noisy clock says is no reason to refuse.
    Returns: (shape, its measured speed); the nearest that was measured, if `rounds` are not enough.
    Raises: RecipeError if the smallest shape is not so fast.
    """
    own = skeleton.wanted(**fixed)
    least = shape_for(skeleton, work(own) * 1e-6, work, fixed, what, nearly=True)[0]
    seconds = {shape: 1.0 / measure(shape) for shape in (own, least)}
    if (at_most or measure)(least) < CLOSE * wanted:
        raise RecipeError(
            f"student.target: {what} cannot be had on this machine; the smallest shape of this teacher reads "
            f"{1.0 / seconds[least]:.2f} times as fast. Ask for less, or fix fewer sizes."
        )
    goal = 1.0 / wanted
    if CLOSE * goal <= seconds[own] <= goal:
        return own, 1.0 / seconds[own]
    for _ in range(rounds):
        cost = _fitted(seconds, goal, work, own)
        aimed = (shape_for(skeleton, goal * aim, cost, fixed, what, nearly=True)[0] for aim in AIMS)
        shape = next((one for one in aimed if one not in seconds), own)
        if shape in seconds:
            break  # nothing lies between what was measured
        seconds[shape] = 1.0 / measure(shape)
        if CLOSE * goal <= seconds[shape] <= goal:
            break
    best = min(seconds, key=lambda shape: _missed(seconds[shape], goal))
    return best, 1.0 / seconds[best]


def _missed(took: float, goal: float) -> float:
    """How far seconds are from what is allowed."""
    return 0.0 if CLOSE * goal <= took <= goal else distance(took, goal * (1 + CLOSE) / 2)


def _fitted(seconds: Mapping[Shape, float], goal: float, work: Cost, own: Shape) -> Cost:
    """Seconds of any shape by those that were measured, exact at the one that is nearest to the goal."""

    def parts(shape: Shape) -> list[float]:
        return [work(shape) / work(own), sum(shape.layers) / sum(own.layers), 1.0]

    shapes = list(seconds)
    took = np.array([seconds[shape] for shape in shapes])
    weights = 1.0 / (0.05 + np.abs(np.log(took / goal)))
    factors = _not_negative(np.array([parts(shape) for shape in shapes]), took, weights)
    nearest = min(shapes, key=lambda shape: distance(seconds[shape], goal))
    bias = seconds[nearest] / float(factors @ parts(nearest))
    return lambda shape: bias * float(factors @ parts(shape))


def _not_negative(rows: Any, values: Any, weights: Any) -> Any:
    """The weighted least squares among factors that are not negative: the best of all choices of which are 0."""
    best, least = np.array([1.0, 0.0, 0.0]), math.inf
    for count in range(1, rows.shape[1] + 1):
        for some in combinations(range(rows.shape[1]), count):
            found = np.zeros(rows.shape[1])
            found[list(some)] = np.linalg.lstsq(
                rows[:, some] * weights[:, None], values * weights, rcond=None
            )[0]
            error = float((((rows @ found - values) * weights) ** 2).sum())
            if (found >= 0).all() and found.any() and error < least - 1e-12:
                best, least = found, error
    return best
