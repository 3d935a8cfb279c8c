"""The passes of `passes` over logits on an accelerator, each in one kernel: a step through a narrow head is bound by them.

`look` reads the student's logits and a teacher's once and writes nothing but a few numbers a row; `write` reads them once
more and leaves the gradient in the place of the student's.  In torch's own operations the same takes some twenty passes.

Source: sums over exponentials in one pass, Milakov and Gimelshein 2018, arXiv:1805.02867.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDTH, WARPS = 2048, 8
"""Outcomes of a row that one program holds at a time, and its warps (on an H100 half and twice as many make no difference)."""
LOWEST = tl.constexpr(-1e38)
"""Below any logit but −inf: where a row's largest is sought from, so that −inf less it is −inf and not undefined."""


@triton.jit
def _look(
    logits, theirs, log_sum, mean, apart, log_sum_theirs, outcomes, row, row_theirs, cooled,
    COMPARED: tl.constexpr, MEAN: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One row: log Σ exp z, and with a teacher log Σ exp t and Σ p·(t − z), each lane of its own until the end."""
    at = tl.program_id(0).to(tl.int64)
    most = tl.full([WIDTH], LOWEST, tl.float32)
    total = tl.zeros([WIDTH], tl.float32)
    most_theirs = tl.full([WIDTH], LOWEST, tl.float32)
    total_theirs = tl.zeros([WIDTH], tl.float32)
    weighed = tl.zeros([WIDTH], tl.float32)
    summed = tl.zeros([WIDTH], tl.float32)
    for start in range(0, outcomes, WIDTH):
        lanes = start + tl.arange(0, WIDTH)
        here = lanes < outcomes
        z = tl.load(logits + at * row + lanes, here, float("-inf")) * cooled
        larger = tl.maximum(most, z)
        total = total * tl.exp(most - larger) + tl.exp(z - larger)
        most = larger
        if MEAN:
            summed += tl.where(here, z, 0.0)
        if COMPARED:
            t = tl.load(theirs + at * row_theirs + lanes, here, float("-inf")) * cooled
            larger = tl.maximum(most_theirs, t)
            shrunk, share = tl.exp(most_theirs - larger), tl.exp(t - larger)
            total_theirs = total_theirs * shrunk + share
            # outcomes of which nothing is left count nothing, not 0·(−inf)
            weighed = tl.where(shrunk > 0.0, weighed * shrunk, 0.0) + tl.where(
                share > 0.0, share * (t - z), 0.0
            )
            most_theirs = larger
    largest = tl.max(most, 0)
    tl.store(log_sum + at, largest + tl.log(tl.sum(total * tl.exp(most - largest), 0)))
    if MEAN:
        tl.store(mean + at, tl.sum(summed, 0) / outcomes)
    if COMPARED:
        largest = tl.max(most_theirs, 0)
        shrunk = tl.exp(most_theirs - largest)
        whole = tl.sum(total_theirs * shrunk, 0)
        log_whole = largest + tl.log(whole)
        weighed = tl.where(shrunk > 0.0, weighed * shrunk, 0.0)
        tl.store(apart + at, tl.sum(weighed, 0) / whole - log_whole)
        tl.store(log_sum_theirs + at, log_whole)


@triton.jit
def _write(
    logits, theirs, log_sum, log_sum_theirs, share, outcomes, row, row_theirs, cooled, factor,
    SOFTMAX: tl.constexpr, COMPARED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """A piece of one row: share·softmax z (or, without SOFTMAX, what is there) − factor·softmax t, in the place of z."""
    at = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = lanes < outcomes
    value = tl.load(logits + at * row + lanes, here, 0.0)
    if SOFTMAX:
        value = tl.load(share + at) * tl.exp(value * cooled - tl.load(log_sum + at))
    if COMPARED:
        t = tl.load(theirs + at * row_theirs + lanes, here, 0.0)
        value -= factor * tl.exp(t * cooled - tl.load(log_sum_theirs + at))
    tl.store(logits + at * row + lanes, value, here)


def look(
    logits: Tensor, temperature: float, theirs: Sequence[Tensor], mean: bool
) -> tuple[Tensor, Tensor | None, list[tuple[Tensor, Tensor]]]:
    """See `passes.look`; what `write` wants of a teacher is the log-sum of its exponentials, and nothing is overwritten."""
    rows, outcomes = logits.shape
    log_sum, average = logits.new_empty(rows), logits.new_empty(rows)
    compared = []
    for t in theirs or [logits]:
        apart, own = logits.new_empty(rows), logits.new_empty(rows)
        _launch(
            _look, (rows,), logits, t, log_sum, average, apart, own, outcomes, logits.stride(0), t.stride(0),
            1.0 / temperature, COMPARED=bool(theirs), MEAN=mean,
        )  # fmt: skip
        compared.append((apart, own))
    return log_sum, average if mean else None, compared if theirs else []


def write(
    logits: Tensor,
    temperature: float,
    log_sum: Tensor,
    share: Tensor,
    theirs: Sequence[tuple[float, Tensor, Tensor]],
) -> None:
    """See `passes.write`."""
    rows, outcomes = logits.shape
    for number, (factor, t, own) in enumerate(theirs or [(0.0, logits, log_sum)]):
        _launch(
            _write, (rows, triton.cdiv(outcomes, WIDTH)), logits, t, log_sum, own, share, outcomes, logits.stride(0),
            t.stride(0), 1.0 / temperature, factor, SOFTMAX=number == 0, COMPARED=bool(theirs),
        )  # fmt: skip


def _launch(kernel: Any, grid: tuple[int, ...], logits: Tensor, *values: Any, **shape: bool) -> None:
    if grid[0]:
        with torch.cuda.device_of(logits):
            kernel[grid](logits, *values, WIDTH=WIDTH, num_warps=WARPS, **shape)
