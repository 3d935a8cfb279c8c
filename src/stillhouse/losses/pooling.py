"""Several teachers' logits as one: pools of opinions.

Legend: M members, z_m their logits [N, V], p_m = softmax(z_m / T), w weights [N, M] that add up to 1.

    mean         Σ w·p_m                       the linear pool: what any member finds possible stays possible
    geometric    ∝ Π p_m^w                     the log-linear pool: what one member excludes is excluded
    confidence   p_m of the member with the lowest entropy, position by position
    table        p_m of the member whose own best class has proved most reliable (a classifier's validation table)

Source of pools that weigh members anew for each example: Wu et al. 2021 (MT-BERT), arXiv:2106.01023.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .divergences import log_softmax
from .fused import Head


@dataclass(frozen=True)
class PooledHead(Head):
    """The heads of M members over their hidden states side by side, [N, ΣH + M]; the last M columns are weights."""

    members: tuple[tuple[Head, int], ...] = ()
    """(head, width of its hidden states) of each."""
    pool: str = "mean"
    table: Tensor | None = None
    """[M, C] reliability of each class when a member says it; for the pool `table`."""
    temperature: float = 1.0
    """At which the members' distributions are pooled; losses divide by it."""

    def at(self, temperature: float) -> "PooledHead":
        """Pooled at `temperature`."""
        return replace(self, temperature=temperature)

    def outcomes(self, hidden: Tensor) -> int:
        """V, the same for all."""
        head, width = self.members[0]
        return head.outcomes(hidden[:, :width])

    def detached(self) -> "PooledHead":
        """Without gradients."""
        return replace(self, members=tuple((head.detached(), width) for head, width in self.members))

    def float(self, hidden: Tensor) -> "PooledHead":
        """With float32 weights (see `Head.float`)."""
        return replace(self, members=tuple((head.float(hidden), width) for head, width in self.members))

    def logits(self, hidden: Tensor, dtype: torch.dtype | None = None, room: Tensor | None = None) -> Tensor:
        """[n, ΣH + M] -> [n, V]: T·log of the pooled distribution, so that softmax(· / T) is that distribution."""
        logits, at = [], 0
        for head, width in self.members:
            logits.append(log_softmax(head.logits(hidden[:, at : at + width], dtype), self.temperature))
            at += width
        found = self.temperature * pooled(logits, hidden[:, at:].float(), self.pool, self.table)
        return found if room is None else room.copy_(found)


def pooled(log_p: Sequence[Tensor], weights: Tensor, pool: str, table: Tensor | None = None) -> Tensor:
    """The log-probabilities of the pool (of the geometric one: not normalised).

    Args: log_p: [n, V] of each member; weights: [n, M], adding up to 1, of which a member with none has no say in any pool;
        table: see `PooledHead`.
    Returns: [n, V].
    """
    stacked = torch.stack(list(log_p), 1)  # [n, M, V]
    if pool == "geometric":
        return (weights.unsqueeze(-1) * stacked).sum(1)
    if pool == "confidence":
        entropy = -(stacked.exp() * stacked.clamp_min(_NOTHING)).sum(-1)
        weights = _one(-entropy, weights)
    elif pool == "table":
        assert table is not None
        said = stacked.argmax(-1)  # [n, M]
        weights = _one(
            table.to(said.device).T[said, torch.arange(said.shape[1], device=said.device)], weights
        )
    return (stacked.clamp_min(_NOTHING) + weights.log().clamp_min(_NOTHING).unsqueeze(-1)).logsumexp(1)


_NOTHING = -1e30
"""The logarithm of no mass, where −inf would make NaN."""


def _one(scores: Tensor, weights: Tensor) -> Tensor:
    """[n, M] -> all weight on the best of each row that has any, the first of equals."""
    best = scores.masked_fill(weights == 0, -torch.inf).argmax(-1)
    return torch.nn.functional.one_hot(best, scores.shape[-1]).float()


def learned_weights(log_p: Tensor, rounds: int = 200) -> Tensor:
    """Weights of the mean pool under which held-out outcomes are most probable, by expectation-maximisation.

    The log-likelihood is concave in the weights, so it climbs to the best of all from equal ones.

    Args: log_p: [N, M], each member's log-probability of what was right.
    Returns: [M], adding up to 1.
    """
    log_w = log_p.new_full((log_p.shape[1],), 1.0 / log_p.shape[1], dtype=torch.float64).log()
    for _ in range(rounds):
        log_w = (log_p.double() + log_w).log_softmax(-1).exp().mean(0).clamp_min(1e-12).log()
    return log_w.softmax(-1).float()


def reliability_table(log_p: Tensor, labels: Tensor) -> Tensor:
    """How often each member is right when it says a class.

    Args: log_p: [M, N, C]; labels: [N].
    Returns: [M, C] shares; one right and one wrong answer are added to each, so that a class hardly ever said is ½.
    """
    said = log_p.argmax(-1)
    classes = torch.nn.functional.one_hot(said, log_p.shape[-1]).float()  # [M, N, C]
    right = (said == labels).float().unsqueeze(-1)
    return ((classes * right).sum(1) + 1.0) / (classes.sum(1) + 2.0)
