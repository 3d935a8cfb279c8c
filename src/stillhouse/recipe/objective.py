"""`objective:`: a weighted list of terms.  Each kind holds only its own knobs."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from .section import Section


class Schedule(Section):
    """A number that changes while the student learns."""

    start: NonNegativeFloat
    """At the first step."""
    end: NonNegativeFloat
    """When `over` of the steps are done, and from then on."""
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of all steps."""
    curve: Literal["linear", "cosine"] = "linear"
    """linear, or cosine: slow at both ends."""

    def at(self, progress: float) -> float:
        """The value when `progress` (0 to 1) of all steps are done."""
        done = min(progress / self.over, 1.0)
        if self.curve == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        return self.start + (self.end - self.start) * done


class _Term(Section):
    weight: NonNegativeFloat | Schedule = 1.0
    """Factor on the term, or a schedule for it; weights are not normalised.  A term of weight 0 is left out, as if it were not
    there; while a schedule is at 0 its loss is not computed."""


class Hard(_Term):
    """Cross-entropy on the hard targets (labels or tokens)."""

    kind: Literal["hard"] = "hard"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread evenly over all classes or tokens."""


class _Tempered(_Term):
    temperature: PositiveFloat | Schedule = 1.0
    """Divides both models' logits; the term is multiplied by its square, so that its gradient keeps its size."""

    @model_validator(mode="after")
    def _temperature_stays_positive(self) -> Self:
        if isinstance(self.temperature, Schedule) and min(self.temperature.start, self.temperature.end) <= 0:
            raise ValueError("temperature: a schedule must stay above 0")
        return self


class SoftTerm(_Tempered):
    """A comparison with the teacher's distribution."""


class ForwardKL(SoftTerm):
    """KL(teacher ‖ student), Hinton et al. 2015 (arXiv:1503.02531)."""

    kind: Literal["forward_kl"] = "forward_kl"


class ReverseKL(SoftTerm):
    """KL(student ‖ teacher), Gu et al. 2023 (arXiv:2306.08543)."""

    kind: Literal["reverse_kl"] = "reverse_kl"


class JS(SoftTerm):
    """Generalised Jensen–Shannon divergence, Agarwal et al. 2023 (arXiv:2306.13649)."""

    kind: Literal["js"] = "js"
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The teacher's share of the mixture."""


class SkewForwardKL(SoftTerm):
    """KL(teacher ‖ α·teacher + (1−α)·student), Ko et al. 2024 (arXiv:2402.03898)."""

    kind: Literal["skew_forward_kl"] = "skew_forward_kl"
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """How much of the first distribution is mixed into the second."""


class SkewReverseKL(SoftTerm):
    """KL(student ‖ α·student + (1−α)·teacher), Ko et al. 2024 (arXiv:2402.03898)."""

    kind: Literal["skew_reverse_kl"] = "skew_reverse_kl"
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """How much of the first distribution is mixed into the second."""


class AdaptiveKL(SoftTerm):
    """Forward and reverse KL, weighed by where the gap lies, Wu et al. 2024 (arXiv:2404.02657)."""

    kind: Literal["adaptive_kl"] = "adaptive_kl"
    mu: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability that the head of the teacher's distribution holds."""


class TotalVariation(SoftTerm):
    """Half the summed difference of the probabilities, Wen et al. 2023 (arXiv:2307.15190)."""

    kind: Literal["total_variation"] = "total_variation"


class AlphaBeta(SoftTerm):
    """α-β divergence, Wang et al. 2025 (arXiv:2505.04560)."""

    kind: Literal["alpha_beta"] = "alpha_beta"
    alpha: NonNegativeFloat = 0.2
    """Exponent of the teacher: larger weighs what the teacher is sure of."""
    beta: NonNegativeFloat = 0.7
    """Exponent of the student: larger weighs what the student is sure of."""

    @model_validator(mode="after")
    def _not_both_zero(self) -> Self:
        if self.alpha + self.beta <= 0:
            raise ValueError("alpha and beta must not both be 0")
        return self


class CrossTokenizer(SoftTerm):
    """A teacher whose tokenizer is not the student's, where both have read the same bytes; needs label.online."""

    kind: Literal["cross_tokenizer"] = "cross_tokenizer"
    method: Literal["hybrid", "uld", "min_edit"] = "hybrid"
    """hybrid: tokens that both have by name, the others by rank, and spans that they cut differently by their probability
    (as TRL's GOLD); uld: sorted probabilities alone (Boizard et al. 2024, arXiv:2402.12030); min_edit: the teacher's tokens
    carried over to the student's nearest ones (Wan et al. 2024, arXiv:2401.10491)."""


class Custom(SoftTerm):
    """Your own loss on logits, without changing this package."""

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """package.module:function, (student_logits [N, V], teacher_logits [N, V], *, temperature, **options) -> nats [N]."""
    options: dict[str, Any] = {}
    """Keyword arguments of the function."""


