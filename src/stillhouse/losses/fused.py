"""Head projection and loss in one pass over chunks of positions, so that full logits never exist.

For each chunk: project the hidden states to logits, let every term say its nats and its gradient on them, and fold that
gradient at once into the gradients of the hidden states and of the head.  Three matrix products in all, which is the
floor for any training step, and nothing is computed twice; memory is one chunk of logits instead of all.

Closed-form and autograd terms take the same path; those whose gradient is nearly a softmax share one (see `parts`).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .parts import DenseTerm, SoftmaxTerm, fold
from .reduction import share, total_mean

CHUNK_BYTES, CHUNK_ROWS = 64 * 2**20, 256
"""Of float32 logits in one chunk on a processor, and the rows that it has at least: large enough for nearly full speed of the
products, small against any model."""
LEAST_BYTES, MOST_BYTES = 8 * 2**20, 2**30
"""Of a chunk on a small machine, and on an accelerator, whose products want more rows than a processor's."""
MEMORY_SHARE = 1 / 64
"""Of a device's memory that a chunk may take; a loss by autograd holds about five of that size."""
BLOCKS, BLOCK_ROWS = 2, 32
"""A teacher's logits beside the student's are made for half a chunk at a time, but at least for so many rows: the student's
three products want large chunks more than the teacher's one does (a quarter costs it a third of its speed, a half a tenth)."""

ADDED_ROWS = 4096
"""Of a gradient in bfloat16, widened at a time."""

ValueAndGradient = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""(logits [n, V], which of the N positions they are) -> (nats [n], gradient on the logits [n, V])."""

Term = SoftmaxTerm | DenseTerm | ValueAndGradient
"""What plugs in: a loss whose gradient is nearly a softmax, or any other."""


@dataclass(frozen=True)
class Head:
    """The last step of a model, from hidden states to logits over the tokenizer's real vocabulary.

    Rows of `weight` beyond `vocabulary` are padding, made for the hardware, and take part in nothing.
    """

    weight: Tensor | None
    """[V or more, H]; None if the hidden states already are the logits."""
    bias: Tensor | None = None
    """[V or more]."""
    vocabulary: int | None = None
    """Real outcomes; None = all rows of the weight."""
    scale: float = 1.0
    """Factor on the logits (Cohere, Granite)."""
    softcap: float | None = None
    """c·tanh(logits / c), after the scale (Gemma 2)."""

    @property
    def width(self) -> int:
        """H of the hidden states that it takes; of a head without a weight, the outcomes that it is told of."""
        assert self.weight is not None or self.vocabulary is not None
        return int(self.vocabulary or 0) if self.weight is None else self.weight.shape[-1]

    def outcomes(self, hidden: Tensor) -> int:
        """V: real outcomes of this head on such hidden states."""
        return self.vocabulary or (hidden.shape[-1] if self.weight is None else self.weight.shape[0])

    def detached(self) -> "Head":
        """The same head without gradients."""
        weight = None if self.weight is None else self.weight.detach()
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.detach())

    def at(self, temperature: Any) -> "Head":
        """The head whose logits are divided by `temperature` next: itself, but for one that pools several at it."""
        return self

    def float(self, hidden: Tensor) -> "Head":
        """The same head with float32 weights, of the real vocabulary only; converted once instead of for each chunk.

        Weights whose products with such hidden states come as float32 anyway stay as they are.
        """
        if self.weight is None:
            return self
        weight = self.weight[: self.vocabulary]
        bias = None if self.bias is None else self.bias[: self.vocabulary].float()
        wide = weight.dtype == hidden.dtype and sums_wide(weight, weight.dtype)
        return replace(self, weight=weight if wide else weight.float(), bias=bias)

    def logits(self, hidden: Tensor, dtype: torch.dtype | None = None, room: Tensor | None = None) -> Tensor:
        """[n, H] -> [n, V], float32, a new tensor, or `room`; `dtype` is the arithmetic of the product."""
        if self.weight is None:
            logits = hidden[:, : self.vocabulary]
            return logits.to(torch.float32, copy=True) if room is None else room.copy_(logits)
        weight = self.weight[: self.vocabulary]
        dtype = dtype or arithmetic(weight)
        own = weight.dtype if dtype == torch.float32 and weight.dtype == hidden.dtype else dtype
        learns = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
        wide = sums_wide(hidden, own) and not learns  # such a product has no gradient in torch
        factors = hidden.to(own if wide else dtype), weight.to(own if wide else dtype).T
        with torch.autocast(hidden.device.type, enabled=False):  # or a float32 product would not be one
            if wide:
                logits = torch.mm(*factors, torch.float32, **({} if room is None else {"out": room}))
            elif room is None:
                logits = torch.mm(*factors).float()
            elif dtype == torch.float32:
                logits = torch.mm(*factors, out=room)
            else:
                logits = room.copy_(torch.mm(*factors))
        if self.bias is not None:
            logits.add_(self.bias[: self.vocabulary].float())
        logits = logits.mul_(self.scale) if self.scale != 1.0 else logits
        return logits.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else logits


def arithmetic(weight: Tensor) -> torch.dtype:
    """What autocast multiplies in, where it is on; else the weight's own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def sums_wide(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether products of this kind can be had as the float32 that they are added up in: as exact as widening both sides
    first, at many times the speed."""
    return dtype in (torch.bfloat16, torch.float16) and values.is_cuda and _writes_wide(values.device)


@cache
def _writes_wide(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


def by_autograd(loss: Callable[[Tensor, slice], Tensor]) -> ValueAndGradient:
    """Any differentiable loss (logits [n, V], positions) -> nats [n], as a term of `fused_loss`."""

    def value_and_gradient(logits: Tensor, positions: slice) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            nats = loss(leaf, positions)
            (gradient,) = torch.autograd.grad(nats.sum(), leaf)
        return nats.detach(), gradient.contiguous()  # a gradient of equal numbers may be one number, expanded

    return value_and_gradient


def fused_loss(
    hidden: Tensor,
    head: Head,
    terms: Sequence[tuple[float, Term]],
    total: Tensor | float,
    dtype: torch.dtype | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Σ weight·nats over all terms and positions ÷ `total`, without full logits.

    Args:
        hidden: [N, H], the counted positions only.
        head: of the student.
        terms: (weight, term) each.
        total: counted positions of the whole optimiser step (see `reduction.total_mean`).
        dtype: arithmetic of the three products, but not float16, in which gradients ÷ `total` underflow; None = autocast's, or
            the weight's.
        positions: [N], a factor on the nats of each position, in all terms; None = 1.  `total` counts positions, whatever
            they weigh.

    Returns: (scalar with gradients into `hidden` and the head, [terms] sums of nats ÷ total, detached, without the terms' weights).
    """
    apply: Any = _Fused.apply
    loss, parts = apply(hidden, head.weight, head.bias, head, tuple(terms), float(total), dtype, positions)
    return loss, parts


