"""Pools of opinions against their formulas in float64."""

import pytest
import torch

from stillhouse.losses import Head, forward_kl
from stillhouse.losses.pooling import PooledHead, learned_weights, pooled, reliability_table


def opinions(members=3, rows=5, outcomes=7, seed=0):
    return list(2.0 * torch.randn(members, rows, outcomes, generator=torch.Generator().manual_seed(seed)))


def head_of(logits, weights, pool="mean", table=None):
    """A head whose members' hidden states are their logits."""
    width = logits[0].shape[-1]
    hidden = torch.cat([*logits, weights.expand(len(logits[0]), -1)], -1)
    return PooledHead(
        None, members=tuple((Head(None), width) for _ in logits), pool=pool, table=table
    ), hidden


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mean_is_taken_of_softened_probabilities_and_not_of_logits(temperature):
    """A mean that forgets T teaches another distribution at every temperature but 1."""
    logits, weights = opinions(), torch.tensor([0.5, 0.3, 0.2])
    head, hidden = head_of(logits, weights)
    found = (head.at(temperature).logits(hidden).double() / temperature).softmax(-1)
    expected = sum(w * (z.double() / temperature).softmax(-1) for w, z in zip(weights, logits, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_geometric_pool_is_the_softmax_of_the_mean_logits_at_any_temperature():
    logits, weights = opinions(), torch.tensor([0.6, 0.1, 0.3])
    mean = sum(w * z for w, z in zip(weights, logits, strict=True))
    head, hidden = head_of(logits, weights, "geometric")
    for temperature in (1.0, 2.5):
        said = head.at(temperature).logits(hidden)
        assert float(forward_kl(said, mean, temperature=temperature).max()) < 1e-5


def test_a_panel_of_one_opinion_is_that_opinion():
    (z,) = opinions(1)
    for pool in ("mean", "geometric", "confidence"):
        head, hidden = head_of([z, z, z], torch.full((3,), 1 / 3), pool)
        assert float(forward_kl(head.logits(hidden), z).max()) < 1e-5, pool


def test_confidence_takes_the_member_with_the_lowest_entropy_position_by_position():
    sure, torn = torch.tensor([[4.0, 0, 0], [0.1, 0, 0]]), torch.tensor([[0.0, 0.1, 0], [0, 5.0, 0]])
    head, hidden = head_of([sure, torn], torch.tensor([0.9, 0.1]), "confidence")
    said = head.logits(hidden)
    torch.testing.assert_close(said.softmax(-1), torch.stack([sure[0], torn[1]]).softmax(-1))


def test_the_table_takes_the_member_that_is_reliable_about_what_it_says():
    one, other = torch.tensor([[3.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    table = torch.tensor(
        [[0.9, 0.5], [0.6, 0.95]]
    )  # the second is to be believed about class 1, and not about 0
    head, hidden = head_of([one, other], torch.tensor([0.5, 0.5]), "table", table)
    assert head.logits(hidden).argmax(-1).tolist() == [1, 0]


def test_what_a_member_excludes_is_excluded_by_no_mean_and_gives_no_nan():
    z = torch.tensor([[0.0, -torch.inf, 1.0]]).log_softmax(-1)
    other = torch.zeros(1, 3).log_softmax(-1)
    weights = torch.tensor([[0.5, 0.5]])
    mean = pooled([z, other], weights, "mean").exp()
    torch.testing.assert_close(mean, 0.5 * (z.exp() + other.exp()))


def test_learned_weights_are_no_worse_than_any_on_a_grid_and_leave_out_who_is_always_wrong():
    right = torch.tensor([[0.9, 0.2, 0.01], [0.3, 0.8, 0.02], [0.7, 0.6, 0.01], [0.2, 0.9, 0.05]])
    weights = learned_weights(right.log())
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(weights[2]) < 1e-3

    def likelihood(w):
        return float((right @ w).log().mean())

    grid = [torch.tensor([a / 20, b / 20, 1 - (a + b) / 20]) for a in range(21) for b in range(21 - a)]
    assert likelihood(weights) >= max(map(likelihood, grid)) - 1e-4


def test_the_reliability_table_counts_by_what_was_said_and_not_by_what_is_true():
    log_p = torch.tensor([[[2.0, 0], [2.0, 0], [2.0, 0], [0, 2.0]]])
    table = reliability_table(log_p, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(table, torch.tensor([[3 / 5, 2 / 3]]))


@pytest.mark.parametrize("pool", ["mean", "geometric", "confidence", "table"])
def test_a_member_without_weight_has_no_say_in_any_pool(pool):
    """What it would have said is the surest and the most reliable of all, and nobody heard it."""
    one, other, silent = torch.tensor([[0.3, 0.0]]), torch.tensor([[0.0, 0.6]]), torch.tensor([[9.0, 0.0]])
    table = torch.tensor([[0.6, 0.6], [0.5, 0.7], [1.0, 1.0]])
    weights = torch.tensor([[0.5, 0.5, 0.0]])
    log_p = [z.log_softmax(-1) for z in (one, other, silent)]
    without = pooled(log_p[:2], weights[:, :2], pool, table[:2])
    torch.testing.assert_close(pooled(log_p, weights, pool, table), without)
