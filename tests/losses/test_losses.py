"""Each loss against a naive float64 reference, in value and gradient, and against laws."""

import math

import pytest
import torch
from torch import Tensor

from closed_form import (
    forward_kl_gradient,
    forward_kl_topk_gradient,
    hard_cross_entropy_gradient,
    topk_term,
    written_out,
)
from stillhouse.losses import (
    divergence_topk,
    draw_sampled,
    forward_kl,
    forward_kl_sampled,
    forward_kl_topk,
    hard_cross_entropy,
    js,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    topk_log_probs,
    total_mean,
    total_variation,
)

WIDEST = 151_936
"""Outcomes of the widest vocabulary in common use."""


def draw(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


# ── naive references: float64, one outcome at a time in the formula, no shared code ──────────────────────────────────


def naive_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·Σ p·log(p/q), outcomes with p = 0 left out."""
    z = student.double() / temperature
    p = torch.softmax(teacher.double() / temperature, -1)
    q = z.exp() / z.exp().sum(-1, keepdim=True)
    terms = [
        torch.stack(
            [p[n, v] * (p[n, v].log() - q[n, v].log()) for v in range(p.shape[1]) if p[n, v] > 0]
        ).sum()
        for n in range(p.shape[0])
    ]
    return temperature**2 * torch.stack(terms)


def naive_topk(student: Tensor, teacher: Tensor, k: int, temperature: float) -> Tensor:
    """T²·KL of two distributions over K + 1 outcomes; the last is everything that was not kept."""
    p = torch.softmax(teacher.double() / temperature, -1)
    q = torch.softmax(student.double() / temperature, -1)
    kept = p.argsort(-1, descending=True)[:, :k]
    rows = []
    for n in range(p.shape[0]):
        total = sum(
            (p[n, v] * (p[n, v] / q[n, v]).log() for v in kept[n].tolist()),
            torch.zeros((), dtype=torch.float64),
        )
        rest = [v for v in range(p.shape[1]) if v not in kept[n].tolist()]
        if rest and p[n, rest].sum() > 0:
            total = total + p[n, rest].sum() * (p[n, rest].sum() / q[n, rest].sum()).log()
        rows.append(total)
    return temperature**2 * torch.stack(rows)


def value_and_autograd(loss, student: Tensor) -> tuple[Tensor, Tensor]:
    leaf = student.detach().clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def close(one: Tensor, other: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance)


def teachers(outcomes: int) -> dict[str, Tensor]:
    one_hot = torch.full((4, outcomes), -torch.inf)
    one_hot[:, 1] = 0.0
    some = draw(4, outcomes, seed=2)
    some[:, 0] = -torch.inf
    return {"plain": draw(4, outcomes, seed=1), "excludes one": some, "one-hot": one_hot}


CASES = [(v, kind, t) for v in (2, 7) for kind in teachers(2) for t in (1.0, 2.5)]


@pytest.mark.parametrize(("outcomes", "kind", "temperature"), CASES)
def test_forward_kl_and_both_its_gradients_are_the_naive_ones_also_where_the_teacher_says_never(
    outcomes, kind, temperature
):
    student, teacher = draw(4, outcomes), teachers(outcomes)[kind]
    expected = value_and_autograd(lambda z: naive_kl(z, teacher, temperature), student.double())
    by_autograd = value_and_autograd(lambda z: forward_kl(z, teacher, temperature=temperature), student)
    closed = forward_kl_gradient(student, teacher, temperature=temperature)
    for found in (by_autograd, closed):
        close(found[0], expected[0])
        close(found[1], expected[1])


@pytest.mark.parametrize("k", [1, 3, 6, 7, 9])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_topk_and_both_its_gradients_are_the_naive_ones_the_tails_share_included(k, temperature):
    student, teacher = draw(4, 7), draw(4, 7, seed=1)
    ids, log_p = topk_log_probs(teacher, k, temperature=temperature)
    expected = value_and_autograd(lambda z: naive_topk(z, teacher, k, temperature), student.double())
    by_autograd = value_and_autograd(
        lambda z: forward_kl_topk(z, ids, log_p, temperature=temperature), student
    )
    closed = forward_kl_topk_gradient(student, ids, log_p, temperature=temperature)
    for found in (by_autograd, closed):
        close(found[0], expected[0])
        close(found[1], expected[1], 5e-5)


@pytest.mark.parametrize("kind", ["excludes one", "one-hot"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_topk_of_a_teacher_with_minus_infinities_is_no_nan(kind, k):
    student, teacher = draw(4, 7), teachers(7)[kind]
    ids, log_p = topk_log_probs(teacher, k)
    expected = value_and_autograd(lambda z: naive_topk_of_zeros(z, teacher, k), student.double())
    closed = forward_kl_topk_gradient(student, ids, log_p)
    close(closed[0], expected[0])
    close(closed[1], expected[1], 5e-5)


KINDS = (forward_kl, reverse_kl, js, skew_forward_kl, skew_reverse_kl, total_variation)


@pytest.mark.parametrize("divergence", KINDS)
def test_places_that_hold_no_outcome_count_with_the_tail_whichever_ids_they_have(divergence):
    student, teacher = draw(5, 9), draw(5, 9, seed=1)
    ids, log_p = topk_log_probs(teacher, 2)
    spare = torch.stack([torch.tensor([v for v in range(9) if v not in row][:3]) for row in ids.tolist()])
    wide = torch.cat([ids, spare], -1), torch.cat([log_p, torch.full((5, 3), -torch.inf)], -1)
    expected = value_and_autograd(lambda z: divergence_topk(z, ids, log_p, divergence), student)
    by_autograd = value_and_autograd(lambda z: divergence_topk(z, *wide, divergence), student)
    closed = written_out(student, topk_term(*wide, divergence=divergence))
    for found in (by_autograd, closed):
        close(found[0], expected[0])
        close(found[1], expected[1])


def test_a_target_with_all_on_one_token_is_a_hard_target():
    student = draw(4, 9)
    tokens = torch.tensor([3, 0, 8, 5])
    ids = torch.stack([tokens, (tokens + 1) % 9, (tokens + 2) % 9], -1)
    log_p = torch.tensor([[0.0, -torch.inf, -torch.inf]]).expand(4, -1)
    expected = value_and_autograd(
        lambda z: torch.nn.functional.cross_entropy(z, tokens, reduction="none"), student.double()
    )
    found = forward_kl_topk_gradient(student, ids, log_p)
    close(found[0], expected[0])
    close(found[1], expected[1])


def naive_topk_of_zeros(student: Tensor, teacher: Tensor, k: int) -> Tensor:
    """`naive_topk` at T = 1, leaving out kept outcomes without mass."""
    p, log_q = torch.softmax(teacher.double(), -1), torch.log_softmax(student.double(), -1)
    kept = torch.zeros_like(p, dtype=torch.bool).scatter_(1, p.topk(k).indices, True)
    own = torch.where(kept & (p > 0), p * (p.clamp_min(1e-300).log() - log_q), 0.0).sum(-1)
    p_rest = torch.where(kept, 0.0, p).sum(-1)
    q_rest = torch.where(kept, 0.0, log_q.exp()).sum(-1)
    return own + torch.where(
        p_rest > 1e-7, p_rest * (p_rest.clamp_min(1e-300) / q_rest.clamp_min(1e-300)).log(), 0.0
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_targets_are_torchs_cross_entropy_with_and_without_smoothing(smoothing):
    student, labels = draw(6, 11), torch.tensor([0, 10, -100, 3, -100, 3])

    def reference(z: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(
            z, labels, reduction="none", ignore_index=-100, label_smoothing=smoothing
        )

    expected = value_and_autograd(reference, student.double())
    by_autograd = value_and_autograd(
        lambda z: hard_cross_entropy(z, labels, label_smoothing=smoothing), student
    )
    closed = hard_cross_entropy_gradient(student, labels, label_smoothing=smoothing)
    for found in (by_autograd, closed):
        close(found[0], expected[0])
        close(found[1], expected[1])


def test_a_position_without_a_label_costs_nothing_and_pulls_at_nothing():
    labels = torch.full((3,), -100)
    nats, gradient = hard_cross_entropy_gradient(draw(3, 5), labels, label_smoothing=0.2)
    assert nats.tolist() == [0.0, 0.0, 0.0]
    assert not gradient.any()


def test_a_wide_vocabulary_is_as_exact_as_a_narrow_one():
    student, teacher = draw(3, 5000), draw(3, 5000, seed=1)
    p, log_q = torch.softmax(teacher.double(), -1), torch.log_softmax(student.double(), -1)
    full = (p * (p.log() - log_q)).sum(-1)
    nats, gradient = forward_kl_gradient(student, teacher)
    close(nats, full)
    close(gradient, log_q.exp() - p, 1e-6)
    ids, log_p = topk_log_probs(teacher, 5000)
    close(forward_kl_topk(student, ids, log_p), full)


def test_hard_and_sparse_targets_are_as_exact_over_the_widest_vocabulary():
    student, teacher, labels = draw(2, WIDEST), draw(2, WIDEST, seed=1), torch.tensor([0, WIDEST - 1])
    p, log_q = torch.softmax(teacher.double(), -1), torch.log_softmax(student.double(), -1)
    hot = torch.nn.functional.one_hot(labels, WIDEST).double()
    nats, gradient = hard_cross_entropy_gradient(student, labels)
    close(nats, -(hot * log_q).sum(-1))
    close(gradient, log_q.exp() - hot, 1e-6)

    ids, log_p = topk_log_probs(teacher, 64)
    kept = torch.zeros(2, WIDEST).scatter(-1, ids, 1.0).bool()
    assert torch.equal(ids.sort(-1).values, p.argsort(-1, descending=True)[:, :64].sort(-1).values)
    p_tail, q_tail = ((side * ~kept).sum(-1, keepdim=True) for side in (p, log_q.exp()))
    inside = (p * kept * (p.log() - log_q)).sum(-1) + (p_tail * (p_tail / q_tail).log()).squeeze(-1)
    nats, gradient = forward_kl_topk_gradient(student, ids, log_p)
    close(nats, inside)
    close(gradient, log_q.exp() * torch.where(kept, 1.0, 1 - p_tail / q_tail) - p * kept, 1e-6)

    ids, shares, entropy = draw_sampled(teacher, torch.tensor([0.3, 0.8]), 30)
    given = torch.zeros(2, WIDEST, dtype=torch.double).scatter_add(-1, ids, shares.double())
    close(entropy, -(p * p.log()).sum(-1))
    close(forward_kl_sampled(student, ids, shares, entropy), -(given * log_q).sum(-1) + (p * p.log()).sum(-1))


@pytest.mark.parametrize("outcomes", [2, 5])
def test_no_positions_give_no_nats_and_no_nan(outcomes):
    nothing = torch.zeros(0, outcomes)
    ids, log_p = topk_log_probs(nothing, 2)
    drawn = draw_sampled(nothing, torch.zeros(0), 3)
    assert forward_kl_sampled(nothing, *drawn).shape == (0,)
    losses = [
        forward_kl_gradient(nothing, nothing),
        forward_kl_topk_gradient(nothing, ids, log_p),
        hard_cross_entropy_gradient(nothing, torch.zeros(0, dtype=torch.long)),
    ]
    for nats, gradient in losses:
        assert nats.numel() == gradient.numel() == 0
        assert total_mean(nats, 0).item() == 0.0


def test_the_direction_is_teacher_to_student_by_hand():
    teacher, student = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    # 0.5·ln 2 + 0.25·ln 1 + 0.25·ln ½ = 0.25·ln 2; these two are symmetric, so a third tells the directions apart
    assert forward_kl(student, teacher).item() == pytest.approx(0.25 * math.log(2), abs=1e-6)
    teacher = torch.tensor([[0.5, 0.5, 1e-9]]).log()
    # ½·ln(½/¼) + ½·ln(½/¼) = ln 2; the other direction would be about ½·ln(½/1e-9) > 9
    assert forward_kl(student, torch.tensor([[0.5, 0.5, 0.0]]).log()).item() == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2), abs=1e-6
    )
    assert forward_kl(teacher, student).item() > 9.0


def test_losses_are_zero_if_and_only_if_the_distributions_agree():
    teacher = draw(5, 9)
    shifted = teacher + 7.0  # the same distribution
    ids, log_p = topk_log_probs(teacher, 3)
    for loss in (lambda z: forward_kl(z, teacher), lambda z: forward_kl_topk(z, ids, log_p)):
        value, gradient = value_and_autograd(loss, shifted)
        close(value, torch.zeros(5), 2e-6)
        close(gradient, torch.zeros(5, 9), 2e-6)
        assert (loss(draw(5, 9, seed=3)) > 1e-3).all()


def test_temperature_reaches_the_loss():
    student, teacher = draw(4, 9), draw(4, 9, seed=1)
    values = [forward_kl(student, teacher, temperature=t).mean().item() for t in (1.0, 1.5, 2.0, 4.0)]
    assert len({round(value, 4) for value in values}) == 4


def test_the_soft_gradient_does_not_fade_with_the_square_of_the_temperature():
    student, teacher = draw(64, 20), draw(64, 20, seed=1)
    for gradient_of in (
        lambda t: forward_kl_gradient(student, teacher, temperature=t)[1],
        lambda t: forward_kl_topk_gradient(
            student, *topk_log_probs(teacher, 5, temperature=t), temperature=t
        )[1],
    ):
        small, large = gradient_of(20.0).norm(), gradient_of(80.0).norm()
        assert large / small == pytest.approx(1.0, abs=0.35)  # without T² it would be 1/16


def test_topk_never_exceeds_the_full_kl_grows_with_k_and_ends_at_it():
    student, teacher = draw(20, 30), draw(20, 30, seed=1)
    full = forward_kl(student, teacher, temperature=1.7)
    before = torch.zeros(20)
    for k in range(1, 31):
        value = forward_kl_topk(student, *topk_log_probs(teacher, k, temperature=1.7), temperature=1.7)
        assert (value <= full + 1e-5).all()
        assert (value >= before - 1e-5).all()
        before = value
    close(before, full)


def test_topk_is_not_renormalised_so_a_student_that_agrees_with_the_teacher_is_left_alone():
    teacher = draw(5, 40, spread=0.5)  # flat: the tail is most of the mass
    ids, log_p = topk_log_probs(teacher, 4)
    assert (log_p.exp().sum(-1) < 0.5).all()
    nats, gradient = forward_kl_topk_gradient(teacher, ids, log_p)
    close(nats, torch.zeros(5), 1e-6)
    close(gradient, torch.zeros(5, 40), 1e-6)


def test_topk_pulls_at_the_tail_when_the_student_forgets_it():
    teacher, student = torch.zeros(1, 10), torch.zeros(1, 10)
    student[0, :2] = 3.0  # over-confident in what was kept
    ids = torch.tensor([[0, 1]])
    _, gradient = forward_kl_topk_gradient(student, ids, torch.log_softmax(teacher, -1)[:, :2])
    assert (gradient[0, :2] > 0).all()
    assert (gradient[0, 2:] < 0).all()
    close(gradient.sum(-1), torch.zeros(1), 1e-6)


def test_the_mean_is_the_sum_over_the_whole_steps_count_and_not_the_micro_batchs():
    short, long = torch.tensor([4.0]), torch.tensor([1.0, 1.0, 2.0])
    assert total_mean(short, 4) + total_mean(long, 4) == total_mean(torch.cat([short, long]), 4) == 2.0
    assert total_mean(torch.zeros(0), 0).item() == 0.0
