"""Hard targets: the ground-truth labels or tokens."""

import torch
from torch import Tensor

IGNORED = -100
"""The label of a position that has no hard target (Hugging Face's convention); it costs nothing."""


def hard_cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """−log q(label), with `label_smoothing` of the target spread evenly over all V outcomes.

    Args: student_logits: [N, V]; labels: [N], -100 where there is none.
    Returns: [N], nats; 0 where there is no label.
    """
    log_q = torch.log_softmax(student_logits.float(), dim=-1)
    known = labels != IGNORED
    picked = log_q.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    nats = -picked
    if label_smoothing:
        nats = (1.0 - label_smoothing) * nats - label_smoothing * log_q.mean(-1)
    return torch.where(known, nats, 0.0)


def hard_cross_entropy_gradient(
    student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """`hard_cross_entropy` with its gradient in closed form, softmax(z) − target.

    Returns: ([N] nats, [N, V] gradient on the student's logits).
    """
    log_q = torch.log_softmax(student_logits.float(), dim=-1)
    known = labels != IGNORED
    at = labels.clamp_min(0).unsqueeze(-1)
    nats = -(1.0 - label_smoothing) * log_q.gather(-1, at).squeeze(-1)
    if label_smoothing:
        nats = nats - label_smoothing * log_q.mean(-1)
    gradient = log_q.exp_()
    if label_smoothing:
        gradient -= label_smoothing / gradient.shape[-1]
    gradient.scatter_add_(-1, at, gradient.new_full(at.shape, label_smoothing - 1.0))
    return torch.where(known, nats, 0.0), gradient.mul_(known.unsqueeze(-1))
