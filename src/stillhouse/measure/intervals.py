"""How sure a number is: bootstrap intervals, a paired permutation test, and retention with its interval.

Rows are resampled, so a row must be an independent unit: windows cut from one document belong in one row.
Two models are always compared on the same rows and the same resamples (paired), which removes the luck of
the rows from their difference.  What is said is about other rows of the same kind; how much another training
seed would change is not in these intervals.

Metrics are functions of sums (see `metrics`), so all resamples of a metric are one matrix product, counts
[R, N] times statistics [N, ...], done in blocks of resamples.  Shapes: R resamples, N rows.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .metrics import FloatArray, Metric, Rows, checked_columns, ratio, undefined, value_or_none

RESAMPLES = 2000
LEVEL = 0.95
QUANTILES = ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2)
ROUNDING = 1e-9
ONE_ROW = "there is no interval: one row cannot show how much rows differ."
NO_SPREAD = "all rows score alike, so the interval has no width; on other rows the value can still differ."
ALL_UNDEFINED = "there is no interval: the metric is undefined in every resample of these few rows."
NO_LEAD = "the teacher is not better than the floor beyond the uncertainty of these rows"
BLOCK_CELLS = 2**18
"""Counts multiplied at once: 2 MB as float64, which stays in a processor's cache."""
WORTH_PACKING = 40
"""A statistic of several classes is packed where so many of its cells are 0 for one that is not: gathering is slower than BLAS."""
CACHED_CELLS = 2**25
"""A count matrix of at most 32 MB is kept for the next metric; a larger one is drawn anew, block by block."""

Counts = NDArray[np.uint8]
"""One byte a count is safe: a row is drawn more than 255 times in N with a probability below 1e-500."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; None where there is none, and then `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain floats, strings and None."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """metric(a) - metric(b) on the same rows, its 95 % interval, and the p-value of "no difference"."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    better: bool | None
    """Is a better than b?  None if the interval includes 0."""
    note: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain floats, booleans, strings and None."""
        return asdict(self)


def bootstrap_weights(n: int, resamples: int, seed: int) -> Counts:
    """How often each row is drawn in each resample, [R, N]; each resample sums to n.

    A pure function of its arguments.  Up to 32 MB the last two are kept, so the array is read-only.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"bootstrap_weights: n and resamples must be at least 1, got {n} and {resamples}")
    draw = _kept_weights if n * resamples <= CACHED_CELLS else _draw_all
    return draw(n, resamples, seed)


@lru_cache(maxsize=2)
def _kept_weights(n: int, resamples: int, seed: int) -> Counts:
    return _draw_all(n, resamples, seed)


def _draw_all(n: int, resamples: int, seed: int) -> Counts:
    weights = np.empty((resamples, n), dtype=np.uint8)
    start = 0
    for block in _draw_blocks(n, resamples, seed):
        weights[start : start + len(block)] = block
        start += len(block)
    weights.flags.writeable = False
    return weights


