"""Divergences against targets of which only some outcomes were kept.

The K most probable outcomes keep their probabilities under the teacher's *whole* distribution, and all the others
together are one more outcome, the tail.  Renormalising the K instead would teach over-confidence: the student would
learn that what was not kept cannot happen.
"""

import torch
from torch import Tensor

from .parts import Parts


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

    `log_p` must have been taken at the same temperature: another one cannot be recovered from a truncated
    distribution.  By the data-processing inequality the result never exceeds the KL on all outcomes, and equals it
    when all are kept.

    Args: student_logits: [N, V]; ids, log_p: [N, K], distinct ids in each row.
    Returns: [N], nats times T², >= 0 (to the rounding of the kept probabilities).
    """
    log_q = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    return forward_kl_topk_parts(log_q, ids, log_p, temperature=temperature).nats


def forward_kl_topk_parts(
    log_q_all: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0
) -> Parts:
    """`forward_kl_topk` with its gradient in closed form, given the student's log-probabilities at T, [N, V].

    With q the student's softmax, and p_t, q_t the tails: d/dz = T·(q − p) on the kept outcomes and T·q·(1 − p_t/q_t) on
    the others: the tail's target is spread over them in the student's own proportions.
    """
    log_q, log_p = log_q_all.gather(-1, ids), log_p.float()
    p, p_tail, q_tail = _tails(log_p, log_q, log_q_all.shape[-1])
    kept = (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1)
    tail = torch.where(
        p_tail > 0, p_tail * (p_tail.clamp_min(_TINY).log() - q_tail.clamp_min(_TINY).log()), 0.0
    )
    ratio = p_tail / q_tail.clamp_min(_TINY)
    return Parts(
        nats=temperature**2 * (kept + tail),
        share=temperature * (1.0 - ratio),
        ids=ids,
        extra=temperature * (log_q.exp() * ratio.unsqueeze(-1) - p),
    )


_TINY = torch.finfo(torch.float32).eps
"""Below this, a tail is rounding: 1 − Σp is not known more exactly in float32."""


def _tails(log_p: Tensor, log_q: Tensor, outcomes: int) -> tuple[Tensor, Tensor, Tensor]:
    """(p [N, K], the teacher's tail [N], the student's tail [N]); no tail where every outcome was kept."""
    p = log_p.exp()
    if log_p.shape[-1] >= outcomes:
        zero = p.new_zeros(p.shape[:-1])
        return p, zero, zero
    return p, (1.0 - p.sum(-1)).clamp_min(0.0), (1.0 - log_q.exp().sum(-1)).clamp_min(0.0)
