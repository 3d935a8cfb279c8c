"""Agreement, calibration and the table of classes against scikit-learn, scipy and loops, to 1e-9."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from scipy.stats import spearmanr
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stillhouse.measure import CLASSIFICATION_METRICS, classification_rows, evaluate, interval
from stillhouse.measure.classes import PER_CLASS, class_table, confusions
from stillhouse.tasks.reading import readings

LABELS = ["joy", "fear", "anger", "never answered", "never there"]


@pytest.fixture(scope="module")
def said() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(student [N, C], labels [N], teacher [N, C]); the fourth class is never answered, the fifth never occurs."""
    generator = np.random.default_rng(5)
    student, teacher = (generator.dirichlet(np.ones(5), 400) for _ in range(2))
    student[:, 3] *= 1e-3
    student /= student.sum(1, keepdims=True)
    return student, generator.integers(0, 4, 400), teacher


def test_the_table_of_classes_is_that_of_scikit_learn(said) -> None:
    student, labels, teacher = said
    models = {
        "student": classification_rows(student, labels),
        "teacher": classification_rows(teacher, labels),
    }
    table = class_table(models, LABELS, resamples=200, seed=0)
    assert [row["label"] for row in table] == LABELS
    for name, shares in (("student", student), ("teacher", teacher)):
        theirs = precision_recall_fscore_support(
            labels, shares.argmax(1), labels=range(5), zero_division=np.nan
        )
        for measure, values in zip(("precision", "recall", "f1"), theirs, strict=False):
            mine = [row["models"][name][measure]["value"] for row in table]
            mine = [np.nan if value is None else value for value in mine]
            np.testing.assert_allclose(mine, values, rtol=1e-9, err_msg=f"{name} {measure}")
        assert [row["support"] for row in table] == theirs[3].tolist()
    kept = table[0]["models"]["student"]["recall"]
    assert kept["low"] <= kept["value"] <= kept["high"]


def test_each_of_many_classes_has_the_interval_that_it_would_have_alone(said) -> None:
    """60 classes, most of them rare: packed sums are those of plain ones, and a class is resampled with all the others."""
    student, labels, _ = said
    wide = np.hstack([student, np.zeros((400, 55))])
    rows = classification_rows(wide, labels)
    table = class_table({"student": rows}, [str(number) for number in range(60)], resamples=200, seed=0)
    for number, row in enumerate(table):
        own = {name: rows[name][:, number] for name in ("tp", "pred", "true")}
        for metric in PER_CLASS:
            alone = interval(metric, own, resamples=200, seed=0).as_json()
            found = row["models"]["student"][metric.name]
            assert found["note"] == alone["note"]
            for side in ("value", "low", "high"):
                assert found[side] == (None if alone[side] is None else pytest.approx(alone[side], abs=1e-12))
    assert table[0]["models"]["student"]["recall"]["low"] is not None


def plain(rows):
    return rows


def test_the_likeliest_confusions_are_those_of_the_matrix(said) -> None:
    student, labels, _ = said
    matrix = confusion_matrix(labels, student.argmax(1), labels=range(5))
    models = {"student": classification_rows(student, labels)}
    found = confusions(models, LABELS, plain, resamples=2000, seed=0)["student"]
    np.fill_diagonal(matrix, 0)
    assert [one["rows"] for one in found] == sorted(matrix[matrix > 0].tolist(), reverse=True)[:12]
    first = found[0]
    at = LABELS.index(first["label"]), LABELS.index(first["answered"])
    assert matrix[at] == first["rows"]
    support = (labels == at[0]).sum()
    assert first["share"] == pytest.approx(first["rows"] / support, rel=1e-12)
    limits = first["intervals"]["share"]
    error = np.sqrt(first["share"] * (1 - first["share"]) / support)
    assert limits["low"] == pytest.approx(first["share"] - 1.96 * error, abs=0.2 * error)
    assert limits["high"] == pytest.approx(first["share"] + 1.96 * error, abs=0.2 * error)


