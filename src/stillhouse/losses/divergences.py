"""Divergences between the teacher's and the student's distributions, on full logits.

Legend: p the teacher's softmax at T, q the student's, both [N, V].  All take (student_logits [N, V], teacher_logits
[N, V]) and return nats times T², [N]; zero iff the distributions agree.  An outcome to which both give no mass (logit
−inf on both sides) counts nothing.
"""

import math

import torch
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·KL(p ‖ q): the student must cover all that the teacher says.  Source: Hinton et al. 2015, arXiv:1503.02531.

    +inf where the student excludes what the teacher does not.

    Args: student_logits, teacher_logits: [N, V].
    Returns: [N], nats times T², ≥ 0.
    """
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * _kl(log_p, log_q)


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·KL(q ‖ p): the student must say nothing that the teacher would not.  Source: Gu et al. 2023, arXiv:2306.08543.

    +inf where the teacher excludes what the student does not.

    Args: student_logits, teacher_logits: [N, V].
    Returns: [N], nats times T², ≥ 0.
    """
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * _kl(log_q, log_p)


def js(
    student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """T²·[β·KL(p ‖ m) + (1 − β)·KL(q ‖ m)], m = β·p + (1 − β)·q: the generalised Jensen–Shannon divergence.

    Always finite, ≤ T²·H(β) ≤ T²·log 2.  Near its ends it fades to 0 as β·KL(p ‖ q) and (1 − β)·KL(q ‖ p); for those
    ends there are `forward_kl` and `reverse_kl`.  Source: Agarwal et al. 2023 (GKD), arXiv:2306.13649, section 2.

    Args: student_logits, teacher_logits: [N, V]; beta: the teacher's share of the mixture, in (0, 1).
    Returns: [N], nats times T².
    """
    _inside("js", "beta", beta, 0.0 < beta < 1.0, "(0, 1); its ends are forward_kl and reverse_kl")
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    log_m = _mixture(log_p, log_q, beta)
    return temperature**2 * (beta * _kl(log_p, log_m) + (1.0 - beta) * _kl(log_q, log_m))


def skew_forward_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """T²·KL(p ‖ α·p + (1 − α)·q): finite even where the student says ~0; ≤ −T²·log α.

    α = 0 is `forward_kl`.  Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1.

    Args: student_logits, teacher_logits: [N, V]; alpha: in [0, 1).
    Returns: [N], nats times T².
    """
    _inside("skew_forward_kl", "alpha", alpha, 0.0 <= alpha < 1.0, "[0, 1)")
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * _kl(log_p, _mixture(log_p, log_q, alpha))


def skew_reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, alpha: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """T²·KL(q ‖ α·q + (1 − α)·p): finite even where the teacher says ~0; ≤ −T²·log α.

    α = 0 is `reverse_kl`.  Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, section 3.1.

    Args: student_logits, teacher_logits: [N, V]; alpha: in [0, 1).
    Returns: [N], nats times T².
    """
    _inside("skew_reverse_kl", "alpha", alpha, 0.0 <= alpha < 1.0, "[0, 1)")
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    return temperature**2 * _kl(log_q, _mixture(log_q, log_p, alpha))


def adaptive_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, mu: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """w·`forward_kl` + (1 − w)·`reverse_kl`, w the share of Σ|p − q| that lies in the teacher's head.

    The head is the fewest most probable outcomes that together reach `mu`.  Forward KL mends the head first and reverse
    KL the tail, so the larger gap decides; w is a weight and gets no gradient.  +inf where either is, with weight.
    Source: Wu et al. 2024 (AKL), arXiv:2404.02657.

    Args: student_logits, teacher_logits: [N, V]; mu: in (0, 1).
    Returns: [N], nats times T².
    """
    _inside("adaptive_kl", "mu", mu, 0.0 < mu < 1.0, "(0, 1)")
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    w = _head_gap_share(log_p.detach().exp(), log_q.detach().exp(), mu)
    forward, reverse = _kl(log_p, log_q), _kl(log_q, log_p)
    mixed = torch.where(w > 0, w * forward, 0.0) + torch.where(w < 1, (1.0 - w) * reverse, 0.0)
    return temperature**2 * mixed


def total_variation(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·½·Σ|p − q|, symmetric, ≤ T².  Source: Wen et al. 2023 (f-distill), arXiv:2307.15190.

    Args: student_logits, teacher_logits: [N, V].
    Returns: [N], in [0, T²].
    """
    q, p = (log_softmax(logits, temperature).exp() for logits in (student_logits, teacher_logits))
    return temperature**2 * 0.5 * (p - q).abs().sum(-1)


def alpha_beta(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float = 0.2,
    beta: float = 0.7,
    temperature: float = 1.0,
) -> Tensor:
    """T²·Σ[α/(α+β)·p^(α+β) + β/(α+β)·q^(α+β) − p^α·q^β] ÷ (αβ): from forward KL (1, 0) to reverse KL (0, 1).

    α larger punishes errors where the teacher is sure, β larger where the student is; with α and β above 0 it is
    finite.  Its limits at α = 0 and β = 0 are taken.  Source: Wang et al. 2025 (ABKD), arXiv:2505.04560.

    Args: student_logits, teacher_logits: [N, V]; alpha, beta: ≥ 0, not both 0.
    Returns: [N], nats times T² where α + β = 1.
    """
    _inside("alpha_beta", "alpha", alpha, alpha >= 0.0, "[0, inf)")
    _inside(
        "alpha_beta", "beta", beta, beta >= 0.0 and alpha + beta > 0.0, "[0, inf), and above 0 if alpha is 0"
    )
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    if beta == 0.0:
        return temperature**2 * _one_sided(log_p, log_q, alpha)
    if alpha == 0.0:
        return temperature**2 * _one_sided(log_q, log_p, beta)
    both = alpha + beta
    p_part = alpha / both * (both * log_p).exp()
    q_part = beta / both * (both * log_q).exp()
    return temperature**2 * (p_part + q_part - (alpha * log_p + beta * log_q).exp()).sum(-1) / (alpha * beta)


_NOTHING = -1e30
"""The logarithm of no mass, where −inf would make NaN."""


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / T), float32.

    torch.log_softmax sums one after the other on a processor: off by 2e-5 at 150,000 outcomes, where this is by 1e-6.
    """
    scaled = logits.float() / temperature
    return scaled - scaled.logsumexp(-1, keepdim=True)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a ‖ b), [N]; an outcome without mass in `a` counts nothing, and its gradient is no NaN either."""
    a = log_a.exp()
    return (a * torch.where(a > 0, log_a - log_b, 0.0)).sum(-1)


def _mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share·a + (1 − share)·b)."""
    if share == 0.0:
        return log_b
    finite = (log.clamp_min(_NOTHING) for log in (log_a, log_b))  # −inf on both sides has a gradient of NaN
    return torch.logaddexp(next(finite) + math.log(share), next(finite) + math.log1p(-share))


def _head_gap_share(p: Tensor, q: Tensor, mu: float) -> Tensor:
    """The share of Σ|p − q| in the fewest most probable outcomes of `p` that reach `mu`, [N]; ½ where there is no gap."""
    sorted_p, order = p.sort(dim=-1, descending=True)
    before = sorted_p.cumsum(-1) - sorted_p
    gaps = (p - q).abs().gather(-1, order)
    all_of_it = gaps.sum(-1)
    head = torch.where(before < mu, gaps, 0.0).sum(-1)
    return torch.where(all_of_it > 0, head / all_of_it.clamp_min(torch.finfo(p.dtype).tiny), 0.5)


def _one_sided(log_a: Tensor, log_b: Tensor, power: float) -> Tensor:
    """The limit of `alpha_beta` for one exponent 0: Σ[a^c·log(a^c / b^c) − a^c + b^c] ÷ c²; KL(a ‖ b) for c = 1."""
    a, b = (power * log_a).exp(), (power * log_b).exp()
    return (a * torch.where(a > 0, power * (log_a - log_b), 0.0) - a + b).sum(-1) / power**2


def _inside(loss: str, name: str, value: float, holds: bool, where: str) -> None:
    if not holds:
        raise ValueError(f"{loss}: {name} must be in {where}, and is {value}")
