"""The objective's `cross_tokenizer` term: spans of the batch -> something that `fused_loss` takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import RecipeError
from ..losses import Head, cross_tokenizer, fused, log_softmax, topk_log_probs
from ..losses.fused import by_autograd, chunks
from ..tasks import Scores
from ..teachers import Crossed

CARRIED = 16
"""Of the teacher's tokens, the most probable ones are carried over by `min_edit`; all others are one more outcome."""


def cross_term(term: Any, scores: Scores, targets: Any, temperature: float) -> fused.Term:
    """Distributions are compared where both stand at the same byte; nats lie at the first position of each span.

    Raises: RecipeError where teacher and student share a tokenizer.
    """
    if not isinstance(targets, Crossed):
        raise RecipeError(
            "objective: cross_tokenizer is for a teacher with another tokenizer, and this one has the student's; use "
            "forward_kl."
        )
    compare = _comparison(term.method, targets, temperature)
    starts, theirs = targets.spans[:, 0], targets.spans[:, 2]
    pull, nats_of_spans = (None, None)
    if term.method == "hybrid":
        nats_of_spans, pull = _spans(scores, targets, temperature)

    def loss(logits: Tensor, at: slice) -> Tensor:
        here = (starts >= at.start) & (starts < at.stop)
        rows = starts[here] - at.start
        nats = logits.new_zeros(len(logits))
        if len(rows):
            nats = nats.index_add(0, rows, compare(logits[rows], theirs[here]))
        if pull is None or nats_of_spans is None or not bool(pull[at].any()):
            return nats + 0.0 * logits.sum(-1)
        said = log_softmax(logits, temperature).gather(-1, scores.labels[at].clamp_min(0).unsqueeze(-1))
        pulled = pull[at] * said.squeeze(-1)
        return (
            nats + nats_of_spans[at] + pulled - pulled.detach()
        )  # the value of one, the gradient of the other

    return by_autograd(loss)


def _comparison(method: str, targets: Crossed, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """(the student's logits [n, V], which of the teacher's positions [n]) -> nats [n]."""

    def logits(at: Tensor) -> Tensor:
        return targets.dense.head.logits(targets.dense.hidden[at], torch.float32)

    if method == "uld":
        return lambda z, at: cross_tokenizer.sorted_distance(z, logits(at), temperature=temperature)
    if method == "hybrid":
        return lambda z, at: cross_tokenizer.shared_and_sorted(
            z, logits(at), targets.mine, targets.theirs, temperature=temperature
        )

    def carried(z: Tensor, at: Tensor) -> Tensor:
        ids, log_p = topk_log_probs(logits(at), CARRIED, temperature=temperature)
        return cross_tokenizer.mapped_kl(z, targets.nearest(ids), log_p, temperature=temperature)

    return carried


@torch.no_grad()
def _spans(scores: Scores, targets: Crossed, temperature: float) -> tuple[Tensor, Tensor]:
    """Of spans that take several tokens on either side: nats at their first position [N], and d nats / d log q [N].

    A span's log-probability is the sum over its tokens, so its derivative is the same number at each of them.
    """
    nats = scores.hidden.new_zeros(targets.positions, dtype=torch.float32)
    pull = torch.zeros_like(nats)
    first, end, from_, until = targets.spans.unbind(-1)
    several = (end - first > 1) | (until - from_ > 1)
    if not bool(several.any()):
        return nats, pull
    first, end, from_, until = (value[several] for value in (first, end, from_, until))
    teacher = targets.dense
    log_q = _summed(scores.head.detached(), scores.hidden, scores.labels, first, end, temperature)
    log_p = _summed(teacher.head, teacher.hidden, targets.tokens, from_, until, temperature)
    with torch.enable_grad():
        leaf = log_q.requires_grad_()
        found = cross_tokenizer.span_kl(leaf, log_p, temperature=temperature)
        (slope,) = torch.autograd.grad(found.sum(), leaf)
    nats[first] = found.detach()
    places, owners = _within(first, end)
    pull[places] = slope[owners]
    return nats, pull


def _summed(
    head: Head, hidden: Tensor, tokens: Tensor, first: Tensor, end: Tensor, temperature: float
) -> Tensor:
    """[S], the log-probability of the tokens from `first` to `end` of each span."""
    places, owners = _within(first, end)
    sums = torch.zeros(len(first), dtype=torch.float32, device=hidden.device)
    for at in chunks(len(places), head.outcomes(hidden), hidden.device):
        log_p = log_softmax(head.logits(hidden[places[at]], torch.float32), temperature)
        sums.index_add_(0, owners[at], log_p.gather(-1, tokens[places[at]].unsqueeze(-1)).squeeze(-1))
    return sums


def _within(first: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """(all positions of all spans, which span each is of)."""
    lengths = end - first
    owners = torch.arange(len(first), device=first.device).repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return torch.arange(len(owners), device=first.device) - before[owners] + first[owners], owners
