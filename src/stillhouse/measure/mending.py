"""The temperature that would mend a model's confidence, and what it would be worth on rows that did not choose it.

Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .calibration import COLDEST, HOTTEST, best_temperature
from .intervals import ROUNDING, Interval, interval
from .metrics import CLASSIFICATION_METRICS, FloatArray, IntArray, Metric, Rows, classification_rows, ratio

TEMPERATURES = (0.5, 0.63, 0.79, 1.0, 1.26, 1.59, 2.0)
"""At which a language model's likelihood is measured; its best temperature is read off between them."""
FEWEST = 40
"""Rows below which no temperature is chosen."""


REACH, STEPS = 1.5, 31
"""A classifier's resampled temperatures are sought up to so far, in logarithms, from the best one; places looked at."""
AT_END = 1e-6
"""So near to an end, as a share of it, the search of a best temperature has found no inside."""
NO_OTHER_SIDE = "there is no interval: the best temperature is the coldest or hottest that is tried."

Found = dict[str, Any]


def mended(rows: Rows, units: Callable[[Rows], Rows], *, resamples: int, seed: int) -> Found | None:
    """{"temperature", "nll", "nll_mended", "ece", "ece_mended", "intervals"} of a model; None where it cannot be told.

    A classifier's after-values are cross-fitted: each half of the rows is read at the temperature that is best on the
    other half, so that they promise nothing that new rows would not keep.  Their intervals are over the rows that are
    read; that other rows would have chosen other temperatures is in the temperature's own interval.

    Args: rows: statistics of each row; units: sums statistics over the rows that are resampled together.
    """
    settings: Any = {"resamples": resamples, "seed": seed}
    if "log_probs" in rows:
        return _classifier(rows, units, settings)
    return _language_model(units(rows), settings) if "nll_at" in rows else None


def _classifier(rows: Rows, units: Callable[[Rows], Rows], settings: Any) -> Found | None:
    truth_N = rows["true"].argmax(axis=1)
    scores_NC = rows["log_probs"]
    if len(truth_N) < FEWEST or not rows["true"].any(axis=1).all():
        return None
    half_N = np.arange(len(truth_N)) % 2 == 0
    after_NC = np.empty_like(scores_NC)
    for here in (half_N, ~half_N):
        after_NC[here] = softmax(scores_NC[here] / best_temperature(scores_NC[~here], truth_N[~here]))
    best = best_temperature(scores_NC, truth_N)
    places = best * np.exp(np.linspace(-REACH, REACH, STEPS))
    cooled = {"nll_at": _nll_at(scores_NC, truth_N, places), "nll_at_count": np.ones(len(truth_N))}
    found: Found = {"temperature": best}
    limits = {"temperature": _around(best, units(cooled), places, settings)}
    before, after = units(rows), units(classification_rows(after_NC, truth_N))
    for name in ("nll", "ece"):
        metric = CLASSIFICATION_METRICS[name]
        limits[name] = interval(metric, before, **settings)
        limits[f"{name}_mended"] = interval(metric, after, **settings)
        found |= {each: limits[each].value for each in (name, f"{name}_mended")}
    return found | {"intervals": {name: each.as_json() for name, each in limits.items()}}


def _language_model(rows: Rows, settings: Any) -> Found | None:
    """By a parabola through the three lowest of the measured points; None where the lowest is at an end."""
    if rows["nll_at_count"].sum() < FEWEST:
        return None
    nats = rows["nll_at"].sum(axis=0) / rows["nll_at_count"].sum()
    if int(nats.argmin()) in (0, len(nats) - 1):
        return None
    limits = {
        "temperature": _temperature(rows, np.array(TEMPERATURES), settings),
        "nll": interval(
            _of_curve("nll", lambda nats_T: nats_T[..., TEMPERATURES.index(1.0)]), rows, **settings
        ),
        "nll_mended": interval(
            _of_curve("nll_mended", lambda nats_T: _lowest(np.log(TEMPERATURES), nats_T)[1]), rows, **settings
        ),
    }
    values = {name: each.value for name, each in limits.items()}
    missing = {"ece": None, "ece_mended": None}
    return values | missing | {"intervals": {name: each.as_json() for name, each in limits.items()}}