class PolicyGradient(_Term):
    """Reverse KL of what the student writes itself, by sampled tokens, Gu et al. 2023 (arXiv:2306.08543)."""

    kind: Literal["policy_gradient"] = "policy_gradient"


def _numbered(value: Any) -> Any:
    """JSON writes numbers that are keys as text."""
    if not isinstance(value, dict):
        return value
    return {
        int(key) if isinstance(key, str) and key.isdigit() else key: layer for key, layer in value.items()
    }


LayerMap = Annotated[dict[NonNegativeInt, NonNegativeInt], BeforeValidator(_numbered), Field(min_length=1)]


class FeatureTerm(_Term):
    """A comparison of what the two models' layers hand on; needs the teacher beside the student (label.online)."""

    layers: Literal["uniform", "last", "skip"] | LayerMap = "uniform"
    """Which layer of the teacher each layer of the student follows: uniform (evenly), last (the last k), skip (every
    k-th, from the k-th on), or student layer: teacher layer, counted from 1 (0 = the embeddings).  Of an encoder–decoder: in each of
    its two stacks."""


class Hidden(FeatureTerm):
    """Hidden states through a learned projector, Romero et al. 2014 (arXiv:1412.6550), Sun et al. 2019 (arXiv:1908.09355)."""

    kind: Literal["hidden"] = "hidden"
    distance: Literal["mse", "cosine", "normalised"] = "mse"
    """Mean squared difference; 1 − cosine; or squared distance of the states scaled to length 1 (2 − 2·cosine)."""


class Embeddings(_Term):
    """The embeddings' output through a learned projector, Jiao et al. 2019 (arXiv:1909.10351)."""

    kind: Literal["embeddings"] = "embeddings"
    distance: Literal["mse", "cosine", "normalised"] = "mse"
    """As for hidden."""


class Attention(FeatureTerm):
    """Attention maps, Jiao et al. 2019 (arXiv:1909.10351); both models write attention out, which takes memory."""

    kind: Literal["attention"] = "attention"
    distance: Literal["kl", "mse"] = "kl"
    """KL(teacher ‖ student) of each position's attention, or its squared difference."""


class Relations(_Term):
    """Q-Q, K-K and V-V relations of one layer, Wang et al. 2020 (MiniLMv2, arXiv:2012.15828)."""

    kind: Literal["relations"] = "relations"
    of: list[Literal["q", "k", "v"]] = Field(default=["q", "k", "v"], min_length=1)
    """Which of the queries, keys and values."""
    heads: PositiveInt | None = None
    """Relation heads; None = as many as the teacher has key-value heads, where the student's width allows it."""
    student_layer: PositiveInt | None = None
    """Counted from 1, in each stack of an encoder–decoder; None = the last."""
    teacher_layer: PositiveInt | None = None
    """Likewise."""


class Similarity(_Term):
    """How alike the rows of a batch are to one another, in both models."""

    kind: Literal["similarity"] = "similarity"
    by: Literal["gram", "rkd_distance", "rkd_angle", "cka"] = "gram"
    """Gram matrix (Tung & Mori 2019, arXiv:1907.09682), distances or angles (Park et al. 2019, arXiv:1904.05068), or
    1 − CKA (Kornblith et al. 2019, arXiv:1905.00414).  Depends on which rows share a micro-batch."""


class DeeperLayers(_Tempered):
    """The student's own last layer teaches its earlier ones: KL(last ‖ earlier), the last held still, Zhang et al. 2019
    (arXiv:1905.08094).  Needs no teacher."""

    kind: Literal["deeper_layers"] = "deeper_layers"
    layers: list[PositiveInt] | None = Field(default=None, min_length=1)
    """Which of the student's layers (an encoder–decoder's decoder's) learn so, counted from 1; each costs a language model as much as
    another head.  None = the middle one."""

    @field_validator("layers")
    @classmethod
    def _each_once(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"names a layer twice: {value}")
        return value


TEACHERLESS = (Hard, DeeperLayers)
"""Terms that compare with no teacher."""

NONE_LIVING = (
    "objective: every term has weight 0, so there is nothing to learn; give one of them a weight above 0"
)

Term = Annotated[
    Hard | ForwardKL | ReverseKL | JS | SkewForwardKL | SkewReverseKL | AdaptiveKL | TotalVariation | AlphaBeta
    | CrossTokenizer | Custom | PolicyGradient | Hidden | Embeddings | Attention | Relations | Similarity
    | DeeperLayers,
    Field(discriminator="kind"),
]  # fmt: skip


def living(terms: Sequence[Term]) -> list[Term]:
    """The terms that take part: all but those whose weight is 0 for good."""
    return [term for term in terms if term.weight != 0]
