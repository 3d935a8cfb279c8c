"""What language models say at N positions, measured: per-position statistics, summed by row elsewhere.

Several models are measured beside one teacher, whose logits are looked at once.  The passes over [n, V] are as few as the
statistics need, and are made for a few rows at a time, which stay in a processor's cache.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.encode import IGNORED, Example
from ..losses.fused import chunks
from ..losses.rows import few_rows, likeliest, shares_of
from ..measure import ECE_BINS, FINE_BINS, TEMPERATURES
from .base import Scores

TOP, RANKED = 5, 10
"""Tokens of the teacher's that `top5` and `rank` look at."""
EVERY = 16
"""One position in so many is read at other temperatures."""
TOPS = "tops"
"""[n, 4] likeliest token of the teacher and of the student, and how likely each finds its own; no column, see `furthest`."""
BUCKETS = 12
"""Positions are told apart by powers of two: 1, 2–3, 4–7, and so on."""
LEAST = torch.finfo(torch.float32).tiny
"""Probabilities below it count as it (87 nats) in KL(q ‖ p), so that the result is finite."""


def readings(models: Sequence[Tensor], teacher: Tensor | None, labels: Tensor) -> list[dict[str, Tensor]]:
    """Of each model, column of LM_METRICS -> [n] or [n, K].

    Args:
        models: the logits of each, [n, V], which are overwritten.
        teacher: its logits, [n, V]; they may be those of one of the models.  A model is compared with itself where they are,
            and where there is no teacher.
        labels: [n], all known.
    """
    warmer = [at_temperatures(logits, labels) for logits in models]
    found: list[list[dict[str, Tensor]]] = [[] for _ in models]
    for some in few_rows(labels):
        theirs = None if teacher is None else said(teacher[some], RANKED)
        for logits, mine in zip(models, found, strict=True):
            alone = theirs is None or logits is teacher
            one = theirs if theirs is not None and logits is teacher else said(logits[some], TOP)
            mine.append(_passes(one, None if alone else theirs, labels[some]))
    each = [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in found]
    return [_columns(mine, labels) | warm for mine, warm in zip(each, warmer, strict=True)]


@dataclass(frozen=True)
class Said:
    """What a model says at n positions."""

    logits: Tensor
    """[n, V]"""
    shares: Tensor
    """[n, V], their softmax."""
    best: Tensor
    """[n, k], the likeliest tokens, the likeliest first."""
    total: Tensor
    """[n], what the shares sum to, which is not quite 1."""
    log_sum: Tensor
    """[n], log Σ exp of the logits, without that error (see `shares_of`)."""

    @cached_property
    def excludes(self) -> bool:
        """Whether it gives some outcome less than LEAST."""
        return bool((self.logits.amin(-1) - self.log_sum < math.log(LEAST)).any())


def said(logits: Tensor, count: int) -> Said:
    """See `Said`; `count` of the likeliest tokens, or all that there are."""
    best = likeliest(logits, min(count, logits.shape[-1]))
    shares, total, log_sum = shares_of(logits, best[:, 0])
    return Said(logits, shares, best, total, log_sum.to(logits.dtype))


def _passes(mine: Said, theirs: Said | None, labels: Tensor) -> dict[str, Tensor]:
    """All that needs the whole distributions.  Overwrites the logits of `mine`, if there is a teacher."""
    first = mine.best[:, :1]
    found = {
        "nll": mine.log_sum - mine.logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1),
        "squares": (torch.linalg.vector_norm(mine.shares, dim=-1) / mine.total) ** 2,
        "confidence": mine.shares.gather(-1, first).squeeze(-1) / mine.total,
        "best": mine.best,
    }
    if theirs is None:
        return found
    forward, reverse = divergences(mine, theirs)
    return found | {
        "theirs": theirs.best,
        "in their order": mine.shares.gather(-1, theirs.best),
        "their confidence": theirs.shares.gather(-1, theirs.best[:, :1]).squeeze(-1) / theirs.total,
        "kl": forward,
        "reverse_kl": reverse,
    }


