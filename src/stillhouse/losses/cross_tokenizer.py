"""Losses between models that do not share a vocabulary.

Legend: q the student's softmax at T over V tokens, p the teacher's at T over W other tokens, both at a place where the
two models have read the same text.  Like all losses here they return nats times T², [N]; those that compare sorted
probabilities return a distance of probabilities in their place, between 0 and 2.
"""

import torch
from torch import Tensor

from .divergences import forward_kl, log_softmax

RANKS = 256
"""Sorted probabilities that are compared one by one; what is less probable is one more outcome on both sides."""


def sorted_distance(
    student_logits: Tensor, teacher_logits: Tensor, *, ranks: int | None = RANKS, temperature: float = 1.0
) -> Tensor:
    """T²·Σ over ranks r of |q_(r) − p_(r)|: how differently sure the two are, whatever the tokens are called.

    Source: Boizard et al. 2024 (ULD), arXiv:2402.12030, equation 5: the Wasserstein distance for a uniform cost.  With
    `ranks` the tails beyond them are compared as one sum, which never gives more than all ranks would.

    Args: student_logits: [N, V]; teacher_logits: [N, W]; ranks: None = all.
    Returns: [N], in [0, 2·T²]; zero iff the sorted probabilities agree.
    """
    q, p = (log_softmax(logits, temperature).exp() for logits in (student_logits, teacher_logits))
    return temperature**2 * _sorted_gap(q, p, ranks)


def shared_and_sorted(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mine: Tensor,
    theirs: Tensor,
    *,
    ranks: int | None = RANKS,
    temperature: float = 1.0,
) -> Tensor:
    """T²·[KL(p ‖ q) on the tokens that both have, with "any other" as one more outcome + the sorted distance of the others].

    Where tokens coincide they are compared by name, and only the rest by rank.  Source of the mixture: the GOLD trainer of
    TRL; of its second half, Boizard et al. 2024, arXiv:2402.12030.  Unlike there, probabilities of the shared tokens are
    not renormalised.

    Args: student_logits: [N, V]; teacher_logits: [N, W]; mine, theirs: [K], ids of the same token on either side.
    Returns: [N]; zero iff shared tokens have the same probabilities and the others the same when sorted.
    """
    log_q, log_p = log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    known = forward_kl(_with_rest(log_q, mine), _with_rest(log_p, theirs))
    others = _sorted_gap(_without(log_q, mine).exp(), _without(log_p, theirs).exp(), ranks)
    return temperature**2 * (known + others)


def mapped_kl(student_logits: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·KL(p ‖ q), p carried over to the student's tokens; what is not carried over is one more outcome.

    Source of carrying probabilities over to the nearest token: Wan et al. 2024 (FuseLLM), arXiv:2401.10491.

    Args: student_logits: [N, V]; ids, log_p: [N, K], the student's token of each of the teacher's K, −1 where there is
        none; several of them may be the same token, whose probability is their sum.
    Returns: [N], nats times T², ≥ 0.
    """
    log_q = log_softmax(student_logits, temperature)
    carried = torch.zeros_like(log_q).scatter_add(-1, ids.clamp_min(0), log_p.exp().masked_fill(ids < 0, 0.0))
    kept = carried > 0
    gaps = torch.where(kept, carried * (carried.clamp_min(_TINY).log() - log_q), 0.0).sum(-1)
    rest_p = (1.0 - carried.sum(-1)).clamp_min(_TINY)
    rest_q = torch.where(kept, 0.0, log_q.exp()).sum(-1).clamp_min(_TINY)
    return temperature**2 * (gaps + rest_p * (rest_p.log() - rest_q.log()))


def span_kl(log_q: Tensor, log_p: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·KL on two outcomes, "this text comes next" and "another one does", however many tokens it takes on either side.

    Args: log_q, log_p: [S], each model's log-probability of the span: the sum over its tokens, taken at T.
    Returns: [S], nats times T², ≥ 0; zero iff both find the span equally probable.
    """
    q, p = (log.float().clamp_max(-_TINY) for log in (log_q, log_p))
    nats = p.exp() * (p - q) - p.expm1() * (_log_of_other(p) - _log_of_other(q))
    return temperature**2 * nats.clamp_min(0.0)


_TINY = torch.finfo(torch.float32).eps


def _log_of_other(log_p: Tensor) -> Tensor:
    """log(1 − exp(log_p))."""
    return (-log_p.expm1()).log()


def _with_rest(log_p: Tensor, ids: Tensor) -> Tensor:
    """[N, V] -> [N, K + 1]: the log-probabilities of `ids`, and of all others together."""
    kept = log_p[:, ids]
    rest = _without(log_p, ids)
    if rest.shape[-1] == 0:
        return kept
    return torch.cat([kept, rest.logsumexp(-1, keepdim=True)], -1)


def _without(log_p: Tensor, ids: Tensor) -> Tensor:
    """[N, V] -> [N, V − K], the outcomes that are not among `ids`."""
    others = torch.ones(log_p.shape[-1], dtype=torch.bool, device=log_p.device)
    others[ids] = False
    return log_p[:, others]


def _sorted_gap(q: Tensor, p: Tensor, ranks: int | None) -> Tensor:
    """[N, A] and [N, B] -> [N], the summed difference of their sorted probabilities; the shorter one ends with zeros."""
    most = max(q.shape[-1], p.shape[-1])
    if most == 0:
        return q.sum(-1)
    kept = most if ranks is None else min(ranks, most)
    top_q, top_p = (_largest(probabilities, kept) for probabilities in (q, p))
    tails = (q.sum(-1) - top_q.sum(-1)) - (p.sum(-1) - top_p.sum(-1))
    gap = (top_q - top_p).abs().sum(-1)
    return gap if kept == most else gap + tails.abs()


def _largest(probabilities: Tensor, kept: int) -> Tensor:
    """[N, A] -> [N, kept], from the most probable on."""
    have = min(kept, probabilities.shape[-1])
    found = probabilities.topk(have, dim=-1).values
    return torch.nn.functional.pad(found, (0, kept - have))
