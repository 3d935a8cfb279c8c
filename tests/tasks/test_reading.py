"""Per-position statistics of a language model against float64 loops written out here."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from stillhouse.tasks.reading import EVERY, TOPS, by_position, confidence_bins, furthest, readings

V, N = 60, 40


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(N, V, generator=generator) * 3
    teacher = student + torch.randn(N, V, generator=generator)
    return student, teacher, torch.randint(V, (N,), generator=generator)


def softmax(values: torch.Tensor) -> np.ndarray:
    return torch.softmax(values.double(), -1).numpy()


def test_every_reading_against_a_loop(logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    student, teacher, labels = logits
    q, p, y = softmax(student), softmax(teacher), labels.numpy()
    found = readings(student.clone(), teacher.clone(), labels)
    best = [np.argsort(-row, kind="stable") for row in p]
    expected = {
        "nll": -np.log(q[np.arange(N), y]),
        "kl": (p * np.log(p / q)).sum(1),
        "reverse_kl": (q * np.log(q / p)).sum(1),
        "brier": ((q - np.eye(V)[y]) ** 2).sum(1),
        "correct": q.argmax(1) == y,
        "agree": q.argmax(1) == p.argmax(1),
        "top5": [len(set(np.argsort(-a)[:5]) & set(b[:5])) / 5 for a, b in zip(q, best, strict=True)],
        "rank": [spearmanr(a[b[:10]], c[b[:10]]).statistic for a, b, c in zip(q, best, p, strict=True)],
        "teacher_wrong": p.argmax(1) != y,
        "repeats": (p.argmax(1) != y) & (q.argmax(1) == p.argmax(1)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, atol=2e-5, err_msg=name)


def test_a_teacher_agrees_with_itself(logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    found = readings(logits[1].clone(), None, logits[2])
    assert found["agree"].all()
    assert found["kl"].abs().max() < 1e-6


def test_confidences_fall_into_the_bin_whose_upper_edge_they_reach() -> None:
    found = confidence_bins(torch.tensor([1e-9, 0.0666, 0.0667, 1.0]), torch.tensor([True] * 4))
    assert found["bin_count"].argmax(1).tolist() == [0, 0, 1, 14]


def test_other_temperatures_are_read_at_one_position_in_sixteen(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    found = readings(logits[0].clone(), logits[1].clone(), logits[2])
    read = found["nll_at_count"].nonzero().flatten().tolist()
    assert read == list(range(0, N, EVERY))
    expected = -np.log(softmax(logits[0][read] / 2.0)[np.arange(len(read)), logits[2][read].numpy()])
    np.testing.assert_allclose(found["nll_at"][read, -1].numpy(), expected, rtol=1e-4)


def test_positions_are_counted_from_the_beginning_of_each_row() -> None:
    found = by_position(
        torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([True, False, True, True, True, False])
    )
    assert found["count_at"].argmax(1).tolist() == [0, 1, 1, 2, 0, 1]
    assert found["agree_at"].sum(0)[:3].tolist() == [2.0, 1.0, 1.0]


def test_the_place_furthest_apart_is_found_in_each_row_and_says_what_both_would_say(
    logits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    student, teacher, labels = logits
    q, p = softmax(student), softmax(teacher)
    rows = torch.tensor([0] * 10 + [2] * 30)  # the second row has no counted position
    found = readings(student.clone(), teacher.clone(), labels)
    worst = furthest(rows, found["kl"], found[TOPS], 3)["worst"].numpy()
    assert worst[1].tolist() == [-1.0] * 6
    kl = (p * np.log(p / q)).sum(1)
    for row, (start, end) in ((0, (0, 10)), (2, (10, 40))):
        at = start + int(kl[start:end].argmax())
        expected = [at - start, kl[at], p[at].argmax(), q[at].argmax(), p[at].max(), q[at].max()]
        np.testing.assert_allclose(worst[row], expected, rtol=1e-4)
