"""Between which of its measurements a quantile lies: by their ranks alone, whatever a machine does to them.

The number of N measurements below the quantile of what they come from is binomial, so the limits are exact, and where N is too
small for a limit it is known that there is none: the slowest of 12 requests lies below the 95th percentile in 54 of 100 cases.
Source: Hahn and Meeker 1991, Statistical Intervals, section 5.2.
"""

from collections.abc import Sequence
from math import comb
from statistics import median

import numpy as np

from .intervals import LEVEL, Interval

ONCE = "there is no interval: it was measured once."


def quantile_interval(values: Sequence[float], share: float) -> Interval:
    """The quantile, and its 95 % limits; a limit is None where it lies beyond all measurements."""
    ordered, count = sorted(values), len(values)
    low, high = _ranks(count, share)
    missing = [side for side, rank in (("lower", low), ("upper", high)) if rank is None]
    value = float(np.quantile(ordered, share))  # between two measurements, so it may lie beyond a limit
    return Interval(
        value,
        None if low is None else min(ordered[low], value),
        None if high is None else max(ordered[high], value),
        f"{count} measurements are too few for the {' and the '.join(missing)} limit." if missing else None,
    )


def median_interval(values: Sequence[float]) -> Interval:
    """The median, between what `middle` says; fewer than 6 measurements hold it less often, as the note then says."""
    count = len(values)
    if count == 1:
        return Interval(values[0], None, None, ONCE)
    held = round(100 * (1 - 2.0 ** (1 - count)))
    few = None in _ranks(count, 0.5)
    note = f"the limits are the least and the largest of {count} measurements, and hold it in {held} of 100 cases."
    return Interval(median(values), *middle(values), note if few else None)


def middle(values: Sequence[float]) -> tuple[float, float]:
    """Between which of them the median of what they come from lies, in at least 95 of 100 cases; all of them, if few."""
    ordered = sorted(values)
    low, high = _ranks(len(values), 0.5)
    return ordered[low or 0], ordered[-1 if high is None else high]


def _ranks(count: int, share: float) -> tuple[int | None, int | None]:
    """Places, from 0 and in order, of the measurements beyond which the quantile lies in 2.5 of 100 cases or fewer."""
    outside = (1 - LEVEL) / 2
    chance = [
        comb(count, below) * share**below * (1 - share) ** (count - below) for below in range(count + 1)
    ]
    low = [place for place in range(count) if sum(chance[: place + 1]) <= outside]
    high = [place for place in range(count) if sum(chance[place + 1 :]) <= outside]
    return (low[-1] if low else None), (high[0] if high else None)
