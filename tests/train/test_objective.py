"""The objective: schedules, terms of every kind against every kind of targets, and terms of one's own."""

from dataclasses import replace

import pytest
import torch

from stillhouse import objectives as kd
from stillhouse.errors import RecipeError
from stillhouse.losses import Head, topk_log_probs
from stillhouse.recipe import Schedule
from stillhouse.tasks import Scores
from stillhouse.teachers import Dense, Sampled, TopK
from stillhouse.train.objective import DIVERGENCES, Objective

N, H, V = 6, 5, 11


def scores() -> Scores:
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, H, generator=g), torch.randn(V, H, generator=g)
    return Scores(hidden.requires_grad_(), Head(weight.requires_grad_()), torch.arange(N), torch.arange(N))


def dense() -> Dense:
    g = torch.Generator().manual_seed(1)
    return Dense(torch.randn(N, H, generator=g), Head(torch.randn(V, H, generator=g)))


def kept(k: int, temperature: float = 1.0) -> TopK:
    return TopK(*topk_log_probs(dense().logits(slice(None)), k, temperature=temperature), temperature)


def own_loss(
    student: torch.Tensor, teacher: torch.Tensor, *, temperature: float, power: int = 2
) -> torch.Tensor:
    return temperature * (student - teacher).abs().pow(power).sum(-1)


