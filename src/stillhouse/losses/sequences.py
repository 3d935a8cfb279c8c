"""Sequences: the ground-truth labels or tokens, and what the student wrote itself."""

import torch
from torch import Tensor

from .divergences import log_softmax
from .parts import LogQ, Parts

IGNORED = -100
"""The label of a position that has no hard target (Hugging Face's convention); it costs nothing."""


def hard_cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """−log q(label), with `label_smoothing` of the target spread evenly over all V outcomes.

    Args: student_logits: [N, V]; labels: [N], -100 where there is none.
    Returns: [N], nats; 0 where there is no label.
    """
    log_q = log_softmax(student_logits)
    at = LogQ.of(log_q, labels.clamp_min(0).unsqueeze(-1))
    return hard_cross_entropy_parts(at, labels, label_smoothing=label_smoothing).nats


def hard_cross_entropy_parts(log_q: LogQ, labels: Tensor, *, label_smoothing: float = 0.0) -> Parts:
    """`hard_cross_entropy` with its gradient softmax(z) − target, given the student's log-probabilities at them."""
    known = labels != IGNORED
    nats = -(1.0 - label_smoothing) * log_q.picked.squeeze(-1)
    if label_smoothing:
        assert log_q.mean is not None
        nats = nats - label_smoothing * log_q.mean
    counts = known.to(nats.dtype)
    return Parts(
        nats=torch.where(known, nats, 0.0),
        share=counts,
        extra=(label_smoothing - 1.0) * counts.unsqueeze(-1),
        even=-label_smoothing / log_q.outcomes * counts if label_smoothing else None,
    )


def policy_gradient_parts(reward: Tensor, later: Tensor) -> Parts:
    """Reverse KL estimated from the tokens that the student drew, with the gradient −later·∇ log q(token).

    The value is −reward = log q − log p, whose mean over draws is KL(student ‖ teacher).  `later` holds no gradient: it
    is what the teacher made of the token and of all that followed, averaged, so that long answers do not outweigh short
    ones.  Unbiased for tokens drawn at temperature 1 from the whole distribution.
    Source: Gu et al. 2023 (MiniLLM), arXiv:2306.08543, section 2.2.

    Args: reward, later: [N], of the tokens drawn, which are the term's outcomes.
    """
    return Parts(nats=-reward, share=later, extra=-later.unsqueeze(-1))
