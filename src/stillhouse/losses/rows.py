"""Passes over [n, V] that a processor makes quickly: for a few rows at a time, which stay in its cache."""

import torch
from torch import Tensor

ROWS = 8
"""Rows on which several passes are made in turn."""
DEPTH = 64
"""Numbers of which `likeliest` looks at the largest first."""


def few_rows(values: Tensor) -> list[slice]:
    """Slices that cover n rows: ROWS at a time, which stay in a processor's cache; an accelerator takes all at once."""
    count = len(values)
    step = ROWS if values.device.type == "cpu" else max(1, count)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def likeliest(logits: Tensor, count: int) -> Tensor:
    """[n, V] -> [n, count], the outcomes with the largest logits, the largest first; of equal first ones the lowest, as argmax.

    Folded into DEPTH lines, the largest lie in the columns with the largest maxima: one pass that a processor makes quickly, and
    a choice among few, instead of a choice among all.
    """
    width = logits.shape[-1] // DEPTH
    if logits.device.type != "cpu" or width <= count:
        values, best = logits.topk(count)
    else:
        lines = torch.arange(DEPTH, device=logits.device).unsqueeze(1) * width
        columns = logits[:, : DEPTH * width].view(-1, DEPTH, width).amax(1).topk(count).indices
        left = torch.arange(DEPTH * width, logits.shape[-1], device=logits.device).expand(len(logits), -1)
        ids = torch.cat([(columns.unsqueeze(1) + lines).flatten(1), left], 1)
        values, places = logits.gather(-1, ids).topk(count)
        best = ids.gather(-1, places)
    if count > 1 and (tied := values[:, 0] == values[:, 1]).any():
        best[tied] = logits[tied].sort(dim=-1, descending=True, stable=True).indices[:, :count]
    return best


def shares_of(logits: Tensor, largest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax of logits [n, V], the sum of its shares [n], and the log of the sum of the logits' exponentials [n].

    torch adds up in single precision one after the other, so that the shares sum to 1 ± 1e-5; taken again, their sum mends both.
    The log is float64: what is left of 1 when probable outcomes are taken away is small.

    Args: largest: [n], where the largest logits are.
    """
    shares, first = torch.softmax(logits, -1), largest.unsqueeze(-1)
    total = shares.sum(-1)
    most, share = (values.gather(-1, first).squeeze(-1).double() for values in (logits, shares))
    log_sum = most - share.log() + total.double().log()
    return shares, total, log_sum