def wrong_shape(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    return (student - teacher).sum()


# ── schedules ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_schedules_go_from_start_to_end_and_stay_there():
    line = Schedule(start=1.0, end=0.0, over=0.5)
    assert [line.at(x) for x in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 0.0]
    wave = Schedule(start=2.0, end=4.0, curve="cosine")
    assert [round(wave.at(x), 6) for x in (0.0, 0.5, 1.0)] == [2.0, 3.0, 4.0]
    assert wave.at(0.25) < 2.5


def test_a_schedule_moves_a_weight_and_a_temperature():
    objective = Objective([kd.hard(kd.schedule(1.0, 0.0)), kd.forward_kl(temperature=kd.schedule(1.0, 3.0))])
    start, end = (objective(scores(), dense(), N, progress=x) for x in (0.0, 1.0))
    hard, soft = Objective([kd.hard()]), Objective([kd.forward_kl(temperature=3.0)])
    assert float(start[0]) == pytest.approx(float(start[1].sum()))
    assert float(end[0]) == pytest.approx(float(soft(scores(), dense(), N)[0]))
    assert float(start[1][0]) == pytest.approx(float(hard(scores(), None, N)[0]))


def test_a_schedule_moves_the_weight_of_a_rationales_tokens():
    mine = replace(scores(), reasons=torch.arange(N) < 3)
    moved, fixed = Objective([kd.hard()], kd.schedule(4.0, 0.0)), (4.0, 2.0, 0.0)
    for progress, weight in zip((0.0, 0.5, 1.0), fixed, strict=True):
        expected = Objective([kd.hard()], weight)(mine, None, N)[0]
        assert float(moved(mine, None, N, progress=progress)[0]) == float(expected)
    nats = torch.nn.functional.cross_entropy(mine.head.logits(mine.hidden), mine.labels, reduction="none")
    assert float(moved(mine, None, N, progress=1.0)[0]) == pytest.approx(float(nats[3:].sum()) / N, rel=1e-5)


def test_a_term_that_weighs_nothing_is_not_computed(monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setitem(DIVERGENCES, "js", (never, ("beta",)))
    objective = Objective([kd.hard(), kd.js(kd.schedule(0.0, 1.0))])
    assert float(objective(scores(), dense(), N)[1][1]) == 0.0


def test_a_term_of_weight_0_is_left_out_as_if_it_were_not_there():
    objective = Objective([kd.hard(0.0), kd.forward_kl(0.0), kd.hard(), kd.js(0.0)])
    assert objective.names == ["hard"]
    assert not objective.needs_teacher
    loss, parts = objective(scores(), None, N)
    alone, part = Objective([kd.hard()])(scores(), None, N)
    assert (float(loss), parts.tolist()) == (float(alone), part.tolist())


def test_an_objective_in_which_no_term_weighs_anything_is_refused():
    with pytest.raises(RecipeError, match=r"^objective: every term has weight 0.*give one of them a weight"):
        Objective([kd.hard(0.0), kd.forward_kl(0.0)])


# ── every kind against every kind of targets ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_every_divergence_of_all_kept_outcomes_is_the_one_beside_the_teacher(kind):
    term = getattr(kd, kind)(temperature=2.0)
    for targets in (kept(V, 2.0), dense()):
        mine = scores()
        loss, _ = Objective([term])(mine, targets, N)
        loss.backward()
        if isinstance(targets, TopK):
            first = float(loss), mine.hidden.grad
    assert float(loss) == pytest.approx(first[0], rel=1e-4)
    torch.testing.assert_close(mine.hidden.grad, first[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["adaptive_kl", "alpha_beta"])
def test_what_means_something_else_on_few_outcomes_is_refused_there(kind):
    with pytest.raises(
        RecipeError, match=rf"{kind} means something else.*label.online: true, or label.top_k: all"
    ):
        Objective([getattr(kd, kind)()])(scores(), kept(4), N)


def test_what_cannot_be_estimated_from_draws_is_refused():
    drawn = Sampled(torch.zeros(N, 1, dtype=torch.long), torch.ones(N, 1), torch.zeros(N), 1.0)
    with pytest.raises(RecipeError, match="reverse_kl cannot be estimated from sampled targets"):
        Objective([kd.reverse_kl()])(scores(), drawn, N)


def test_other_temperatures_than_the_kept_one_are_refused_for_draws_too():
    drawn = Sampled(torch.zeros(N, 1, dtype=torch.long), torch.ones(N, 1), torch.zeros(N), 2.0)
    with pytest.raises(RecipeError, match=r"temperature 1.0.*taken at 2.0"):
        Objective([kd.forward_kl()])(scores(), drawn, N)


# ── one's own ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_of_ones_own_gets_its_options_and_its_gradient():
    mine = scores()
    term = kd.custom(f"{__name__}:own_loss", temperature=2.0, options={"power": 2})
    loss, parts = Objective([term])(mine, dense(), N)
    loss.backward()
    leaf = scores()
    z = leaf.hidden @ leaf.head.weight.T
    expected = own_loss(z, dense().logits(slice(None)), temperature=2.0).sum() / N
    expected.backward()
    assert float(parts[0]) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(mine.hidden.grad, leaf.hidden.grad, rtol=1e-4, atol=1e-5)


def test_a_loss_of_ones_own_with_the_wrong_shape_is_told_the_right_one():
    with pytest.raises(RecipeError, match=r"wrong_shape must return nats of the shape \(6,\), and gave \(\)"):
        Objective([kd.custom(f"{__name__}:wrong_shape")])(scores(), dense(), N)


def test_a_loss_that_cannot_be_imported_is_named():
    with pytest.raises(RecipeError, match="has no 'nothing'"):
        Objective([kd.custom("stillhouse.losses:nothing")])(scores(), dense(), N)


def test_a_loss_of_ones_own_on_kept_targets_sees_the_outcomes_in_their_own_order():
    """What is kept is sorted by probability; a loss that knows outcomes by number must not see that."""
    mine, beside = scores(), scores()
    term = kd.custom(f"{__name__}:by_number", temperature=2.0)
    loss, _ = Objective([term])(mine, kept(V, 2.0), N)
    other, _ = Objective([term])(beside, dense(), N)
    loss.backward()
    other.backward()
    assert float(loss) == pytest.approx(float(other), rel=1e-4)
    torch.testing.assert_close(mine.hidden.grad, beside.hidden.grad, rtol=1e-3, atol=1e-5)


def by_number(student: torch.Tensor, teacher: torch.Tensor, *, temperature: float) -> torch.Tensor:
    places = torch.arange(student.shape[-1], dtype=torch.float32)
    q, p = (torch.softmax(side / temperature, -1) for side in (student, teacher))
    return ((q - p) * places).sum(-1).square()


def test_the_teacher_is_not_asked_while_all_its_terms_weigh_nothing():
    objective = Objective([kd.hard(), kd.forward_kl(kd.schedule(1.0, 0.0, over=0.5))])
    assert objective.asks_teacher(0.0)
    assert not objective.asks_teacher(0.5)
    assert objective.needs_teacher


def test_whole_distributions_kept_at_one_temperature_serve_another_exactly():
    """All outcomes are kept, so the teacher need not be asked again; with a cut-off tail it must be."""
    for kind in ("forward_kl", "reverse_kl", "alpha_beta"):
        objective = Objective([getattr(kd, kind)(temperature=3.0)])
        expected, _ = objective(scores(), dense(), N)
        found, _ = objective(scores(), kept(V, temperature=1.0), N)
        torch.testing.assert_close(found, expected)
    with pytest.raises(RecipeError, match=r"temperature 3.0.*taken at 1.0"):
        Objective([kd.forward_kl(temperature=3.0)])(scores(), kept(V - 1, temperature=1.0), N)


def test_terms_of_one_kind_are_named_by_their_place_in_the_list_as_it_was_given():
    terms = [kd.hard(0.0), kd.forward_kl(0.5), kd.hard(1.0), kd.forward_kl(0.5, temperature=2.0)]
    assert Objective(terms).names == ["forward_kl_1", "hard", "forward_kl_3"]
    assert Objective(terms[:3]).names == ["forward_kl", "hard"]
