"""Divergences between the teacher's and the student's distributions, on full logits."""

import torch
from torch import Tensor


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T²·KL(teacher/T ‖ student/T).  Source: Hinton et al. 2015, arXiv:1503.02531.

    Zero iff the distributions agree.  Outcomes to which the teacher gives no mass (logit −inf) count nothing, whatever
    the student says; the result is +inf where the student excludes what the teacher does not.

    Args: student_logits, teacher_logits: [N, V].
    Returns: [N], nats times T².
    """
    log_q = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    log_p = torch.log_softmax(teacher_logits.float() / temperature, dim=-1)
    p = log_p.exp()
    return temperature**2 * (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1)


def forward_kl_gradient(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`forward_kl` with its gradient in closed form, d/dz = T·(softmax(z/T) − p): half the passes of autograd.

    Returns: ([N] nats, [N, V] gradient on the student's logits).
    """
    log_q = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    log_p = torch.log_softmax(teacher_logits.float() / temperature, dim=-1)
    p = log_p.exp()
    nats = temperature**2 * (p * torch.where(p > 0, log_p - log_q, 0.0)).sum(-1)
    return nats, log_q.exp_().sub_(p).mul_(temperature)
