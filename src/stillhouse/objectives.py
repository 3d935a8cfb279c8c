"""The terms of an objective, for Python: `from stillhouse import objectives as kd`.

    objective=[kd.hard(0.2), kd.forward_kl(0.8, temperature=2.0)]

What they return is what a recipe's `objective:` holds; each loss is in `stillhouse.losses`, with its source.  A weight or
a temperature may be a `schedule`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from . import recipe as kinds
from .recipe import Schedule

Number = float | Schedule
LayerMap = Literal["uniform", "last", "skip"] | Mapping[int, int]
Distance = Literal["mse", "cosine", "normalised"]


def schedule(
    start: float, end: float, *, over: float = 1.0, curve: Literal["linear", "cosine"] = "linear"
) -> Schedule:
    """A weight or temperature that goes from `start` to `end` while the share `over` of all steps is done."""
    return Schedule(start=start, end=end, over=over, curve=curve)


def hard(weight: Number = 1.0, *, label_smoothing: float = 0.0) -> kinds.Hard:
    """Cross-entropy on the hard targets, in nats; see `losses.hard_cross_entropy`."""
    return kinds.Hard(weight=weight, label_smoothing=label_smoothing)


def forward_kl(weight: Number = 1.0, *, temperature: Number = 1.0) -> kinds.ForwardKL:
    """T²·KL(teacher/T ‖ student/T); see `losses.forward_kl`, and `forward_kl_topk` and `forward_kl_sampled` for kept targets.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """
    return kinds.ForwardKL(weight=weight, temperature=temperature)


def reverse_kl(weight: Number = 1.0, *, temperature: Number = 1.0) -> kinds.ReverseKL:
    """T²·KL(student/T ‖ teacher/T); see `losses.reverse_kl`.  Source: Gu et al. 2023, arXiv:2306.08543."""
    return kinds.ReverseKL(weight=weight, temperature=temperature)


def js(weight: Number = 1.0, *, beta: float = 0.5, temperature: Number = 1.0) -> kinds.JS:
    """Generalised Jensen–Shannon divergence; see `losses.js`.  Source: Agarwal et al. 2023, arXiv:2306.13649."""
    return kinds.JS(weight=weight, beta=beta, temperature=temperature)


def skew_forward_kl(
    weight: Number = 1.0, *, alpha: float = 0.1, temperature: Number = 1.0
) -> kinds.SkewForwardKL:
    """KL(teacher ‖ α·teacher + (1−α)·student); see `losses.skew_forward_kl`.  Source: Ko et al. 2024, arXiv:2402.03898."""
    return kinds.SkewForwardKL(weight=weight, alpha=alpha, temperature=temperature)


def skew_reverse_kl(
    weight: Number = 1.0, *, alpha: float = 0.1, temperature: Number = 1.0
) -> kinds.SkewReverseKL:
    """KL(student ‖ α·student + (1−α)·teacher); see `losses.skew_reverse_kl`.  Source: Ko et al. 2024, arXiv:2402.03898."""
    return kinds.SkewReverseKL(weight=weight, alpha=alpha, temperature=temperature)


def adaptive_kl(weight: Number = 1.0, *, mu: float = 0.5, temperature: Number = 1.0) -> kinds.AdaptiveKL:
    """Forward and reverse KL by where the gap lies; see `losses.adaptive_kl`.  Source: Wu et al. 2024, arXiv:2404.02657."""
    return kinds.AdaptiveKL(weight=weight, mu=mu, temperature=temperature)


def total_variation(weight: Number = 1.0, *, temperature: Number = 1.0) -> kinds.TotalVariation:
    """T²·½·Σ|p − q|; see `losses.total_variation`.  Source: Wen et al. 2023, arXiv:2307.15190."""
    return kinds.TotalVariation(weight=weight, temperature=temperature)


def alpha_beta(
    weight: Number = 1.0, *, alpha: float = 0.2, beta: float = 0.7, temperature: Number = 1.0
) -> kinds.AlphaBeta:
    """α-β divergence; see `losses.alpha_beta`.  Source: Wang et al. 2025, arXiv:2505.04560."""
    return kinds.AlphaBeta(weight=weight, alpha=alpha, beta=beta, temperature=temperature)


def cross_tokenizer(
    weight: Number = 1.0,
    *,
    method: Literal["hybrid", "uld", "min_edit"] = "hybrid",
    temperature: Number = 1.0,
) -> kinds.CrossTokenizer:
    """For a teacher with another tokenizer, `Foreign(model, tokenizer)`; see `losses.cross_tokenizer`.

    Sources: Boizard et al. 2024, arXiv:2402.12030; Wan et al. 2024, arXiv:2401.10491.
    """
    return kinds.CrossTokenizer(weight=weight, method=method, temperature=temperature)


def custom(
    target: str, weight: Number = 1.0, *, temperature: Number = 1.0, options: Mapping[str, Any] | None = None
) -> kinds.Custom:
    """Your own loss: "package.module:function", (student_logits [N, V], teacher_logits [N, V], *, temperature) -> nats [N]."""
    return kinds.Custom(target=target, weight=weight, temperature=temperature, options=dict(options or {}))


def hidden(weight: Number = 1.0, *, layers: LayerMap = "uniform", distance: Distance = "mse") -> kinds.Hidden:
    """Hidden states of mapped layers through a learned projector; see `losses.features`.

    Sources: Romero et al. 2014, arXiv:1412.6550; Sun et al. 2019, arXiv:1908.09355.
    """
    return kinds.Hidden(weight=weight, layers=_layers(layers), distance=distance)


def embeddings(weight: Number = 1.0, *, distance: Distance = "mse") -> kinds.Embeddings:
    """What the first layer reads, through a learned projector.  Source: Jiao et al. 2019, arXiv:1909.10351."""
    return kinds.Embeddings(weight=weight, distance=distance)


def attention(
    weight: Number = 1.0, *, layers: LayerMap = "uniform", distance: Literal["kl", "mse"] = "kl"
) -> kinds.Attention:
    """Attention maps of mapped layers; both models write attention out.  Source: Jiao et al. 2019, arXiv:1909.10351."""
    return kinds.Attention(weight=weight, layers=_layers(layers), distance=distance)


def relations(
    weight: Number = 1.0,
    *,
    of: Sequence[Literal["q", "k", "v"]] = ("q", "k", "v"),
    heads: int | None = None,
    student_layer: int | None = None,
    teacher_layer: int | None = None,
) -> kinds.Relations:
    """Q-Q, K-K and V-V relations of one layer; see `losses.features.relation_kl`.  Source: Wang et al. 2020, arXiv:2012.15828."""
    return kinds.Relations(
        weight=weight, of=list(of), heads=heads, student_layer=student_layer, teacher_layer=teacher_layer
    )


def similarity(
    weight: Number = 1.0, *, by: Literal["gram", "rkd_distance", "rkd_angle", "cka"] = "gram"
) -> kinds.Similarity:
    """How alike the rows of a micro-batch are; see `losses.features`.  Sources: arXiv:1907.09682, 1904.05068, 1905.00414."""
    return kinds.Similarity(weight=weight, by=by)


def deeper_layers(
    weight: Number = 1.0, *, layers: Sequence[int] | None = None, temperature: Number = 1.0
) -> kinds.DeeperLayers:
    """The student's own last layer teaches its earlier ones; needs no teacher.  Source: Zhang et al. 2019, arXiv:1905.08094."""
    chosen = None if layers is None else list(layers)
    return kinds.DeeperLayers(weight=weight, layers=chosen, temperature=temperature)


