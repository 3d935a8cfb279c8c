"""Metrics against scikit-learn, against loops, and against laws."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from stillhouse.errors import DataError
from stillhouse.measure import (
    CLASSIFICATION_METRICS,
    LM_METRICS,
    class_prior_rows,
    classification_rows,
    evaluate,
    unigram_rows,
)


@pytest.fixture
def predictions():
    generator = np.random.default_rng(7)
    logits = generator.normal(size=(300, 4)) * 2
    student, teacher = softmax(logits), softmax(logits + generator.normal(size=logits.shape))
    labels = np.array([generator.choice(4, p=row) for row in teacher])
    return student, labels, teacher


@pytest.fixture
def windows():
    generator = np.random.default_rng(8)
    tokens = generator.integers(1, 65, 40).astype(float)
    return {
        "tokens": tokens,
        "bytes": tokens * 4 + generator.integers(0, 9, 40),
        "nll": tokens * generator.gamma(9.0, 0.3, 40),
        "correct": np.floor(tokens * generator.random(40)),
        "agree": np.floor(tokens * generator.random(40)),
        "kl": tokens * generator.gamma(2.0, 0.1, 40),
        "unigram_nll": tokens * 7.0,
    }


def softmax(logits):
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def classify(name, *predictions):
    return evaluate(CLASSIFICATION_METRICS[name], classification_rows(*predictions))


def test_classification_metrics_are_those_of_sklearn(predictions):
    student, labels, _ = predictions
    guesses = student.argmax(axis=1)
    close = {"rel": 1e-9, "abs": 1e-12}
    assert classify("accuracy", *predictions) == pytest.approx(np.mean(guesses == labels), **close)
    macro = sklearn_metrics.f1_score(labels, guesses, average="macro")
    assert classify("macro_f1", *predictions) == pytest.approx(macro, **close)
    assert classify("nll", *predictions) == pytest.approx(sklearn_metrics.log_loss(labels, student), **close)
    brier = sklearn_metrics.brier_score_loss(labels, student, scale_by_half=False)
    assert classify("brier", *predictions) == pytest.approx(brier, **close)


def test_a_class_that_never_occurs_does_not_pull_macro_f1_down(predictions):
    student, labels, _ = predictions
    wide = np.hstack([student, np.zeros((len(student), 3))])
    expected = sklearn_metrics.f1_score(labels, wide.argmax(axis=1), average="macro")
    assert classify("macro_f1", wide, labels) == pytest.approx(expected, rel=1e-9)


def test_a_class_that_is_only_predicted_counts_as_zero_in_macro_f1():
    probabilities = np.eye(3)[[0, 0, 1]]
    labels = [0, 0, 0]
    expected = sklearn_metrics.f1_score(labels, [0, 0, 1], average="macro")
    assert classify("macro_f1", probabilities, labels) == pytest.approx(expected, rel=1e-9)


def test_a_certain_and_wrong_answer_costs_as_much_as_in_sklearn_and_not_infinity():
    probabilities, labels = np.eye(2)[[0, 0, 1]], [0, 1, 1]
    expected = sklearn_metrics.log_loss(labels, probabilities)
    assert classify("nll", probabilities, labels) == pytest.approx(expected, rel=1e-9)


def test_ece_is_that_of_a_naive_loop_over_bins(predictions):
    student, labels, _ = predictions
    confidence, hit = student.max(axis=1), student.argmax(axis=1) == labels
    expected = 0.0
    for k in range(15):
        inside = [i for i, c in enumerate(confidence) if k / 15 < c <= (k + 1) / 15]
        if inside:
            gap = abs(np.mean([confidence[i] for i in inside]) - np.mean([hit[i] for i in inside]))
            expected += len(inside) / len(labels) * gap
    assert classify("ece", *predictions) == pytest.approx(expected, rel=1e-9)


def test_agreement_and_divergence_are_those_of_a_naive_loop(predictions):
    student, _, teacher = predictions
    agree = np.mean([s.argmax() == t.argmax() for s, t in zip(student, teacher, strict=True)])
    pairs = zip(student, teacher, strict=True)
    kl = np.mean([sum(q * np.log(q / p) for p, q in zip(s, t, strict=True)) for s, t in pairs])
    assert classify("teacher_agreement", *predictions) == pytest.approx(agree, rel=1e-9)
    assert classify("teacher_kl", *predictions) == pytest.approx(kl, rel=1e-9)


def test_divergence_is_zero_if_and_only_if_student_and_teacher_are_equal(predictions):
    student, labels, teacher = predictions
    assert classify("teacher_kl", teacher, labels, teacher) == 0.0
    one_row_off = teacher.copy()
    one_row_off[17] = student[17]
    assert classify("teacher_kl", one_row_off, labels, teacher) > 1e-6
    assert (classification_rows(*predictions)["kl"] > 0).all()


def test_language_model_metrics_are_ratios_of_sums_and_not_means_of_ratios(windows):
    loop = {name: sum(float(value) for value in column) for name, column in windows.items()}
    expected = {
        "perplexity": np.exp(loop["nll"] / loop["tokens"]),
        "bits_per_byte": loop["nll"] / np.log(2) / loop["bytes"],
        "token_accuracy": loop["correct"] / loop["tokens"],
        "teacher_agreement": loop["agree"] / loop["tokens"],
        "teacher_kl": loop["kl"] / loop["tokens"],
    }
    assert set(expected) == {
        name for name, metric in LM_METRICS.items() if set(metric.columns) <= set(windows)
    }
    for name, value in expected.items():
        assert evaluate(LM_METRICS[name], windows) == pytest.approx(value, rel=1e-9)


def test_a_uniform_model_over_256_bytes_has_8_bits_per_byte_and_perplexity_256():
    rows = {"tokens": np.array([3.0, 5.0]), "bytes": np.array([3.0, 5.0])}
    rows["nll"] = rows["tokens"] * np.log(256)
    assert evaluate(LM_METRICS["bits_per_byte"], rows) == pytest.approx(8.0)
    assert evaluate(LM_METRICS["perplexity"], rows) == pytest.approx(256.0)


def test_cutting_windows_in_two_changes_no_language_model_metric(windows):
    halves = {name: np.repeat(column / 2, 2) for name, column in windows.items()}
    for metric in (metric for metric in LM_METRICS.values() if set(metric.columns) <= set(windows)):
        assert evaluate(metric, halves) == pytest.approx(evaluate(metric, windows), rel=1e-12)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
def test_a_metric_of_stacked_sums_is_the_stack_of_metrics(predictions, name):
    metric, rows = CLASSIFICATION_METRICS[name], classification_rows(*predictions)
    halves = [
        {column: rows[column][part] for column in metric.columns} for part in np.split(np.arange(300), 2)
    ]
    stacked = {c: np.stack([half[c].sum(axis=0) for half in halves]) for c in metric.columns}
    np.testing.assert_allclose(metric.value(stacked), [evaluate(metric, half) for half in halves], rtol=1e-12)


def test_the_floor_of_classification_is_the_majority_class_and_the_entropy_of_the_prior():
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    rows = class_prior_rows(np.bincount(labels), labels)
    entropy = -sum(p * np.log(p) for p in (0.7, 0.2, 0.1))
    assert evaluate(CLASSIFICATION_METRICS["accuracy"], rows) == 0.7
    assert evaluate(CLASSIFICATION_METRICS["nll"], rows) == pytest.approx(entropy)


def test_the_floor_of_language_modelling_uses_the_unigram_nll(windows):
    assert evaluate(LM_METRICS["perplexity"], unigram_rows(windows)) == pytest.approx(np.exp(7.0))
    del windows["unigram_nll"]
    with pytest.raises(DataError, match="unigram_nll"):
        unigram_rows(windows)


def test_no_rows_are_an_error_and_not_a_nan(windows):
    empty = {name: column[:0] for name, column in windows.items()}
    with pytest.raises(DataError, match="no rows"):
        evaluate(LM_METRICS["perplexity"], empty)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_by_column_and_row(windows, bad):
    windows["nll"][4] = bad
    with pytest.raises(DataError, match=r"'nll'.*row 5"):
        evaluate(LM_METRICS["perplexity"], windows)
    evaluate(LM_METRICS["token_accuracy"], windows)  # does not need that column


def test_missing_and_ragged_columns_are_named(windows):
    with pytest.raises(DataError, match="'agree'"):
        evaluate(LM_METRICS["teacher_agreement"], {"tokens": windows["tokens"]})
    windows["tokens"] = windows["tokens"][:-1]
    with pytest.raises(DataError, match="39"):
        evaluate(LM_METRICS["perplexity"], windows)


def test_a_metric_of_nothing_counted_is_an_error_and_not_a_nan(windows):
    windows["tokens"] = np.zeros(40)
    with pytest.raises(DataError, match="undefined"):
        evaluate(LM_METRICS["token_accuracy"], windows)


def test_logits_handed_in_as_probabilities_are_refused_with_their_row():
    with pytest.raises(DataError, match=r"row 2.*softmax"):
        classification_rows([[0.5, 0.5], [3.0, -1.0]], [0, 1])


@pytest.mark.parametrize(("labels", "message"), [([0, 2], "row 2"), ([-1, 0], "row 1"), ([0], "shape")])
def test_labels_that_are_no_class_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        classification_rows([[0.5, 0.5], [0.5, 0.5]], labels)


def test_labels_as_words_and_a_teacher_of_other_classes_are_refused():
    table = [[0.5, 0.5], [0.5, 0.5]]
    with pytest.raises(DataError, match="number of the class"):
        classification_rows(table, ["no", "yes"])
    with pytest.raises(DataError, match="teacher"):
        classification_rows(table, [0, 1], [[1.0], [1.0]])
