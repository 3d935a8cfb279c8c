"""Losses whose gradient on the logits is made of the student's softmax and little else.

Cross-entropy and divergences from few outcomes are a multiple of the softmax plus something at some outcomes; the forward
KL from all outcomes is a multiple of the softmax less the teacher's.  Terms that share a temperature therefore share one
softmax, written over the logits, and their gradients are folded into it: a few passes over [n, V] for all together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import few_rows


@dataclass(frozen=True)
class LogQ:
    """What a term may know of the student's log-probabilities: enough for its value, without [n, V] of them."""

    picked: Tensor
    """[n, K], at the term's outcomes."""
    mean: Tensor | None
    """[n], over all outcomes, for a term that is `whole`."""
    outcomes: int
    """V"""

    @classmethod
    def of(cls, log_q: Tensor, ids: Tensor) -> "LogQ":
        """From all log-probabilities [n, V]."""
        return cls(log_q.gather(-1, ids), log_q.mean(-1), log_q.shape[-1])


@dataclass(frozen=True)
class Parts:
    """d nats / d logits = share·softmax(z/T) + extra at ids + even everywhere."""

    nats: Tensor
    """[n]"""
    share: Tensor
    """[n]"""
    extra: Tensor
    """[n, K], added to the term's outcomes."""
    even: Tensor | None = None
    """[n], added to all outcomes."""


@dataclass(frozen=True)
class SoftmaxTerm:
    """A loss that looks at K outcomes of each position, as a term of `fused_loss`."""

    temperature: float
    ids: Callable[[slice], Tensor]
    """Which positions -> [n, K]."""
    parts: Callable[[LogQ, slice], Parts]
    """(the student's log-probabilities at `temperature`, which positions they are) -> Parts."""
    whole: bool = False
    """Whether it needs the mean over all outcomes."""


@dataclass(frozen=True)
class DenseTerm:
    """T²·KL(p ‖ q) from all outcomes, as a term of `fused_loss`: the formula of `divergences.forward_kl`."""

    temperature: float
    teacher: Callable[[slice], Tensor]
    """Which positions -> the teacher's logits [n, V], a tensor that may be overwritten."""


def fold(
    logits: Tensor, temperature: float, terms: Sequence[tuple[float, SoftmaxTerm | DenseTerm]], at: slice
) -> tuple[Tensor, list[Tensor]]:
    """All terms of one temperature on one chunk.  Overwrites `logits` [n, V].

    Args: terms: (factor, term) each.
    Returns: (Σ factor·(d nats / d logits), in the place of `logits`; each term's nats [n]).
    """
    outcomes = logits.shape[-1]
    if temperature != 1.0:
        logits.div_(temperature)
    chosen = [term.ids(at) if isinstance(term, SoftmaxTerm) else None for _, term in terms]
    picked = [None if ids is None else logits.gather(-1, ids) for ids in chosen]
    mean = logits.mean(-1) if any(isinstance(term, SoftmaxTerm) and term.whole for _, term in terms) else None
    knows = [None if isinstance(term, SoftmaxTerm) else compared(logits, term, at) for _, term in terms]
    log_sum = softmax_in_place(logits)
    nats, share = [], logits.new_zeros(len(logits))
    made: list[Parts | None] = []
    for number, (factor, term) in enumerate(terms):
        if isinstance(term, DenseTerm):
            found = knows[number]
            assert found is not None
            nats.append(temperature**2 * (found[1] + log_sum))
            share += factor * temperature
            made.append(None)
            continue
        values = picked[number]
        assert values is not None
        log_q = LogQ(
            values - log_sum.unsqueeze(-1),
            None if mean is None or not term.whole else mean - log_sum,
            outcomes,
        )
        part = term.parts(log_q, at)
        nats.append(part.nats)
        share += factor * part.share
        made.append(part)
    logits.mul_(share.unsqueeze(-1))
    for (factor, _), ids, own, other in zip(terms, chosen, made, knows, strict=True):
        if other is not None:
            logits.sub_(other[0], alpha=factor * temperature)
        if own is not None and ids is not None:
            logits.scatter_add_(-1, ids, factor * own.extra)
            if own.even is not None:
                logits.add_(factor * own.even.unsqueeze(-1))
    return logits, nats


def softmax_in_place(logits: Tensor) -> Tensor:
    """Overwrites `logits` [n, V] with their softmax.  Returns: [n], the log of the sum of their exponentials."""
    largest = logits.amax(-1)
    torch.softmax(logits, -1, out=logits)
    return largest - logits.amax(-1).log()


def compared(logits: Tensor, term: DenseTerm, at: slice) -> tuple[Tensor, Tensor]:
    """The teacher's softmax p [n, V], and KL(p ‖ q) less the student's log-sum, [n]: Σ p·(t − z) − log Σ exp t.

    The difference t − z is taken before it is weighed, so that nothing cancels where the two are alike.
    """
    theirs = term.teacher(at)
    if term.temperature != 1.0:
        theirs.div_(term.temperature)
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
    return theirs, torch.cat(values) if values else theirs.new_zeros(0)
