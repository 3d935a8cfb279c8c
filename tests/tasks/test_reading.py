"""Per-position statistics of a language model against float64 loops written out here."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from stillhouse.losses.rows import DEPTH, likeliest
from stillhouse.measure import TEMPERATURES
from stillhouse.tasks.reading import (
    EVERY,
    LEAST,
    RANKED,
    TOPS,
    by_position,
    confidence_bins,
    furthest,
    readings,
    wider_bins,
)

N = 40
WIDE = DEPTH * (RANKED + 3) + 7
"""A vocabulary that is looked at in lines, with some outcomes left over."""

Logits = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(outcomes: int) -> Logits:
    """Student, teacher, labels."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(N, outcomes, generator=generator) * 3
    teacher = student + torch.randn(N, outcomes, generator=generator)
    return student, teacher, torch.randint(outcomes, (N,), generator=generator)


@pytest.fixture
def logits() -> Logits:
    return drawn(60)


def softmax(values: torch.Tensor) -> np.ndarray:
    return torch.softmax(values.double(), -1).numpy()


def read(
    student: torch.Tensor, teacher: torch.Tensor | None, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Of one student; its logits, which are overwritten, stay."""
    return readings([student.clone()], teacher, labels)[0]


def by_hand(student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """Every column in float64, with what is defined only by a few words of it written out in full."""
    q, p, y = softmax(student), softmax(teacher), labels.numpy()
    size, width = q.shape
    best = [np.argsort(-row, kind="stable") for row in p]
    bins = np.zeros((size, 150))
    bins[np.arange(size), np.ceil(q.max(1) * 150).astype(int).clip(1) - 1] = 1.0
    correct = q.argmax(1) == y
    nll_at = np.zeros((size, len(TEMPERATURES)))
    for number, temperature in enumerate(TEMPERATURES):
        log_q = torch.log_softmax(student.double() / temperature, -1).numpy()
        nll_at[::EVERY, number] = -log_q[np.arange(size), y][::EVERY]
    with np.errstate(divide="ignore", invalid="ignore"):  # an outcome that one side excludes
        forward = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum(1)
    backward = q * (np.log(q.clip(LEAST)) - np.log(p.clip(LEAST)))
    return {
        "nll": -torch.log_softmax(student.double(), -1).numpy()[np.arange(size), y],
        "kl": forward,
        "reverse_kl": backward.sum(1),
        "brier": ((q - np.eye(width)[y]) ** 2).sum(1),
        "correct": correct,
        "agree": q.argmax(1) == p.argmax(1),
        "top5": [len(set(np.argsort(-a)[:5]) & set(b[:5])) / 5 for a, b in zip(q, best, strict=True)],
        "rank": [spearmanr(a[b[:10]], c[b[:10]]).statistic for a, b, c in zip(q, best, p, strict=True)],
        "teacher_wrong": p.argmax(1) != y,
        "repeats": (p.argmax(1) != y) & (q.argmax(1) == p.argmax(1)),
        "fine_count": bins,
        "fine_conf": bins * q.max(1)[:, None],
        "fine_acc": bins * correct[:, None],
        "nll_at": nll_at,
        "nll_at_count": np.arange(size) % EVERY == 0,
        TOPS: np.stack([p.argmax(1), q.argmax(1), p.max(1), q.max(1)], 1),
    }


@pytest.mark.parametrize("outcomes", [60, WIDE])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-5), (torch.float64, 1e-10)])
def test_every_reading_against_a_loop(outcomes: int, dtype: torch.dtype, close: float) -> None:
    student, teacher, labels = drawn(outcomes)
    found = read(student.to(dtype), teacher.to(dtype), labels)
    expected = by_hand(student, teacher, labels)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, atol=close, rtol=close, err_msg=name)


def test_two_sides_whose_logits_lie_apart_lose_no_digits_of_their_divergence(logits: Logits) -> None:
    student, teacher, labels = logits
    found = read(student + 100.0, teacher - 50.0, labels)
    expected = by_hand(student, teacher, labels)
    for name in ("kl", "reverse_kl"):
        np.testing.assert_allclose(found[name].numpy(), expected[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("apart", [0.0, 1.5])
def test_a_large_vocabulary_loses_no_digits_to_sums_in_single_precision(apart: float) -> None:
    """A sum of 50,000 shares one after the other is off by 1e-5, and a divergence by more."""
    generator = torch.Generator().manual_seed(2)
    teacher = torch.randn(8, 50_000, generator=generator) * 3
    student = apart * torch.randn(8, 50_000, generator=generator) - 0.7 * teacher + 20.0
    found = read(student, teacher, torch.arange(8))
    log_q, log_p = (torch.log_softmax(one.double(), -1) for one in (student, teacher))
    expected = {
        "nll": -log_q[range(8), range(8)],
        "kl": (log_p.exp() * (log_p - log_q)).sum(-1),
        "reverse_kl": (log_q.exp() * (log_q - log_p)).sum(-1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values.numpy(), rtol=1e-6, err_msg=name)


def test_what_the_teacher_all_but_excludes_costs_its_least_probability_and_no_more(logits: Logits) -> None:
    student, teacher, labels = logits
    teacher[::2, 3:6], student[::2, 9], student[::4, 4] = -300.0, -500.0, 80.0
    found = read(student, teacher, labels)
    for name in ("kl", "reverse_kl"):
        expected = by_hand(student, teacher, labels)[name]
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-4, atol=2e-5, err_msg=name)


def test_outcomes_that_have_no_probability_at_all_make_no_nan(logits: Logits) -> None:
    student, teacher, labels = logits
    teacher[:, 3], teacher[:20, 5], student[:20, 5], student[20:, 8] = (-math.inf,) * 4
    found = read(student, teacher, labels)
    expected = by_hand(student, teacher, labels)
    assert np.isinf(expected["kl"][20:]).all()
    for name in ("kl", "reverse_kl"):
        np.testing.assert_allclose(found[name].numpy(), expected[name], rtol=1e-4, atol=2e-5, err_msg=name)


def test_a_model_that_is_broken_does_not_read_as_one_that_is_not(logits: Logits) -> None:
    student, teacher, labels = logits
    student[7, 5] = math.nan
    found = read(student, teacher, labels)
    assert torch.isnan(found["nll"]).nonzero().flatten().tolist() == [7]
    assert torch.isnan(found["kl"]).nonzero().flatten().tolist() == [7]


def test_a_teacher_agrees_with_itself(logits: Logits) -> None:
    for teacher in (None, logits[1]):
        found = readings([logits[1]], teacher, logits[2])[0]
        assert found["agree"].all()
        assert found["kl"].abs().max() < 1e-6
        assert "rank" not in found


def test_models_side_by_side_are_measured_as_each_would_be_alone(logits: Logits) -> None:
    student, teacher, labels = logits
    other = student.flip(0)
    alone = [
        read(student, teacher, labels),
        readings([teacher.clone()], None, labels)[0],
        read(other, teacher, labels),
    ]
    together = readings([student.clone(), teacher, other.clone()], teacher, labels)
    for one, same in zip(together, alone, strict=True):
        assert set(one) == set(same)
        for name, values in same.items():
            assert torch.equal(one[name], values), name


@pytest.mark.parametrize("count", [1, 5, 10])
@pytest.mark.parametrize("outcomes", [10, WIDE, 20 * DEPTH])
def test_the_likeliest_are_those_of_a_whole_sort(outcomes: int, count: int) -> None:
    logits = torch.randn(30, outcomes, generator=torch.Generator().manual_seed(1))
    logits[5] = -math.inf
    logits[5, 2] = 0.0
    best = likeliest(logits, count)
    expected = logits.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    assert torch.equal(logits.gather(-1, best), logits.gather(-1, expected))
    assert torch.equal(best[:5], expected[:5])
    assert (best.sort(-1).values.diff(dim=-1) > 0).all(), "none twice"


@pytest.mark.parametrize("outcomes", [10, WIDE])
def test_of_equally_likely_tokens_the_first_is_the_favourite_as_argmax_has_it(outcomes: int) -> None:
    logits = torch.zeros(4, outcomes)
    logits[0, [outcomes - 1, 4]] = 2.0
    logits[1, [3, 7, outcomes - 2]] = 2.0
    assert torch.equal(likeliest(logits, 5)[:, 0], logits.argmax(-1))
    assert likeliest(logits, 5)[1, :3].tolist() == [3, 7, outcomes - 2]


def test_confidences_fall_into_the_bin_whose_upper_edge_they_reach() -> None:
    found = confidence_bins(torch.tensor([1e-9, 0.0666, 0.0667, 1.0]), torch.tensor([True] * 4))
    assert found["fine_count"].argmax(1).tolist() == [0, 9, 10, 149]
    assert wider_bins(found)["bin_count"].argmax(1).tolist() == [0, 0, 1, 14]


def test_fifteen_bins_of_fine_ones_hold_what_fifteen_of_their_own_would() -> None:
    generator = torch.Generator().manual_seed(4)
    confidence, correct = (torch.rand(500, generator=generator) for _ in range(2))
    found = wider_bins(confidence_bins(confidence, correct < confidence))
    place = np.ceil(confidence.double().numpy() * 15).astype(int) - 1
    for number in range(15):
        here = place == number
        assert found["bin_count"].sum(0)[number] == here.sum()
        assert float(found["bin_conf"].sum(0)[number]) == pytest.approx(
            confidence.double().numpy()[here].sum()
        )
        assert found["bin_acc"].sum(0)[number] == (correct < confidence).numpy()[here].sum()


def test_other_temperatures_are_read_at_one_position_in_sixteen(logits: Logits) -> None:
    found = read(*logits)
    places = found["nll_at_count"].nonzero().flatten().tolist()
    assert places == list(range(0, N, EVERY))
    expected = -np.log(softmax(logits[0][places] / 2.0)[np.arange(len(places)), logits[2][places].numpy()])
    np.testing.assert_allclose(found["nll_at"][places, -1].numpy(), expected, rtol=1e-4)


def test_positions_are_counted_from_the_beginning_of_each_row() -> None:
    found = by_position(
        torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([True, False, True, True, True, False])
    )
    assert found["count_at"].argmax(1).tolist() == [0, 1, 1, 2, 0, 1]
    assert found["agree_at"].sum(0)[:3].tolist() == [2.0, 1.0, 1.0]


def test_the_place_furthest_apart_is_found_in_each_row_and_says_what_both_would_say(logits: Logits) -> None:
    student, teacher, labels = logits
    q, p = softmax(student), softmax(teacher)
    rows = torch.tensor([0] * 10 + [2] * 30)  # the second row has no counted position
    found = read(student, teacher, labels)
    worst = furthest(rows, found["kl"], found[TOPS], 3)["worst"].numpy()
    assert worst[1].tolist() == [-1.0] * 6
    kl = (p * np.log(p / q)).sum(1)
    for row, (start, end) in ((0, (0, 10)), (2, (10, 40))):
        at = start + int(kl[start:end].argmax())
        expected = [at - start, kl[at], p[at].argmax(), q[at].argmax(), p[at].max(), q[at].max()]
        np.testing.assert_allclose(worst[row], expected, rtol=1e-4)