def _columns(found: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """The columns that follow from what `_passes` found."""
    nll, best = found["nll"], found["best"][:, 0]
    favourite = found["theirs"][:, 0] if "theirs" in found else best
    correct, agree, wrong = best == labels, best == favourite, favourite != labels
    columns = {
        "nll": nll,
        "correct": correct,
        "agree": agree,
        "kl": found.get("kl", torch.zeros_like(nll)),
        "brier": 1.0 - 2.0 * torch.exp(-nll) + found["squares"],
        "teacher_wrong": wrong,
        "repeats": agree & wrong,
        **confidence_bins(found["confidence"], correct),
    }
    if "theirs" not in found:
        return columns
    tops = [favourite, best, found["their confidence"], found["confidence"]]
    return columns | {
        "top5": shared(found["best"], found["theirs"]),
        "rank": spearman(found["in their order"]),
        "reverse_kl": found["reverse_kl"],
        TOPS: torch.stack([one.double() for one in tops], -1),
    }


def divergences(mine: Said, theirs: Said) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q) and KL(q ‖ p), [n] each, of the student's q and the teacher's p, nats.  Overwrites the student's logits z.

    Both are means of log q − log p, under p and under q, so one difference serves both; what the logits of one side have in common
    is taken from it first, so that nothing cancels where the two are alike.
    """
    apart = mine.logits.sub_(theirs.logits).sub_((mine.log_sum - theirs.log_sum).unsqueeze(-1))
    forward, reverse = -_dot(theirs.shares, apart) / theirs.total, _dot(mine.shares, apart) / mine.total
    # outcomes that are all but excluded want more passes, and are seldom there; a processor looks first, and an accelerator does
    # not, for looking would wait for it
    usual = apart.device.type == "cpu" and bool(torch.isfinite(forward + reverse).all())
    if not usual or theirs.excludes:
        p, q = theirs.shares, mine.shares
        forward = -_dot(p, torch.where(p > 0, apart, 0.0)) / theirs.total
        reverse = _dot(q, q.clamp_min(LEAST).log() - p.clamp_min(LEAST).log()) / mine.total
    return forward, reverse


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """[n, V] each -> [n].  A product of matrices this thin takes a processor three times as long."""
    return (one * other).sum(-1)


def shared(mine: Tensor, theirs: Tensor) -> Tensor:
    """[n], which share of the teacher's TOP likeliest tokens is among the student's.  Args: [n, k] each."""
    return (theirs[:, :TOP].unsqueeze(2) == mine[:, :TOP].unsqueeze(1)).any(2).double().mean(-1)


def spearman(values: Tensor) -> Tensor:
    """[n], the rank correlation between the order of the columns and that of their values, [n, k], the largest first."""
    count = values.shape[-1]
    order = values.argsort(dim=-1, descending=True, stable=True).argsort(-1).double()
    apart = order - torch.arange(count, device=order.device)
    return 1.0 - 6.0 * apart.square().sum(-1) / max(1, count * (count**2 - 1))


def at_temperatures(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """−log q(label) at TEMPERATURES, [n, T], of one position in EVERY; zeros elsewhere, and a column that counts."""
    nats = logits.new_zeros(len(logits), len(TEMPERATURES))
    picked, apart = labels[::EVERY].unsqueeze(-1), logits[::EVERY]
    for some in few_rows(picked):
        below = apart[some] - apart[some].amax(-1, keepdim=True)
        own, scaled = below.gather(-1, picked[some]).squeeze(-1), torch.empty_like(below)
        for number, temperature in enumerate(TEMPERATURES):
            torch.mul(below, 1.0 / temperature, out=scaled)
            nats[::EVERY][some, number] = scaled.exp_().sum(-1).log() - own / temperature
    count = logits.new_zeros(len(logits))
    count[::EVERY] = 1.0
    return {"nll_at": nats, "nll_at_count": count}


class RowSums:
    """Readings of one model, summed over each row's positions, chunk by chunk.

    Args: rows: [N] the row of each position, in ascending order; count: of rows.
    """

    def __init__(self, rows: Tensor, count: int) -> None:
        self.rows, self.count = rows.cpu(), count
        self._sums: dict[str, Tensor] = {}
        self._agree: list[Tensor] = []
        self._apart: list[tuple[Tensor, Tensor]] = []

    def add(self, some: slice, found: dict[str, Tensor]) -> None:
        """The readings of these positions, which follow those of the last call."""
        for name, value in found.items():
            if name != TOPS:
                zeros = torch.zeros(self.count, *value.shape[1:], dtype=torch.float64)
                column = self._sums.setdefault(name, zeros)
                column.index_add_(0, self.rows[some], value.double().cpu())
        self._agree.append(found["agree"].cpu())
        if TOPS in found:
            self._apart.append((found["kl"].cpu(), found[TOPS].cpu()))

    def columns(self) -> dict[str, Tensor]:
        """Column -> [rows] or [rows, K], what depends on the places of all positions included."""
        sums = self._sums | wider_bins(self._sums)
        for name, value in by_position(self.rows, torch.cat(self._agree)).items():
            column = torch.zeros(self.count, value.shape[1], dtype=torch.float64)
            sums[name] = column.index_add_(0, self.rows, value)
        if self._apart:
            kl, tops = (torch.cat(parts) for parts in zip(*self._apart, strict=True))
            sums |= furthest(self.rows, kl, tops, self.count)
        return sums | {"tokens": torch.bincount(self.rows, minlength=self.count).double()}


def by_position(rows: Tensor, agree: Tensor) -> dict[str, Tensor]:
    """Agreement by the place of a counted position among its row's, in powers of two: [n, BUCKETS] each.

    Args: rows: [n] the row of each position, in ascending order; agree: [n].
    """
    first = torch.searchsorted(rows, rows)  # where each position's row begins
    place = torch.arange(1, len(rows) + 1, device=rows.device) - first
    bucket = place.double().log2().long().clamp(max=BUCKETS - 1)
    at = torch.nn.functional.one_hot(bucket, BUCKETS).double()
    return {"count_at": at, "agree_at": at * agree.double().unsqueeze(-1)}


def furthest(rows: Tensor, kl: Tensor, tops: Tensor, count: int) -> dict[str, Tensor]:
    """The position of each row at which student and teacher are furthest apart; -1 where a row has none.

    Args: rows: [n] in ascending order; kl: [n]; tops: [n, 4].
    Returns: {"worst": [count, 6]}, its number among the row's counted positions, its divergence, and its tops.
    """
    worst = torch.full((count, 6), -1.0, dtype=torch.float64)
    first = torch.searchsorted(rows, torch.arange(count))
    last = torch.searchsorted(rows, torch.arange(count), right=True)
    for row, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        if end > start:
            at = start + int(kl[start:end].argmax())
            worst[row] = torch.cat([torch.tensor([float(at - start), float(kl[at])]).double(), tops[at]])
    return {"worst": worst}


def confidence_bins(confidence: Tensor, correct: Tensor) -> dict[str, Tensor]:
    """[n] -> what falls into each of FINE_BINS bins, [n, 150] each: bin k holds what is above k/150 and at most (k+1)/150."""
    number = (confidence.double() * FINE_BINS).ceil().long().sub(1).clamp(0, FINE_BINS - 1)
    bins = torch.nn.functional.one_hot(number, FINE_BINS).double()
    return {
        "fine_count": bins,
        "fine_conf": bins * confidence.double().unsqueeze(-1),
        "fine_acc": bins * correct.double().unsqueeze(-1),
    }


def wider_bins(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """The columns of the calibration error, [rows, 15] each: ten fine bins are one of them."""
    return {
        f"bin_{name}": sums[f"fine_{name}"].view(-1, ECE_BINS, FINE_BINS // ECE_BINS).sum(-1)
        for name in ("count", "conf", "acc")
    }


@torch.no_grad()
def summed(
    models: Sequence[Scores], teacher: Scores | None, outcomes: int, rows: int
) -> list[dict[str, Tensor]]:
    """The readings of each model beside the teacher, summed over the positions of each of `rows` rows, chunk by chunk.

    Args: outcomes: V; see `Task.side_by_side` for the rest.
    """
    first = models[0]
    sums = [RowSums(first.rows, rows) for _ in models]
    for piece in chunks(first.hidden.shape[0], outcomes, first.hidden.device):
        logits = [one.head.logits(one.hidden[piece]) for one in models]
        knows = None
        if teacher is not None:
            among = [mine for one, mine in zip(models, logits, strict=True) if one is teacher]
            knows = among[0] if among else teacher.head.logits(teacher.hidden[piece])
        for mine, found in zip(sums, readings(logits, knows, first.labels[piece]), strict=True):
            mine.add(piece, found)
    return [mine.columns() for mine in sums]


def frequency_floor(counts: Mapping[int, int], outcomes: int, evaluated: Sequence[Example]) -> dict[str, Any]:
    """nll, correct and tokens of who only knows how frequent each of V tokens is, with one more of each."""
    size = sum(counts.values()) + outcomes
    favourite = max(counts, key=lambda token: counts[token], default=0)
    known = [[label for label in example.labels[1:] if label != IGNORED] for example in evaluated]
    columns = {
        "nll": [sum(math.log(size / (counts.get(token, 0) + 1)) for token in tokens) for tokens in known],
        "correct": [sum(token == favourite for token in tokens) for tokens in known],
        "tokens": [len(tokens) for tokens in known],
    }
    return {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
