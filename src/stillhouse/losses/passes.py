"""The passes over [n, V] that losses made of softmaxes take: first `look`, then `write`.

By torch's operations, a few rows at a time where that is quicker; on an accelerator by kernels of two passes (`kernels`).
What lies in the logits between the two is for `write` alone.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .rows import few_rows


def look(
    logits: Tensor, temperature: float, theirs: Sequence[Tensor], mean: bool = False
) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, Tensor]]]:
    """What losses want to know of logits z/T, and of each teacher's t/T.  May overwrite them all.

    Args:
        logits: [n, V] float32.
        theirs: [n, V] float32 each.
        mean: whether the student's mean is wanted.
    Returns:
        (log Σ exp z/T [n], their mean [n] or None, each teacher's (KL(p ‖ q) less the student's log-sum [n], what `write`
        wants of it)).
    """
    if has_kernels(logits):
        from . import kernels

        return kernels.look(logits, temperature, theirs, mean)
    if temperature != 1.0:
        logits.div_(temperature)
    average = logits.mean(-1) if mean else None
    compared = [_compared(logits, t, temperature) for t in theirs]
    return softmax_in_place(logits), average, compared


def write(
    logits: Tensor,
    temperature: float,
    log_sum: Tensor,
    share: Tensor,
    theirs: Sequence[tuple[float, Tensor, Tensor]],
) -> None:
    """share·softmax(z/T) − Σ factor·softmax(t/T), in the place of the logits that `look` saw.

    Args:
        log_sum: [n], from `look`.
        share: [n]
        theirs: (factor, the teacher's logits as `look` left them, what it said that this wants of it) each.
    """
    if has_kernels(logits):
        from . import kernels

        return kernels.write(logits, temperature, log_sum, share, theirs)
    logits.mul_(share.unsqueeze(-1))
    for factor, p, _ in theirs:
        logits.sub_(p, alpha=factor)


def has_kernels(logits: Tensor) -> bool:
    """Whether kernels make these passes."""
    return logits.is_cuda and logits.dtype == torch.float32 and _compile(logits.device)


@cache
def _compile(device: torch.device) -> bool:
    """Whether kernels can be made there, tried once: Triton comes with torch's builds for CUDA, but wants a C compiler and
    Python's headers, and not any device will do."""
    if find_spec("triton") is None:
        return False
    try:
        from . import kernels

        one = torch.zeros(1, 1, device=device)
        log_sum, _, ((_, left),) = kernels.look(one, 1.0, [one], mean=False)
        kernels.write(one, 1.0, log_sum, log_sum, [(1.0, one, left)])
    except Exception as error:  # whatever a compiler says
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(
            f"losses take torch's slower operations, for Triton's kernels cannot be compiled here ({said}); a C compiler and "
            "Python's headers (python3-dev) may be missing.",
            stacklevel=2,
        )
        return False
    return True


def softmax_in_place(logits: Tensor) -> Tensor:
    """Overwrites `logits` [n, V] with their softmax.  Returns: [n], the log of the sum of their exponentials."""
    largest = logits.amax(-1)
    torch.softmax(logits, -1, out=logits)
    return largest - logits.amax(-1).log()


def _compared(logits: Tensor, theirs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) less the student's log-sum, [n]: Σ p·(t − z) − log Σ exp t, and p [n, V], in the place of the teacher's logits.

    The difference t − z is taken before it is weighed, so that nothing cancels where the two are alike.
    """
    if temperature != 1.0:
        theirs.div_(temperature)
    values = []
    for some in few_rows(theirs):
        t, z = theirs[some], logits[some]
        largest = t.amax(-1)
        p = torch.softmax(t, -1)
        log_sum = largest - p.amax(-1).log()
        apart = t.sub_(z)
        # outcomes that the teacher excludes count nothing, not 0·(−inf); a processor looks first, for the mask costs more
        # than the product, and an accelerator does not, for looking would wait for it
        weighed = (p * apart).sum(-1) if logits.device.type == "cpu" else None
        if weighed is None or not weighed.isfinite().all():
            weighed = (p * torch.where(p > 0, apart, 0.0)).sum(-1)
        values.append(weighed - log_sum)
        t.copy_(p)
    return torch.cat(values) if values else theirs.new_zeros(0), theirs
