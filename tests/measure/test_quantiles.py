"""Limits of medians and percentiles by rank: what they promise is held, whatever the measurements are drawn from."""

import numpy as np
import pytest
from scipy.stats import binom

from stillhouse.measure import median_interval, quantile_interval


@pytest.mark.parametrize(("count", "share"), [(6, 0.5), (12, 0.5), (40, 0.5), (80, 0.95), (200, 0.9)])
def test_a_quantile_lies_between_its_limits_in_95_of_100_cases_and_no_narrower_pair_of_ranks_does(
    count: int, share: float
) -> None:
    found = quantile_interval(list(range(count)), share)
    low, high = int(found.low), int(found.high)
    below = binom(count, share)
    assert below.cdf(low) <= 0.025 < below.cdf(low + 1)
    assert below.sf(high) <= 0.025 < below.sf(high - 1)
    drawn = np.sort(np.random.default_rng(0).lognormal(size=(4000, count)), axis=1)
    truth = np.quantile(np.random.default_rng(1).lognormal(size=10**6), share)
    assert np.mean((drawn[:, low] <= truth) & (truth <= drawn[:, high])) >= 0.94


def test_a_limit_beyond_all_measurements_is_not_made_up() -> None:
    found = quantile_interval([float(n) for n in range(12)], 0.95)
    assert (found.low, found.high) == (9.0, None)
    assert "12 measurements are too few for the upper limit" in found.note
    assert quantile_interval([1.0, 2.0], 0.5).low is None
    late = quantile_interval([1.0, 2.0], 0.99)
    assert late.low == late.value, "which lies between the two"


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_measurements_span_the_interval_and_the_note_says_how_often_it_holds(count: int) -> None:
    found = median_interval([float(n) for n in range(count)])
    assert (found.low, found.high) == (0.0, count - 1.0)
    drawn = np.random.default_rng(0).exponential(size=(20_000, count))
    held = np.mean((drawn.min(1) <= np.log(2)) & (np.log(2) <= drawn.max(1)))
    said = int(found.note.rpartition(" of 100")[0].rpartition(" ")[2])
    assert said / 100 == pytest.approx(held, abs=0.01)


def test_what_was_measured_once_has_no_interval() -> None:
    assert median_interval([2.0]).as_json() | {"note": ""} == {
        "value": 2.0, "low": None, "high": None, "note": "",
    }  # fmt: skip
