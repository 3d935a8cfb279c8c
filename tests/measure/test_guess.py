"""A guess that nothing is drawn for is what many draws come to."""

import numpy as np
import pytest

from stillhouse.measure import CLASSIFICATION_METRICS, classification_rows, evaluate, uniform_rows
from stillhouse.measure.metrics import shared_classes

COUNTS = ("correct", "agree", "repeats", "pred", "tp", "bin_acc")


def test_a_die_has_on_average_what_thousands_of_throws_have() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 12)
    teacher = generator.dirichlet(np.ones(3), 12)
    rows = uniform_rows(3, labels, teacher)
    sums = {name: np.zeros_like(rows[name]) for name in COUNTS}
    for _ in range(4000):
        guess = generator.integers(0, 3, 12)
        barely = np.full((12, 3), 1 / 3) + 1e-9 * np.eye(3)[guess]
        thrown = classification_rows(barely, labels, teacher)
        for name in COUNTS:
            sums[name] += thrown[name]
    for name in COUNTS:
        mine, theirs = (each.sum(None if name == "bin_acc" else 0) for each in (rows[name], sums[name]))
        assert mine == pytest.approx(theirs / 4000, abs=0.15), name  # a third lies at the edge of two bins


def test_a_drawn_order_shares_three_of_the_classes_with_the_teachers_first_three() -> None:
    generator = np.random.default_rng(0)
    teacher = generator.dirichlet(np.ones(5), 40)
    drawn = generator.dirichlet(np.ones(5), (500, 40))
    overlaps = [shared_classes(one, teacher, 3).mean() for one in drawn]
    assert uniform_rows(5, np.zeros(40, int), teacher)["top3"] == pytest.approx(3 / 5)
    assert np.mean(overlaps) == pytest.approx(3 / 5, abs=0.01)


def test_its_metrics_are_those_of_chance() -> None:
    labels = np.array([0, 1, 2, 2, 1, 0])
    rows = uniform_rows(3, labels)
    value = {
        name: evaluate(metric, rows)
        for name, metric in CLASSIFICATION_METRICS.items()
        if set(metric.columns) <= set(rows)
    }
    assert value["accuracy"] == pytest.approx(1 / 3)
    assert value["macro_f1"] == pytest.approx(1 / 3)
    assert value["nll"] == pytest.approx(np.log(3))
    assert value["ece"] == pytest.approx(0.0, abs=1e-12)
    assert value["adaptive_ece"] == pytest.approx(0.0, abs=1e-12)
