"""Bootstrap, permutation and retention: laws, exact cases and bad input.  Coverage is in test_coverage."""

import json

import numpy as np
import pytest

from stillhouse.errors import DataError
from stillhouse.measure import (
    CLASSIFICATION_METRICS,
    LM_METRICS,
    Metric,
    bootstrap_weights,
    class_prior_rows,
    classification_rows,
    difference,
    interval,
    intervals,
    retention,
)
from stillhouse.measure.metrics import evaluate

ACCURACY = CLASSIFICATION_METRICS["accuracy"]
PERPLEXITY = LM_METRICS["perplexity"]
FEW = {"resamples": 300, "seed": 5}


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def models():
    """Student, teacher, floor and the labels' own model, on the same 250 texts."""
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(250, 4)) * 2
    truth = softmax(logits)
    labels = np.array([generator.choice(4, p=row) for row in truth])
    student = softmax(logits + 1.5 * generator.normal(size=logits.shape))
    teacher = softmax(logits + 0.5 * generator.normal(size=logits.shape))
    return {
        "student": classification_rows(student, labels, teacher),
        "teacher": classification_rows(teacher, labels, teacher),
        "floor": class_prior_rows([40, 30, 20, 10], labels),
    }


def hits(*correct):
    return {"correct": np.array(correct, dtype=float), "texts": np.ones(len(correct))}


def is_json(result):
    return json.loads(json.dumps(result.as_json(), allow_nan=False)) == result.as_json()


def test_each_resample_draws_as_many_rows_as_there_are_and_all_rows_equally_often():
    weights = bootstrap_weights(50, 4000, 0)
    assert weights.shape == (4000, 50)
    assert (weights.sum(axis=1, dtype=int) == 50).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.08)
    np.testing.assert_allclose(weights.var(axis=0), 1.0 - 1 / 50, atol=0.15)


def test_weights_are_a_pure_function_of_their_arguments_and_the_block_size_is_not_one(monkeypatch):
    whole = bootstrap_weights(90, 60, 3)
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 90 * 17)
    intervals._kept_weights.cache_clear()
    np.testing.assert_array_equal(bootstrap_weights(90, 60, 3), whole)
    assert (bootstrap_weights(90, 60, 4) != whole).any()


def test_weights_are_drawn_once_for_all_metrics_and_cannot_be_spoilt():
    weights = bootstrap_weights(30, 20, 0)
    assert bootstrap_weights(30, 20, 0) is weights
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 9


def test_a_data_set_too_large_for_the_cache_gives_the_same_numbers_block_by_block(models, monkeypatch):
    kept = difference(ACCURACY, models["student"], models["teacher"], **FEW)
    monkeypatch.setattr(intervals, "CACHED_CELLS", 0)
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 250 * 23)
    streamed = difference(ACCURACY, models["student"], models["teacher"], **FEW)
    assert streamed.as_json() == pytest.approx(kept.as_json())


def test_resampled_sums_are_those_of_rows_taken_again_and_again(models):
    weights = bootstrap_weights(250, 300, 5)
    for name in ("accuracy", "macro_f1", "ece", "nll"):
        metric, rows = CLASSIFICATION_METRICS[name], models["student"]
        drawn = intervals.resampled(metric, [rows], 300, 5)[0]
        for r in (0, 1, 299):
            again = {column: np.repeat(rows[column], weights[r], axis=0) for column in metric.columns}
            assert drawn[r] == pytest.approx(evaluate(metric, again), rel=1e-9)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_each_interval_contains_its_value_and_stays_in_its_range(models, name):
    metric = CLASSIFICATION_METRICS[name]
    for model in ("student", "teacher"):
        result = interval(metric, models[model], **FEW)
        assert 0.0 <= result.low <= result.value <= result.high
        assert metric.unit != "share" or result.high <= 1.0
        assert result.value == evaluate(metric, models[model])
        assert is_json(result)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_a_against_b_is_the_mirror_image_of_b_against_a(models, name):
    metric = CLASSIFICATION_METRICS[name]
    ab = difference(metric, models["student"], models["teacher"], **FEW)
    ba = difference(metric, models["teacher"], models["student"], **FEW)
    assert (ab.value, ab.low, ab.high) == pytest.approx((-ba.value, -ba.high, -ba.low), abs=1e-12)
    assert ab.p == ba.p
    assert ab.better == (None if ba.better is None else not ba.better)
    assert ab.low <= ab.value <= ab.high
    assert is_json(ab)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_a_model_does_not_differ_from_itself(models, name):
    same = difference(CLASSIFICATION_METRICS[name], models["student"], models["student"], **FEW)
    assert (same.value, same.low, same.high, same.p, same.better) == (0.0, 0.0, 0.0, 1.0, None)


