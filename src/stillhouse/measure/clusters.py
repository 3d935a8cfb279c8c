"""Rows that come from one document, author or user are one unit: they are resampled together.

Every metric is a function of sums, so the bootstrap over clusters is the bootstrap over rows whose statistics are
added up by cluster first; the metrics themselves do not change.  Resampling the rows of a few long documents one by
one instead gives intervals that speak of those documents only, and are too narrow for others.
Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .metrics import Rows

ENOUGH = 20
"""Clusters below which they are not resampled: percentiles of so few hold the truth in clearly less than 95 %."""


def clustered(rows: Rows, clusters: Sequence[str]) -> Rows:
    """Statistics [N, ...] summed by cluster, [M, ...], in the order in which the clusters appear.

    Raises: DataError if a column has another number of rows than there are names.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    at_N = np.array([numbers[name] for name in clusters], dtype=np.int64)
    summed: Rows = {}
    for name, column in rows.items():
        if len(column) != len(at_N):
            raise DataError(
                f"column {name!r} has {len(column)} rows, and there are the clusters of {len(at_N)}; measure again."
            )
        sums = np.zeros((len(numbers), *column.shape[1:]))
        np.add.at(sums, at_N, column)
        summed[name] = sums
    return summed


def unit_of(clusters: Sequence[str]) -> tuple[bool, str | None]:
    """Whether to resample by cluster, and what must be said where rows share clusters that are too few for it."""
    count = len(set(clusters))
    if count == len(clusters):
        return False, None
    if count >= ENOUGH:
        return True, None
    return False, (
        f"the {len(clusters):,} rows come from {count} document{'' if count == 1 else 's'}, too few to resample, so "
        "intervals treat rows as independent; they may be too narrow for other documents"
    )
