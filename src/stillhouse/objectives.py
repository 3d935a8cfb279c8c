"""The terms of an objective, for Python: `from stillhouse import objectives as kd`.

    objective=[kd.hard(0.2), kd.forward_kl(0.8, temperature=2.0)]

What they return is what a recipe's `objective:` holds; each loss is in `stillhouse.losses`.
"""

from .recipe import ForwardKL, Hard


def hard(weight: float = 1.0, *, label_smoothing: float = 0.0) -> Hard:
    """Cross-entropy on the hard targets, in nats; see `losses.hard_cross_entropy`."""
    return Hard(weight=weight, label_smoothing=label_smoothing)


def forward_kl(weight: float = 1.0, *, temperature: float = 1.0) -> ForwardKL:
    """T²·KL(teacher/T ‖ student/T), in nats times T²; see `losses.forward_kl` and, for kept targets, `losses.forward_kl_topk`.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """
    return ForwardKL(weight=weight, temperature=temperature)


__all__ = ["forward_kl", "hard"]