def _draw_blocks(n: int, resamples: int, seed: int) -> Iterator[Counts]:
    """The count matrix some rows at a time; they are drawn in order, so the block size changes nothing."""
    generator = np.random.default_rng([seed, 0])
    for size in _block_sizes(n, resamples):
        block = np.empty((size, n), dtype=np.uint8)
        step = max(1, BLOCK_CELLS // n)
        for start in range(0, size, step):
            some = block[start : start + step]
            cells = generator.integers(0, n, size=some.shape) + n * np.arange(len(some))[:, None]
            some[:] = np.bincount(cells.ravel(), minlength=some.size).reshape(some.shape)
        yield block


def _bootstrap_blocks(n: int, resamples: int, seed: int) -> Iterator[Counts]:
    """The count matrix in blocks, from memory if it is small."""
    if n * resamples > CACHED_CELLS:
        yield from _draw_blocks(n, resamples, seed)
        return
    weights, start = _kept_weights(n, resamples, seed), 0
    for size in _block_sizes(n, resamples):
        yield weights[start : start + size]
        start += size


def _swap_blocks(n: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Which rows change sides in each permutation: fair coins, [R, N] in blocks."""
    generator = np.random.default_rng([seed, 1])
    for size in _block_sizes(n, resamples):
        coins = np.frombuffer(generator.bytes(size * (-(-n // 8))), dtype=np.uint8).reshape(size, -1)
        yield np.unpackbits(coins, axis=1, count=n)


def _block_sizes(n: int, resamples: int) -> list[int]:
    most = max(16, BLOCK_CELLS // n)
    return [min(most, resamples - start) for start in range(0, resamples, most)]


def _as_floats(blocks: Iterator[Counts]) -> Iterator[FloatArray]:
    """Each block as float64, ready to be multiplied; the memory is used again for the next one."""
    memory: FloatArray | None = None
    for block in blocks:
        if memory is None:
            memory = np.empty(block.shape)
        memory[: len(block)] = block
        yield memory[: len(block)]


@dataclass(frozen=True)
class _Sparse:
    """A statistic [N, C] of which most is 0, as that of rows that count for one class each: its M other cells, class by class."""

    row_M: NDArray[np.intp]
    value_M: FloatArray
    first_K: NDArray[np.intp]
    """Where the cells of each class begin that has any."""
    class_K: NDArray[np.intp]
    classes: int


def _packed(rows: Rows) -> dict[str, FloatArray | _Sparse]:
    """Each statistic in the form in which `_product` is fastest."""
    return {name: _sparse(column) for name, column in rows.items()}


def _sparse(column: FloatArray) -> FloatArray | _Sparse:
    filled = np.count_nonzero(column)
    if column.ndim == 1 or filled == 0 or filled * WORTH_PACKING > column.size:
        return column
    class_M, row_M = np.nonzero(column.T)
    first_K = np.flatnonzero(np.diff(class_M, prepend=-1))
    return _Sparse(row_M, column[row_M, class_M], first_K, class_M[first_K], column.shape[1])


def _product(weights: FloatArray, column: FloatArray | _Sparse) -> FloatArray:
    """weights [r, N] times a statistic [N] or [N, C].

    Vector by vector: on a busy machine, narrow matrices were seen to take ten times as long, because the
    threads of BLAS wait for each other.
    """
    if isinstance(column, _Sparse):
        product = np.zeros((len(weights), column.classes))
        cells_rM = weights[:, column.row_M] * column.value_M
        product[:, column.class_K] = np.add.reduceat(cells_rM, column.first_K, axis=1)
        return product
    if column.ndim == 1:
        return np.asarray(weights @ column)
    product = np.zeros((len(weights), column.shape[1]))
    width = max(1, BLOCK_CELLS // len(weights))
    for start in range(0, len(column), width):
        part = weights[:, start : start + width]
        for k, vector in enumerate(column[start : start + width].T):
            product[:, k] += part @ vector
    return product


def resampled(metric: Metric, models: list[Rows], resamples: int, seed: int) -> FloatArray:
    """`metric` of each model in each bootstrap resample, [models, R]; every model meets the same resamples.

    Of a metric that is a number for each of C classes, [models, R, C].

    Args: columns that `checked_columns` has passed, all with the same number of rows.
    """
    parts = []
    packed = [_packed(rows) for rows in models]
    for counts in _as_floats(_bootstrap_blocks(_rows_in(models[0]), resamples, seed)):
        sums = ({name: _product(counts, column) for name, column in rows.items()} for rows in packed)
        parts.append([metric.value(each) for each in sums])
    return np.concatenate(parts, axis=1)


def interval(metric: Metric, rows: Rows, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """`metric` on `rows` with its percentile-bootstrap 95 % interval.

    Raises: DataError if there are no rows, or a column is missing or not finite.
    """
    columns = checked_columns(metric, rows)
    value = value_or_none(metric, columns)
    if value is None or _rows_in(columns) == 1:
        return _without(metric, value)
    return _around(metric, value, resampled(metric, [columns], resamples, seed)[0])


def intervals_by_class(
    metric: Metric, rows: Rows, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """As `interval`, of a metric that is one number for each of C classes: all of them from the same resamples."""
    columns = checked_columns(metric, rows)
    value_C = [
        _finite(value) for value in metric.value({name: column.sum(0) for name, column in columns.items()})
    ]
    if _rows_in(columns) == 1:
        return [_without(metric, value) for value in value_C]
    draws_RC = resampled(metric, [columns], resamples, seed)[0]
    return [
        _without(metric, None) if value is None else _around(metric, value, draws_RC[:, number])
        for number, value in enumerate(value_C)
    ]


def _without(metric: Metric, value: float | None) -> Interval:
    """Of a value that is undefined, or comes from one row."""
    return Interval(value, None, None, undefined(metric) if value is None else ONE_ROW)


def _around(metric: Metric, value: float, draws: FloatArray) -> Interval:
    """`value` between the limits of its resampled `draws` [R]."""
    low, high, note = _limits(metric, draws, value)
    if low is not None and high is not None and metric.biased and metric.unit == "share":
        low, high = max(low, min(value, 0.0)), min(high, max(value, 1.0))
    return Interval(value, low, high, note or (NO_SPREAD if low == high else None))


def difference(
    metric: Metric, rows_a: Rows, rows_b: Rows, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """metric(a) - metric(b) on the same rows: paired bootstrap interval and paired permutation test.

    The test swaps a and b in each row with probability 1/2, which changes nothing if they are alike; p is the
    share of swaps that differ more in either direction, the observed one, and half of those that differ as much
    (mid-p: where few values are possible, as of an accuracy, counting all of them would raise half as many alarms as it says).
    Source: Fagerland, Lydersen, Laake 2013, doi:10.1186/1471-2288-13-91.
    Raises: DataError as `interval`, and if a and b are not about the same rows.
    """
    a, b = _paired(metric, rows_a, rows_b)
    value_a, value_b = value_or_none(metric, a), value_or_none(metric, b)
    if value_a is None or value_b is None:
        return Difference(None, None, None, None, None, undefined(metric))
    value = value_a - value_b
    p = _permutation_p(metric, a, b, resamples, seed)
    if _rows_in(a) == 1:
        return Difference(value, None, None, p, None, ONE_ROW)
    on_a, on_b = resampled(metric, [a, b], resamples, seed)
    low, high, note = limits = _limits(metric, on_a - on_b, value)
    sign = _sign(limits, max(abs(value_a), abs(value_b)))
    if sign and p > 1 - LEVEL:  # with few differing rows the interval is over-eager: both must say so
        note = (
            f"the interval excludes 0, but the permutation test does not (p = {p:.3f}): nothing is claimed."
        )
        sign = 0
    return Difference(value, low, high, p, None if sign == 0 else (sign > 0) == metric.higher_is_better, note)


def retention(
    metric: Metric,
    student: Rows,
    teacher: Rows,
    floor: Rows | float,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """(student - floor) / (teacher - floor) on the same rows, with a paired bootstrap interval.

    The floor is another model's rows (the class prior, token frequencies) or a number (chance).  Where the
    teacher is not surely better than the floor, the share says nothing, and there is no interval.
    Raises: DataError as `interval`, and if the sides are not about the same rows.
    """
    if not isinstance(floor, dict) and not np.isfinite(floor):
        raise DataError(f"the floor of {metric.title} is {floor}; give a finite number, or a model's rows.")
    models = _paired(metric, student, teacher, *([floor] if isinstance(floor, dict) else []))
    found = [value_or_none(metric, model) for model in models]
    if None in found:
        return Interval(None, None, None, undefined(metric))
    points = np.array(found, dtype=np.float64)[:, None]
    value = _finite(_retained(points, floor)[0])
    if _rows_in(models[0]) == 1:
        return Interval(value, None, None, ONE_ROW)
    draws = resampled(metric, models, resamples, seed)
    lead = _limits(metric, draws[1] - _level(draws, floor), float(points[1, 0] - _level(points, floor)[0]))
    ahead = 1 if metric.higher_is_better else -1
    if value is None or _sign(lead, abs(points[1, 0])) != ahead:
        behind = ahead * (points[1, 0] - _level(points, floor)[0]) <= 0
        return Interval(
            None if behind else value, None, None, f"retention is undefined: in {metric.title} {NO_LEAD}."
        )
    low, high, note = _limits(metric, _retained(draws, floor), value)
    return Interval(value, low, high, note)


def _level(values: FloatArray, floor: Rows | float) -> FloatArray:
    """The floor [R] to the values [student, teacher and perhaps floor, R]."""
    return values[2] if isinstance(floor, dict) else np.full(values.shape[1], float(floor))


def _retained(values: FloatArray, floor: Rows | float) -> FloatArray:
    """Retention [R] of values [student, teacher and perhaps floor, R]; NaN where teacher equals floor."""
    level = _level(values, floor)
    return ratio(values[0] - level, values[1] - level)


def _limits(metric: Metric, draws: FloatArray, value: float) -> tuple[float | None, float | None, str | None]:
    """The 95 % limits of `value` from its resampled `draws` [R], and a note if there are none.

    They are percentiles, widened to hold the value.  Where resamples are shifted against the value
    (`Metric.biased`), the value is as a rule shifted in the same way against the truth.  The limits are then
    moved back by one shift, and also reflected at the value, which moves them by two; what is returned covers
    both.  Plain percentiles of the calibration error held the truth in 0 to 86 % of simulated data sets.
    """
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return None, None, ALL_UNDEFINED
    low, middle, high = (float(limit) for limit in np.quantile(draws, QUANTILES))
    if metric.biased:
        shift = middle - value
        low, high = min(low - shift, 2 * value - high), max(high - shift, 2 * value - low)
    return min(low, value), max(high, value), None


def _sign(limits: tuple[float | None, float | None, str | None], scale: float) -> int:
    """1 or -1 if the interval lies on that side of 0, 0 if it includes 0 or is not there.

    Args: scale, the size of the numbers subtracted; 1e-9 of it is taken for rounding.
    """
    low, high, _ = limits
    if low is None or high is None:
        return 0
    return int(low > ROUNDING * scale) - int(high < -ROUNDING * scale)


def _permutation_p(metric: Metric, a: Rows, b: Rows, resamples: int, seed: int) -> float:
    """Two-sided mid-p of metric(a) - metric(b) under random swaps of rows; at least 1 / (resamples + 1)."""
    sum_a = {name: column.sum(axis=0) for name, column in a.items()}
    sum_b = {name: column.sum(axis=0) for name, column in b.items()}
    gap = _packed({name: b[name] - a[name] for name in a})
    level_a, level_b = float(metric.value(sum_a)), float(metric.value(sum_b))
    # A swap that differs from what was observed by rounding alone counts as equal to it.
    observed, slack = abs(level_a - level_b), ROUNDING * max(abs(level_a), abs(level_b))
    if observed <= slack:
        return 1.0
    more = as_much = valid = 0
    for swaps in _as_floats(_swap_blocks(_rows_in(a), resamples, seed)):
        moved = {name: _product(swaps, column) for name, column in gap.items()}
        swapped = metric.value({name: sum_a[name] + moved[name] for name in moved})
        swapped = np.abs(swapped - metric.value({name: sum_b[name] - moved[name] for name in moved}))
        valid += int(np.isfinite(swapped).sum())
        more += int((swapped > observed + slack).sum())
        as_much += int((np.abs(swapped - observed) <= slack).sum())
    return (1 + more + as_much / 2) / (1 + valid)


def _paired(metric: Metric, *models: Rows) -> list[Rows]:
    """The checked columns of each model.  Raises: DataError if they differ in shape."""
    checked = [checked_columns(metric, rows) for rows in models]
    for name in metric.columns:
        shapes = {rows[name].shape for rows in checked}
        if len(shapes) > 1:
            raise DataError(
                f"column {name!r} differs in shape between the models ({shapes}); use the same rows."
            )
    return checked


def _rows_in(columns: Rows) -> int:
    return len(next(iter(columns.values())))


def _finite(value: Any) -> float | None:
    return float(value) + 0.0 if np.isfinite(value) else None  # + 0.0 makes -0.0 plain
