"""Divergences against targets of which only some outcomes were kept.

**Top-k.**  The K most probable outcomes keep their probabilities under the teacher's *whole* distribution, and all the
others together are one more outcome, the tail.  Renormalising the K instead would teach over-confidence: the student
would learn that what was not kept cannot happen.  Any divergence of `divergences` can be taken on these K + 1 outcomes;
for the f-divergences (KL in both directions, JS, the skewed ones, total variation) the data-processing inequality says
that the result never exceeds the one on all outcomes, and equals it when all are kept.

**Sampled.**  Outcomes drawn from the teacher, each with its share of the draws.  The loss is the cross-entropy with
these shares less the teacher's entropy: over many draws its mean and that of its gradient are those of the dense forward
KL.  Source: Anshumann et al. 2025 (Sparse Logit Sampling), arXiv:2503.16870.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .divergences import forward_kl, log_softmax
from .parts import LogQ, Parts

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student_logits [n, K + 1], teacher_logits [n, K + 1]) -> nats [n]."""


def topk_log_probs(teacher_logits: Tensor, k: int, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The K largest log-probabilities of softmax(teacher_logits / T) over the whole vocabulary.

    Args: teacher_logits: [N, V]; k: at most V are returned.
    Returns: (ids [N, K], log_p [N, K]), most probable first.
    """
    scaled = teacher_logits.float() / temperature
    values, ids = scaled.topk(min(k, scaled.shape[-1]), dim=-1)
    return ids, values - scaled.logsumexp(-1, keepdim=True)


def forward_kl_topk(
    student_logits: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T²·KL(teacher ‖ student) on K + 1 outcomes: the K kept ones, and "any other".

    Args: student_logits: [N, V]; ids, log_p: [N, K], distinct ids in each row, taken at the same temperature (another
        one cannot be recovered from a truncated distribution).
    Returns: [N], nats times T², ≥ 0 (to the rounding of the kept probabilities).
    """
    return divergence_topk(student_logits, ids, log_p, forward_kl, temperature=temperature)


def divergence_topk(
    student_logits: Tensor, ids: Tensor, log_p: Tensor, divergence: Divergence, *, temperature: float = 1.0
) -> Tensor:
    """T²·`divergence` of teacher and student on K + 1 outcomes: the K kept ones, and "any other".

    Args: as `forward_kl_topk`; divergence: one of `divergences`, at temperature 1.
    Returns: [N], nats times T².
    """
    log_q = log_softmax(student_logits, temperature)
    outcomes = log_q.shape[-1]
    return temperature**2 * divergence(_coarse(log_q.gather(-1, ids), outcomes), _coarse(log_p, outcomes))


def divergence_topk_parts(
    kept: LogQ, log_p: Tensor, divergence: Divergence, *, temperature: float = 1.0
) -> Parts:
    """`divergence_topk` with its gradient, given the student's log-probabilities at T of the K kept outcomes.

    With u the derivative by the logits on the K + 1 outcomes (by autograd: they are few), and u_t and q_t of the tail:
    d/dz = T·u on the kept outcomes and T·q·u_t/q_t on the others, for what is asked of the tail is spread over it in the
    student's own proportions.
    """
    with torch.enable_grad():
        log_q = _coarse(kept.picked.detach(), kept.outcomes).requires_grad_()
        nats = divergence(log_q, _coarse(log_p, kept.outcomes))
        (u,) = torch.autograd.grad(nats.sum(), log_q)
    q = log_q.detach().exp()
    k = log_p.shape[-1]
    in_tail = u[:, k:].sum(-1) / q[:, k:].sum(-1).clamp_min(_TINY)
    return Parts(
        nats=temperature**2 * nats.detach(),
        share=temperature * in_tail,
        extra=temperature * (u[:, :k] - q[:, :k] * in_tail.unsqueeze(-1)),
    )


def draw_sampled(log_p: Tensor, uniform: Tensor, draws: int) -> Tensor:
    """`draws` outcomes from each row of softmax probabilities, by systematic sampling: sorted ids, with repeats.

    One uniform number places a comb of `draws` equally spaced points on the distribution's cumulative sum, so an outcome
    of probability p is drawn ⌊p·draws⌋ or ⌈p·draws⌉ times, p·draws on average: unbiased like independent draws, with
    less variance.

    Args: log_p: [N, V]; uniform: [N], in [0, 1).
    Returns: ids [N, draws].
    """
    cumulative = log_p.exp().cumsum(-1, dtype=torch.float64)
    points = (torch.arange(draws, device=log_p.device) + uniform.double().unsqueeze(-1)) / draws
    found = torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
    return found.clamp_max(log_p.shape[-1] - 1)


def forward_kl_sampled(
    student_logits: Tensor, ids: Tensor, shares: Tensor, entropy: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T²·[−Σ share·log q − H(teacher)]: an estimate of the forward KL without bias; one draw of it may be negative.

    Args: student_logits: [N, V]; ids, shares: [N, n], each row's shares adding up to 1; 0 for a place that is not used;
        entropy: [N], the teacher's, in nats; all at the same temperature.
    Returns: [N], nats times T².
    """
    log_q = log_softmax(student_logits, temperature)
    return forward_kl_sampled_parts(LogQ.of(log_q, ids), shares, entropy, temperature=temperature).nats


def forward_kl_sampled_parts(
    drawn: LogQ, shares: Tensor, entropy: Tensor, *, temperature: float = 1.0
) -> Parts:
    """`forward_kl_sampled` with its gradient T·(softmax(z/T) − shares), given the student's log-probabilities at T."""
    shares = shares.float()
    crossed = -(shares * torch.where(shares > 0, drawn.picked, 0.0)).sum(-1)
    return Parts(
        nats=temperature**2 * (crossed - entropy.float()),
        share=shares.new_full(shares.shape[:-1], temperature),
        extra=-temperature * shares,
    )


_TINY = torch.finfo(torch.float32).eps
"""Below this, a tail is rounding: 1 − Σp is not known more exactly in float32."""


def _coarse(log_kept: Tensor, outcomes: int) -> Tensor:
    """[N, K] log-probabilities and the tail's after them, [N, K + 1]; no tail where every outcome was kept."""
    log_kept = log_kept.float()
    if log_kept.shape[-1] >= outcomes:
        return log_kept
    tail = 1.0 - log_kept.exp().sum(-1, keepdim=True)
    return torch.cat([log_kept, tail.clamp_min(_TINY).log()], dim=-1)
