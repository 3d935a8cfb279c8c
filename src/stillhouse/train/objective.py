"""The objective: a weighted list of terms, each comparing the student with soft or hard targets."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import RecipeError
from ..losses import fused
from ..losses.divergences import forward_kl_gradient
from ..losses.fused import fused_loss
from ..losses.parts import Parts, SoftmaxTerm
from ..losses.sequences import hard_cross_entropy_parts
from ..losses.sparse import forward_kl_topk_parts
from ..recipe import ForwardKL, Hard, Term
from ..tasks import Scores
from ..teachers import Dense, SoftTargets, TopK


class Objective:
    """Callable: what the student says and what it should have said -> the loss of a micro-batch."""

    def __init__(self, terms: Sequence[Term]) -> None:
        if not terms:
            raise RecipeError("objective: needs at least one term, such as {kind: forward_kl}.")
        self.terms = list(terms)
        kinds = [term.kind for term in self.terms]
        self.names = [f"{kind}_{n}" if kinds.count(kind) > 1 else kind for n, kind in enumerate(kinds)]

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with soft targets."""
        return any(not isinstance(term, Hard) for term in self.terms)

    def __call__(
        self,
        scores: Scores,
        targets: SoftTargets | None,
        total: Tensor | float,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Σ weight·nats ÷ total.

        Args:
            scores: the student's hidden states at the N counted positions, and its head.
            targets: the teacher's soft targets at the same positions; None if no term needs them.
            total: counted positions of the whole optimiser step.
            dtype: arithmetic of the head's products.

        Returns: (scalar, [terms] unweighted nats ÷ total, detached).
        Raises: RecipeError where targets and positions do not match.
        """
        if targets is not None and len(targets) != scores.hidden.shape[0]:
            raise RecipeError(
                f"the teacher gave targets for {len(targets)} positions and the student counts {scores.hidden.shape[0]}; "
                "teacher and student do not see the same tokens."
            )
        terms = [(term.weight, TERMS[term.kind](term, scores, targets)) for term in self.terms]
        return fused_loss(scores.hidden, scores.head, terms, total, dtype)


def _hard(term: Hard, scores: Scores, _: SoftTargets | None) -> fused.Term:
    def parts(log_q: Tensor, at: slice) -> Parts:
        return hard_cross_entropy_parts(log_q, scores.labels[at], label_smoothing=term.label_smoothing)

    return SoftmaxTerm(1.0, parts)


def _forward_kl(term: ForwardKL, _: Scores, targets: SoftTargets | None) -> fused.Term:
    match targets:
        case Dense():

            def dense(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
                return forward_kl_gradient(logits, targets.logits(at), temperature=term.temperature)

            return dense
        case TopK(ids, log_p, temperature):
            if temperature != term.temperature:
                raise RecipeError(
                    f"objective: forward_kl asks for temperature {term.temperature}, but the kept soft targets were "
                    f"taken at {temperature}; label again, or use label.online: true."
                )

            def topk(log_q: Tensor, at: slice) -> Parts:
                return forward_kl_topk_parts(log_q, ids[at], log_p[at], temperature=temperature)

            return SoftmaxTerm(temperature, topk)
    raise RecipeError("objective: forward_kl needs a teacher, and there is none.")


TERMS: dict[str, Callable[[Any, Scores, SoftTargets | None], fused.Term]] = {
    "hard": _hard,
    "forward_kl": _forward_kl,
}
