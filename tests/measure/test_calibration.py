"""The reliability chart and the temperature that repairs confidence."""

import json

import numpy as np
import pytest

from stillhouse.errors import DataError
from stillhouse.measure import (
    CLASSIFICATION_METRICS,
    best_temperature,
    classification_rows,
    evaluate,
    reliability,
)


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


@pytest.fixture
def logits_and_labels():
    """Logits that are 2.5 times too large: the labels are drawn from softmax(logits / 2.5)."""
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(4000, 3)) * 4
    cumulative = softmax(logits / 2.5).cumsum(axis=1)
    return logits, (cumulative < generator.random((4000, 1))).sum(axis=1)


def test_the_chart_and_the_calibration_error_tell_the_same(logits_and_labels):
    logits, labels = logits_and_labels
    chart = reliability(softmax(logits), labels)
    gaps = [bar["count"] * abs(bar["confidence"] - bar["accuracy"]) for bar in chart if bar["count"]]
    ece = evaluate(CLASSIFICATION_METRICS["ece"], classification_rows(softmax(logits), labels))
    assert sum(bar["count"] for bar in chart) == 4000
    assert sum(gaps) / 4000 == pytest.approx(ece, rel=1e-9)


def test_the_chart_is_json_and_says_nothing_about_empty_bins(logits_and_labels):
    logits, labels = logits_and_labels
    chart = reliability(softmax(logits), labels, bins=10)
    assert json.loads(json.dumps(chart, allow_nan=False)) == chart
    assert [bar["low"] for bar in chart] == [k / 10 for k in range(10)]
    assert chart[0]["count"] == 0 and chart[0]["accuracy"] is None  # three classes: confidence is above 1/3
    assert all(bar["low"] < bar["confidence"] <= bar["high"] for bar in chart if bar["count"])


def test_complete_confidence_is_in_the_last_bin_and_not_past_it():
    chart = reliability(np.eye(2)[[0, 1]], [0, 0])
    assert chart[-1] == {"low": 14 / 15, "high": 1.0, "count": 2, "confidence": 1.0, "accuracy": 0.5}


def test_the_best_temperature_undoes_overconfidence(logits_and_labels):
    logits, labels = logits_and_labels
    temperature = best_temperature(logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.08)
    before = evaluate(CLASSIFICATION_METRICS["ece"], classification_rows(softmax(logits), labels))
    after = evaluate(
        CLASSIFICATION_METRICS["ece"], classification_rows(softmax(logits / temperature), labels)
    )
    assert after < before / 3


def test_no_temperature_on_a_grid_is_better_than_the_best(logits_and_labels):
    logits, labels = logits_and_labels

    def nll(temperature):
        return evaluate(
            CLASSIFICATION_METRICS["nll"], classification_rows(softmax(logits / temperature), labels)
        )

    best = nll(best_temperature(logits, labels))
    assert all(best <= nll(temperature) + 1e-12 for temperature in np.geomspace(0.1, 30.0, 60))


def test_the_best_temperature_scales_with_the_logits(logits_and_labels):
    logits, labels = logits_and_labels
    assert best_temperature(logits * 3, labels) == pytest.approx(
        3 * best_temperature(logits, labels), rel=1e-5
    )


def test_a_model_that_is_always_right_wants_the_coldest_temperature():
    assert best_temperature(np.eye(3), [0, 1, 2]) == pytest.approx(0.01, rel=1e-5)


def test_logits_that_are_not_finite_are_named_by_row():
    with pytest.raises(DataError, match="row 2"):
        best_temperature([[0.0, 1.0], [np.nan, 0.0]], [0, 1])
    with pytest.raises(DataError, match="shape"):
        best_temperature([0.0, 1.0], [0, 1])
