"""Every divergence against a naive float64 reference, in value and gradient, and against its laws."""

import math

import pytest
import torch
from torch import Tensor

from closed_form import topk_term, written_out
from stillhouse import losses
from stillhouse.losses.fused import by_autograd
from stillhouse.losses.parts import LogQ, Parts, SoftmaxTerm
from stillhouse.losses.sparse import draw_sampled, forward_kl_sampled_parts

TINY = 1e-300


def draw(*shape: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread


# ── naive references: probabilities in float64, no shared code ──────────────────────────────────────────────────────


def kl(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a > 0, a * (a.clamp_min(TINY).log() - b.clamp_min(TINY).log()), 0.0).sum(-1)


def naive_js(q: Tensor, p: Tensor, beta: float = 0.5) -> Tensor:
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def naive_adaptive(q: Tensor, p: Tensor, mu: float = 0.5) -> Tensor:
    rows = []
    for one_q, one_p in zip(q, p, strict=True):
        head, mass = [], 0.0
        for place in one_p.argsort(descending=True).tolist():
            if mass >= mu:
                break
            head.append(place)
            mass += float(one_p[place])
        gaps = (one_p - one_q).abs().detach()
        w = gaps[head].sum() / gaps.sum() if gaps.sum() > 0 else torch.tensor(0.5)
        rows.append(w * kl(one_p[None], one_q[None])[0] + (1 - w) * kl(one_q[None], one_p[None])[0])
    return torch.stack(rows)


def naive_alpha_beta(q: Tensor, p: Tensor, alpha: float = 0.2, beta: float = 0.7) -> Tensor:
    s = alpha + beta
    inside = p**alpha * q**beta - alpha / s * p**s - beta / s * q**s
    return -inside.sum(-1) / (alpha * beta)


NAIVE = {
    "forward_kl": (lambda q, p: kl(p, q), {}),
    "reverse_kl": (lambda q, p: kl(q, p), {}),
    "js": (naive_js, {"beta": 0.3}),
    "skew_forward_kl": (lambda q, p, alpha: kl(p, alpha * p + (1 - alpha) * q), {"alpha": 0.1}),
    "skew_reverse_kl": (lambda q, p, alpha: kl(q, alpha * q + (1 - alpha) * p), {"alpha": 0.2}),
    "adaptive_kl": (naive_adaptive, {"mu": 0.6}),
    "total_variation": (lambda q, p: 0.5 * (p - q).abs().sum(-1), {}),
    "alpha_beta": (naive_alpha_beta, {"alpha": 0.2, "beta": 0.7}),
}
FINITE = ("js", "skew_forward_kl", "skew_reverse_kl", "total_variation", "alpha_beta")
"""Also where one side says never and the other does not."""


def reference(kind: str, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    loss, knobs = NAIVE[kind]
    leaf = student.double().requires_grad_()
    q, p = torch.softmax(leaf / temperature, -1), torch.softmax(teacher.double() / temperature, -1)
    nats = temperature**2 * loss(q, p, **knobs)
    (gradient,) = torch.autograd.grad(nats.sum(), leaf)
    return nats.detach(), gradient


def found(kind: str, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    loss, knobs = getattr(losses, kind), NAIVE[kind][1]
    term = by_autograd(lambda z, at: loss(z, teacher[at], temperature=temperature, **knobs))
    return term(student, slice(None))


def close(mine: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(mine.double(), theirs.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", NAIVE)
@pytest.mark.parametrize("outcomes", [2, 7, 300])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradient_are_the_naive_ones(kind: str, outcomes: int, temperature: float) -> None:
    student, teacher = draw(5, outcomes), draw(5, outcomes, seed=1)
    mine, theirs = (
        found(kind, student, teacher, temperature),
        reference(kind, student, teacher, temperature),
    )
    close(mine[0], theirs[0])
    close(mine[1], theirs[1])


@pytest.mark.parametrize("kind", NAIVE)
def test_the_widest_vocabulary_is_as_exact(kind: str) -> None:
    student, teacher = draw(2, 151_936), draw(2, 151_936, seed=1)
    mine, theirs = found(kind, student, teacher), reference(kind, student, teacher, 1.0)
    close(mine[0], theirs[0])
    close(mine[1], theirs[1], 1e-6)


@pytest.mark.parametrize("kind", NAIVE)
def test_an_outcome_that_both_exclude_changes_nothing_and_is_no_nan(kind: str) -> None:
    student, teacher = draw(4, 6), draw(4, 6, seed=1)
    gone = torch.full((4, 2), -torch.inf)
    nats, gradient = found(kind, torch.cat([student, gone], -1), torch.cat([teacher, gone], -1))
    plain = found(kind, student, teacher)
    close(nats, plain[0])
    close(gradient[:, :6], plain[1])
    assert not gradient[:, 6:].any()


@pytest.mark.parametrize("kind", [kind for kind in NAIVE if kind not in ("reverse_kl", "adaptive_kl")])
def test_a_one_hot_teacher_is_no_nan_and_its_gradient_is_the_naive_one(kind: str) -> None:
    student = draw(4, 6)
    teacher = torch.full((4, 6), -torch.inf)
    teacher[torch.arange(4), torch.tensor([0, 3, 5, 3])] = 1.0
    mine, theirs = found(kind, student, teacher), reference(kind, student, teacher, 1.0)
    close(mine[0], theirs[0])
    close(mine[1], theirs[1])


@pytest.mark.parametrize("kind", ["reverse_kl", "adaptive_kl"])
def test_a_student_that_says_what_the_teacher_never_does_costs_infinitely_much_in_reverse(kind: str) -> None:
    teacher = torch.tensor([[0.0, 1.0, -torch.inf]])
    assert getattr(losses, kind)(torch.zeros(1, 3), teacher).item() == math.inf


@pytest.mark.parametrize("kind", NAIVE)
def test_zero_if_and_only_if_the_distributions_agree(kind: str) -> None:
    teacher = draw(6, 9)
    nats, gradient = found(kind, teacher + 5.0, teacher)
    close(nats, torch.zeros(6), 2e-6)
    if kind != "total_variation":  # its gradient has a corner there
        close(gradient, torch.zeros(6, 9), 5e-6)
    assert (found(kind, draw(6, 9, seed=2), teacher)[0] > 1e-3).all()


@pytest.mark.parametrize("kind", NAIVE)
def test_no_positions_give_no_nats(kind: str) -> None:
    nats, gradient = found(kind, torch.zeros(0, 5), torch.zeros(0, 5))
    assert nats.shape == (0,)
    assert gradient.shape == (0, 5)


BOUNDS = {
    "js": -(0.3 * math.log(0.3) + 0.7 * math.log(0.7)),
    "skew_forward_kl": -math.log(0.1),
    "skew_reverse_kl": -math.log(0.2),
    "total_variation": 1.0,
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bounded_divergence_stays_below_its_bound_and_nears_it_for_disjoint_distributions(
    kind: str,
) -> None:
    apart = torch.tensor([[40.0, 0.0, -torch.inf], [0.0, 40.0, -torch.inf]])
    nats, _ = found(kind, apart, apart.flip(0))
    assert (nats <= BOUNDS[kind] + 1e-5).all()
    assert (nats > BOUNDS[kind] - 1e-3).all()
    assert (
        found(kind, draw(50, 20, spread=9.0), draw(50, 20, seed=1, spread=9.0))[0] <= BOUNDS[kind] + 1e-5
    ).all()


@pytest.mark.parametrize("kind", FINITE)
def test_those_that_promise_it_are_finite_where_the_sides_exclude_different_outcomes(kind: str) -> None:
    student = torch.tensor([[0.0, -torch.inf, 1.0, 0.5]])
    teacher = torch.tensor([[-torch.inf, 0.0, 1.0, 0.5]])
    nats, gradient = found(kind, student, teacher)
    assert nats.isfinite().all()
    assert gradient.isfinite().all()


def test_the_limits_of_the_families_are_their_ends() -> None:
    student, teacher = draw(5, 8), draw(5, 8, seed=1)
    forward, reverse = losses.forward_kl(student, teacher), losses.reverse_kl(student, teacher)
    close(losses.skew_forward_kl(student, teacher, alpha=0.0), forward)
    close(losses.skew_reverse_kl(student, teacher, alpha=0.0), reverse)
    close(losses.alpha_beta(student, teacher, alpha=1.0, beta=0.0), forward)
    close(losses.alpha_beta(student, teacher, alpha=0.0, beta=1.0), reverse)
    close(losses.alpha_beta(student, teacher, alpha=1.0, beta=1e-3), forward, 2e-2)
    near = losses.alpha_beta(student, teacher, alpha=0.5, beta=1e-3)
    close(losses.alpha_beta(student, teacher, alpha=0.5, beta=0.0), near, 2e-2)
    student, teacher = draw(5, 8, spread=1.0), draw(5, 8, seed=1, spread=1.0)
    forward, reverse = losses.forward_kl(student, teacher), losses.reverse_kl(student, teacher)
    close(losses.js(student, teacher, beta=1e-3) / 1e-3, forward, 5e-2)
    close(losses.js(student, teacher, beta=1 - 1e-3) / 1e-3, reverse, 5e-2)


@pytest.mark.parametrize("kind", NAIVE)
def test_temperature_reaches_the_loss_and_its_gradient_does_not_fade_with_its_square(kind: str) -> None:
    student, teacher = draw(32, 20), draw(32, 20, seed=1)
    values = {round(found(kind, student, teacher, t)[0].mean().item(), 4) for t in (1.0, 1.5, 2.0, 4.0)}
    assert len(values) == 4
    if kind not in ("total_variation",):  # linear in the difference: its gradient grows like T
        small, large = (found(kind, student, teacher, t)[1].norm() for t in (20.0, 80.0))
        assert large / small == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize(
    ("kind", "knobs"),
    [
        ("js", {"beta": 0.0}), ("js", {"beta": 1.0}), ("skew_forward_kl", {"alpha": 1.0}),
        ("skew_reverse_kl", {"alpha": -0.1}), ("adaptive_kl", {"mu": 1.0}), ("alpha_beta", {"alpha": -1.0}),
        ("alpha_beta", {"alpha": 0.0, "beta": 0.0}),
    ],
)  # fmt: skip
def test_a_knob_out_of_range_is_refused_with_the_range(kind: str, knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{kind}: .* must be in"):
        getattr(losses, kind)(torch.zeros(1, 3), torch.zeros(1, 3), **knobs)


# ── the same on K + 1 outcomes ──────────────────────────────────────────────────────────────────────────────────────

F_DIVERGENCES = [kind for kind in NAIVE if kind not in ("adaptive_kl", "alpha_beta")]


@pytest.mark.parametrize("kind", F_DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_on_the_most_probable_outcomes_each_is_the_naive_one_of_coarser_distributions(
    kind: str, temperature: float
) -> None:
    student, teacher = draw(4, 9), draw(4, 9, seed=1)
    ids, log_p = losses.topk_log_probs(teacher, 4, temperature=temperature)
    loss, knobs = NAIVE[kind]
    leaf = student.double().requires_grad_()
    coarse = []
    for logits in (leaf, teacher.double()):
        whole = torch.softmax(logits / temperature, -1)
        kept = whole.gather(-1, ids)
        coarse.append(torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1))
    expected = temperature**2 * loss(*coarse, **knobs)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return getattr(losses, kind)(a, b, **knobs)

    nats, gradient = written_out(student, topk_term(ids, log_p, temperature, divergence))
    close(nats, expected.detach(), 3e-5)
    close(gradient, slope, 5e-5)
    close(
        losses.divergence_topk(student, ids, log_p, divergence, temperature=temperature),
        expected.detach(),
        3e-5,
    )


@pytest.mark.parametrize("kind", F_DIVERGENCES)
def test_what_was_not_kept_can_only_lower_an_f_divergence_and_all_kept_is_exact(kind: str) -> None:
    student, teacher = draw(20, 30), draw(20, 30, seed=1)
    whole = getattr(losses, kind)(student, teacher)
    for k in (1, 5, 20, 30):
        value = losses.divergence_topk(student, *losses.topk_log_probs(teacher, k), getattr(losses, kind))
        assert (value <= whole + 2e-5).all()
    close(value, whole, 2e-5)


# ── sampled targets ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("temperature", "draws"), [(1.0, 8), (2.0, 8), (1.0, 1), (1.0, 200)])
def test_over_many_draws_sampled_targets_have_the_dense_losss_value_and_gradient(
    temperature: float, draws: int
) -> None:
    student, teacher = draw(1, 40, spread=1.5), draw(1, 40, seed=1, spread=1.5)
    nats, slope = reference("forward_kl", student, teacher, temperature)
    times = 8000
    log_p = torch.log_softmax(teacher / temperature, -1).expand(times, -1)
    uniform = torch.rand(times, generator=torch.Generator().manual_seed(0))
    ids, shares, _ = draw_sampled(log_p, uniform, draws)
    assert abs(shares.sum(-1).mean() - 1) < 0.01
    entropy = -(log_p.exp() * log_p).sum(-1)

    def parts(log_q: LogQ, at: slice) -> Parts:
        return forward_kl_sampled_parts(log_q, shares[at], entropy[at], temperature=temperature)

    nats_of, gradients = written_out(
        student.expand(times, -1), SoftmaxTerm(temperature, lambda at: ids[at], parts)
    )
    spread, off = gradients.double().std(0) / times**0.5, gradients.double().mean(0) - slope[0]
    assert (off.abs() <= 5 * spread + 1e-5).all()
    wide = nats_of.double().std() / times**0.5
    assert abs(nats_of.double().mean() - nats[0]) <= 5 * wide + 1e-5
    # one draw is off the dense gradient, or the test above would say nothing
    assert (gradients.double() - slope).abs().max() > 0.5 / draws * temperature


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_sampled_targets_is_that_of_their_value_though_shares_do_not_add_up_to_1(
    temperature: float,
) -> None:
    student, teacher = draw(64, 30), draw(64, 30, seed=1)
    log_p = torch.log_softmax(teacher / temperature, -1)
    ids, shares, _ = draw_sampled(log_p, torch.rand(64, generator=torch.Generator().manual_seed(2)), 6)
    assert (shares.sum(-1) - 1).abs().max() > 0.05
    entropy = torch.zeros(64)
    leaf = student.clone().requires_grad_()
    log_q = torch.log_softmax(leaf / temperature, -1)
    naive = -(temperature**2) * (shares * log_q.gather(-1, ids)).sum(-1)
    (slope,) = torch.autograd.grad(naive.sum(), leaf)
    nats, gradient = written_out(
        student,
        SoftmaxTerm(
            temperature,
            lambda at: ids[at],
            lambda q, at: forward_kl_sampled_parts(q, shares[at], entropy[at], temperature=temperature),
        ),
    )
    close(nats, naive.detach(), 2e-5)
    close(gradient, slope, 2e-6)


def test_probable_outcomes_are_always_kept_to_a_part_of_a_draw_and_others_stand_for_one_draw_each() -> None:
    log_p = torch.log_softmax(draw(300, 50), -1)
    uniform = torch.rand(300, generator=torch.Generator().manual_seed(1))
    ids, shares, _ = draw_sampled(log_p, uniform, 32)
    found = torch.zeros(300, 50).scatter_add_(1, ids, shares)
    p = log_p.exp()
    sure = p >= 1 / 32
    assert ((found - p).abs() < 1 / 64 + 1e-5)[sure].all()
    assert set((found * 32)[~sure].tolist()) == {0.0, 1.0}
    spots = torch.where(
        shares > 0, ids, -1 - torch.arange(ids.shape[1])
    )  # unused places, each its own number
    assert all(len(set(row)) == len(row) for row in spots.tolist())  # each outcome once
    assert ((shares > 0).sum(-1) <= 34).all()


def test_an_outcome_without_mass_is_never_drawn() -> None:
    logits = torch.zeros(1000, 6)
    logits[:, [0, 3, 5]] = -torch.inf
    uniform = torch.cat([torch.tensor([0.0, 1.0 - 2**-24]), torch.rand(998)])
    for draws in (1, 2, 7):
        ids, shares, _ = draw_sampled(torch.log_softmax(logits, -1), uniform, draws)
        assert set(ids[shares > 0].tolist()) == {1, 2, 4}


def test_outcomes_of_exactly_one_draw_are_kept_once() -> None:
    for outcomes in (7, 30, 133):
        ids, shares, _ = draw_sampled(torch.zeros(3, outcomes), torch.tensor([0.0, 2**-24, 0.7]), outcomes)
        for row, own in zip(ids.tolist(), shares.tolist(), strict=True):
            used = [number for number, share in zip(row, own, strict=True) if share > 0]
            assert len(used) == len(set(used))


@pytest.mark.parametrize("offset", [0.0, -500.0])
@pytest.mark.parametrize("outcomes", [40, 64, 1000, 8192])
def test_draws_are_those_of_one_comb_on_the_whole_cumulative_sum_and_the_entropy_is_exact(
    outcomes: int, offset: float
) -> None:
    """Blocks of outcomes and few rows at a time are how it is computed, and change nothing."""
    logits, draws, temperature = draw(50, outcomes, spread=3.0) + offset, 8, 1.5
    logits[:, ::3] = -torch.inf
    uniform = torch.rand(50, generator=torch.Generator().manual_seed(3))
    ids, shares, entropy = draw_sampled(logits, uniform, draws, temperature=temperature)
    log_p = torch.log_softmax((logits / temperature).double(), -1)
    p = log_p.exp()
    close(entropy.double(), -(p * log_p.clamp_min(-1e30)).sum(-1), 1e-5)
    rest = p.masked_fill(p >= 1 / draws, 0.0).cumsum(-1)
    found = torch.zeros(50, outcomes).scatter_add_(1, ids, shares)
    moved = 0  # a point that all but coincides with an outcome's end falls on one side or the other
    for row in range(50):
        points = (torch.arange(draws) + uniform[row].double()) / draws
        drawn = torch.searchsorted(rest[row], points[points < rest[row, -1]], right=True)
        said = found[row].masked_fill(p[row] >= 1 / draws, 0.0).nonzero().flatten()
        moved += len(set(said.tolist()) - set(drawn.tolist()))
        assert len(said) == len(set(drawn.tolist()))
    assert moved <= 2
