"""The objective: a weighted list of terms, each comparing the student with soft or hard targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .. import losses
from ..errors import RecipeError
from ..losses import fused
from ..losses.fused import by_autograd, fused_loss
from ..losses.parts import DenseTerm, LogQ, Parts, SoftmaxTerm
from ..losses.reduction import total_mean
from ..losses.sequences import hard_cross_entropy_parts, policy_gradient_parts
from ..losses.sparse import divergence_topk_parts, forward_kl_sampled_parts
from ..models.insides import ABOUT_LAYERS
from ..recipe import (
    NONE_LIVING,
    TEACHERLESS,
    CrossTokenizer,
    Custom,
    DeeperLayers,
    Hard,
    PolicyGradient,
    Schedule,
    Term,
    living,
)
from ..registry import load
from ..tasks import Layout, Scores
from ..teachers import Crossed, Dense, Sampled, SoftTargets, TopK
from .beside import Beside
from .cross import cross_term
from .deeper import DeeperTerms
from .features import FeatureTerms

DIVERGENCES: dict[str, tuple[Callable[..., Tensor], tuple[str, ...]]] = {
    "forward_kl": (losses.forward_kl, ()),
    "reverse_kl": (losses.reverse_kl, ()),
    "js": (losses.js, ("beta",)),
    "skew_forward_kl": (losses.skew_forward_kl, ("alpha",)),
    "skew_reverse_kl": (losses.skew_reverse_kl, ("alpha",)),
    "adaptive_kl": (losses.adaptive_kl, ("mu",)),
    "total_variation": (losses.total_variation, ()),
    "alpha_beta": (losses.alpha_beta, ("alpha", "beta")),
}
"""Kind of term -> (loss, its knobs): what a recipe's `kind:` calls."""


@dataclass(frozen=True)
class Layers:
    """What the layers of both models handed on for one micro-batch."""

    mine: dict[str, Tensor]
    theirs: dict[str, Tensor]
    """Empty if no term compares them."""
    layout: Layout


