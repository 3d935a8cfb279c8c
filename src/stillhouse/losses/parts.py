"""A loss whose gradient on the logits is a multiple of the student's softmax and little else.

Cross-entropy and the divergences from few outcomes are of this kind.  Terms that share a temperature then share one
softmax, and their gradients are folded into it in place: a few passes over [n, V] for all of them together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Parts:
    """d nats / d logits = share·softmax(z/T) + extra at ids + even everywhere."""

    nats: Tensor
    """[n]"""
    share: Tensor
    """[n]"""
    ids: Tensor
    """[n, K]"""
    extra: Tensor
    """[n, K], added to the outcomes `ids`."""
    even: Tensor | None = None
    """[n], added to all outcomes."""


@dataclass(frozen=True)
class SoftmaxTerm:
    """Such a loss as a term of `fused_loss`."""

    temperature: float
    parts: Callable[[Tensor, slice], Parts]
    """(the student's log-probabilities at `temperature` [n, V], which positions they are) -> Parts."""


def gradient(softmax: Tensor, parts: list[tuple[float, Parts]]) -> Tensor:
    """Σ factor·(d nats / d logits), written over `softmax` [n, V]."""
    softmax.mul_(sum(factor * part.share for factor, part in parts).unsqueeze(-1))  # type: ignore[union-attr]
    for factor, part in parts:
        softmax.scatter_add_(-1, part.ids, factor * part.extra)
        if part.even is not None:
            softmax.add_(factor * part.even.unsqueeze(-1))
    return softmax
