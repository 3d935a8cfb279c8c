"""The closed-form gradients of `losses.parts`, written out for one loss alone."""

from torch import Tensor

from stillhouse.losses import forward_kl
from stillhouse.losses.parts import DenseTerm, LogQ, Parts, SoftmaxTerm, fold
from stillhouse.losses.sequences import hard_cross_entropy_parts
from stillhouse.losses.sparse import divergence_topk_parts


def written_out(logits: Tensor, term: SoftmaxTerm | DenseTerm) -> tuple[Tensor, Tensor]:
    """(nats [N], gradient [N, V]) of one term."""
    gradient, (nats,) = fold(logits.float().clone(), term.temperature, [(1.0, term)], slice(None))
    return nats, gradient


def forward_kl_gradient(
    logits: Tensor, teacher: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    return written_out(logits, dense_term(teacher, temperature))


def dense_term(teacher: Tensor, temperature: float = 1.0) -> DenseTerm:
    return DenseTerm(temperature, lambda at: teacher[at].float().clone())


def hard_term(labels: Tensor, label_smoothing: float = 0.0) -> SoftmaxTerm:
    def parts(log_q: LogQ, at: slice) -> Parts:
        return hard_cross_entropy_parts(log_q, labels[at], label_smoothing=label_smoothing)

    return SoftmaxTerm(
        1.0, lambda at: labels[at].clamp_min(0).unsqueeze(-1), parts, whole=label_smoothing > 0
    )


def topk_term(ids: Tensor, log_p: Tensor, temperature: float = 1.0, divergence=forward_kl) -> SoftmaxTerm:
    def parts(log_q: LogQ, at: slice) -> Parts:
        return divergence_topk_parts(log_q, log_p[at], divergence, temperature=temperature)

    return SoftmaxTerm(temperature, lambda at: ids[at], parts)


def hard_cross_entropy_gradient(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    return written_out(logits, hard_term(labels, label_smoothing))


def forward_kl_topk_gradient(
    logits: Tensor, ids: Tensor, log_p: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    return written_out(logits, topk_term(ids, log_p, temperature))
