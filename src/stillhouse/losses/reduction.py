"""The only reduction in the package."""

from torch import Tensor


def total_mean(nats_N: Tensor, total: Tensor | float) -> Tensor:
    """Sum over this micro-batch's positions, divided by the counted positions of the *whole optimiser step*.

    `total` counts over all micro-batches and all ranks.  Dividing by the micro-batch's own count instead makes a short
    micro-batch weigh as much as a long one, and the gradient depend on how the step was cut.

    Returns: scalar; 0 for N = 0.
    """
    return nats_N.sum() / max(float(total), 1.0)
