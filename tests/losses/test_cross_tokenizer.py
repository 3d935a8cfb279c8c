"""Losses between two vocabularies against plain float64, and the laws that they must keep."""

import pytest
import torch

from stillhouse.losses import forward_kl
from stillhouse.losses.cross_tokenizer import mapped_kl, shared_and_sorted, sorted_distance, span_kl

T = 2.0


def logits(rows, outcomes, seed):
    return 2.0 * torch.randn(rows, outcomes, generator=torch.Generator().manual_seed(seed))


def probabilities(z):
    return (z.double() / T).softmax(-1)


def naive_gap(q, p):
    most = max(len(q), len(p))
    q, p = (sorted(one.tolist(), reverse=True) + [0.0] * (most - len(one)) for one in (q, p))
    return sum(abs(a - b) for a, b in zip(q, p, strict=True))


def naive_shared(z, w, mine, theirs):
    total = []
    for q, p in zip(probabilities(z), probabilities(w), strict=True):
        kl = sum(p[b] * (p[b] / q[a]).log() for a, b in zip(mine, theirs, strict=True))
        rest_q = torch.tensor([v for n, v in enumerate(q) if n not in mine])
        rest_p = torch.tensor([v for n, v in enumerate(p) if n not in theirs])
        kl += rest_p.sum() * (rest_p.sum() / rest_q.sum()).log()
        total.append(T**2 * (float(kl) + naive_gap(rest_q, rest_p)))
    return torch.tensor(total)


MINE, THEIRS = torch.tensor([0, 3, 4]), torch.tensor([2, 1, 7])


def test_the_sorted_distance_is_the_naive_one():
    z, w = logits(5, 7, 0), logits(5, 11, 1)
    expected = [T**2 * naive_gap(q, p) for q, p in zip(probabilities(z), probabilities(w), strict=True)]
    found = sorted_distance(z, w, ranks=None, temperature=T)
    torch.testing.assert_close(
        found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6
    )


def test_the_mixed_loss_is_the_naive_one():
    z, w = logits(4, 7, 2), logits(4, 11, 3)
    found = shared_and_sorted(z, w, MINE, THEIRS, ranks=None, temperature=T)
    expected = naive_shared(z, w, MINE.tolist(), THEIRS.tolist())
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


def test_cutting_the_ranks_never_gives_more_and_its_tail_is_counted():
    z, w = logits(20, 60, 4), logits(20, 50, 5)
    whole, some = (sorted_distance(z, w, ranks=ranks) for ranks in (None, 5))
    assert (some <= whole + 1e-6).all()
    assert float(sorted_distance(torch.zeros(1, 6), torch.zeros(1, 60), ranks=5)) > 0.5


def test_zero_where_the_distributions_agree_and_only_there():
    """The same tokens under other names, in another order, cost nothing; any change of one probability does."""
    z = logits(6, 9, 6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    w = z[:, order]  # their token n is my token order[n]
    mine = order[[1, 4, 6]]
    theirs = torch.tensor([1, 4, 6])
    assert float(sorted_distance(z, w).max()) < 1e-6
    assert float(shared_and_sorted(z, w, mine, theirs).abs().max()) < 1e-6
    changed = w.clone()
    changed[:, 0] += 0.5
    assert float(sorted_distance(z, changed).min()) > 1e-5
    assert float(shared_and_sorted(z, changed, mine, theirs).min()) > 1e-5
    swapped = w[:, [0, 4, 2, 3, 1, 5, 6, 7, 8]]  # two shared tokens change their names: sorting cannot see it
    assert float(sorted_distance(z, swapped).max()) < 1e-6
    assert float(shared_and_sorted(z, swapped, mine, theirs).min()) > 1e-5


def test_with_one_vocabulary_the_mixed_and_the_carried_loss_are_the_forward_kl():
    z, w = logits(5, 8, 7), logits(5, 8, 8)
    same = torch.arange(8)
    expected = forward_kl(z, w, temperature=T)
    log_p = (w / T).log_softmax(-1)
    torch.testing.assert_close(shared_and_sorted(z, w, same, same, temperature=T), expected)
    carried = mapped_kl(z, same.expand(5, 8), log_p, temperature=T)
    torch.testing.assert_close(carried, expected, rtol=1e-4, atol=1e-5)


def test_tokens_carried_to_the_same_place_add_up_and_lost_ones_are_one_outcome():
    z = logits(1, 5, 9)
    ids, log_p = torch.tensor([[2, 2, 0, -1]]), torch.tensor([[0.3, 0.2, 0.1, 0.25]]).log()
    q = z.double().softmax(-1)[0]
    p = torch.tensor([0.1, 0.5], dtype=torch.float64)
    rest = q[1] + q[3] + q[4]
    expected = (p * (p / q[[0, 2]]).log()).sum() + 0.4 * (0.4 / rest).log()
    assert float(mapped_kl(z, ids, log_p)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("loss", ["sorted", "mixed", "carried"])
def test_gradients_are_those_of_float64(loss):
    z, w = logits(3, 7, 10), logits(3, 11, 11)
    ids, log_p = torch.tensor([[1, 1, 4, -1]]).expand(3, 4), logits(3, 6, 12).log_softmax(-1)[:, :4]
    calls = {
        "sorted": lambda x: sorted_distance(x, w, temperature=T),
        "mixed": lambda x: shared_and_sorted(x, w, MINE, THEIRS, temperature=T),
        "carried": lambda x: mapped_kl(x, ids, log_p, temperature=T),
    }
    leaf = z.clone().requires_grad_()
    (found,) = torch.autograd.grad(calls[loss](leaf).sum(), leaf)
    step = 1e-2
    for row, column in ((0, 1), (1, 4), (2, 6)):
        moved = [z.clone(), z.clone()]
        moved[0][row, column] += step
        moved[1][row, column] -= step
        slope = (calls[loss](moved[0]).double().sum() - calls[loss](moved[1]).double().sum()) / (2 * step)
        assert float(found[row, column]) == pytest.approx(float(slope), rel=2e-2, abs=2e-4)


def test_a_span_costs_nothing_only_where_both_find_it_equally_probable():
    log_p = torch.tensor([0.5, 1e-4, 1.0 - 1e-5]).log()
    assert float(span_kl(log_p, log_p).max()) < 1e-6
    q, p = torch.tensor([0.2]), torch.tensor([0.7])
    expected = 0.7 * (p / q).log() + 0.3 * ((1 - p) / (1 - q)).log()
    assert float(span_kl(q.log(), p.log(), temperature=T)) == pytest.approx(T**2 * float(expected), rel=1e-5)
    certain = span_kl(torch.zeros(1), torch.tensor([-50.0]))
    assert torch.isfinite(certain).all()