def _around(best: float, rows: Rows, places: FloatArray, settings: Any) -> Interval:
    """A classifier's `best` temperature between its limits; none where it is the coldest or the hottest that is tried.

    `best` is sought on the rows themselves, and the resampled ones on parabolas between `places`, so the limits are made to hold it.
    """
    if not COLDEST * (1 + AT_END) < best < HOTTEST * (1 - AT_END):
        return Interval(best, None, None, NO_OTHER_SIDE)
    found = _temperature(rows, places, settings, biased=True)
    return replace(
        found,
        value=best,
        low=None if found.low is None else min(found.low, best),
        high=None if found.high is None else max(found.high, best),
    )


def _temperature(rows: Rows, places: FloatArray, settings: Any, biased: bool = False) -> Interval:
    """The best temperature between `places` [T]; a limit is not known where that of the resamples lies at their end, for it may
    lie beyond, nor where it was moved beyond.

    Args: biased: whether few rows make it too hot, as a classifier's; see `Metric.biased`.
    """
    metric = _of_curve("temperature", lambda nats_T: np.exp(_lowest(np.log(places), nats_T)[0]))
    plain = interval(metric, rows, **settings)
    found = interval(replace(metric, biased=True), rows, **settings) if biased else plain
    lows, highs = (plain.low, found.low), (plain.high, found.high)
    return replace(
        found,
        low=None if any(low is None or low <= places[0] * (1 + ROUNDING) for low in lows) else found.low,
        high=None
        if any(high is None or high >= places[-1] * (1 - ROUNDING) for high in highs)
        else found.high,
    )


def _of_curve(name: str, value: Callable[[FloatArray], FloatArray]) -> Metric:
    """A number that follows from the likelihood at several temperatures, nats [..., T]."""

    def of_sums(sums: dict[str, FloatArray]) -> FloatArray:
        return value(ratio(sums["nll_at"], sums["nll_at_count"][..., None]))

    return Metric(name, ("nll_at", "nll_at_count"), of_sums, False, "nats", name.replace("_", " "))


def _lowest(x_T: FloatArray, y_T: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(where, how low) curves [..., T] at the places [T] are lowest, each [...]: by the parabola through the three points around
    the lowest one; at that point itself, where it is an end."""
    best = y_T.argmin(axis=-1)
    middle = np.clip(best, 1, len(x_T) - 2)
    x, y = (
        [np.take_along_axis(of_T, middle[..., None] + step, -1)[..., 0] for step in (-1, 0, 1)]
        for of_T in (np.broadcast_to(x_T, y_T.shape), y_T)
    )
    left, right = ratio(y[1] - y[0], x[1] - x[0]), ratio(y[2] - y[1], x[2] - x[1])
    square = ratio(right - left, x[2] - x[0])
    where = (x[0] + x[1]) / 2 - ratio(left, 2 * square)
    lowest = y[0] + left * (where - x[0]) + square * (where - x[0]) * (where - x[1])
    inside = best == middle
    return np.where(inside, where, x_T[best]), np.where(inside, lowest, y_T.min(axis=-1))


def _nll_at(scores_NC: FloatArray, truth_N: IntArray, places: FloatArray) -> FloatArray:
    """[N, T] nats of the true class at each temperature."""
    level_NC = scores_NC - scores_NC.max(axis=1, keepdims=True)
    true_N = level_NC[np.arange(len(truth_N)), truth_N]
    return np.stack(
        [np.log(np.exp(level_NC / place).sum(axis=1)) - true_N / place for place in places], axis=1
    )


def softmax(scores_NC: FloatArray) -> FloatArray:
    """Rows that sum to 1."""
    exps_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
    return np.asarray(exps_NC / exps_NC.sum(axis=1, keepdims=True))