def policy_gradient(weight: Number = 1.0) -> kinds.PolicyGradient:
    """Reverse KL of what the student writes itself, by sampled tokens; needs `rollouts`.  Source: Gu et al. 2023, arXiv:2306.08543."""
    return kinds.PolicyGradient(weight=weight)


def rollouts(**settings: Any) -> kinds.Rollouts:
    """How the student writes some of its rows itself, for `Distiller(rollouts=…)`; the keys are those of a recipe's `rollouts:`."""
    return kinds.Rollouts(**settings)


def adaptive_share(
    start: float = 0.0, *, step: float = 0.1, most: float = 1.0, tolerance: float = 0.0, every: int = 50
) -> kinds.Adaptive:
    """A share for `rollouts` that grows when the loss on the evaluation rows stops falling.  Source: Ko et al. 2024, arXiv:2402.03898."""
    return kinds.Adaptive(start=start, step=step, most=most, tolerance=tolerance, every=every)


def _layers(wanted: LayerMap) -> Any:
    return wanted if isinstance(wanted, str) else dict(wanted)


__all__ = [
    "adaptive_kl", "adaptive_share", "alpha_beta", "attention", "cross_tokenizer", "custom", "deeper_layers", "embeddings", "forward_kl", "hard", "hidden", "js",
    "policy_gradient", "relations", "reverse_kl", "rollouts", "schedule", "similarity", "skew_forward_kl", "skew_reverse_kl", "total_variation",
]  # fmt: skip
