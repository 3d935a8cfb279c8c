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

from stillhouse.losses import kernels  # noqa: E402
from stillhouse.losses.fused import Head, fused_loss  # noqa: E402
from stillhouse.losses.parts import DenseTerm  # noqa: E402

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


def test_the_fused_loss_by_kernels_is_the_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(1)
    hidden, weight, teacher = (
        torch.randn(*shape, generator=g).to(HERE) for shape in ((9, 6), (40, 6), (9, 40))
    )
    found = []
    for by_kernels in (False, True):
        monkeypatch.setattr("stillhouse.losses.passes.has_kernels", lambda _, so=by_kernels: so)
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss, parts = fused_loss(h, Head(w), [(0.7, DenseTerm(2.0, lambda at: teacher[at].clone()))], 9)
        loss.backward()
        assert h.grad is not None and w.grad is not None
        found.append((loss.detach(), parts, h.grad, w.grad))
    for one, other in zip(*found, strict=True):
        close(one, other.double())


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.double().cpu(), wanted.double().cpu(), rtol=1e-5, atol=1e-5)
