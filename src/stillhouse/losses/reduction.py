"""The only reduction in the package."""

from torch import Tensor


def total_mean(nats_N: Tensor, total: Tensor | float) -> Tensor:
    """Sum over this micro-batch's positions, divided by the counted positions of the *whole optimiser step*.

    `total` counts over all micro-batches and all ranks.  Dividing by the micro-batch's own count instead makes a short
    micro-batch weigh as much as a long one, and the gradient depend on how the step was cut.

    Returns: scalar; 0 for N = 0.
    """
    return nats_N.sum() * share(total)


def share(total: Tensor | float) -> float:
    """What one counted position weighs in the step; the gradient of `total_mean`.  1 if none counts."""
    return 1.0 / max(float(total), 1.0)