def test_better_follows_the_metrics_own_direction():
    generator = np.random.default_rng(0)
    tokens = np.full(80, 20.0)
    low = {"tokens": tokens, "nll": tokens * generator.gamma(9, 0.2, 80)}
    high = {"tokens": tokens, "nll": low["nll"] + 5.0}
    assert difference(PERPLEXITY, low, high, **FEW).better is True
    assert difference(PERPLEXITY, high, low, **FEW).better is False
    right, wrong = hits(*[1] * 60, *[0] * 20), hits(*[1] * 30, *[0] * 50)
    assert difference(ACCURACY, right, wrong, **FEW).better is True
    assert difference(ACCURACY, wrong, right, **FEW).better is False


def test_p_is_the_mid_p_of_the_exact_sign_test_where_all_swaps_can_be_counted():
    a, b = hits(1, 1, 1, 1, 1, 1, 0, 1), hits(0, 0, 0, 0, 0, 0, 0, 1)  # six rows differ, all one way
    assert difference(ACCURACY, a, b, resamples=20_000).p == pytest.approx(0.5 * 2 / 2**6, abs=0.004)
    a, b = hits(1, 1, 1, 1, 1, 0), hits(0, 0, 0, 0, 0, 1)  # five to one
    assert difference(ACCURACY, a, b, resamples=20_000).p == pytest.approx((2 + 0.5 * 12) / 2**6, abs=0.01)


def test_p_is_never_zero():
    a, b = hits(*[1] * 100), hits(*[0] * 100)
    assert difference(ACCURACY, a, b, resamples=199).p == 1 / 200


def test_an_interval_that_says_more_than_the_permutation_test_is_marked():
    a, b = hits(*[1] * 4, *[1, 0] * 50), hits(*[0] * 4, *[1, 0] * 50)
    result = difference(ACCURACY, a, b)
    assert result.p > 0.05
    assert (result.low > 0) == (result.note is not None)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "nll", "brier"])
def test_the_teacher_retains_everything_and_the_floor_nothing(models, name):
    metric = CLASSIFICATION_METRICS[name]
    teacher, floor = models["teacher"], models["floor"]
    everything = retention(metric, teacher, teacher, floor, **FEW)
    nothing = retention(metric, floor, teacher, floor, **FEW)
    assert (everything.value, everything.low, everything.high) == (1.0, 1.0, 1.0)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    between = retention(metric, models["student"], teacher, floor, **FEW)
    assert between.low <= between.value <= between.high < 1.0
    assert is_json(between)


def test_a_floor_in_numbers_and_a_floor_in_rows_give_the_same_retention(models):
    level = hits(*[1, 0, 0, 0, 0] * 50)
    level["correct"] = np.full(250, 0.2)
    by_rows = retention(ACCURACY, models["student"], models["teacher"], level, **FEW)
    by_number = retention(ACCURACY, models["student"], models["teacher"], 0.2, **FEW)
    assert by_rows.as_json() == pytest.approx(by_number.as_json())


@pytest.mark.parametrize("floor", [0.5, 0.55, 0.6, 0.9])
def test_retention_is_undefined_where_the_teacher_is_not_surely_better_than_the_floor(floor):
    teacher, student = hits(*[1] * 55, *[0] * 45), hits(*[1] * 52, *[0] * 48)
    result = retention(ACCURACY, student, teacher, floor, **FEW)
    assert (result.low, result.high) == (None, None)
    assert "not better than the floor" in result.note
    assert (result.value is None) == (
        floor >= 0.55
    )  # below it a student still farther down would have kept more than all
    assert is_json(result)