class Objective:
    """Callable: what the student says and what it should have said -> the loss of a micro-batch."""

    def __init__(self, terms: Sequence[Term], rationale_weight: float | Schedule = 1.0) -> None:
        """Args: rationale_weight: factor on what every term asks of a rationale's tokens."""
        self.rationale_weight = rationale_weight
        if not terms:
            raise RecipeError("objective: needs at least one term, such as {kind: forward_kl}.")
        self.terms = living(terms)
        if not self.terms:
            raise RecipeError(f"{NONE_LIVING}.")
        kinds = [term.kind for term in self.terms]
        self.names = [
            f"{term.kind}_{place}" if kinds.count(term.kind) > 1 else term.kind
            for place, term in enumerate(terms)
            if living([term])
        ]
        """Of each living term: its kind; of several of one kind, with the place in the list as it was given, from 0."""

        self.features: FeatureTerms | None = None
        """What compares layers, once `attach` has seen both models."""

        self.deeper: DeeperTerms | None = None
        """What lets the student's last layer teach its earlier ones, likewise."""

    def attach(
        self, student: PreTrainedModel, teacher: PreTrainedModel | None, outcomes: int, seed: int
    ) -> None:
        """Look at both models, for terms that read their layers.  Raises: RecipeError without a model beside the student."""
        wanted = {number: term for number, term in enumerate(self.terms) if isinstance(term, ABOUT_LAYERS)}
        if wanted and teacher is None:
            kind = next(iter(wanted.values())).kind
            raise RecipeError(
                f"objective: {kind} compares layers, which needs the teacher's model beside the student (label.online)."
            )
        if wanted and teacher is not None:
            self.features = FeatureTerms(wanted, student, teacher, seed)
            self.attend(0.0)
        own = {number: term for number, term in enumerate(self.terms) if isinstance(term, DeeperLayers)}
        if own:
            self.deeper = DeeperTerms(own, student, outcomes, seed)

    @property
    def beside(self) -> list[Beside]:
        """What learns with the student, and is kept beside it."""
        return [one for one in (self.features, self.deeper) if one is not None]

    def points(self, progress: float) -> list[str]:
        """What to tap of the student at this share of all steps."""
        found = self.features.points(self._live(progress))[0] if self.features else []
        return sorted({*found, *(self.deeper.points if self.deeper and self._asks_itself(progress) else [])})

    def teacher_points(self, progress: float) -> list[str]:
        """What to tap of the teacher then."""
        return self.features.points(self._live(progress))[1] if self.features else []

    def attend(self, progress: float) -> None:
        """Let both models compute attention as the terms that weigh something then need it; see `FeatureTerms.attend`."""
        if self.features is not None:
            self.features.attend(self._live(progress))

    @property
    def needs_teacher(self) -> bool:
        """Whether any term ever compares with soft targets."""
        return any(not isinstance(term, TEACHERLESS) for term in self.terms)

    def asks_teacher(self, progress: float) -> bool:
        """Whether any term does at this share of all steps."""
        return any(now(term.weight, progress) > 0 for term in self.terms if not isinstance(term, TEACHERLESS))

    def _live(self, progress: float) -> set[int]:
        """Places of the terms that weigh something then."""
        return {number for number, term in enumerate(self.terms) if now(term.weight, progress) > 0}

    def _asks_itself(self, progress: float) -> bool:
        return any(now(term.weight, progress) > 0 for term in self.terms if isinstance(term, DeeperLayers))

    def __call__(
        self,
        scores: Scores,
        targets: SoftTargets | None,
        total: Tensor | float,
        dtype: torch.dtype | None = None,
        progress: float = 0.0,
        layers: Layers | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Σ weight·nats ÷ total.

        Args:
            scores: the student's hidden states at the N counted positions, and its head.
            targets: the teacher's soft targets at the same positions; None if no term needs them.
            total: counted positions of the whole optimiser step.
            dtype: arithmetic of the head's products.
            progress: share of all steps that are done, for schedules.
            layers: what the models' layers handed on; None if no term reads them.

        Returns: (scalar, [terms] nats ÷ total, detached, without the term's weight; 0 for one that weighs nothing now).
        Raises: RecipeError where targets and positions do not match.
        """
        if targets is not None and len(targets) != scores.hidden.shape[0]:
            raise RecipeError(
                f"the teacher gave targets for {len(targets)} positions and the student counts {scores.hidden.shape[0]}; "
                "teacher and student do not see the same tokens."
            )
        weights = [now(term.weight, progress) for term in self.terms]
        live = [number for number, weight in enumerate(weights) if weight > 0]
        logit_terms = [n for n in live if not isinstance(self.terms[n], (*ABOUT_LAYERS, DeeperLayers))]
        terms = [(weights[n], _term(self.terms[n], scores, targets, progress)) for n in logit_terms]
        weigh = self._by_position(scores, progress)
        loss, found = fused_loss(scores.hidden, scores.head, terms, total, dtype, weigh)
        parts = found.new_zeros(len(self.terms))
        parts[logit_terms] = found
        for n in sorted(set(live) - set(logit_terms)):
            assert layers is not None
            if self.deeper is not None and isinstance(term := self.terms[n], DeeperLayers):
                warmth = now(term.temperature, progress)
                own, part = self.deeper.loss(
                    n, weights[n], warmth, layers.mine, layers.layout, scores, total, dtype, weigh
                )
                loss, parts[n] = loss + own, part
                continue
            assert self.features is not None
            each = self.features.value(n, layers.mine, layers.theirs, layers.layout)
            value = total_mean(each if weigh is None else each * weigh, total)
            loss = loss + weights[n] * value
            parts[n] = value.detach()
        return loss, parts

    def _by_position(self, scores: Scores, progress: float) -> Tensor | None:
        """[N]: what each position weighs; None if all weigh 1."""
        weight = now(self.rationale_weight, progress)
        if scores.reasons is None or weight == 1.0:
            return None
        return torch.where(scores.reasons, weight, 1.0)


def now(value: float | Schedule, progress: float) -> float:
    """A number of the recipe at this share of all steps."""
    return value.at(progress) if isinstance(value, Schedule) else value


def _term(term: Any, scores: Scores, targets: SoftTargets | None, progress: float) -> fused.Term:
    """A recipe's term against these targets, as `fused_loss` takes it."""
    if isinstance(term, Hard):
        return _hard(term, scores)
    if isinstance(term, PolicyGradient):
        return _policy_gradient(scores)
    temperature = now(term.temperature, progress)
    if isinstance(term, CrossTokenizer):
        return cross_term(term, scores, targets, temperature)
    if isinstance(targets, TopK) and targets.ids.shape[-1] == scores.head.outcomes(scores.hidden):
        targets = targets.at(temperature)
    divergence = _divergence(term)
    match targets:
        case Dense():
            says = targets.at(temperature).logits
            if term.kind == "forward_kl":
                return DenseTerm(temperature, says)
            return by_autograd(lambda z, at: divergence(z, says(at), temperature=temperature))
        case TopK(ids, log_p, kept_at):
            _same_temperature(term, temperature, kept_at)
            if not _coarsens(term):
                if ids.shape[-1] < scores.head.outcomes(scores.hidden):
                    raise RecipeError(
                        f"objective: {term.kind} means something else on the most probable outcomes alone; use "
                        "label.online: true, or label.top_k: all."
                    )
                return by_autograd(
                    lambda z, at: divergence(z, _in_order(ids[at], log_p[at]) * kept_at, temperature=kept_at)
                )

            def topk(log_q: LogQ, at: slice) -> Parts:
                return divergence_topk_parts(log_q, log_p[at], divergence, temperature=kept_at)

            return SoftmaxTerm(kept_at, lambda at: ids[at], topk)
        case Sampled(ids, shares, entropy, kept_at):
            _same_temperature(term, temperature, kept_at)
            if term.kind != "forward_kl":
                raise RecipeError(
                    f"objective: {term.kind} cannot be estimated from sampled targets; use forward_kl, or label.top_k."
                )

            def sampled(log_q: LogQ, at: slice) -> Parts:
                return forward_kl_sampled_parts(log_q, shares[at], entropy[at], temperature=kept_at)

            return SoftmaxTerm(kept_at, lambda at: ids[at], sampled)
        case Crossed():
            raise RecipeError(
                f"objective: {term.kind} compares the same tokens, and the teacher's tokenizer is not the student's; use "
                "cross_tokenizer."
            )
    raise RecipeError(f"objective: {term.kind} needs a teacher, and there is none.")


def _hard(term: Hard, scores: Scores) -> fused.Term:
    def parts(log_q: LogQ, at: slice) -> Parts:
        return hard_cross_entropy_parts(log_q, scores.labels[at], label_smoothing=term.label_smoothing)

    ids = scores.labels.clamp_min(0).unsqueeze(-1)
    return SoftmaxTerm(1.0, lambda at: ids[at], parts, whole=term.label_smoothing > 0)


def _policy_gradient(scores: Scores) -> fused.Term:
    own = scores.written
    tokens = scores.labels.clamp_min(0) if own is None else own.tokens

    def parts(log_q: LogQ, at: slice) -> Parts:
        if own is None:  # a batch of the data's: nothing was drawn
            zero = log_q.picked.new_zeros(len(log_q.picked))
            return Parts(zero, zero, zero.unsqueeze(-1))
        return policy_gradient_parts(own.reward[at], own.later[at])

    return SoftmaxTerm(1.0, lambda at: tokens[at].unsqueeze(-1), parts)


def _divergence(term: Any) -> Callable[..., Tensor]:
    """The loss that a term names, its knobs set: (student_logits, teacher_logits, *, temperature) -> nats [n]."""
    if isinstance(term, Custom):
        return partial(_checked, load(term.target), term)
    loss, knobs = DIVERGENCES[term.kind]
    return partial(loss, **{knob: getattr(term, knob) for knob in knobs})


def _checked(loss: Any, term: Custom, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    nats: Tensor = loss(student, teacher, temperature=temperature, **term.options)
    if not isinstance(nats, Tensor) or nats.shape != student.shape[:1]:
        got = tuple(nats.shape) if isinstance(nats, Tensor) else type(nats).__name__
        raise RecipeError(
            f"objective: {term.target} must return nats of the shape ({student.shape[0]},), and gave {got}."
        )
    return nats


def _in_order(ids: Tensor, log_p: Tensor) -> Tensor:
    """Kept log-probabilities of all outcomes [n, V], in the order of the outcomes instead of from the most probable on."""
    return torch.empty_like(log_p).scatter_(-1, ids, log_p)


def _coarsens(term: Any) -> bool:
    """Whether the divergence on K outcomes and their tail is a bound of the one on all."""
    return term.kind not in ("adaptive_kl", "alpha_beta", "custom")


def _same_temperature(term: Any, wanted: float, kept: float) -> None:
    if wanted != kept:
        raise RecipeError(
            f"objective: {term.kind} asks for temperature {wanted}, but the kept soft targets were taken at {kept}; "
            "label again, or use label.online: true."
        )
