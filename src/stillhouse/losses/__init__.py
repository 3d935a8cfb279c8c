"""Losses: tensors in, nats per position out.  Knows torch, and neither transformers nor recipes.

Shapes: N counted positions (tokens of a language model, or rows of a classifier), V outcomes (the tokenizer's real
vocabulary, or the classes), K outcomes kept of V.  Logits are raw, before any softmax.  Every loss returns *nats per
position*, [N]; nothing here masks or averages but `reduction.total_mean`, the only reduction in the package.

Temperature means the same everywhere (Hinton et al. 2015, arXiv:1503.02531): both sides' logits are divided by T inside
the loss, and the loss is multiplied by T², so that its gradient keeps its size when T changes.
"""

from .divergences import (
    adaptive_kl,
    alpha_beta,
    forward_kl,
    js,
    log_softmax,
    reverse_kl,
    skew_forward_kl,
    skew_reverse_kl,
    total_variation,
)
from .fused import Head, fused_loss
from .reduction import total_mean
from .sequences import hard_cross_entropy
from .sparse import divergence_topk, draw_sampled, forward_kl_sampled, forward_kl_topk, topk_log_probs

__all__ = [
    "Head", "adaptive_kl", "alpha_beta", "divergence_topk", "draw_sampled", "forward_kl", "forward_kl_sampled", "forward_kl_topk",
    "fused_loss", "hard_cross_entropy", "js", "log_softmax", "reverse_kl", "skew_forward_kl", "skew_reverse_kl", "topk_log_probs",
    "total_mean", "total_variation",
]  # fmt: skip
