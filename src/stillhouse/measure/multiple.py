"""Many tests at once: with twenty of them, one in twenty false alarms is one false alarm."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; calling those at most 0.05 real errs on any of them in at most 5 %.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    worst = 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * float(p_values[index])))
        adjusted[index] = worst
    return [float(value) for value in adjusted]


def holm_by_name(p_values: Mapping[str, float | None]) -> dict[str, float]:
    """The same for named tests; those without a p-value are no tests."""
    known = {name: value for name, value in p_values.items() if value is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def least_visible(low: float | None, high: float | None) -> float | None:
    """The smallest true difference that a test on these rows would find in 80 of 100 repetitions, about.

    From the 95 % interval of the difference: its standard error is half the width over 1.96, and a two-sided test at
    5 % with power 0.8 needs 1.96 + 0.84 of them.
    """
    if low is None or high is None or high <= low:
        return None
    return (high - low) / 2.0 / 1.96 * 2.8


def claimed(gains: dict[str, dict[str, dict[str, Any]]], headline: str) -> dict[str, dict[str, Any]]:
    """`gains` with p-values that allow for how many there are, and nothing claimed that they do not carry.

    The headline metric on `eval` is the one question that the run was made to answer, so it is tested alone.  The others
    of each data set share one error rate (Holm): with twenty of them one would be "better" by chance alone.  One family
    for all sets together would ask for smaller p-values than a permutation test of the usual size can give.
    """
    return {
        kind: family(metrics, alone=headline if kind == "eval" else None) for kind, metrics in gains.items()
    }


def family(gains: Mapping[str, dict[str, Any]], alone: str | None = None) -> dict[str, Any]:
    """Name -> its difference with "p_holm" and a `better` that it carries: all but `alone` share one error rate."""
    adjusted = holm_by_name({name: gain["p"] for name, gain in gains.items() if name != alone})
    found = {}
    for name, gain in gains.items():
        p_holm = adjusted.get(name)
        gain = {**gain, "p_holm": p_holm}
        if gain["better"] is not None and p_holm is not None and p_holm > 0.05:
            gain["better"] = None
            gain["note"] = f"among {len(adjusted)} comparisons this is not beyond chance (p = {p_holm:.3f})."
        found[name] = gain
    return found


def spread(values: list[float]) -> dict[str, Any]:
    """What some runs reached: {"values", "mean", "deviation" (of the sample), "low", "high" (the extremes)}."""
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else 0.0
    return {
        "values": values, "mean": mean, "deviation": variance**0.5, "low": min(values), "high": max(values),
    }  # fmt: skip