def chunks(positions: int, outcomes: int, device: torch.device) -> list[slice]:
    """Slices of like size that cover `positions`, each of at most 1.1 times `chunk_bytes` of float32 logits.

    None is what was left over, for each reads and writes the whole head once more.
    """
    most = max(1, int(1.1 * chunk_bytes(outcomes, device)) // (4 * outcomes))
    return _evenly(slice(0, positions), -(-positions // most))


def chunk_bytes(outcomes: int, device: torch.device) -> int:
    """Bytes of float32 logits in one chunk on this device."""
    share = int(memory_of(device) * MEMORY_SHARE)
    if device.type == "cpu":
        return min(max(share, LEAST_BYTES), max(CHUNK_BYTES, 4 * outcomes * CHUNK_ROWS))
    return min(max(share, CHUNK_BYTES), MOST_BYTES)


@cache
def memory_of(device: torch.device) -> int:
    """Bytes that the device has in all.

    Not what is free of them: that changes from moment to moment, chunks of another size round otherwise, and a run that goes on
    must do so bit for bit.
    """
    if device.type in ("cuda", "xpu"):
        return torch.accelerator.get_memory_info(device)[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def blocks(chunk: slice) -> list[slice]:
    """Slices of like size that cover a chunk, in which the terms read it beside a teacher."""
    size = chunk.stop - chunk.start
    return _evenly(chunk, -(-size // max(BLOCK_ROWS, -(-size // BLOCKS))))


def _evenly(whole: slice, count: int) -> list[slice]:
    size = whole.stop - whole.start
    edges = [whole.start + size * number // max(1, count) for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


class _Fused(torch.autograd.Function):
    """Both directions of `fused_loss`: gradients are ready when the loss is, and backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        head: Head,
        terms: tuple[tuple[float, Term], ...],
        total: float,
        dtype: torch.dtype | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        wants = ctx.needs_input_grad
        head = replace(head, weight=weight, bias=bias).detached()
        outcomes = head.outcomes(hidden)
        dtype = dtype or (None if weight is None else arithmetic(weight))
        cast = None if weight is None else weight.detach()[:outcomes].to(dtype)
        slim = replace(head, weight=cast, bias=None if bias is None else bias[:outcomes], vocabulary=outcomes)
        d_hidden = torch.zeros_like(hidden) if wants[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if weight is not None and wants[1] else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wants[2] else None
        parts = hidden.new_zeros(len(terms), dtype=torch.float32)
        beside = any(not isinstance(term, SoftmaxTerm) for _, term in terms) and weight is not None
        pieces = chunks(hidden.shape[0], outcomes, hidden.device) if terms else []
        # one room for all chunks: a new one each time costs a processor as much as a tenth of the products, in page faults
        room = hidden.new_empty(
            max((at.stop - at.start for at in pieces), default=0), outcomes, dtype=torch.float32
        )
        for positions in pieces:
            logits = slim.logits(hidden[positions], dtype, room[: positions.stop - positions.start])
            bend = 1.0 - (logits / slim.softcap).square() if slim.softcap else None
            for block in blocks(positions) if beside else [positions]:
                own = logits[block.start - positions.start : block.stop - positions.start]
                d_own = _terms(own, block, terms, total, parts, weights)
                if d_own is not own:
                    own.copy_(d_own)
                del d_own  # or the next one would lie beside it
            if bend is not None:
                logits.mul_(bend)
            if slim.scale != 1.0:
                logits.mul_(slim.scale)
            _fold(logits, hidden[positions], cast, positions, d_hidden, d_weight, d_bias)
            del own, bend
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.dtypes = (
            hidden.dtype,
            None if weight is None else weight.dtype,
            None if bias is None else bias.dtype,
        )
        loss = sum(
            (factor * part for (factor, _), part in zip(terms, parts, strict=True)),
            hidden.new_zeros(()).float(),
        )
        ctx.mark_non_differentiable(parts)
        return loss, parts

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        whole = d_loss.device.type == "cpu" and float(d_loss) == 1.0
        scaled = [
            None if saved is None else (saved if whole else saved.mul(d_loss)).to(kind)
            for saved, kind in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None, None, None, None)


def _terms(
    logits: Tensor,
    positions: slice,
    terms: tuple[tuple[float, Term], ...],
    total: float,
    sums: Tensor,
    weights: Tensor | None,
) -> Tensor:
    """All terms on one chunk: adds their nats to `sums`; returns the gradient on the logits, which it overwrites."""
    d_logits: Tensor | None = None
    weigh = None if weights is None else weights[positions].float()

    def summed(nats: Tensor) -> Tensor:
        return total_mean(nats if weigh is None else nats * weigh, total)

    shared: dict[float, list[int]] = {}
    for number, (factor, term) in enumerate(terms):
        if isinstance(term, (SoftmaxTerm, DenseTerm)):
            shared.setdefault(term.temperature, []).append(number)
            continue
        nats, dense = term(logits, positions)
        sums[number] += summed(nats)
        dense.mul_(factor * share(total))
        d_logits = dense if d_logits is None else d_logits.add_(dense)
    for left, (temperature, numbers) in zip(range(len(shared) - 1, -1, -1), shared.items(), strict=True):
        own = logits if left == 0 else logits.clone()  # the last one may write over them
        group = [(terms[number][0] * share(total), terms[number][1]) for number in numbers]
        folded, each = fold(own, temperature, group, positions)  # type: ignore[arg-type]
        for number, nats in zip(numbers, each, strict=True):
            sums[number] += summed(nats)
        d_logits = folded if d_logits is None else d_logits.add_(folded)
    assert d_logits is not None
    return d_logits if weigh is None else d_logits.mul_(weigh.unsqueeze(-1))


def _fold(
    d_logits: Tensor,
    hidden: Tensor,
    weight: Tensor | None,
    positions: slice,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
    d_bias: Tensor | None,
) -> None:
    """One chunk's gradient on the logits into the gradients of what made them, in place."""
    outcomes = d_logits.shape[-1]
    if d_bias is not None:
        d_bias[:outcomes] += d_logits.sum(0)
    if weight is None:
        if d_hidden is not None:
            d_hidden[positions, :outcomes] = d_logits.to(d_hidden.dtype)
        return
    with torch.autocast(weight.device.type, enabled=False):
        slim, states = d_logits.to(weight.dtype), hidden.to(weight.dtype)
        if d_hidden is not None:
            d_hidden[positions] = (slim @ weight).to(d_hidden.dtype)
        if d_weight is not None and weight.dtype == d_weight.dtype:
            d_weight[:outcomes].addmm_(slim.T, states)
        elif d_weight is not None and sums_wide(slim, slim.dtype):
            sums = d_weight[:outcomes]
            torch.addmm(sums, slim.T, states, torch.float32, out=sums)
        elif d_weight is not None:  # sums of many chunks stay float32
            _add(d_weight[:outcomes], slim.T @ states)


def _add(total: Tensor, more: Tensor) -> None:
    """Adds [V, H] of another kind, on a processor a few rows at a time: adding two kinds at once is five times as slow there."""
    step = ADDED_ROWS if total.device.type == "cpu" else len(total)
    for rows, others in zip(torch.split(total, step), torch.split(more, step), strict=True):
        rows += others.float() if total.device.type == "cpu" else others
