"""Divergences against targets of which only some outcomes were kept.

**Top-k.**  The K most probable outcomes keep their probabilities under the teacher's *whole* distribution, and all the
others together are one more outcome, the tail.  Renormalising the K instead would teach over-confidence: the student
would learn that what was not kept cannot happen.  Any divergence of `divergences` can be taken on these K + 1 outcomes;
for the f-divergences (KL in both directions, JS, the skewed ones, total variation) the data-processing inequality says
that the result never exceeds the one on all outcomes, and equals it when all are kept.  Where fewer than K are known, the
places that are left have log_p = −inf, and their ids count with the tail: they may be any that are not kept.

**Sampled.**  The probable outcomes with their probability, and some drawn from the others, each with a share.  The loss is
the cross-entropy with these shares less the teacher's entropy: over many draws its mean and that of its gradient are those
of the dense forward KL.  Source: Anshumann et al. 2025 (Sparse Logit Sampling), arXiv:2503.16870.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from .divergences import forward_kl, log_softmax
from .parts import LogQ, Parts
from .rows import few_rows, likeliest, shares_of

BLOCK = 64
"""Outcomes that are added up together where draws are looked for."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student_logits [n, K + 1], teacher_logits [n, K + 1]) -> nats [n]."""


def topk_log_probs(teacher_logits: Tensor, k: int, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """The K largest log-probabilities of softmax(teacher_logits / T) over the whole vocabulary.

    Args: teacher_logits: [N, V]; k: at most V are returned.
    Returns: (ids [N, K], log_p [N, K]), most probable first.
    """
    k = min(k, teacher_logits.shape[-1])
    kept = [_topk(_scaled(teacher_logits[some], temperature), k) for some in few_rows(teacher_logits)]
    if not kept:
        empty = teacher_logits.new_zeros((0, k))
        return empty.long(), empty.float()
    ids, log_p = zip(*kept, strict=True)
    return torch.cat(ids), torch.cat(log_p)


def _topk(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    ids = likeliest(logits, k)
    _, _, log_sum = shares_of(logits, ids[:, 0])
    return ids, (logits.gather(-1, ids).double() - log_sum.unsqueeze(-1)).float()


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """Logits / T, float32."""
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def forward_kl_topk(
    student_logits: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T²·KL(teacher ‖ student) on K + 1 outcomes: the K kept ones, and "any other".

    Args: student_logits: [N, V]; ids, log_p: [N, K], distinct ids in each row, taken at the same temperature (another
        one cannot be recovered from a truncated distribution).
    Returns: [N], nats times T², ≥ 0 (to the rounding of the kept probabilities).
    """
    return divergence_topk(student_logits, ids, log_p, forward_kl, temperature=temperature)


def divergence_topk(
    student_logits: Tensor, ids: Tensor, log_p: Tensor, divergence: Divergence, *, temperature: float = 1.0
) -> Tensor:
    """T²·`divergence` of teacher and student on K + 1 outcomes: the K kept ones, and "any other".

    Args: as `forward_kl_topk`; divergence: one of `divergences`, at temperature 1.
    Returns: [N], nats times T².
    """
    log_q = log_softmax(student_logits, temperature)
    outcomes = log_q.shape[-1]
    picked = _of_kept(log_q.gather(-1, ids), log_p, outcomes)
    return temperature**2 * divergence(_coarse(picked, outcomes), _coarse(log_p, outcomes))


def divergence_topk_parts(
    kept: LogQ, log_p: Tensor, divergence: Divergence, *, temperature: float = 1.0
) -> Parts:
    """`divergence_topk` with its gradient, given the student's log-probabilities at T of the K kept outcomes.

    With u the derivative by the logits on the K + 1 outcomes (by autograd: they are few), and u_t and q_t of the tail:
    d/dz = T·u on the kept outcomes and T·q·u_t/q_t on the others, for what is asked of the tail is spread over it in the
    student's own proportions.
    """
    with torch.enable_grad():
        picked = _of_kept(kept.picked.detach(), log_p, kept.outcomes)
        log_q = _coarse(picked, kept.outcomes).requires_grad_()
        nats = divergence(log_q, _coarse(log_p, kept.outcomes))
        (u,) = torch.autograd.grad(nats.sum(), log_q)
    q = log_q.detach().exp()
    k = log_p.shape[-1]
    in_tail = u[:, k:].sum(-1) / q[:, k:].sum(-1).clamp_min(_TINY)
    return Parts(
        nats=temperature**2 * nats.detach(),
        share=temperature * in_tail,
        extra=temperature * (u[:, :k] - q[:, :k] * in_tail.unsqueeze(-1)),
    )


def draw_sampled(
    teacher_logits: Tensor, uniform: Tensor, draws: int, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Few outcomes of each row of p = softmax(teacher_logits / T) with shares whose mean over `uniform` is exactly p.

    An outcome of p ≥ 1/draws is kept, with p rounded up or down at random to a part of a draw (see `parts_of_a_draw`); the
    others are drawn with probability p·draws, and whoever is drawn stands for 1/draws.  Of all ways to keep as many
    outcomes without bias, this has the least squared error (threshold sampling: Duffield, Lund, Thorup 2005, IEEE Trans.
    Inf. Theory 51(5)).  Both choices are systematic: one uniform number places a comb on the cumulative sum.

    Args: teacher_logits: [N, V]; uniform: [N], in [0, 1).
    Returns: (ids [N, K], shares [N, K], entropy of p [N], in nats); different ids in each row, and 0 for both at the end of
        short rows.
    """
    drawn = [
        _drawn(_scaled(teacher_logits[some], temperature), uniform[some].double(), draws)
        for some in few_rows(teacher_logits)
    ]
    if not drawn:
        empty = teacher_logits.new_zeros((0, 1)).float()
        return empty.long(), empty, empty[:, 0]
    ids, counts, entropy = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    used = counts > 0
    order = (~used).long().sort(dim=-1, stable=True).indices[:, : int(used.sum(-1).max())]
    counts = counts.gather(-1, order)
    fine = draws * parts_of_a_draw(draws)
    return ids.gather(-1, order).masked_fill(counts == 0, 0), (counts / fine).float(), entropy


def _drawn(logits: Tensor, uniform: Tensor, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids [n, K], how many parts of a draw each stands for [n, K], perhaps none, entropy [n])."""
    kept = likeliest(logits, min(draws, logits.shape[-1]))
    p, total, log_sum = shares_of(logits, kept[:, 0])
    most = logits.gather(-1, kept[:, :1])
    below = logits - most  # or the entropy would lose the digits that all logits have in common
    weighed = (p * below).sum(-1)
    if not weighed.isfinite().all():  # an outcome that is excluded counts nothing, not 0·(−inf)
        weighed = (p * torch.where(p > 0, below, 0.0)).sum(-1)
    entropy = (log_sum - most.squeeze(-1) - weighed.double() / total).float()
    top, fine = p.gather(-1, kept) / total.unsqueeze(-1), draws * parts_of_a_draw(draws)
    sure = top >= (1 - 1e-6) / draws  # or rounding could let two points lie in one outcome
    comb = (top.double() * sure).cumsum(-1) * fine + uniform.unsqueeze(-1)
    counts = comb.floor().diff(dim=-1, prepend=comb.new_zeros(len(p), 1))
    points = (torch.arange(draws, device=p.device) + uniform.unsqueeze(-1)) / draws
    rest = p.scatter_(1, kept, p.gather(-1, kept).masked_fill(sure, 0.0))
    drawn, hit = _found(rest, points * total.unsqueeze(-1))
    return torch.cat([kept, drawn], -1), torch.cat([counts, hit * parts_of_a_draw(draws)], -1), entropy


def _found(p: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Whose part of the cumulative sum of p [n, V] each point [n, D] lies in, and 1 for each that does, 0 beyond the end.

    Sums of blocks are added up first, and the outcomes of those blocks only in which a point lies.
    """
    outcomes = p.shape[-1]
    blocks = pad(p, (0, -outcomes % BLOCK)).view(len(p), -1, BLOCK)
    sizes = blocks.sum(-1).double()
    ends = sizes.cumsum(-1)
    block = torch.searchsorted(ends, points, right=True).clamp_max(ends.shape[-1] - 1)
    # which share of its block lies before each point
    into = (points - ends.gather(-1, block)) / sizes.gather(-1, block) + 1.0
    inside = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, BLOCK)).cumsum(-1, dtype=torch.float64)
    place = (inside <= into.unsqueeze(-1) * inside[..., -1:]).sum(-1).clamp_max(BLOCK - 1)
    return (block * BLOCK + place).clamp_max(outcomes - 1), (points < ends[:, -1:]).double()


def parts_of_a_draw(draws: int) -> int:
    """Into how many parts a draw is divided, to round the shares that are kept.

    Two, where a share then fits a byte: that adds a fiftieth to the squared error, and finer parts cost more on disk than
    as much accuracy by more draws.
    """
    return 2 if draws <= 127 else 1


def forward_kl_sampled(
    student_logits: Tensor, ids: Tensor, shares: Tensor, entropy: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """T²·[−Σ share·log q − H(teacher)]: an estimate of the forward KL without bias; one draw of it may be negative.

    Args: student_logits: [N, V]; ids, shares: [N, n], each row's shares adding up to 1 on average; 0 for a place that is
        not used; entropy: [N], the teacher's, in nats; all at the same temperature.
    Returns: [N], nats times T².
    """
    log_q = log_softmax(student_logits, temperature)
    return forward_kl_sampled_parts(LogQ.of(log_q, ids), shares, entropy, temperature=temperature).nats


def forward_kl_sampled_parts(
    drawn: LogQ, shares: Tensor, entropy: Tensor, *, temperature: float = 1.0
) -> Parts:
    """`forward_kl_sampled` with its gradient T·(softmax(z/T)·Σ shares − shares), given the student's log-probabilities at T."""
    shares = shares.float()
    crossed = -(shares * torch.where(shares > 0, drawn.picked, 0.0)).sum(-1)
    return Parts(
        nats=temperature**2 * (crossed - entropy.float()),
        share=temperature * shares.sum(-1),
        extra=-temperature * shares,
    )


_TINY = torch.finfo(torch.float32).eps
"""Below this, a tail is rounding: 1 − Σp is not known more exactly in float32."""


def _of_kept(log_q: Tensor, log_p: Tensor, outcomes: int) -> Tensor:
    """[N, K] the student's log-probabilities, −inf at places that hold no outcome; all hold one where every outcome is kept."""
    if log_q.shape[-1] >= outcomes:
        return log_q
    return log_q.masked_fill(log_p == -torch.inf, -torch.inf)


def _coarse(log_kept: Tensor, outcomes: int) -> Tensor:
    """[N, K] log-probabilities and the tail's after them, [N, K + 1]; no tail where every outcome was kept."""
    log_kept = log_kept.float()
    if log_kept.shape[-1] >= outcomes:
        return log_kept
    tail = 1.0 - log_kept.exp().sum(-1, keepdim=True)
    return torch.cat([log_kept, tail.clamp_min(_TINY).log()], dim=-1)