def test_what_one_model_confuses_is_told_of_the_other_too(said) -> None:
    """A pair that is not among the teacher's most frequent was shown as 0 rows of the teacher."""
    student, labels, teacher = said
    wide = [np.repeat(shares, 4, axis=1) / 4 for shares in (student, teacher)]
    generator = np.random.default_rng(0)
    wide = [shares * generator.uniform(0.5, 1.5, shares.shape) for shares in wide]
    models = {
        name: classification_rows(shares / shares.sum(1, keepdims=True), 4 * labels)
        for name, shares in zip(("student", "teacher"), wide, strict=True)
    }
    names = [str(number) for number in range(20)]
    found = confusions(models, names, plain, resamples=200, seed=0)
    pairs = {name: [(one["label"], one["answered"]) for one in some] for name, some in found.items()}
    assert set(pairs["student"]) == set(pairs["teacher"])
    assert pairs["student"] != pairs["teacher"], "each begins with its own"
    matrix = confusion_matrix(4 * labels, models["teacher"]["pred"].argmax(1), labels=range(20))
    for one in found["teacher"]:
        assert one["rows"] == matrix[int(one["label"]), int(one["answered"])]


def test_models_without_an_error_confuse_nothing() -> None:
    rows = classification_rows(np.eye(3), [0, 1, 2])
    models = {"student": rows, "teacher": rows}
    assert confusions(models, LABELS[:3], plain, resamples=200, seed=0) == {"student": [], "teacher": []}


def test_a_classifiers_ranks_and_both_divergences_are_those_of_scipy(said) -> None:
    student, labels, teacher = said
    tied = np.round(teacher, 1) + 0.01
    tied /= tied.sum(1, keepdims=True)
    for theirs in (teacher, tied):
        rows = classification_rows(student, labels, theirs)
        ranks = [spearmanr(a, b).statistic for a, b in zip(student, theirs, strict=True)]
        expected = {
            "teacher_rank": np.mean(np.nan_to_num(ranks)),
            "teacher_kl": rel_entr(theirs, student).sum(1).mean(),
            "teacher_reverse_kl": rel_entr(student, theirs).sum(1).mean(),
        }
        for name, value in expected.items():
            assert evaluate(CLASSIFICATION_METRICS[name], rows) == pytest.approx(value, rel=1e-9), name


def test_the_overlap_with_the_teachers_three_likeliest_classes_against_a_loop(said) -> None:
    student, labels, teacher = said
    shared = []
    for mine, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        best = [sorted(range(5), key=lambda at, of=of: -of[at])[:3] for of in (mine, theirs)]
        shared.append(len(set(best[0]) & set(best[1])) / 3)
    rows = classification_rows(student, labels, teacher)
    np.testing.assert_allclose(rows["top3"], shared, atol=1e-12)
    assert 1 / 3 <= min(shared) < np.mean(shared) < 1, "of five classes two threes share one at least"
    assert evaluate(CLASSIFICATION_METRICS["teacher_top3"], rows) == pytest.approx(np.mean(shared))
    same = classification_rows(teacher, labels, teacher)
    assert evaluate(CLASSIFICATION_METRICS["teacher_top3"], same) == 1.0


def test_three_classes_have_no_three_likeliest(said) -> None:
    shares = said[0][:, :3] / said[0][:, :3].sum(1, keepdims=True)
    assert "top3" not in classification_rows(shares, np.zeros(len(shares), int), shares)
    assert "top3" not in classification_rows(said[0], said[1]), "nor is there anything without a teacher"


def test_a_language_models_agreement_is_that_of_scipy_in_double_precision() -> None:
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(30, 50, generator=generator, dtype=torch.float64) * 3
    teacher = student + torch.randn(30, 50, generator=generator, dtype=torch.float64)
    labels = torch.randint(50, (30,), generator=generator)
    q, p = (torch.softmax(one, -1).numpy() for one in (student, teacher))
    best = np.argsort(-p, axis=1)
    expected = {
        "kl": rel_entr(p, q).sum(1),
        "reverse_kl": rel_entr(q, p).sum(1),
        "nll": -np.log(q[np.arange(30), labels]),
        "brier": ((q - np.eye(50)[labels]) ** 2).sum(1),
        "top5": [len(set(np.argsort(-a)[:5]) & set(b[:5])) / 5 for a, b in zip(q, best, strict=True)],
        "rank": [spearmanr(a[b[:10]], c[b[:10]]).statistic for a, b, c in zip(q, best, p, strict=True)],
    }
    (found,) = readings([student.clone()], teacher, labels)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-9, atol=1e-12, err_msg=name)
