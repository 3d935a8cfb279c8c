"""What a language model says at N positions, measured: per-position statistics, summed by row elsewhere."""

import torch
from torch import Tensor

from ..losses.parts import ROWS, nll_and_kl
from ..measure import ECE_BINS, TEMPERATURES

TOP, RANKED = 5, 10
"""Tokens of the teacher's that `top5` and `rank` look at."""
EVERY = 16
"""One position in so many is read at other temperatures."""
TOPS = "tops"
"""[n, 4] likeliest token of the teacher and of the student, and how likely each finds its own; no column, see `furthest`."""
BUCKETS = 12
"""Positions are told apart by powers of two: 1, 2–3, 4–7, and so on."""


def readings(student: Tensor, teacher: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
    """Column of LM_METRICS -> [n] or [n, K].  Overwrites both logits, [n, V].

    Args: teacher: None where the model is the teacher, which agrees with itself.
    """
    best = student.argmax(-1)
    correct = best == labels
    favourite = best if teacher is None else teacher.argmax(-1)
    agree = best == favourite
    theirs = student.clone() if teacher is None else teacher
    warmer = at_temperatures(student, labels)
    nll, kl = nll_and_kl(
        student, theirs, labels
    )  # leaves both softmaxes, q and p, in the place of the logits
    found = {
        "nll": nll,
        "correct": correct,
        "agree": agree,
        "kl": kl,
        "brier": 1.0 - 2.0 * torch.exp(-nll) + torch.linalg.vector_norm(student, dim=-1) ** 2,
        "teacher_wrong": favourite != labels,
        "repeats": agree & (favourite != labels),
        **confidence_bins(student.amax(-1), correct),
        **warmer,
    }
    if teacher is None:
        return found
    shares = [
        row.gather(-1, top.unsqueeze(-1)).squeeze(-1) for row, top in ((theirs, favourite), (student, best))
    ]
    tops = torch.stack([favourite.double(), best.double(), *(share.double() for share in shares)], -1)
    return found | agreement(student, theirs) | {TOPS: tops}


def at_temperatures(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """−log q(label) at TEMPERATURES, [n, T], of one position in EVERY; zeros elsewhere, and a column that counts."""
    some, picked = logits[::EVERY], labels[::EVERY].unsqueeze(-1)
    own = some.gather(-1, picked).squeeze(-1)
    nats = logits.new_zeros(len(logits), len(TEMPERATURES))
    for number, temperature in enumerate(TEMPERATURES):
        nats[::EVERY, number] = torch.logsumexp(some / temperature, -1) - own / temperature
    count = logits.new_zeros(len(logits))
    count[::EVERY] = 1.0
    return {"nll_at": nats, "nll_at_count": count}


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
    """[n] -> the columns of the calibration error, [n, 15] each: bin k holds what is above k/15 and at most (k+1)/15."""
    number = (confidence.double() * ECE_BINS).ceil().long().sub(1).clamp(0, ECE_BINS - 1)
    bins = torch.nn.functional.one_hot(number, ECE_BINS).double()
    return {
        "bin_count": bins,
        "bin_conf": bins * confidence.double().unsqueeze(-1),
        "bin_acc": bins * correct.double().unsqueeze(-1),
    }


def agreement(q: Tensor, p: Tensor) -> dict[str, Tensor]:
    """How alike the student's q and the teacher's p are, [n, V] each: likeliest tokens, their order, KL(q ‖ p) [n]."""
    ranked = min(RANKED, p.shape[-1])
    best = p.topk(ranked).indices
    mine = q.topk(min(TOP, q.shape[-1])).indices
    shared = (best[:, :TOP].unsqueeze(2) == mine.unsqueeze(1)).any(2).double().mean(-1)
    order = q.gather(-1, best).argsort(dim=-1, descending=True, stable=True).argsort(-1).double()
    apart = order - torch.arange(ranked, device=order.device)
    spearman = 1.0 - 6.0 * apart.square().sum(-1) / max(1, ranked * (ranked**2 - 1))
    return {"top5": shared, "rank": spearman, "reverse_kl": reverse_kl(q, p)}


def reverse_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(q ‖ p) of probabilities [n, V], nats.  A few rows at a time, which stay in a processor's cache.

    Probabilities below the smallest float32 count as that (87 nats), so that the result is finite.
    """
    least = torch.finfo(torch.float32).tiny
    values = []
    for start in range(0, len(q), ROWS):
        mine, theirs = q[start : start + ROWS], p[start : start + ROWS]
        surprise = mine.clamp_min(least).log_() - theirs.clamp_min(least).log_()
        values.append(torch.bmm(mine.unsqueeze(1), surprise.unsqueeze(2)).flatten())
    return torch.cat(values) if values else q.new_zeros(0)