def test_retention_of_a_lower_is_better_metric_is_undefined_against_a_better_floor(models):
    nll = CLASSIFICATION_METRICS["nll"]
    assert retention(nll, models["student"], models["teacher"], models["floor"], **FEW).note is None
    assert "undefined" in retention(nll, models["student"], models["floor"], models["teacher"], **FEW).note


def test_one_row_gives_a_value_and_no_interval():
    one = interval(ACCURACY, hits(1))
    assert (one.value, one.low, one.high) == (1.0, None, None) and "one row" in one.note
    gap = difference(ACCURACY, hits(1), hits(0))
    assert (gap.value, gap.low, gap.high, gap.better) == (1.0, None, None, None)
    kept = retention(ACCURACY, hits(1), hits(1), 0.5)
    assert (kept.value, kept.low, kept.high) == (1.0, None, None)
    assert is_json(one) and is_json(gap) and is_json(kept)


def test_rows_that_all_score_alike_get_a_warning_beside_their_empty_interval():
    result = interval(ACCURACY, hits(*[1] * 30), **FEW)
    assert (result.low, result.high) == (1.0, 1.0)
    assert "alike" in result.note


def test_resamples_without_a_value_are_left_out_and_not_counted_as_zero():
    rows = {"tokens": np.array([10.0, 0.0, 0.0]), "correct": np.array([5.0, 0.0, 0.0])}
    result = interval(LM_METRICS["token_accuracy"], rows, **FEW)
    assert (result.value, result.low, result.high) == (0.5, 0.5, 0.5)


def test_a_metric_without_a_value_is_none_with_a_note_and_never_nan():
    empty = {"tokens": np.zeros(5), "nll": np.zeros(5)}
    huge = {"tokens": np.ones(5), "nll": np.full(5, 1e4)}
    for rows in (empty, huge):
        for result in (interval(PERPLEXITY, rows), difference(PERPLEXITY, rows, rows)):
            assert result.value is None and "undefined" in result.note
            assert is_json(result)
        assert is_json(retention(PERPLEXITY, rows, rows, 5.0))


def test_a_metric_defined_on_all_rows_but_in_no_resample_has_no_interval():
    # the "metric" exists only where every row was drawn exactly once, which 20 seeds of 20 rows do not reach
    def fussy(sums):
        return np.where(sums["x"] == 2.0**20 - 1, 1.0, np.nan)

    metric = Metric("fussy", ("x",), fussy, True, "", "fussy")
    result = interval(metric, {"x": 2.0 ** np.arange(20)}, resamples=20)
    assert (result.value, result.low, result.high) == (1.0, None, None)
    assert "every resample" in result.note


def test_bad_input_is_refused_in_one_sentence(models):
    with pytest.raises(DataError, match="no rows"):
        interval(ACCURACY, hits())
    with pytest.raises(DataError, match=r"'correct'.*row 2"):
        difference(ACCURACY, hits(1, 0), hits(1, np.nan))
    with pytest.raises(DataError, match="same rows"):
        difference(ACCURACY, hits(1, 0), hits(1, 0, 1))
    with pytest.raises(DataError, match="finite number"):
        retention(ACCURACY, hits(1, 0), hits(1, 0), float("nan"))


def test_nothing_draws_from_the_global_generator_and_the_seed_decides(models):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = difference(ACCURACY, models["student"], models["teacher"], **FEW)
    np.random.seed(1)
    np.random.rand(5)
    assert difference(ACCURACY, models["student"], models["teacher"], **FEW) == first
    np.random.seed(0)
    retention(ACCURACY, models["student"], models["teacher"], 0.25, **FEW)
    interval(ACCURACY, models["student"], **FEW)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert difference(ACCURACY, models["student"], models["teacher"], resamples=300, seed=6) != first
