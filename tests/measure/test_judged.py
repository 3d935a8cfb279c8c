"""A judge's words in numbers: a favourite place favours nobody, and what was not judged is not counted."""

import pytest

from stillhouse.measure.judged import Verdict, judged

PAIRS: list[tuple[Verdict, Verdict]] = [
    ("first", "second"),
    ("first", "first"),
    ("tie", "second"),
    ("second", "first"),
    ("tie", "tie"),
]
"""Where ours stood first, and where it stood second: won twice, won and lost, a tie and a win, lost twice, tied twice."""


def test_points_are_means_over_both_orders() -> None:
    found = judged(PAIRS, 1, resamples=200, seed=0)
    points = [1.0, 0.5, 0.75, 0.0, 0.5, 0.5]
    assert found["win_rate"]["value"] == pytest.approx(sum(points) / 6)
    assert found["preferred"]["value"] == pytest.approx(2 * sum(points) / 6 - 1)
    assert (found["wins"], found["ties"], found["losses"], found["judged"]) == (2, 3, 1, 6)
    assert found["first_place"]["value"] == pytest.approx((0.5 + 1.0 + 0.25 + 0.5 + 0.5) / 5)
    assert found["same_twice"]["value"] == pytest.approx(3 / 5), "those that were asked about, and no others"


def test_a_judge_that_looks_at_the_place_alone_favours_nobody_and_is_found_out() -> None:
    found = judged([("first", "first")] * 40, 0, resamples=200, seed=0)
    assert (found["win_rate"]["value"], found["preferred"]["better"]) == (0.5, None)
    assert (found["first_place"]["value"], found["same_twice"]["value"]) == (1.0, 0.0)


def test_a_preference_is_claimed_where_it_is_beyond_chance() -> None:
    assert judged([("first", "second")] * 40, 0, resamples=200, seed=0)["preferred"]["better"] is True
    assert judged([("second", "first")] * 40, 0, resamples=200, seed=0)["preferred"]["better"] is False
    mixed: list[tuple[Verdict, Verdict]] = [("first", "second"), ("second", "first")] * 20
    assert judged(mixed, 0, resamples=200, seed=0)["preferred"]["better"] is None


def test_nothing_judged_is_no_number() -> None:
    found = judged([], 0, resamples=200, seed=0)
    assert (found["judged"], found["win_rate"], found["same_twice"]) == (0, None, None)
