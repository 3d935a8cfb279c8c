"""The closed-form gradients of `losses.parts`, written out for one loss alone."""

import torch
from torch import Tensor

from stillhouse.losses import forward_kl
from stillhouse.losses.parts import Parts, gradient
from stillhouse.losses.sequences import hard_cross_entropy_parts
from stillhouse.losses.sparse import divergence_topk_parts


def _written_out(log_q: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    return parts.nats, gradient(log_q.exp(), [(1.0, parts)])


def hard_cross_entropy_gradient(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    log_q = torch.log_softmax(logits.float(), -1)
    return _written_out(log_q, hard_cross_entropy_parts(log_q, labels, label_smoothing=label_smoothing))


def forward_kl_topk_gradient(
    logits: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    log_q = torch.log_softmax(logits.float() / temperature, -1)
    return _written_out(log_q, divergence_topk_parts(log_q, ids, log_p, forward_kl, temperature=temperature))
