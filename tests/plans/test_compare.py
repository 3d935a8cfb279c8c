"""Differences over seeds: paired, zero between equals, and never narrower than what they come from."""

import math
from pathlib import Path

import numpy as np
import pytest

from stillhouse.files import write_json
from stillhouse.kept import RowIndex
from stillhouse.measure import CLASSIFICATION_METRICS, difference
from stillhouse.plans.compare import content_of, difference_over_seeds, t95, unpaired, value_over_seeds

ACCURACY = CLASSIFICATION_METRICS["accuracy"]


def rows(share: float, seed: int, count: int = 400) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {"texts": np.ones(count), "correct": (draw.random(count) < share).astype(float)}


def test_one_seed_is_the_paired_difference_over_rows() -> None:
    a, b = rows(0.8, 1), rows(0.7, 2)
    found = difference_over_seeds(ACCURACY, [a], [b], 300, 0)
    expected = difference(ACCURACY, a, b, resamples=300, seed=0).as_json()
    assert found == {**expected, "seeds": 1, "spread": None}


def test_equal_runs_differ_by_nothing_and_nothing_is_claimed() -> None:
    some = [rows(0.8, seed) for seed in range(3)]
    found = difference_over_seeds(ACCURACY, some, some, 300, 0)
    assert found["value"] == found["low"] == found["high"] == 0.0
    assert found["better"] is None


def test_swapping_the_sides_turns_the_interval_around() -> None:
    ours, theirs = [rows(0.85, s) for s in range(3)], [rows(0.7, s + 9) for s in range(3)]
    one, other = (difference_over_seeds(ACCURACY, a, b, 300, 0) for a, b in ((ours, theirs), (theirs, ours)))
    assert one["value"] == pytest.approx(-other["value"])
    assert (one["better"], other["better"]) == (True, False)


def test_seeds_that_disagree_widen_the_interval_by_students_t() -> None:
    """Against the formula, written out: rows' half-width and t·s/√S, added in squares."""
    some = [rows(share, 3) for share in (0.6, 0.7, 0.8)]
    found = value_over_seeds(ACCURACY, some, 300, 0)
    single = [value_over_seeds(ACCURACY, [one], 300, 0) for one in some]
    values = [one["value"] for one in single]
    over_rows = np.mean([(one["high"] - one["low"]) / 2 for one in single])
    expected = math.hypot(over_rows, 4.303 * np.std(values, ddof=1) / math.sqrt(3))
    assert (found["high"] - found["low"]) / 2 == pytest.approx(expected)
    assert found["value"] == pytest.approx(np.mean(values))
    assert found["spread"] == pytest.approx(np.std(values, ddof=1))


def test_a_lucky_seed_is_no_gain() -> None:
    """One seed of three is far ahead: with this few, that is what luck looks like."""
    ours = [rows(0.9, 1, 2000), rows(0.7, 2, 2000), rows(0.7, 3, 2000)]
    theirs = [rows(0.7, seed, 2000) for seed in (4, 5, 6)]
    assert difference_over_seeds(ACCURACY, ours, theirs, 300, 0)["better"] is None


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (2, 4.303), (10, 2.228), (15, 2.131), (30, 2.042), (100, 1.984)])  # fmt: skip
def test_students_t_is_the_tables(freedom: int, value: float) -> None:
    assert t95(freedom) == pytest.approx(value, abs=4e-3)


def test_null_differences_are_called_differences_seldom() -> None:
    """200 experiments of three seeds in which nothing differs: at most the 5 % that a 95 % interval allows."""
    draw = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        level = 0.75 + 0.02 * draw.standard_normal(6)
        some = [rows(float(share), int(draw.integers(1 << 30)), 150) for share in level]
        alarms += difference_over_seeds(ACCURACY, some[:3], some[3:], 200, 0)["better"] is not None
    assert alarms <= 0.06 * 200


def test_different_rows_give_a_number_without_a_claim() -> None:
    found = unpaired(ACCURACY, {"value": 0.8}, {"value": 0.75})
    assert found["value"] == pytest.approx(0.05)
    assert found["better"] is None
    assert found["low"] is None
    assert "same held-out rows" in found["note"]


def test_what_was_measured_tells_sets_apart_and_what_was_prepared_only_in_older_runs(tmp_path: Path) -> None:
    """Rows without targets are all alike when they are prepared: a teacher's answers make them differ."""
    answers = {"a": ["x", "y"], "same": ["x", "y"], "other": ["x", "z"], "old": None, "older": None}
    for name, keys in answers.items():
        prepared = {"result": {"sets": {"eval": {"content": "of nothing"}}}}
        write_json(tmp_path / name / "prepare" / "DONE.json", prepared)
        if keys is not None:
            (tmp_path / name / "evaluate").mkdir()
            RowIndex(keys, ["1", "2"], ["1", "2"], [3, 3], [None, None]).write(
                tmp_path / name / "evaluate", "eval"
            )
    found = {name: content_of(tmp_path / name) for name in answers}
    assert found["a"] == found["same"] != found["other"]
    assert found["old"] == found["older"] == "of nothing"
