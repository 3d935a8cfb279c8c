"""Losses whose gradient on the logits is made of the student's softmax and little else.

Cross-entropy and divergences from few outcomes are a multiple of the softmax plus something at some outcomes; the forward
KL from all outcomes is a multiple of the softmax less the teacher's.  Terms that share a temperature therefore share one
softmax, written over the logits, and their gradients are folded into it: a few passes over [n, V] for all together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .passes import look, write


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
    chosen = [term.ids(at) if isinstance(term, SoftmaxTerm) else None for _, term in terms]
    picked = [None if ids is None else logits.gather(-1, ids).div_(temperature) for ids in chosen]
    theirs = [term.teacher(at).contiguous() for _, term in terms if isinstance(term, DenseTerm)]
    wants_mean = any(isinstance(term, SoftmaxTerm) and term.whole for _, term in terms)
    log_sum, mean, compared = look(logits, temperature, theirs, wants_mean)
    nats, share = [], logits.new_zeros(len(logits))
    made: list[Parts | None] = []
    known = iter(compared)
    for (factor, term), values in zip(terms, picked, strict=True):
        if isinstance(term, DenseTerm):
            nats.append(temperature**2 * (next(known)[0] + log_sum))
            share += factor * temperature
            made.append(None)
            continue
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
    factors = [factor * temperature for factor, term in terms if isinstance(term, DenseTerm)]
    write(
        logits,
        temperature,
        log_sum,
        share,
        [(factor, t, left) for factor, t, (_, left) in zip(factors, theirs, compared, strict=True)],
    )
    for (factor, _), ids, own in zip(terms, chosen, made, strict=True):
        if own is not None and ids is not None:
            logits.scatter_add_(-1, ids, factor * own.extra)
            if own.even is not None:
                logits.add_(factor * own.even.unsqueeze(-1))
    return logits, nats
