"""The kernels of an accelerator against float64: on one if there is one, else in Triton's interpreter.

Triton comes with torch's builds for CUDA and is a gigabyte without; where it is not there, nothing calls the kernels either.
"""

import contextlib
import os

import pytest
import torch

HERE = "cuda" if torch.cuda.is_available() else "cpu"
pytest.importorskip("triton", reason="comes with torch's builds for CUDA")
if HERE == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from closed_form import dense_term, hard_term, topk_term  # noqa: E402
from stillhouse.losses import kernels  # noqa: E402
from stillhouse.losses.fused import Head, fused_loss  # noqa: E402

SHAPES = [(5, 17, 1.0), (3, 5000, 2.0), (4, 2, 0.5), (2, 151_936, 1.5), (0, 7, 1.0)]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if HERE == "cpu":
        monkeypatch.setattr(torch.cuda, "device_of", lambda _: contextlib.nullcontext())


@pytest.mark.parametrize("teachers", [0, 1, 2])
@pytest.mark.parametrize(("n", "v", "temperature"), SHAPES)
def test_sums_divergences_and_gradients_are_those_of_float64_with_excluded_outcomes_and_one_hot_teachers(
    n: int, v: int, temperature: float, teachers: int
) -> None:
    g = torch.Generator().manual_seed(n + v + teachers)
    logits = torch.randn(n, v, generator=g) * 3
    theirs = [torch.randn(n, v, generator=g) * 4 for _ in range(teachers)]
    for t in theirs[:n]:
        t[0, 0] = -torch.inf
        t[-1] = -torch.inf
        t[-1, 1] = 0.3
    share = torch.rand(n, generator=g)
    z, p = (
        logits.double() / temperature,
        [(t.double() / temperature).softmax(-1) for t in theirs],
    )
    wanted = share.double().unsqueeze(-1) * z.softmax(-1) - sum((0.3 + k) * one for k, one in enumerate(p))
    own, given = logits.to(HERE), [t.to(HERE) for t in theirs]
    log_sum, mean, compared = kernels.look(own, temperature, given, mean=True)
    assert torch.equal(own.cpu(), logits)
    kernels.write(
        own, temperature, log_sum, share.to(HERE), [(0.3 + k, t, left) for k, (t, (_, left)) in enumerate(zip(given, compared, strict=True))],
    )  # fmt: skip
    assert mean is not None
    close(log_sum, z.logsumexp(-1))
    close(mean, z.mean(-1))
    close(own, wanted)
    for one, (apart, _) in zip(p, compared, strict=True):
        divergence = torch.special.entr(one).neg().sum(-1) - (one * z.log_softmax(-1)).sum(-1)
        close(apart + log_sum, divergence)


def test_a_student_that_says_what_its_teacher_says_loses_nothing_and_learns_nothing() -> None:
    logits = torch.randn(3, 700, generator=torch.Generator().manual_seed(0)).to(HERE)
    log_sum, _, ((apart, left),) = kernels.look(logits, 2.0, [logits.clone()], mean=False)
    close(apart + log_sum, torch.zeros(3))
    theirs = logits.clone()
    kernels.write(logits, 2.0, log_sum, torch.ones(3, device=HERE), [(1.0, theirs, left)])
    close(logits, torch.zeros(3, 700))


def test_what_a_student_excludes_and_a_teacher_has_nothing_left_of_counts_nothing() -> None:
    logits, theirs = torch.zeros(1, 3000), torch.zeros(1, 3000)
    logits[0, 5], theirs[0, 5] = -torch.inf, -300.0
    log_sum, _, ((apart, _),) = kernels.look(logits.to(HERE), 1.0, [theirs.to(HERE)], mean=False)
    p, log_q = theirs.double().softmax(-1), logits.double().log_softmax(-1)
    kept = p > 1e-100
    close(apart + log_sum, (p * (p.log() - log_q))[kept].sum().unsqueeze(0))


@pytest.mark.parametrize("warmth", [1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_fused_loss_by_kernels_is_the_one_without_whatever_terms_share_a_temperature(
    monkeypatch: pytest.MonkeyPatch, warmth: float, smoothing: float
) -> None:
    g = torch.Generator().manual_seed(1)
    hidden, weight, teacher = (
        torch.randn(*shape, generator=g).to(HERE) for shape in ((9, 6), (40, 6), (9, 40))
    )
    labels = torch.randint(40, (9,), generator=g).to(HERE)
    log_p, ids = teacher.div(warmth).log_softmax(-1).topk(5, -1)
    found = []
    for by_kernels in (False, True):
        monkeypatch.setattr("stillhouse.losses.passes.has_kernels", lambda _, so=by_kernels: so)
        terms = [
            (0.2, hard_term(labels, smoothing)),
            (0.7, dense_term(teacher, warmth)),
            (0.1, topk_term(ids, log_p, warmth)),
        ]
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss, parts = fused_loss(h, Head(w), terms, 9)
        loss.backward()
        assert h.grad is not None and w.grad is not None
        found.append((loss.detach(), parts, h.grad, w.grad))
    for one, other in zip(*found, strict=True):
        close(one, other.double())


@pytest.mark.skipif(HERE == "cpu", reason="torch has such products for CUDA alone")
def test_products_of_bfloat16_are_float64s_to_the_rounding_of_float32() -> None:
    hidden, weight = (torch.randn(n, 64, device="cuda", dtype=torch.bfloat16) for n in (300, 500))
    exact = hidden.double() @ weight.double().T
    room = torch.empty(300, 500, device="cuda")
    for logits in (Head(weight).logits(hidden, torch.float32), Head(weight).logits(hidden, None, room)):
        assert float((logits.double() - exact).abs().max()) < 1e-4
    ones = torch.ones(300, 500, device="cuda", dtype=torch.bfloat16)
    sums = torch.ones(500, 64, device="cuda")
    torch.addmm(sums, ones.T, hidden, torch.float32, out=sums)
    torch.testing.assert_close(sums.double(), 1.0 + ones.double().T @ hidden.double(), rtol=1e-5, atol=1e-4)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.double().cpu(), wanted.double().cpu(), rtol=1e-5, atol=1e-5)
